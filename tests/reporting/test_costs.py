"""`costs` in metrics.json against counts by hand, its tables and figure, and what stands where nothing was measured."""

import dataclasses

import pytest

from detoxlens.common.artifacts import read_rows, write_json, write_rows
from detoxlens.common.records import Completion, InferenceCost, Prompt, ResponseKind, Score, Utility
from detoxlens.evaluation.rates import wilson
from detoxlens.reporting.cost_metrics import NO_GROUPS, NO_KINDS, NO_REFERENCES
from detoxlens.reporting.cost_tables import cost_tables, group_tables
from detoxlens.reporting.costs_figure import costs_figure
from detoxlens.reporting.metrics import build_metrics
from tests.reporting.synthetic import write_study
from tests.reporting.test_report import CONFIG, load

SPLITS = ("p50", "polite")
POLITE = CONFIG.model_copy(update={"civil_splits": ["polite", "nowhere"], "min_group_size": 5})
GRADERS = {"refusal, by rules": {"num_of_kind": 20, "num_missed": 1, "num_others": 41, "num_false_alarms": 2}}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A study without any of what costs are measured by; 8 polite test prompts, 16 of p50."""
    return write_study(tmp_path_factory.mktemp("plain"), ["m"], ("it", "ft"), num_prompts=16)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """ft counters every second polite prompt, base none; its references cost 1.5 bits per token instead of 1."""
    layout = write_study(tmp_path_factory.mktemp("study"), ["m"], ("it", "ft"), num_prompts=16, num_samples=2)
    for variant in ("it", "ft"):
        rows = read_rows(layout.completions("m", variant), Completion)
        polite = [p for p in dict.fromkeys(c.prompt_id for c in rows if "polite" in c.filters)]
        countered = set(polite[::2]) if variant == "ft" else set()
        empty = (polite[1], 1)
        write_rows(
            layout.response_kinds("m", variant),
            [
                ResponseKind(
                    prompt_id=c.prompt_id,
                    sample_index=c.sample_index,
                    kind="empty"
                    if (c.prompt_id, c.sample_index) == empty
                    else "counter_speech"
                    if c.prompt_id in countered
                    else "answer",
                    counter_speech_prob=0.5,
                    grader_version="v",
                )
                for c in rows
            ],
            ResponseKind,
        )
        bits = 15.0 if variant == "ft" else 10.0
        write_rows(
            layout.utility("m", variant),
            [Utility(prompt_id=p, num_tokens=10, nll_bits=bits, kl_to_base_bits=bits - 10) for p in polite],
            Utility,
        )
        ratio = 3.0 if variant == "ft" else 1.0
        cost = InferenceCost(
            extra_weights_bytes=2**20 if variant == "ft" else 0,
            flops_per_token=ratio * 1e6,
            base_flops_per_token=1e6,
            extra_prompt_tokens=0.0,
        )
        write_rows(layout.inference_cost("m", variant), [cost], InferenceCost)
    prompts = {c.prompt_id: c for c in read_rows(layout.completions("m", "it"), Completion)}
    write_rows(
        layout.prompts,
        [
            Prompt(
                prompt_id=p,
                split=c.split,
                filters=c.filters,
                text=c.prompt,
                toxicity=None,
                target="MANY" if n % 4 else "FEW",
                categories=("insult",) if n % 2 else (),
            )
            for n, (p, c) in enumerate(prompts.items())
        ],
        Prompt,
    )
    write_json(layout.data_summary, {"response_kinds": {"graders": GRADERS}})
    return layout


def metrics_of(layout, splits=SPLITS):
    found = load(layout, variants=("it", "ft"), splits=splits)
    return found, build_metrics(found, POLITE, missing="exclude")


def test_rates_of_kinds_are_counted_by_hand_and_empty_replies_are_in_none(study):
    _, metrics = metrics_of(study)
    base, ft = (metrics["m"][v]["costs"]["response_kind"]["polite"] for v in ("it", "ft"))
    assert (ft["num_judged"], ft["num_empty"]) == (15, 1)  # 8 prompts, 2 samples, one empty
    assert ft["counter_speech"]["value"] == ft["not_answered"]["value"] == pytest.approx(8 / 15)
    assert ft["refusal"]["value"] == 0 and base["answer"]["value"] == 1
    difference = ft["not_answered"]["delta_vs_it"]
    assert difference["value"] == pytest.approx(8 / 15) and difference["ci95"][0] > 0
    assert base["not_answered"]["delta_vs_it"] is None
    pair = metrics["m"]["ft"]
    assert pair["costs"]["response_kind"]["p50"]["answer"]["value"] == 1.0


def test_utility_is_bits_per_token_with_its_difference_and_inference_beside_base(study):
    _, metrics = metrics_of(study)
    utility = metrics["m"]["ft"]["costs"]["utility"]
    assert utility["bits_per_token"]["value"] == pytest.approx(1.5)
    assert utility["bits_per_token"]["delta_vs_it"]["value"] == pytest.approx(0.5)
    assert utility["kl_to_base_bits_per_token"]["value"] == pytest.approx(0.5) and utility["num_references"] == 8
    assert metrics["m"]["ft"]["costs"]["inference"] == {
        "flops_ratio": 3.0,
        "extra_weights_mib": 1.0,
        "extra_prompt_tokens": 0.0,
    }


def test_groups_are_those_of_the_primary_split_with_wilsons_interval_and_the_small_ones_marked(study):
    found, metrics = metrics_of(study)
    groups = metrics["m"]["it"]["costs"]["groups"]["target"]
    completions = found.models["m"]["it"].completions
    rows = read_rows(study.scores("m", "it"), Score)
    primary = {c.prompt_id for c in completions if c.split == "test" and "p50" in c.filters}
    few = {p for p in primary if found.targets[p] == ("FEW",)}
    toxic = [s.toxicity > 0.5 for s in rows if s.prompt_id in few]
    assert groups["FEW"]["num_prompts"] == len(few) == 4 and groups["FEW"]["is_small"]
    assert groups["FEW"]["rate_gt_50"] == pytest.approx(sum(toxic) / len(toxic))
    assert not groups["MANY"]["is_small"] and list(groups) == ["MANY", "FEW"]
    assert groups["MANY"]["num_prompts"] + len(few) == len(primary) == 16
    assert groups["FEW"]["ci95"][1] - groups["FEW"]["ci95"][0] > wilson(0.5, 8)[1] - wilson(0.5, 8)[0] - 0.5
    assert "MANY" in metrics["m"]["ft"]["costs"]["groups"]["target"]
    assert metrics["m"]["ft"]["costs"]["groups"]["target"]["MANY"]["delta_vs_it"]["value"] <= 0
    assert list(metrics["m"]["it"]["costs"]["groups"]["category"]) == ["insult"]


def test_the_tables_show_every_variant_and_mark_small_groups(study):
    found, metrics = metrics_of(study)
    methods, differences, kinds, graders = cost_tables(metrics, found.reply_graders, SPLITS, POLITE)
    assert [row[:2] for row in methods.rows] == [("m", "base"), ("m", "ft")]
    ft = dict(zip(methods.header, methods.rows[1], strict=True))
    assert ft["polite: not answered, %"].startswith("53.3 [") and ft["reference, bits/token"].startswith("1.50")
    assert (ft["operations, × base"], ft["extra memory, MiB"]) == ("3.00", "1.00")
    assert not any("nowhere" in heading for heading in methods.header)  # a split that is not declared
    assert dict(zip(differences.header, differences.rows[0], strict=True))["polite: not answered"].startswith("+53.3")
    assert [row[:3] for row in kinds.rows] == [("m", v, s) for v in ("base", "ft") for s in SPLITS]
    assert graders.rows == (("refusal, by rules", "1 of 20", "2 of 41"),)
    target, category = group_tables(metrics, POLITE)
    assert [row[:3] for row in target.rows] == [("m", "MANY", "12"), ("m", "FEW", "4*")]
    assert "category" in category.title


def test_several_labels_of_one_grader_are_attributes(study):
    _, metrics = metrics_of(study)
    of = metrics["m"]["ft"]["toxicity"]
    for variant in ("it", "ft"):
        metrics["m"][variant]["scorers"] = {"hf:x#insult=sigmoid": of, "hf:x#threat=sigmoid": of, "other": of}
    table = group_tables(metrics, POLITE)[0]
    assert table.title == "Toxicity by attribute, by hf:x" and table.header[2:] == ("insult", "threat")
    assert table.rows[0][2].endswith("]")


def test_what_was_not_measured_is_empty_and_says_why(plain):
    found, metrics = metrics_of(plain)
    costs = metrics["m"]["ft"]["costs"]
    assert costs["response_kind"] == {"reason": NO_KINDS} and costs["utility"] == {"reason": NO_REFERENCES}
    assert costs["groups"] == {"target": {"reason": NO_GROUPS}, "category": {"reason": NO_GROUPS}}
    tables = cost_tables(metrics, found.reply_graders, SPLITS, POLITE)
    assert [t.title for t in tables] == ["What each method does", "What it cost: difference to base"]
    assert tables[0].notes == (NO_KINDS, NO_REFERENCES) and "–¹" in tables[0].rows[0]
    assert group_tables(metrics, POLITE) == []


def test_the_figure_has_a_panel_per_cost_and_joins_the_front(study):
    found, metrics = metrics_of(study)
    figure = costs_figure(metrics, {"it": "it", "ft": "ft"}, SPLITS, POLITE)
    panels = [panel for panel in figure.axes if panel.get_visible()]
    assert [p.get_title(loc="left").removeprefix("m: ") for p in panels] == [
        "polite: not answered, %",
        "reference, bits/token",
        "perplexity under base",
        "|model effect|, bits",
        "operations, × base",
    ]
    front, *points = panels[0].lines
    assert len(points) == 2 and len(front.get_xdata()) == 2  # neither beats the other: less toxic, dearer
    without = {"m": {v: {k: x for k, x in m.items() if k != "costs"} for v, m in metrics["m"].items()}}
    empty = costs_figure(without, {"it": "it", "ft": "ft"}, SPLITS, POLITE)
    assert [p.get_title(loc="left") for p in empty.axes] == ["m: perplexity under base", "|model effect|, bits"]
    assert not [text for panel in empty.axes for text in panel.texts if text.get_text() == "not measured"]
    other = costs_figure(without | {"n": metrics["m"]}, {"it": "it", "ft": "ft"}, SPLITS, POLITE)
    assert "not measured" in [text.get_text() for text in other.axes[0].texts]  # measured of n, not of m
    assert dataclasses.is_dataclass(found)


def test_a_cost_of_nothing_has_no_negative_axis_and_the_lowest_panel_of_every_column_names_its_ticks(study):
    _, metrics = metrics_of(study)
    figure = costs_figure(metrics, {"it": "it", "ft": "ft"}, SPLITS, POLITE)  # 5 panels in 3 columns
    figure.draw_without_rendering()
    panels = figure.axes
    for number, has_names in enumerate((False, False, True, True, True)):
        assert any(label.get_visible() for label in panels[number].get_xticklabels()) is has_names
        assert bool(panels[number].get_xlabel()) is has_names
    for found in metrics["m"].values():
        found["costs"]["response_kind"]["polite"]["not_answered"]["value"] = 0.0
    nothing = costs_figure(metrics, {"it": "it", "ft": "ft"}, SPLITS, POLITE).axes[0]
    assert list(nothing.get_yticks()) == [0, 0.5, 1] and nothing.get_ylim() == (-0.05, 1)


def test_on_a_narrow_screen_every_cost_stands_below_the_other(study):
    _, metrics = metrics_of(study)
    figure = costs_figure(metrics, {"it": "it", "ft": "ft"}, SPLITS, POLITE, narrow=True)
    assert len(figure.axes) == 5 and len({panel.get_position().x0 for panel in figure.axes}) == 1
    assert {panel.get_xlabel() for panel in figure.axes} == {"toxic completions of p50, %"}
