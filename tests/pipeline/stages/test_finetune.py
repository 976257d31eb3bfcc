"""Stages finetune and rejection, in-process, on random weights: what is learnt from (sft.data)."""

import copy
import shutil

import pytest

from detoxlens.common.artifacts import Layout, write_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Dialogue
from detoxlens.params.check import check_params
from detoxlens.params.load import Params, load_params
from detoxlens.pipeline.stages import finetune, rejection
from detoxlens.reporting.about import role
from tests.pipeline.stages.project import TURNS, dialogue
from tests.root import ROOT

BYTES = ("adapter_model.safetensors", "history.jsonl")


@pytest.fixture
def root(project, tmp_path):
    place = shutil.copytree(project, tmp_path / "project")
    rows = [dialogue(i, t) for i, t in enumerate(TURNS)] + [dialogue(9, t, split="val") for t in TURNS[:1]]
    write_rows(Layout(place).dialogues, rows, Dialogue)
    return place


def params_of(**variants) -> Params:
    raw = copy.deepcopy(load_params(ROOT / "params.yaml").raw)
    raw["run"] |= {"num_threads": 1, "models": ["tiny-neox"]}
    raw["variants"] |= variants
    raw["sft"] |= {"num_epochs": 2, "batch_size": 2, "max_length": 60, "eval_every": 1}
    raw["lora"]["target_modules"] = ["query_key_value"]
    return Params(raw)


def on(data, **sft):
    return {"kind": "sft", "overrides": {"sft": {"data": data, **sft}}}


def made(root, variant):
    return [(Layout(root).adapter("tiny-neox", variant) / name).read_bytes() for name in BYTES]


def test_own_random_is_the_placebo_of_ft_and_so_is_the_least_toxic_of_one(root):
    params = params_of(
        placebo={"kind": "sft", "placebo_of": "ft"},
        random=on("own_random"),
        one=on("own_least_toxic", num_samples=1),
        best=on("own_least_toxic", num_samples=3),
    )
    for stage, variant in ((finetune, "placebo"), (finetune, "random"), (rejection, "one"), (rejection, "best")):
        stage.run(root, params, model="tiny-neox", variant=variant)
    assert made(root, "placebo") == made(root, "random") == made(root, "one") != made(root, "best")
    card = (Layout(root).adapter("tiny-neox", "best") / "README.md").read_text()
    assert "rejection sampling, fine-tuning on the least toxic of 3 answers of the base model itself" in card


def test_a_killed_rejection_draws_the_rest_and_ends_with_the_same_bytes(root, tmp_path, monkeypatch):
    import detoxlens.sft.placebo as module

    params, other = params_of(best=on("own_least_toxic", num_samples=2)), shutil.copytree(root, tmp_path / "other")
    rejection.run(other, params, model="tiny-neox", variant="best")
    calls, plain = [], module.sample_batch

    def killed(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(*args, **kwargs)

    def kill(snapshot):
        if snapshot.fraction >= 0.5:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "sample_batch", killed)
    for callback in (None, kill):
        with pytest.raises(KeyboardInterrupt):
            rejection.run(root, params, model="tiny-neox", variant="best", callback=callback)
    num_drawn = len(calls)
    rejection.run(root, params, model="tiny-neox", variant="best")
    assert len(calls) == num_drawn and made(root, "best") == made(other, "best")


def test_the_list_the_stage_and_the_words_of_a_variant_follow_what_it_learns_from():
    params = params_of(best=on("own_least_toxic"), random=on("own_random"))
    lists = params.variants_by_kind(["it", "ft", "best", "random"])
    assert (lists["sft_variants"], lists["rejection_variants"]) == (["ft", "random"], ["best"])
    assert [params.stage_of(v) for v in ("it", "ft", "best", "random")] == ["base", "finetune", "rejection", "finetune"]
    roles = [role(params.variant(v), params.data_of(v)) for v in ("ft", "best", "random")]
    assert [(r.kind, r.text) for r in roles] == [
        ("sft", "fine-tuned on counter-narratives"),
        ("own_least_toxic", "fine-tuned on base's own least toxic answers"),
        ("own_random", "fine-tuned on base's own answers"),
    ]


def test_the_wrong_stage_and_a_model_that_changes_the_data_are_refused(root):
    params = params_of(best=on("own_least_toxic"))
    with pytest.raises(UserError, match=r"own_least_toxic' of variants\.best .* list it in run\.rejection_variants"):
        finetune.run(root, params, model="tiny-neox", variant="best")
    with pytest.raises(UserError, match=r"sft\.data='dialogues' of variants\.ft; stage rejection trains on"):
        rejection.run(root, params, model="tiny-neox", variant="ft")
    params.raw["models"]["tiny-neox"]["overrides"] = {"sft": {"data": "own_random"}}
    with pytest.raises(UserError, match=r"models\.tiny-neox\.overrides\.sft\.data='own_random' changes what ft is"):
        check_params(Params(params.raw))
