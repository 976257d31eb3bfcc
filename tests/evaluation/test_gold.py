"""Copied words, their controls, and rankings: by hand, and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from detoxlens.evaluation.gold import Copied, Ranking, copied_words, rank


def test_a_copied_word_has_its_cue_and_a_control_of_like_frequency_and_place():
    prompt = ["zorgon", "knit", None, "loud", "scarf"]
    frequency = {"zorgon": 8, "knit": 8, "loud": 1, "scarf": 4}
    # From "zorgon" at 0: knit is no doubling and 1/5 away: 2; loud three doublings and 3/5: 9; scarf one and 4/5: 9
    assert copied_words(prompt, [(0, "nice"), (3, "zorgon")], frequency) == [Copied(3, (0,), (1,))]
    # From "scarf" at 4: zorgon 1 + 8 = 9, knit 1 + 6 = 7, loud 2 + 2 = 4
    assert copied_words(prompt, [(0, "scarf")], frequency) == [Copied(0, (4,), (3,))]


def test_words_that_the_answer_also_says_are_no_controls_and_two_cues_take_two():
    prompt, frequency = ["zorgon", "knit", "zorgon", "loud"], {"zorgon": 2, "knit": 2, "loud": 2}
    assert copied_words(prompt, [(0, "zorgon")], frequency) == [Copied(0, (0, 2), (1, 3))]
    assert copied_words(prompt, [(0, "zorgon"), (1, "knit")], frequency) == [
        Copied(0, (0, 2), ()),  # one other word for two cues: not compared
        Copied(1, (1,), (3,)),
    ]


def test_a_word_of_a_system_message_that_no_other_prompt_has_is_matched_as_in_one():
    prompt, frequency = ["answer", "politely", "zorgon"], {"zorgon": 4}
    # From "answer" at 0: politely is no doubling and 1/3 away: 3.3; zorgon two doublings and 2/3: 8.7
    assert copied_words(prompt, [(2, "answer")], frequency) == [Copied(2, (0,), (1,))]


def test_a_word_without_content_copies_nothing():
    assert copied_words([None, "loud"], [(0, None), (1, "soft")], {"loud": 1}) == []


def test_rankings_by_hand():
    scores = [0.4, 0.1, 0.3, 0.2]
    assert rank(scores, [0]) == Ranking(1.0, 1.0, 1.0)
    assert rank(scores, [2]) == Ranking(0.0, 0.5, 0.5)
    assert rank(scores, [1, 2]) == Ranking(0.0, 0.5, 0.5)  # precision 1/2 at rank 2 and 2/4 at rank 4
    assert rank([0.3, 0.3], [0]) == Ranking(0.0, 0.5, 0.5)  # a tie is not a hit


def test_average_precision_is_scikit_learns():
    rng = np.random.default_rng(0)
    for _ in range(30):
        scores, chosen = rng.integers(0, 6, 9).astype(float), rng.choice(9, 3, replace=False).tolist()
        expected = average_precision_score([j in chosen for j in range(9)], scores)
        assert rank(scores.tolist(), chosen).auprc == pytest.approx(expected)
