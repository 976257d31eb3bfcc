"""The whole report on made-up tables: its files, its edge cases, and the same bytes each time."""

import csv
import dataclasses
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest

from detoxlens.common.artifacts import Layout, read_rows, write_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Attribution, Completion, Score
from detoxlens.params.attribution import AttributionConfig
from detoxlens.params.load import load_params
from detoxlens.params.report import ReportConfig
from detoxlens.recorded.calibration import Calibration, Fit, Map
from detoxlens.reporting.load import load_study
from detoxlens.reporting.report import FILES, write_report
from tests.reporting.synthetic import with_faithfulness, write_study
from tests.reporting.test_conclusions import ABOUT
from tests.root import ROOT

CONFIG = ReportConfig(
    primary_split="p50",
    bootstrap={"num_resamples": 100, "seed": 0},
    toxic_group_threshold=0.66,
    min_sequences_per_step=10,
    cohort_min_tokens=4,
    champion_max_perplexity_ratio=1.2,
    num_examples=4,
)
ATTRIBUTION = load_params(ROOT / "params.yaml").section("attribution", AttributionConfig)
FAITHFUL = {
    "num_sequences": 3,
    "num_tokens": 6,
    "num_left_out": 0,
    "deletion": [
        {
            "fraction": 0.2,
            "comprehensiveness": {"attributed": [1.0, 1.2, 1.1], "random": [0.4, 0.6, 0.5]},
            "sufficiency": {"attributed": [2.0, 1.0, 3.0], "random": [2.5, 2.0, 2.0]},
        }
    ],
    "randomized_rank_correlation": [0.04, -0.1, 0.2],
    "precision": {
        "dtype": "bfloat16",
        "num_sequences": 7,
        "num_left_out": 1,
        "score": {"max": 0.0123, "median": 0.00045, "mean": 0.0},
        "prompt_entropy_bits": {"max": 0.0456, "median": 0.00789, "mean": -0.00321},
        "token_prob": {"max": 0.0678, "median": 0.001, "mean": 0.0},
    },
}


def load(layout: Layout, models=("m",), variants=("it", "ft", "rl"), groups=None, splits=("p50", "pc50", "polite")):
    study = load_study(
        layout,
        models=models,
        groups=groups or {v: v for v in variants},
        splits=splits,
        grader="grader",
        attribution=ATTRIBUTION,
        config=CONFIG,
    )
    return dataclasses.replace(study, notes=["selector is grader"])


def file_bytes(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A report on one model, written twice from the same tables."""
    root = tmp_path_factory.mktemp("study")
    layout = write_study(root, ["m"], scorers=("grader", "second"), num_prompts=60)
    with_faithfulness(layout, "m", "ft", FAITHFUL)
    for name in ("first", "again"):
        write_report(root / name, load(layout), CONFIG, about=ABOUT)
    return root


def test_the_same_tables_give_the_same_bytes(written):
    first, again = file_bytes(written / "first"), file_bytes(written / "again")
    assert {name: data == again[name] for name, data in first.items()} == dict.fromkeys(first, True)
    assert {name.split("/")[0] for name in first} == set(FILES)
    assert len([name for name in first if name.startswith("figures/")]) == 14  # seven figures, each as SVG and PNG


def test_figures_carry_no_date(written):
    for path in (written / "first/figures").glob("*.svg"):
        assert b"<dc:date>" not in path.read_bytes()


def test_metrics_json_holds_all_splits_and_scorers(written):
    ft = json.loads((written / "first/metrics.json").read_text(encoding="utf-8"))["m"]["ft"]
    assert list(ft["toxicity"]) == ["p50", "pc50", "polite", "val"]
    assert list(ft["scorers"]) == ["second"]
    assert ft["toxicity"]["p50"]["delta_vs_it"]["ci95"][1] < 0  # made up that way


def test_entropy_curves_csv_has_the_agreed_columns(written):
    with (written / "first/entropy_curves.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "model",
        "variant",
        "text",
        "scope",
        "measure",
        "group",
        "step",
        "mean",
        "lo",
        "hi",
        "band_lo",
        "band_hi",
        "n",
        "unit",
    ]
    groups = {"all", "toxic", "other", "toxic_by_it", "other_by_it", "cohort", "model_effect"}
    assert {row["group"] for row in rows} >= groups
    assert {(row["measure"], row["unit"]) for row in rows} == {
        ("prompt_entropy_bits", "bits"),
        ("prompt_entropy_normalized", "fraction"),
        ("prompt_dependence", "fraction"),
        ("prompt_dependence_excess_bits", "bits"),
        ("prompt_kl_bits", "bits"),
        ("prompt_gain_bits", "bits"),
    }
    assert min(int(row["step"]) for row in rows) == 1
    assert min(int(row["n"]) for row in rows) >= CONFIG.min_sequences_per_step


class Tags(HTMLParser):
    """Fails on a tag closed in the wrong order; collects what the page would load from elsewhere."""

    def __init__(self):
        super().__init__()
        self.open, self.loads = [], []

    def handle_starttag(self, tag, attrs):
        links = [value for key, value in attrs if key in ("src", "href")]
        self.loads += [link for link in links if not link.startswith(("#", "data:"))]
        self.loads += [tag] if tag in ("script", "link", "iframe") else []
        if tag not in ("meta", "img", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_needs_nothing_beside_it(written):
    tags = Tags()
    page = (written / "first/index.html").read_text(encoding="utf-8")
    tags.feed(page)
    assert (tags.open, tags.loads) == ([], [])
    assert "selector is grader" in page
    assert "+0.600" in page and "Faithfulness" in page  # attributed - random: .6 in each of the three
    cells = ("m", "ft", "bfloat16", "7", "0.0123", "0.00045", "0.0456", "0.00789", "−0.00321", "0.0678")
    markdown = (written / "first/report.md").read_text(encoding="utf-8")
    assert [c.strip() for c in _row_after("## Precision of the attributions", markdown).split("|")[1:-1]] == list(cells)
    assert "by second" in page
    assert 'class="heatmap"' in page


def _row_after(heading: str, markdown: str) -> str:
    """The first row of the table under a heading."""
    return [line for line in markdown.split(heading)[1].splitlines() if line.startswith("|")][2]


def test_rude_text_is_behind_a_click(written):
    page = (written / "first/index.html").read_text(encoding="utf-8")
    shown = "".join(part.split("</details>")[-1] for part in page.split("<details>"))
    assert "fools" in page and "fools" not in shown


def test_table1_says_how_many_were_scored(written):
    text = (written / "first/table1.md").read_text(encoding="utf-8")
    assert "60 / 0 / 0" in text
    assert "`ft`: less toxic than base on p50" in (written / "first/report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("variants", "changes"),
    [
        (("it",), {}),  # one variant only
        (("it", "ft"), {"rude_share": {"it": 0.0, "ft": 0.0}}),  # nobody toxic
        (("it", "ft"), {"rude_share": {"it": 1.0, "ft": 1.0}}),  # everybody toxic
        (("it", "ft"), {"attributed": False}),  # no attribution at all
        (("it", "rl-1", "rl-2"), {"num_samples": 2}),  # seeds, several samples
        (("it",), {"num_prompts": 0}),  # nothing generated
        (("it",), {"num_prompts": 1}),
    ],
)
def test_a_study_with_a_gap_says_so_and_does_not_crash(tmp_path, variants, changes):
    layout = write_study(tmp_path, ["m"], variants, **({"num_prompts": 12} | changes))
    study = load(layout, variants=variants, groups={v: v.split("-")[0] for v in variants})
    write_report(tmp_path / "report", study, CONFIG)
    assert set(FILES) == {p.name for p in (tmp_path / "report").iterdir()}
    text = (tmp_path / "report/report.md").read_text(encoding="utf-8")
    if changes.get("attributed") is False:
        assert "no attribution of a test completion" in text
    if changes.get("num_prompts") == 0:
        assert "no completion of p50 was scored" in text
    if "rl-1" in variants:
        assert "Spread between seeds" in text
    if "rude_share" in changes:
        assert "too few to compare toxic with other completions" in text


def test_empty_and_failed_completions_are_counted_and_told(tmp_path):
    layout = write_study(tmp_path, ["m"], ["it"], num_prompts=12)
    scores = read_rows(layout.scores("m", "it"), Score)
    broken = [
        Score(**{name: getattr(s, name) for name in s.__slots__} | {"toxicity": None, "status": status})
        for s, status in zip(scores[:3], ("empty", "empty", "failed"), strict=True)
    ]
    write_rows(layout.scores("m", "it"), [*broken, *scores[3:]], Score)
    write_report(tmp_path / "report", load(layout, variants=("it",)), CONFIG)
    text = (tmp_path / "report/report.md").read_text(encoding="utf-8")
    assert "9 / 2 / 1" in text
    assert "1 completion of p50 could not be scored" in text
    assert "2 completions of p50 empty" in text


def test_attributions_without_scores_are_in_no_mean_and_told(tmp_path):
    layout = write_study(tmp_path, ["m"], ["it"], num_prompts=12)
    rows = read_rows(layout.attributions("m", "it"), Attribution)
    nothing = {"status": "zero_gradient", "scores": None, "token_prob": None}
    rows[0] = Attribution(**{name: getattr(rows[0], name) for name in rows[0].__slots__} | nothing)
    write_rows(layout.attributions("m", "it"), rows, Attribution)
    metrics = write_report(tmp_path / "report", load(layout, variants=("it",)), CONFIG)
    assert metrics["m"]["it"]["attribution"]["num_sequences"] == 11
    assert "1 zero_gradient" in (tmp_path / "report/report.md").read_text(encoding="utf-8")


def test_what_models_say_is_escaped(tmp_path):
    layout = write_study(tmp_path, ["m"], ["it"], num_prompts=3)
    rows = read_rows(layout.completions("m", "it"), Completion)
    evil = "<script>alert(1)</script> `x` & \u202e"
    changed = [
        Completion(**{n: getattr(c, n) for n in c.__slots__} | {"completion": evil, "prompt": evil}) for c in rows
    ]
    write_rows(layout.completions("m", "it"), changed, Completion)
    write_report(tmp_path / "report", load(layout, variants=("it",)), CONFIG)
    page = (tmp_path / "report/index.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;alert(1)&lt;/script&gt; `x` &amp;" in page


def test_only_the_named_models_and_variants_are_read(tmp_path):
    layout = write_study(tmp_path, ["m", "other"], ["it", "ft"], num_prompts=6)
    layout.scores("other", "it").write_bytes(b"broken")
    layout.scores("m", "ft").write_bytes(b"broken")
    study = load(layout, variants=("it",))
    assert {model: list(variants) for model, variants in study.models.items()} == {"m": ["it"]}


def test_an_undeclared_primary_split_is_refused(tmp_path):
    layout = write_study(tmp_path, ["m"], ["it"], num_prompts=3)
    with pytest.raises(UserError, match=r"report.primary_split='p50' is no declared split; choose one of polite"):
        load(layout, variants=("it",), splits=("polite",))


def test_scores_without_the_grader_are_refused(tmp_path):
    layout = write_study(tmp_path, ["m"], ["it"], num_prompts=3, scorers=("second",))
    with pytest.raises(UserError, match="no scores by the grader 'grader', only by second"):
        load(layout, variants=("it",))


def test_a_missing_table_is_named(tmp_path):
    layout = write_study(tmp_path, ["m"], ["it"], num_prompts=3)
    layout.fluency("m", "it").unlink()
    with pytest.raises(UserError, match=r"fluency.parquet does not exist; `dvc repro` makes it"):
        load(layout, variants=("it",))


def test_a_calibrated_grader_gets_a_table_in_its_references_terms(tmp_path):
    layout = write_study(tmp_path, ["m"], num_prompts=60)
    version = read_rows(layout.scores("m", "it"), Score)[0].scorer_version
    fit = Fit(0.9, Map((0.0, 1.0), (0.0, 0.5)))
    measured = {"value": 0.9, "ci95": [0.8, 0.95]}
    held = {name: measured for name in ("auroc", "reference_rate", "rate_gt_threshold", "rate_isotonic")}
    calibration = Calibration(
        scorer="grader",
        scorer_version=version,
        against="p.csv: score",
        fit=fit,
        drawn=(fit,),
        num_fitted=100,
        held_out={"num_texts": 90} | held,
        version="c" * 16,
    )
    for variant in ("it", "ft", "rl"):
        rows = read_rows(layout.scores("m", variant), Score)
        write_rows(layout.scores("m", variant), rows + calibration.apply(rows), Score)
    study = load(layout)
    plain = write_report(tmp_path / "plain", study, CONFIG)
    metrics = write_report(tmp_path / "calibrated", dataclasses.replace(study, calibration=calibration), CONFIG)
    assert "calibrated" not in plain["m"]["it"] and metrics["m"]["it"]["scorers"] == {}
    tested = study.models["m"]["it"].keys_of("test", "p50")
    toxicities = [t for key, t in study.models["m"]["it"].toxicity("grader").items() if key in tested]
    rates = metrics["m"]["it"]["calibrated"]["p50"]
    assert rates["threshold"]["value"] == pytest.approx(sum(t > 0.9 for t in toxicities) / len(toxicities))
    assert rates["isotonic"]["value"] == pytest.approx(sum(toxicities) / 2 / len(toxicities))
    text = (tmp_path / "calibrated" / "report.md").read_text(encoding="utf-8")
    assert "## In the terms of p.csv: score" in text and "by calibrated:grader" not in text
    assert "AUROC 0.900 [0.800, 0.950]" in text
