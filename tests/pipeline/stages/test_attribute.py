"""Stage attribute: the same prompts for every variant, models and texts crossed, and resuming after a kill."""

from __future__ import annotations

import dataclasses

import pytest
from ruamel.yaml import YAML

from detoxlens.attribution import attribute as attribute_sequences
from detoxlens.attribution import resumable
from detoxlens.attribution.reliance import prompt_reliance
from detoxlens.attribution.sampling import basis
from detoxlens.common.artifacts import Layout, read_json, read_rows, write_json, write_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Attribution, Completion, ModelRef, Score
from detoxlens.models.loading import load_model, load_tokenizer
from detoxlens.params.attribution import AttributionConfig
from detoxlens.params.load import Params
from detoxlens.params.models import WeightsConfig
from detoxlens.pipeline.stages import attribute
from tests.pipeline.stages.study import make_study, params_of
from tests.root import ROOT

SECTION = {
    "method": "input_x_gradient",
    "target": "probability",
    "filters": ["p50"],
    "sample": "random",
    "sample_toxic_above": 0.66,
    "max_sequences": 3,
    "samples_per_prompt": 1,
    "unit": "token",
    "mask_template": False,
    "num_path_steps": 4,
    "batch_size": 2,
    "memory_mib": None,
    "precision_check": 2,
    "faithfulness": {"num_sequences": 2, "steps_per_sequence": 2, "fractions": [0.3, 0.5], "num_random": 2},
    "agreement": {"methods": [], "num_sequences": 0},
}


VAL = f"{98:016x}"
"""The one validation prompt of the study below; the prompts below 12 are test prompts."""


def params(**changes) -> Params:
    return Params({**params_of().raw, "attribution": {**SECTION, **changes}})


def completion(n: int, ids: tuple[int, ...], **changes) -> Completion:
    row = Completion(
        prompt_id=f"{n:016x}",
        sample_index=0,
        split="test",
        filters=("p50",) if n % 2 == 0 else ("polite",),
        prompt="Tell me about Zorgons.",
        prompt_ids=(5, 9, 7, 10 + n % 256),
        prompt_token_is_template=(True, False, False, True),
        completion="...",
        completion_ids=ids,
        finish_reason="eos",
        seed=n,
    )
    return dataclasses.replace(row, **changes)


@pytest.fixture
def layout(tmp_path) -> Layout:
    layout = make_study(tmp_path)
    write_completions(layout, num=12)
    return layout


def write_completions(layout: Layout, *, num: int) -> None:
    for variant, shift in (("it", 0), ("ft", 1)):
        rows = [completion(n, tuple(range(20 + shift, 20 + shift + n % 5))) for n in range(num)]
        rows += [completion(0, (7, 8), sample_index=1), completion(98, (1, 2), split="val")]
        write_rows(layout.completions("m", variant), rows, Completion)

    for sample, toxicities in basis(scores_of(num), "grader").items():
        write_json(layout.drawn_by("m", "it", sample), toxicities)


def scores_of(num: int) -> list[Score]:
    """Of the completions of `it`: those to prompts 8 and 10 are toxic by the grader, all by another scorer."""
    row = Score(
        prompt_id="",
        sample_index=0,
        scorer="grader",
        scorer_version="1",
        label="toxic",
        activation="sigmoid",
        truncated=False,
        toxicity=0.0,
        status="ok",
        error="",
    )
    of = [dataclasses.replace(row, prompt_id=f"{n:016x}", toxicity=0.9 if n in (8, 10) else 0.1) for n in range(num)]
    failed = dataclasses.replace(row, prompt_id=f"{6:016x}", sample_index=1, toxicity=None, status="failed")
    return [*of, failed, *(dataclasses.replace(r, scorer="other", toxicity=1.0) for r in of)]


def run(layout: Layout, variant: str = "ft", **changes) -> list[Attribution]:
    attribute.run(layout.root, params(**changes), model="m", variant=variant)
    return read_rows(layout.attributions("m", variant), Attribution)


def cell(rows: list[Attribution], reader: str, text: str, method: str = "input_x_gradient") -> list[Attribution]:
    return [r for r in rows if (r.reader, r.text_source, r.method) == (reader, text, method)]


def test_a_variants_stage_completes_its_two_by_two_of_model_and_text(layout):
    rows = run(layout)
    own, forced, of_it = (cell(rows, *of) for of in (("ft", "ft"), ("ft", "it"), ("it", "ft")))
    assert [r.prompt_id for r in own] == [r.prompt_id for r in forced]
    assert [r.prompt_id for r in of_it] == [r.prompt_id for r in own if r.prompt_id != VAL]
    assert len(own) == 3 + 1  # three test prompts and the validation prompt
    assert len(rows) == 3 * len(own) - 1
    by_id = {(c.prompt_id, c.sample_index): c for c in read_rows(layout.completions("m", "ft"), Completion)}
    it_by_id = {(c.prompt_id, c.sample_index): c for c in read_rows(layout.completions("m", "it"), Completion)}
    for rows_, completions in ((own, by_id), (forced, it_by_id), (of_it, by_id)):
        assert all(r.completion_ids == completions[r.prompt_id, 0].completion_ids for r in rows_)
        assert all(r.prompt_token_is_template == (True, False, False, True) for r in rows_)
    assert own[0].scores != forced[0].scores or own[0].completion_ids == ()
    assert any(a.scores != b.scores for a, b in zip(own, of_it, strict=False))  # the same text, another model


def test_it_reads_its_own_text_alone(layout):
    rows = run(layout, "it")
    assert {(r.reader, r.text_source) for r in rows} == {("it", "it")}


def test_predictions_with_and_without_the_users_text_stand_beside_the_scores(layout):
    row = next(r for r in run(layout) if r.status == "ok")
    ref = ModelRef(base="models/m/base", revision="", adapter="adapters/m/ft")
    model = load_model(layout.root, ref, WeightsConfig(), device="cpu")
    (expected,) = prompt_reliance(
        model,
        prompt_ids=[row.prompt_ids],
        completion_ids=[row.completion_ids],
        is_template=[row.prompt_token_is_template],
    )
    assert row.prompt_kl_bits == pytest.approx(expected.kl_bits, abs=1e-5)
    assert row.prompt_gain_bits == pytest.approx(expected.gain_bits, abs=1e-5)


def test_every_token_has_its_text(layout):
    tokenizer = load_tokenizer(layout.root, ModelRef(base="models/m/base", revision="", adapter=None))
    for row in run(layout):
        assert "".join(row.prompt_pieces) == tokenizer.decode(row.prompt_ids)
        assert len(row.completion_pieces) == len(row.completion_ids)


def test_further_methods_attribute_a_sample_of_the_same_texts(layout):
    rows = run(layout, agreement={"methods": ["saliency", "input_x_gradient"], "num_sequences": 2})
    assert {r.method for r in rows} == {"input_x_gradient", "saliency"}  # the headline's is not done again
    for reader, text in (("ft", "ft"), ("ft", "it"), ("it", "ft")):
        found = cell(rows, reader, text, "saliency")
        assert len(found) == 2 and VAL not in {r.prompt_id for r in found}
        assert {r.prompt_id for r in found} <= {r.prompt_id for r in cell(rows, reader, text)}
        assert all(r.prompt_kl_bits is None for r in found)
    it = run(layout, "it", agreement={"methods": ["saliency"], "num_sequences": 2})
    assert {r.prompt_id for r in it if r.method == "saliency"} == {r.prompt_id for r in rows if r.method == "saliency"}


def test_what_the_report_decides_changes_no_byte_here(layout):
    run(layout)
    before = layout.attributions("m", "ft").read_bytes()
    run(layout, unit="word", mask_template=True)
    assert layout.attributions("m", "ft").read_bytes() == before


def test_a_balanced_sample_is_half_toxic_and_the_same_prompts_for_every_variant(layout):
    def drawn(variant, **changes):
        rows = run(layout, variant, **{"max_sequences": 4, "sample": "balanced"} | changes)
        return sorted({int(r.prompt_id, 16) for r in rows} - {int(VAL, 16)})

    found = drawn("ft")  # of 0, 2, 4, 6, 8, 10 in the filter
    assert {8, 10} < set(found) and len(found) == 4
    assert drawn("it") == found
    assert not {8, 10} & set(drawn("ft", sample="random", max_sequences=2))  # by this seed
    assert drawn("ft", sample_toxic_above=0.95) == drawn("ft", sample="random")  # none is toxic: others fill up


def test_a_random_sample_is_drawn_by_no_score(layout):
    before = layout.drawn_by("m", "it", "random").read_bytes()
    for sample, toxicities in basis([], "grader").items():
        write_json(layout.drawn_by("m", "it", sample), toxicities)
    assert layout.drawn_by("m", "it", "random").read_bytes() == before


def test_the_sample_cannot_be_another_ones_of_a_model(layout):
    raw = params().raw
    raw = raw | {"models": {"m": raw["models"]["m"] | {"overrides": {"attribution": {"sample": "balanced"}}}}}
    with pytest.raises(UserError, match=r"attribution.sample='balanced' is overridden for m/ft: .* one for all models"):
        attribute.run(layout.root, Params(raw), model="m", variant="ft")


def test_dvc_notices_every_setting_that_changes_a_byte_here():
    raw = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    noticed = {p.removeprefix("attribution.") for p in raw["stages"]["attribute"]["params"] if "attribution" in p}
    assert noticed == set(AttributionConfig.model_fields) - attribute.SHOWN_ONLY


def test_all_variants_share_their_prompts_and_only_those_of_the_filters_are_taken(layout):
    ft, it = run(layout, "ft"), run(layout, "it")
    assert {r.prompt_id for r in ft} == {r.prompt_id for r in it}
    assert all(int(r.prompt_id, 16) % 2 == 0 for r in ft)
    assert VAL in {r.prompt_id for r in ft}
    assert {r.sample_index for r in run(layout, max_sequences=99, samples_per_prompt=2)} == {0, 1}


def test_validation_prompts_are_left_out_where_that_is_asked_for_unless_there_are_no_others(layout):
    with_val, without = run(layout), run(layout, validation=False)
    assert without == [row for row in with_val if row.prompt_id != VAL]
    for variant in ("it", "ft"):  # as in a sweep's trial
        write_rows(layout.completions("m", variant), [completion(98, (1, 2), split="val")], Completion)
    assert {row.prompt_id for row in run(layout, validation=False)} == {VAL}


def test_the_scores_are_those_of_the_variants_adapter(layout):
    row = next(r for r in run(layout) if r.status == "ok")
    ref = ModelRef(base="models/m/base", revision="", adapter="adapters/m/ft")
    model = load_model(layout.root, ref, WeightsConfig(), device="cpu")
    (expected,) = attribute_sequences(model, prompt_ids=[row.prompt_ids], completion_ids=[row.completion_ids])
    for ours, theirs in zip(row.scores, expected.scores, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_an_empty_completion_is_a_null_row(layout):
    rows = run(layout, max_sequences=99)
    empty = [r for r in rows if not r.completion_ids]
    assert empty
    assert all((r.status, r.scores, r.token_prob) == ("empty", None, None) for r in empty)


def test_a_token_outside_the_vocabulary_is_told_with_its_prompt(layout):
    path = layout.completions("m", "ft")
    rows = [
        dataclasses.replace(c, completion_ids=(7, 999)) if c.prompt_id == VAL else c
        for c in read_rows(path, Completion)
    ]
    write_rows(path, rows, Completion)
    with pytest.raises(UserError, match=f"prompt {VAL}, sample 0: completion token 1 is 999, outside the vocabulary"):
        run(layout)


def test_what_cannot_be_attributed_is_counted_by_its_status_and_spoils_no_neighbour(layout):
    path = layout.completions("m", "ft")
    good = run(layout, batch_size=8)
    rows = [
        dataclasses.replace(c, completion_ids=(7,) * 99) if c.prompt_id == VAL else c
        for c in read_rows(path, Completion)
    ]
    write_rows(path, rows, Completion)
    found = run(layout, batch_size=8)
    assert {r.status for r in found if r.prompt_id == VAL and r.text_source == "ft"} == {"too_long"}
    assert [r for r in found if r.prompt_id != VAL] == [r for r in good if r.prompt_id != VAL]


def test_faithfulness_is_written_beside(layout):
    run(layout)
    found = read_json(layout.faithfulness("m", "ft"))
    assert found["num_sequences"] == 2
    assert [of["fraction"] for of in found["deletion"]] == [0.3, 0.5]
    assert all(len(of["sufficiency"]["random"]) == 2 for of in found["deletion"])


def test_a_model_in_bfloat16_says_how_far_it_is_from_float32(layout):
    def bf16(**changes):
        raw = params(**changes).raw
        attribute.run(
            layout.root,
            Params(raw | {"models": {"m": raw["models"]["m"] | {"dtype": "bfloat16"}}}),
            model="m",
            variant="ft",
        )
        return read_json(layout.faithfulness("m", "ft"))

    exact = [r for r in cell(run(layout), "ft", "ft") if r.status == "ok" and r.prompt_id != VAL]
    assert "precision" not in read_json(layout.faithfulness("m", "ft"))
    found = bf16()["precision"]
    short = cell(read_rows(layout.attributions("m", "ft"), Attribution), "ft", "ft")
    short = [r for r in short if r.status == "ok" and r.prompt_id != VAL]
    assert (found["dtype"], found["num_sequences"], found["num_left_out"]) == ("bfloat16", len(exact), 0)
    differences = [
        abs(a - b)
        for ours, theirs in zip(short, exact, strict=True)
        for rows in zip(ours.scores, theirs.scores, strict=True)
        for a, b in zip(*rows, strict=True)
    ]
    assert found["score"]["max"] == pytest.approx(max(differences), abs=1e-6)
    assert 1e-4 < found["score"]["max"] < 0.1  # eight bits of mantissa
    assert found["prompt_entropy_bits"]["max"] > 0 and found["token_prob"]["max"] > 0
    assert "precision" not in bf16(precision_check=0)


def test_validation_rows_are_the_same_bits_without_the_test_rows(layout):
    whole = [r for r in run(layout, batch_size=8) if r.prompt_id == VAL]
    for variant in ("it", "ft"):
        path = layout.completions("m", variant)
        write_rows(path, [c for c in read_rows(path, Completion) if c.split == "val"], Completion)
    assert run(layout, batch_size=8) == whole
    assert read_json(layout.faithfulness("m", "ft"))["num_sequences"] == 0  # of test completions only


def test_a_killed_run_goes_on_behind_its_last_batch_with_the_same_bytes(layout, monkeypatch):
    run(layout)
    whole = layout.attributions("m", "ft").read_bytes()
    layout.attributions("m", "ft").unlink()

    calls = []

    def dies(*args, **kwargs):
        calls.append(len(kwargs["prompt_ids"]))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return attribute_sequences(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(resumable, "attribute", dies)
        with pytest.raises(KeyboardInterrupt):
            run(layout)
    assert not layout.attributions("m", "ft").exists()

    seen = []

    def counts(*args, **kwargs):
        seen.append(len(kwargs["prompt_ids"]))
        return attribute_sequences(*args, **kwargs)

    monkeypatch.setattr(resumable, "attribute", counts)
    run(layout)
    assert sum(seen) == 11 - calls[0]
    assert layout.attributions("m", "ft").read_bytes() == whole


def test_a_filter_that_no_test_prompt_meets_is_told(layout):
    with pytest.raises(UserError, match=r"attribution.filters names 'pc50'.*met: p50, polite"):
        run(layout, filters=["pc50"])


def test_the_committed_params_are_valid():
    from pathlib import Path

    from detoxlens.params.attribution import AttributionConfig
    from detoxlens.params.load import load_params

    load_params(Path(__file__).parents[3] / "params.yaml").section("attribution", AttributionConfig)
