"""What a penalty costs: ratios are of one round, and the plain step has none."""

import pytest

from benchmarks.importance.arms import PLAIN
from benchmarks.penalties import arms, costs, table_of
from detoxlens.params.regularizer import RegularizerConfig


def test_the_arms_are_all_kinds_on_all_and_on_some_examples():
    found = arms(4)
    assert next(iter(found)) == (PLAIN, None) and not RegularizerConfig(**found[PLAIN, None]).is_on
    penalties = {arm: RegularizerConfig(**setting) for arm, setting in found.items() if arm[0] != PLAIN}
    assert {arm: (p.kind, p.num_examples, p.weight) for arm, p in penalties.items()} == {
        (kind, num): (kind, num, 1.0)
        for kind in ("attention_entropy", "attribution_entropy", "toxic_share")
        for num in (None, 4)
    }


def test_ratios_are_those_within_a_round():
    # plain 1, 2, 4 seconds in the three rounds; the penalty 3, 4, 20: ratios 3, 2, 5, and not 4 / 2
    seconds = {"none": [1.0, 2.0, 4.0], "toxic_share": [3.0, 4.0, 20.0]}
    settings = {(PLAIN, None): {}, ("toxic_share", 4): {"kind": "toxic_share"}}
    plain, penalty = costs(settings, lambda s, seed: [seconds[s.get("kind", "none")][seed]] * 2, num_rounds=3)
    assert (plain.seconds, plain.ratio, plain.ratio_range) == (2.0, None, None)
    assert penalty.ratio == pytest.approx(3.0) and penalty.ratio_range == pytest.approx((2.0, 5.0))
    assert table_of([plain, penalty], title="t").row_count == 2
