"""Stage `intervene`: the folders it writes, and that the stages behind it take them as any other variant."""

from __future__ import annotations

import pytest

from detoxlens.common.artifacts import Layout, read_json, read_model_ref, read_rows, write_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Completion, Dialogue
from detoxlens.params.load import Params
from detoxlens.pipeline.stages import generate, intervene
from tests.pipeline.stages.study import make_study, params_of

SECTIONS = {
    "prompt": {"system": "Zorgons like accordion players."},
    "steering": {"layer": 1, "strength": 3.0, "max_replies": 8},
    "dexperts": {"expert": "ft", "anti_expert": "it", "alpha": 2.0},
}


def params(**changes) -> Params:
    raw = params_of().raw
    raw["variants"] |= {kind: {"kind": kind} for kind in SECTIONS}
    raw["run"]["variants"] = ["it", "ft", *SECTIONS]
    raw["run"] |= {f"{kind}_variants": [kind] for kind in SECTIONS}
    raw |= {kind: dict(values) for kind, values in SECTIONS.items()}
    for kind, values in changes.items():
        raw[kind] |= values
    return Params(raw)


@pytest.fixture(scope="module")
def layout(tmp_path_factory) -> Layout:
    layout = make_study(tmp_path_factory.mktemp("study"))
    turns = ("Zorgons are lazy.", "Zorgons bake good bread.", "Accordion players are noisy.", "I like them.")
    rows = [Dialogue(dialogue_id=str(i), target="Z", source="s", split="train", turns=turns) for i in range(3)]
    write_rows(layout.dialogues, rows, Dialogue)
    return layout


def completions(layout, of, variant):
    if variant not in ("it", "ft"):
        intervene.run(layout.root, of, model="m", variant=variant)
    generate.run(layout.root, of, model="m", variant=variant)
    return read_rows(layout.completions("m", variant), Completion)


@pytest.mark.parametrize("kind", SECTIONS)
def test_a_variant_without_training_says_other_things_than_base_and_says_them_again(layout, kind):
    base, found = completions(layout, params(), "it"), completions(layout, params(), kind)
    assert [c.completion for c in found] != [c.completion for c in base]
    folder = layout.adapter("m", kind)
    files = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert completions(layout, params(), kind) == found
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == files
    assert read_json(folder / "intervention.json")["kind"] == kind
    ref, it = read_model_ref(folder), read_model_ref(layout.adapter("m", "it"))
    assert (ref.base, ref.revision, ref.adapter) == (it.base, it.revision, None)


@pytest.mark.parametrize(("kind", "nothing"), [("steering", {"strength": 0.0}), ("dexperts", {"alpha": 0.0})])
def test_at_strength_0_and_at_alpha_0_the_table_is_base_to_the_byte(layout, kind, nothing):
    completions(layout, params(), "it")
    completions(layout, params(**{kind: nothing}), kind)
    assert layout.completions("m", kind).read_bytes() == layout.completions("m", "it").read_bytes()


def test_a_system_message_stands_before_the_chat_and_is_no_template(layout):
    base, found = completions(layout, params(), "it"), completions(layout, params(), "prompt")
    ids, marks = found[0].prompt_ids, found[0].prompt_token_is_template
    assert ids[-len(base[0].prompt_ids) :] == base[0].prompt_ids
    ahead = len(ids) - len(base[0].prompt_ids)
    assert not all(marks[:ahead]) and marks[ahead:] == base[0].prompt_token_is_template


def test_a_chat_template_that_takes_no_system_message_is_refused(layout, tmp_path):
    wrong = params()
    wrong.raw["models"]["m"] = {"source": "models/m/base"}  # chat: the tokenizer's own, which has none
    with pytest.raises(UserError, match=r"models\.m\.template: chat is asked for .* has no chat template"):
        intervene.run(layout.root, wrong, model="m", variant="prompt")
    import json

    file = layout.base("m") / "tokenizer_config.json"
    before = file.read_text(encoding="utf-8")
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    template += "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    try:
        file.write_text(json.dumps(json.loads(before) | {"chat_template": template}), encoding="utf-8")
        with pytest.raises(UserError, match=r"variants\.prompt is of kind prompt, .* refuses it \(no system role\)"):
            intervene.run(layout.root, wrong, model="m", variant="prompt")
    finally:
        file.write_text(before, encoding="utf-8")


def test_vllm_refuses_what_changes_the_network_before_it_is_imported(layout):
    of = params(generation={"backend": "vllm"})
    intervene.run(layout.root, of, model="m", variant="steering")
    with pytest.raises(UserError, match=r"'vllm' .* cannot apply adapters/m/steering, .* to torch\."):
        generate.run(layout.root, of, model="m", variant="steering")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw["run"].update(variants=["it", "dexperts"], sft_variants=[]), r"adapter of 'ft' .* Add it"),
        (
            lambda raw: raw["variants"]["dexperts"].update(overrides={"dexperts": {"expert": "rl"}}),
            r"dexperts\.expert is overridden for one model or variant",
        ),
        (lambda raw: raw["variants"]["steering"].update(seed=1), r"seed=1: nothing is drawn for .* steering"),
    ],
)
def test_params_that_cannot_be_meant_are_refused(change, message):
    wrong = params()
    wrong.raw["run"] |= {"prompt_variants": [], "steering_variants": []}
    wrong.raw["run"]["variants"] = ["it", "ft", "dexperts"]
    change(wrong.raw)
    with pytest.raises(UserError, match=message):
        _ = Params(wrong.raw).run
        Params(wrong.raw).variant("steering")
