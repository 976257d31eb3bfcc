"""What the report reads of a balanced sample: every attribution with the number of prompts that it stands for."""

from __future__ import annotations

import pytest

from detoxlens.common.artifacts import read_rows, write_rows
from detoxlens.common.records import Attribution, Completion, Score
from detoxlens.params.attribution import AttributionConfig
from detoxlens.params.load import load_params
from detoxlens.reporting.load import load_study
from tests.reporting.synthetic import write_study
from tests.reporting.test_report import CONFIG
from tests.root import ROOT

ATTRIBUTION = load_params(ROOT / "params.yaml").section("attribution", AttributionConfig)


def traces(layout, sample: str):
    study = load_study(
        layout,
        models=["m"],
        groups={"it": "it", "ft": "ft"},
        splits=["p50"],
        grader="grader",
        attribution=ATTRIBUTION.model_copy(update={"sample": sample}),
        config=CONFIG,
    )
    return [trace for tables in study.models["m"].values() for trace in tables.traces]


def test_a_balanced_sample_is_weighted_back_and_a_random_one_is_not(tmp_path):
    layout = write_study(tmp_path, ["m"], ["it", "ft"], num_prompts=40)
    scores = [s for s in read_rows(layout.scores("m", "it"), Score) if s.scorer == "grader"]
    toxic = {s.prompt_id for s in scores if s.toxicity > ATTRIBUTION.sample_toxic_above}
    completions = read_rows(layout.completions("m", "it"), Completion)
    p50 = sorted({c.prompt_id for c in completions if c.split == "test" and "p50" in c.filters})
    drawn = [p for p in p50 if p in toxic][:3] + [p for p in p50 if p not in toxic][:3]
    for variant in ("it", "ft"):
        rows = read_rows(layout.attributions("m", variant), Attribution)
        write_rows(layout.attributions("m", variant), [r for r in rows if r.prompt_id in drawn], Attribution)
    share = len(toxic & set(p50)) / len(p50)
    assert share not in (0.0, 0.5, 1.0)
    for trace in traces(layout, "balanced"):
        expected = share / 0.5 if trace.key[0] in toxic else (1 - share) / 0.5
        assert trace.weight == pytest.approx(expected)
    assert {trace.weight for trace in traces(layout, "random")} == {1.0}
