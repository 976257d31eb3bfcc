"""The table in benchmarks/README.md says what the files in benchmarks/results say."""

import json
import re

from tests.root import ROOT

TABLE = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "benchmarks/README.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| what")
]


def results(name):
    return json.loads((ROOT / f"benchmarks/results/{name}.json").read_text(encoding="utf-8"))


def row(start, *, follow=0):
    (number,) = (i for i, cells in enumerate(TABLE) if cells[0].startswith(start))
    return TABLE[number + follow][1:]


def number(cell):
    return re.search(r"[\d.]+(e-\d+)?", cell)[0]


def ratio(value, low, high, digits=1):
    return f"{value:.{digits}f} x ({low:.{digits}f} to {high:.{digits}f})"


def test_attribution():
    for start, floor, case in zip(
        ("attribution, GPT", "attribution, 32"),
        ("the first", "the second"),
        results("attribution")["cases"],
        strict=True,
    ):
        ours, inseq, faster, target = row(start)
        assert number(ours) == f"{case['ours_seconds']:.2f}" and number(inseq) == f"{case['inseq_seconds']:.2f}"
        assert faster == ratio(case["speedup"], *case["speedup_range"])
        assert ("missed" in target) == (case["speedup"] < case["target_speedup"])
        assert row(floor)[2] == f"{case['ours_over_floor']:.1f} x" and number(row(floor)[1]) == (
            f"{case['floor']['matmul_seconds']:.2f}"
        )


def test_exactness():
    for start, method in (
        ("largest error of a score, input", "input_x_gradient"),
        ("largest error of a score, sal", "saliency"),
        ("largest error of a score, int", "integrated_gradients"),
    ):
        cases = [case for case in results("exactness")["cases"] if case["method"] == method]
        ours, inseq = (max(case[f"float32_error_{side}"] for case in cases) for side in ("ours", "inseq"))
        assert [number(cell) for cell in row(start)[:2]] == [f"{ours:.1e}", f"{inseq:.1e}"]


def test_generation():
    ours, *others = results("generation")["ways"]
    for follow, way in enumerate(others):
        cells = row("sampling", follow=follow)
        assert [number(cell) for cell in cells[:2]] == [f"{ours['seconds']:.2f}", f"{way['seconds']:.2f}"]
        assert cells[2] == ratio(way["speedup_of_ours"], *way["speedup_range"])


def test_ppo():
    speed, memory, reward = results("ppo")["verdicts"]
    for start, found, digits, form in (("PPO, epi", speed, 1, ".1f"), ("PPO, mem", memory, 2, ".0f")):
        ours, trl, times, _ = row(start)
        assert [number(ours), number(trl)] == [format(found["ours"], form), format(found["trl"], form)]
        assert times == ratio(found["value"], *found["range"], digits=digits) and found["met"]
    low, high = reward["range"]
    assert row("PPO, reward")[2] == f"+{reward['value']:.3f} ({low:.3f} to +{high:.3f}): a tie"
    formulas = results("ppo")["formulas"]["max_abs_difference"]
    assert f"at most {max(formulas.values()):.1e}" in row("PPO, 11")[2] and len(formulas) == 11


def test_penalties():
    plain, *costs = results("penalties")["costs"]
    for cost in (cost for cost in costs if cost["num_examples"] is None):
        seconds, without, times, _ = row(f"fine-tuning step under `{cost['kind']}`")
        assert [number(seconds), number(without)] == [f"{cost['seconds']:.2f}", f"{plain['seconds']:.2f}"]
        assert times == ratio(cost["ratio"], *cost["ratio_range"])
    words = results("penalties")["toxic_words"]
    seconds, _, times, _ = row(f"toxic words of {words['num_dialogues']} dialogues")
    assert number(seconds) == f"{words['seconds']:.2f}" and times == f"{words['plain_steps']:.1f} x"


def test_seeds_and_the_tenth():
    outcomes = results("ppo_seeds")["outcomes"]
    for model in ("tiny-neox", "tiny-falcon"):
        (cells,) = (cells[1:] for cells in TABLE if cells[0].endswith(model))
        rates = [100 * o["test_rate"] for o in outcomes if o["model"] == model]
        assert cells[0] == f"{min(rates):.1f} to {max(rates):.1f} %" and len(rates) == 5
        assert (
            number(cells[1].replace("`it`", "")) == f"{100 * outcomes[0 if 'neox' in model else 5]['it_test_rate']:.1f}"
        )
    stages = results("scale")["tenth/cpu"]["stages"]
    minutes, most = sum(s["seconds"] for s in stages) / 60, max(s["peak_gib"] for s in stages)
    assert row("a tenth")[0] == f"{minutes:.0f} min, {most:.1f} GiB" and len(stages) == 29
