"""Whether the attributions can be believed: the checks of metrics.json."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from detoxlens.common.seeding import numpy_rng
from detoxlens.evaluation.gold import rank
from detoxlens.reporting.checks import agreement, deletion, gold, method_free, same_sign
from detoxlens.reporting.effects import effects
from detoxlens.reporting.traces import ANY_METHOD
from tests.reporting.test_curves import CONFIG, tables, trace

PROMPTS = [f"p{i}" for i in range(40)]
MANY = CONFIG.model_copy(update={"min_sequences_per_step": 30})


def copying(scores_of) -> list:
    """A copied word per completion: the cue is word 0 of five, the control word 1."""
    found = []
    for number, prompt in enumerate(PROMPTS):
        scores = scores_of(numpy_rng(0, number))
        found.append(trace(prompt, [1.0], gold=[(rank(scores, [0]), rank(scores, [1]))], num_unmatched=number % 2))
    return found


def test_an_attribution_that_sees_the_cue_passes_and_a_blind_one_does_not():
    seeing = gold(copying(lambda rng: [1.0, *rng.random(4)]), MANY)
    assert seeing["passes"] is True and seeing["hit_at_1"]["cue"]["value"] == 1.0
    assert (seeing["num_words"], seeing["num_sequences"], seeing["num_unmatched"], seeing["reason"]) == (
        40,
        40,
        20,
        None,
    )
    blind = gold(copying(lambda rng: rng.random(5).tolist()), MANY)
    assert blind["passes"] is False
    lo, hi = blind["mrr"]["difference"]["ci95"]
    assert lo < 0 < hi


def test_too_few_copied_words_are_no_verdict():
    found = gold(copying(lambda rng: [1.0, 0.5, 0.1])[:5], MANY)
    assert found["passes"] is None and found["mrr"]["cue"]["value"] == 1.0
    assert found["reason"] == (
        "5 completions that repeat a word of their prompt, fewer than report.min_sequences_per_step=30"
    )


def measured(kl_of) -> list:
    """Completions of three tokens; dependence falls along each and differs between them."""
    found = []
    for number, prompt in enumerate(PROMPTS):
        rng = numpy_rng(1, number)
        share = np.array([8.0, *(4 + rng.normal(size=2))])  # dependence is an eighth of it: 1 at the first step
        of = trace(prompt, share.tolist())
        kl = np.array(kl_of(share, rng))
        values = {**of.values, ANY_METHOD: {"prompt_kl_bits": kl, "prompt_gain_bits": kl}}
        found.append(dataclasses.replace(of, values=values))
    return found


def test_the_correlation_is_within_steps():
    agree = method_free(measured(lambda share, rng: 2 * share + 1), MANY)
    assert agree["correlation"]["value"] == pytest.approx(1.0)
    assert (agree["num_steps"], agree["num_sequences"], agree["reason"]) == (2, 40, None)
    # Both fall along every completion, and have nothing to do with each other at any one step.
    unrelated = method_free(measured(lambda share, rng: [9.0, *(3 + rng.normal(size=2))]), MANY)
    lo, hi = unrelated["correlation"]["ci95"]
    assert lo < 0 < hi


def test_without_a_template_there_is_nothing_to_correlate():
    found = method_free([trace(p, [1.0, 2.0]) for p in PROMPTS], MANY)
    assert found["correlation"] is None
    assert found["reason"].startswith("0 completions whose prompt has a template around it, fewer than")


def test_signs_are_compared_only_where_both_intervals_exclude_zero():
    up, down, flat = ({"value": 0.0, "ci95": ci} for ci in ([0.1, 0.3], [-0.3, -0.1], [-0.1, 0.1]))
    assert same_sign(up, up) is True and same_sign(up, down) is False
    assert same_sign(up, flat) is None and same_sign(None, up) is None
    assert same_sign(up, {"value": 0.2, "ci95": None}) is None


def test_methods_that_disagree_are_said_to():
    def two_by_two(shift):
        rng = numpy_rng(2, shift)

        def of(reader, text, value):
            return [trace(p, [value + 0.01 * rng.normal()], reader, text) for p in PROMPTS]

        return of("it", "it", 1.0), of("it", "ft", 1.0) + of("ft", "it", 1.0 + shift) + of("ft", "ft", 1.0 + shift)

    toxicity = dict.fromkeys(PROMPTS, 0.1)
    (it, ft), (it_other, ft_other) = two_by_two(0.5), two_by_two(-0.5)
    variants = {
        "it": dataclasses.replace(tables("it", it, toxicity), other_methods={"saliency": it_other}),
        "ft": dataclasses.replace(tables("ft", ft, toxicity), other_methods={"saliency": ft_other}),
    }
    ours, theirs = effects(variants, MANY)["ft"]["prompt"], effects(variants, MANY, method="saliency")["ft"]["prompt"]
    own = [dataclasses.replace(t, rank_correlation=0.25) for t in ft_other if t.text_source == "ft" == t.reader]
    found = agreement({"saliency": own}, ours, {"saliency": theirs}, MANY)
    assert found["spearman"]["saliency"]["value"] == 0.25
    assert found["sign_holds"]["prompt_entropy_bits"] == {"saliency": False}
    assert found["effects"]["prompt_entropy_bits"]["saliency"]["value"] == pytest.approx(-0.5, abs=0.01)
    assert found["reason"] is None and found["num_sequences"] == 40
    assert agreement({}, ours, {}, MANY)["reason"] == "attribution.agreement names no further method"


def faithful(comprehensiveness, sufficiency):
    drops = [{"attributed": a, "random": r} for a, r in (comprehensiveness, sufficiency)]
    return {
        "num_sequences": 4,
        "deletion": [{"fraction": 0.2, "comprehensiveness": drops[0], "sufficiency": drops[1]}],
        "randomized_rank_correlation": [0.1, -0.1, 0.2, 0.0],
    }


def test_deletion_by_hand_and_a_test_that_fails_is_false():
    # attributed - random: 1, 2, 3, 2: mean 2, sd .8165, t(3) = 3.1824: 2 +- 1.2992
    found = deletion(faithful(([2, 3, 4, 3], [1, 1, 1, 1]), ([1, 2, 1, 2], [2, 1, 2, 1])))
    (of,) = found["deletion"]
    assert of["comprehensiveness"]["difference"]["ci95"] == pytest.approx([0.7008, 3.2992], abs=1e-4)
    assert of["comprehensiveness"]["passes"] is True
    assert of["sufficiency"]["difference"]["value"] == 0 and of["sufficiency"]["passes"] is False
    assert found["randomization"]["rank_correlation"]["value"] == pytest.approx(0.05)


def test_what_was_not_tested_is_empty():
    assert deletion(None) == {"deletion": [], "randomization": None}
    none = {"num_sequences": 0, "deletion": [], "randomized_rank_correlation": []}
    assert deletion(none) == {"deletion": [], "randomization": {"rank_correlation": None, "num_sequences": 0}}
