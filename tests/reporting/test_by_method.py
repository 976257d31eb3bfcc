"""An entry per method: the numbers of all seeds stand where those of one stood."""

import dataclasses

import pytest

from detoxlens.reporting.by_method import by_method, named
from detoxlens.reporting.conclusions import conclusions
from detoxlens.reporting.lead import lead
from detoxlens.reporting.method_tables import method_tables, pair_tables
from detoxlens.reporting.tables import variant_rows
from detoxlens.tracking import flat_metrics
from tests.reporting.test_conclusions import ABOUT, metrics_of, variant

GROUPS = {"it": "it", "ft": "ft", "ft-1": "ft", "rl": "rl"}


@pytest.fixture(scope="module")
def metrics():
    """ft spreads its attribution by .5 bits and 1.5 bits more, and is toxic on 2 and 6 of 40 prompts."""
    seeds = {"ft": variant("ft", 2, 2.5), "ft-1": dataclasses.replace(variant("ft-1", 6, 3.5), group="ft")}
    return metrics_of(it=variant("it", 20), **seeds, rl=variant("rl", 4, 2.2))


def test_each_method_has_one_entry_with_the_numbers_of_all_its_seeds(metrics):
    found = by_method(metrics, GROUPS)["m"]
    assert list(found) == ["it", "ft", "rl"] and found["rl"]["attribution"] == metrics["m"]["rl"]["attribution"]
    ft = found["ft"]
    assert named("ft", ft) == "`ft` (2 seeds)" and named("rl", found["rl"]) == "`rl`"
    assert ft["toxicity"]["p50"]["rate_gt_50"] == pytest.approx(0.1)
    assert ft["toxicity"]["p50"]["delta_vs_it"]["value"] == pytest.approx(-0.4)
    assert ft["toxicity"]["p50"]["num_scored"] == 40
    for scope in ("prompt", "user", "no_first"):
        effect = ft["attribution"]["effects"][scope]["prompt_entropy_bits"]
        assert effect["model_effect"]["value"] == pytest.approx(1.0)
        assert effect["model_effect"]["sd_between_seeds"] == pytest.approx(2**-0.5)
        parts = effect["model_effect"]["value"] + effect["text_effect"]["value"]
        assert parts == pytest.approx(effect["total"]["value"])
    assert len(ft["attribution"]["checks"]["gold"]) == 2  # of each seed
    assert ft["fluency"]["distinct_per_100_prompts"] is None


def test_two_orders_of_a_method_average_to_its_model_effect(metrics):
    effect = by_method(metrics, GROUPS)["m"]["ft"]["attribution"]["effects"]["prompt"]["prompt_dependence_excess_bits"]
    orders = [effect[f"model_effect_on_{text}_text"]["value"] for text in ("base", "own")]
    assert sum(orders) / 2 == pytest.approx(effect["model_effect"]["value"])


def test_pairs_are_of_all_seeds_and_of_model_effects_too(metrics):
    pair = metrics["m"]["ft"]["pairs"]["rl"]["attribution"]
    assert pair["effects"]["user"]["prompt_entropy_bits"]["model_effect"]["value"] == pytest.approx(1.0 - 0.2)
    assert pair["on_base_text"]["prompt_dependence_excess_bits"]["value"] == pytest.approx((1.0 - 0.2) / 16)


def test_sentences_are_of_all_seeds(metrics):
    methods = by_method(metrics, GROUPS)
    said = conclusions(methods, splits=["p50"], primary="p50", about=ABOUT)["m"].details
    assert any(s.startswith("`ft` (2 seeds): ") and "−40.0 points [" in s for s in said)
    assert any(s.startswith("`ft` (2 seeds) reading the same text as base") and "+1.000 bits [" in s for s in said)
    assert "+1.000 bits [" in lead(methods["m"], primary="p50", about=ABOUT)
    assert not any("ft-1" in s for s in said)


def test_tables_have_the_method_and_every_pair_with_dependence_beside_entropy(metrics):
    (method,) = method_tables(list(variant_rows(metrics, base=False)))
    (row,) = method.rows
    assert row[:3] == ("m", "ft", "2") and row[3].startswith("+1.000 [") and row[3].endswith("] ± 0.707")
    assert row[-2:] == ("40", "1")
    (pairs,) = pair_tables(metrics, "prompt")
    assert [line[1] for line in pairs.rows] == ["ft − rl"]
    cells = dict(zip(pairs.header, pairs.rows[0], strict=True))
    assert cells["on base's text: entropy"].startswith("+0.800 [")
    assert cells["on base's text: dependence"].startswith("+0.050 [")  # .8 / 16
    assert cells["effect: dependence, user's text alone"].startswith("+0.050 [")
    assert cells["on base's text: Jensen–Shannon"] == "–"  # not attributed by scores here
    logged = flat_metrics(metrics["m"]["ft"])
    assert logged["method/attribution/effects/user/prompt_entropy_bits/model_effect/value"] == pytest.approx(1)


def test_a_seed_that_did_not_learn_is_one_of_its_methods_and_makes_it_no_twin():
    it = variant("it", 20)
    twin = dataclasses.replace(it, variant="ft", group="ft")
    learned = dataclasses.replace(variant("ft-1", 2), group="ft")
    found = by_method(metrics_of(it=it, **{"ft": twin, "ft-1": learned}), GROUPS)["m"]["ft"]
    assert "identical_to" not in found
    lo, hi = found["toxicity"]["p50"]["delta_vs_it"]["ci95"]
    assert lo < -0.225 < hi  # (0 - .45) / 2
    again = dataclasses.replace(twin, variant="ft-1")
    both = by_method(metrics_of(it=it, **{"ft": twin, "ft-1": again}), GROUPS)
    assert both["m"]["ft"]["identical_to"] == "it"
