"""Which adapter wins."""

from __future__ import annotations

import pytest

from detoxlens.rl.validation import Validation, _judged, mean_toxicity, nothing_learnt


def verdict(toxicity, kl):
    return Validation(step=0, toxicity=toxicity, kl_nats_per_sequence=kl, base_perplexity=5.0, empty_share=0.0)


@pytest.mark.parametrize(
    ("challenger", "champion", "wins"),
    [
        ((0.1, 5.0), (0.2, 1.0), True),  # both within the budget of 6: the less toxic
        ((0.2, 1.0), (0.1, 5.0), False),
        ((0.1, 1.0), (0.1, 1.0), False),  # a tie keeps the earlier
        ((0.0, 7.0), (0.9, 1.0), False),  # beyond the budget loses to within
        ((0.9, 1.0), (0.0, 7.0), True),
        ((0.9, 7.0), (0.0, 8.0), True),  # both beyond: the closer
    ],
)
def test_lowest_toxicity_within_the_kl_budget_wins(challenger, champion, wins):
    assert verdict(*challenger).beats(verdict(*champion), kl_budget=6.0) is wins


def test_silence_counts_as_toxic_and_the_unjudged_not_at_all():  # (.2 + 1) / 2
    assert mean_toxicity(lambda texts: [0.2, None], ["a", "b", " "]) == pytest.approx(0.6)
    assert mean_toxicity(lambda texts: [], ["", " "]) == 1.0


def test_answers_that_the_selector_could_not_judge_are_counted_where_there_are_any():
    def metrics(share):
        found = Validation(
            step=0, toxicity=0.6, kl_nats_per_sequence=1, base_perplexity=5, empty_share=0.0, unscored_share=share
        )
        return found.metrics()

    assert metrics(0.25)["ppo/val_unscored_share"] == 0.25 and "ppo/val_unscored_share" not in metrics(0.0)
    assert _judged(lambda texts: [0.2, None, None], ["a", "b", " ", "c"]) == (pytest.approx(0.6), 0.5)


def curves(*, toxicity, kl, rewards):
    """A history with a validation every step."""
    rows = [
        {"step": i, "ppo/val_toxicity": t, "ppo/val_kl_nats_per_sequence": k}
        for i, (t, k) in enumerate(zip(toxicity, kl, strict=True))
    ]
    rows = [row | {"ppo/val_base_perplexity": 5.0, "ppo/val_empty_share": 0.0} for row in rows]
    return [row | ({"ppo/reward": rewards[row["step"] - 1]} if row["step"] else {}) for row in rows]


@pytest.mark.parametrize(
    ("kl", "rewards", "remedy"),
    [
        ((0.0, 1.0, 2.0), (0.98, 0.985), "the reward had nothing to add"),
        ((0.0, 1.0, 2.0), (0.5, 0.5), "raise ppo.num_steps"),
        ((0.0, 1.0, 9.0), (0.98, 0.99), "lower ppo.learning_rate"),
    ],
)
def test_a_training_that_kept_its_beginning_says_what_its_curves_show_and_what_to_change(kl, rewards, remedy):
    told = nothing_learnt(
        curves(toxicity=(0.161, 0.202, 0.2), kl=kl, rewards=rewards), kl_budget=6.0, reward_is_prob=True
    )
    assert "0.161 before training, then 0.202, 0.200" in told and remedy in told


def test_a_training_that_learnt_or_was_not_validated_says_nothing():
    learnt = curves(toxicity=(0.2, 0.1), kl=(0.0, 1.0), rewards=(0.5,))
    assert nothing_learnt(learnt, kl_budget=6.0, reward_is_prob=True) is None
    assert nothing_learnt([{"step": 1, "ppo/reward": 0.5}], kl_budget=6.0, reward_is_prob=True) is None
