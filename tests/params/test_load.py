"""params.yaml: sections, overrides, the run's lists, and what a mistake is told."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from pydantic import ValidationError

from detoxlens.common.errors import UserError
from detoxlens.params.check import check_params
from detoxlens.params.load import Params, load_params
from detoxlens.params.run import RunConfig
from detoxlens.params.section import Section, parse
from tests.root import ROOT

TEMPLATE = {"user": "<human>: {text}\n", "bot": "<bot>:", "reply": " {text}", "end": "\n"}
RAW = {
    "run": {
        "models": ["tiny"],
        "variants": ["it", "ft", "rl", "ftrl"],
        "sft_variants": ["ft"],
        "rl_variants": ["rl"],
        "rl_after_ft_variants": ["ftrl"],
        "seed": 3,
        "num_threads": 1,
        "device": "cpu",
    },
    "models": {
        "tiny": {"source": "tiny:gpt_neox", "template": TEMPLATE, "overrides": {"lora": {"r": 4, "on": {"mlp": True}}}},
        "plain": {"source": "owner/name", "template": TEMPLATE},
    },
    "variants": {
        "it": {"kind": "base"},
        "ft": {"kind": "sft", "overrides": {"lora": {"r": 2}}},
        "rl": {"kind": "rl", "algorithm": "ppo", "seed": 7},
        "ftrl": {"kind": "rl", "algorithm": "ppo", "init_from": "ft"},
    },
    "lora": {"r": 8, "alpha": 16, "on": {"attention": True, "mlp": False}},
}


class Lora(Section):
    r: int
    alpha: int
    on: dict[str, bool]


def params(**changes) -> Params:
    """RAW with dotted keys changed, e.g. params(**{"run.seed": 1}); None removes a key."""
    raw = copy.deepcopy(RAW)
    for path, value in changes.items():
        *parents, key = path.split(".")
        at = raw
        for parent in parents:
            at = at[parent]
        if value is None:
            del at[key]
        else:
            at[key] = value
    return Params(raw)


def told(call, *args) -> str:
    with pytest.raises(UserError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_committed_params_are_valid():
    committed = load_params(Path(__file__).parents[2] / "params.yaml")
    assert committed.run.variants == ["it", "ft", "rl"]


def test_a_variants_override_wins_over_a_models_and_that_over_the_default():
    assert params().section("lora", Lora).r == 8
    assert params().section("lora", Lora, model="plain").r == 8
    of_model = params().section("lora", Lora, model="tiny")
    assert (of_model.r, of_model.alpha, of_model.on) == (4, 16, {"attention": True, "mlp": True})
    assert params().section("lora", Lora, model="tiny", variant="ft").r == 2
    assert params().section("lora", Lora, variant="it").r == 8


def test_asking_for_an_override_does_not_change_the_default():
    both = params()
    both.section("lora", Lora, model="tiny", variant="ft")
    assert both.raw == RAW


def test_sections_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        params().section("lora", Lora).r = 1


def test_a_variants_own_seed_wins_over_the_runs():
    assert params().training_seed("rl") == 7
    assert params().training_seed("ft") == 3


def test_misspelt_names_are_told_with_the_nearest():
    assert "unknown section 'lroa'. Did you mean 'lora'?" in told(lambda: params(lroa={}))
    assert "run.sed is not a known key. Did you mean 'seed'?" in told(lambda: params(**{"run.sed": 1}).run)
    nested = told(lambda: params(**{"models.tiny.template": TEMPLATE | {"eos_after_rely": True}}).run)
    assert "models.tiny.template.eos_after_rely is not a known key. Did you mean 'eos_after_reply'?" in nested
    assert "models has no 'tinny'. Did you mean 'tiny'? Declared: tiny, plain." in told(params().model, "tinny")
    assert "variants has no 'frl'. Did you mean 'ftrl'?" in told(params().variant, "frl")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"run": None}, "params.yaml: the section 'run' is missing"),
        ({"run.seed": None}, "params.yaml: run.seed is missing"),
        ({"run.seed": -1}, "params.yaml: run.seed=-1: Input should be greater than or equal to 0"),
        ({"run.num_threads": 0}, "run.num_threads=0"),
        ({"run.device": "gpu"}, "run.device='gpu'"),
        ({"run.models": []}, "run.models=[]"),
        ({"run.models": ["absent"]}, "models has no 'absent'"),
        ({"run.variants": ["ft"], "run.rl_variants": []}, "run.variants must contain 'it'"),
        ({"variants.it": {"kind": "sft"}}, "run.variants must contain 'it'"),
        ({"run.sft_variants": []}, "run.sft_variants=[] does not match run.variants"),
        ({"run.rl_variants": ["rl", "ftrl"]}, "set run.rl_variants to ['rl']"),
        ({"run.rl_after_ft_variants": []}, "set run.rl_after_ft_variants to ['ftrl']"),
        ({"models.tiny.template": {"user": "x"}}, "models.tiny.template.bot is missing"),
        ({"models.tiny.dtype": "int4"}, "models.tiny.dtype='int4'"),
        ({"variants.rl.kind": "dpo"}, "variants.rl.kind='dpo'"),
        ({"variants.rl.algorithm": None}, "params.yaml: variants.rl.algorithm is missing; a variant of kind rl needs"),
        ({"variants.ft.algorithm": "ppo"}, "params.yaml: variants.ft.algorithm='ppo': a variant of kind sft has none"),
        ({"variants.ft.init_from": "rl"}, "params.yaml: variants.ft.init_from='rl': only variants of kind rl start"),
        ({"variants.ftrl.init_from": "rl"}, "params.yaml: variants.ftrl.init_from='rl': allowed are 'it' and 'ft'."),
    ],
)
def test_a_mistake_names_the_key_the_value_and_the_remedy(changes, expected):
    assert expected in told(lambda: params(**changes).run)


def test_a_wrong_variant_is_told_wherever_it_is_read_though_run_leaves_it_out():
    wrong = params(**{"variants.spare": {"kind": "rl"}})
    assert wrong.run.rl_variants == ["rl"]  # the others are right
    for read in (
        lambda: wrong.variant("spare"),
        lambda: wrong.section("lora", Lora, model="tiny", variant="spare"),
        lambda: wrong.variants_by_kind(["it", "spare"]),
        lambda: wrong.trained_variant("spare", stage="rl", kind="rl"),
    ):
        assert told(read).startswith("params.yaml: variants.spare.algorithm is missing;")


def test_a_stage_is_told_which_variants_it_could_train():
    message = told(lambda: params().trained_variant("it", stage="rl", kind="rl"))
    assert message.endswith("variants.it has kind 'base'; stage rl trains variants of kind 'rl': rl, ftrl.")


def test_all_mistakes_of_a_section_are_told_at_once():
    message = told(parse, RunConfig, RAW["run"] | {"seed": -1, "num_threads": 0}, "params.yaml: run")
    assert "run.seed=-1" in message and "run.num_threads=0" in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "params.yaml does not exist; run from the project's root"),
        (b"run: {seed: caf\xe9}", "params.yaml is not UTF-8 (byte 15)"),
        (b"run: [1\n", "is not valid YAML (line 2, column 1): expected ',' or ']', but got '<stream end>', while"),
        (
            b"run:\n\tseed: 1\n",
            "(line 2, column 1): found character '\\t' that cannot start any token; indent with spaces.",
        ),
        (b"run:\n  seed: 1\n  seed: 2\n", '(line 3, column 3): found duplicate key "seed" with value "2"'),
        (b"run: a: b\n", "params.yaml is not valid YAML (line 1, column 7): mapping values are not allowed here."),
        (b"- run\n", "params.yaml holds list, not sections"),
        (b"", "params.yaml holds NoneType, not sections"),
    ],
)
def test_an_unreadable_file_is_told(tmp_path, content, expected):
    path = tmp_path / "params.yaml"
    if content is not None:
        path.write_bytes(content)
    assert expected in told(load_params, path)


def with_placebos(**changes) -> Params:
    variants = {
        "placebo_ft": {"kind": "sft", "placebo_of": "ft"},
        "placebo_rl": {"kind": "rl", "algorithm": "ppo", "placebo_of": "rl"},
    }
    run = {
        "run.variants": ["it", "ft", "rl", "ftrl", *variants],
        "run.sft_placebo_variants": ["placebo_ft"],
        "run.rl_placebo_variants": ["placebo_rl"],
    }
    return params(**{f"variants.{name}": of for name, of in variants.items()} | run | changes)


def test_placebos_have_lists_of_their_own_and_the_overrides_of_what_they_are_the_placebo_of():
    found = with_placebos()
    assert (found.run.sft_variants, found.run.rl_variants) == (["ft"], ["rl"])
    assert (found.run.sft_placebo_variants, found.run.rl_placebo_variants) == (["placebo_ft"], ["placebo_rl"])
    assert found.section("lora", Lora, variant="placebo_ft").r == 2  # as ft, whose override it is
    assert found.section("lora", Lora, variant="placebo_rl").r == 8
    own = with_placebos(**{"variants.placebo_ft.overrides": {"lora": {"r": 5}}})
    assert own.section("lora", Lora, variant="placebo_ft").r == 5


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"variants.placebo_ft.placebo_of": "rl"}, "placebo_of='rl': allowed is 'ft' for kind sft"),
        ({"variants.placebo_rl.placebo_of": "ft"}, "placebo_of='ft': allowed is 'rl' for kind rl"),
        ({"variants.it.placebo_of": "ft"}, "no variant of kind base is a placebo"),
        ({"variants.placebo_rl.init_from": "ft"}, "init_from='ft': the placebo of `rl` starts from the base model"),
        (
            {"run.variants": ["it", "ft", "ftrl", "placebo_rl"], "run.rl_variants": [], "run.sft_placebo_variants": []},
            "placebo_rl.placebo_of='rl' is not in run.variants, which has it, ft, ftrl, placebo_rl; .*: add it",
        ),
    ],
)
def test_a_placebo_of_something_else_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        _ = with_placebos(**changes).run


@pytest.mark.parametrize(("section", "key"), [("sft", "data"), ("dexperts", "expert")])
def test_a_value_that_chooses_a_list_or_an_adapter_may_be_of_any_type_and_is_named(section, key):
    raw = load_params(ROOT / "params.yaml").raw
    raw = raw | {section: raw[section] | {key: []}}
    raw["variants"] = raw["variants"] | {"mix": {"kind": "dexperts"}}
    raw["run"] = raw["run"] | {"variants": ["it", "ft", "rl", "mix"], "dexperts_variants": ["mix"]}
    assert f"{section}.{key}=[]" in told(lambda: check_params(Params(raw)))
