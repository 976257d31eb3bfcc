"""The Pareto front, less being better."""

from detoxlens.evaluation.pareto import on_front


def test_who_is_beaten_in_one_and_not_better_in_the_other_is_not_on_the_front():
    assert on_front([(60, 0), (5, 10), (7, 20), (5, 11), (60, 0)]) == [True, True, False, False, True]
    assert on_front([]) == [] and on_front([(1, 1)]) == [True]
