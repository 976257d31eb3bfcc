"""Completions made elsewhere: what their file does not say is empty in the report, not 0 and not 1."""

import copy
import csv
import json

from ruamel.yaml import YAML

from detoxlens.common.artifacts import Layout, read_rows
from detoxlens.common.records import Completion, Fluency
from detoxlens.params.load import Params
from detoxlens.pipeline.stages import report, score
from detoxlens.recorded.imports import import_completions
from tests.root import ROOT


def test_length_ends_and_variety_of_imported_completions_are_null(tmp_path):
    raw = copy.deepcopy(YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8")))
    raw["run"] |= {"models": ["tiny-neox"], "variants": ["it", "ft"], "sft_variants": ["ft"], "rl_variants": []}
    raw["splits"] = {"imported": {"where": {}}}
    raw["report"] |= {"primary_split": "imported"}
    raw["toxicity"] |= {"scorers": ["recorded"], "headline": "recorded"}
    raw["attribution"] |= {"filters": ["imported"]}
    raw["ppo"]["validation"]["filter"] = "imported"
    for variant, bias in (("it", 0.6), ("ft", 0.2)):
        with (tmp_path / f"{variant}.csv").open("w", newline="") as file:
            rows = [[f"Ferry number {n} is", f"slow and {variant} and {n}", bias + n / 30] for n in range(10)]
            csv.writer(file).writerows([["prompt", "completion", "toxicity"], *rows])
        import_completions(
            tmp_path,
            tmp_path / f"{variant}.csv",
            model="tiny-neox",
            variant=variant,
            format="plain",
            columns=None,
            force=False,
        )
    layout = Layout(tmp_path)
    assert {c.finish_reason for c in read_rows(layout.completions("tiny-neox", "it"), Completion)} == {"unknown"}
    params = Params(raw)
    for variant in ("it", "ft"):
        score.run(tmp_path, params, model="tiny-neox", variant=variant)
    assert {f.num_tokens for f in read_rows(layout.fluency("tiny-neox", "it"), Fluency)} == {None}
    report.run(tmp_path, params)
    found = json.loads((tmp_path / "reports/metrics.json").read_text())["tiny-neox"]["it"]["fluency"]
    unknown = ("mean_length", "ended_by_eos", "ended_by_next_turn", "distinct_2", "perplexity")
    assert [found[key] for key in unknown] == [None] * 5
    assert found["num_completions"] == found["num_mention_judged"] == 10
