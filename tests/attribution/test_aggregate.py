"""Words and regions: hand arithmetic, and mass is kept."""

import pytest

from detoxlens.attribution.aggregate import region_mass, to_words, words_of


def test_a_word_begins_with_white_space_or_after_a_line_break():
    assert words_of(["<human>", ":", " Zor", "gons", " play", "\n", "<bot>"]) == [0, 0, 1, 1, 2, 3, 4]
    assert words_of(["ĠZor", "gons", "▁play", "s"]) == [0, 0, 1, 1]


def test_scores_are_summed_over_input_words_and_averaged_over_generated_ones():
    """Prompt words (0 0 1); generated: word 0 of two subwords, word 1 of one.

    t = 0  .1 .3 .6              -> .4 .6
    t = 1  .2 .2 .1 | .5         -> .4 .1   (the .5 lies on the word itself and is left out)
    word 0 = (.8, .7) / 1.5
    t = 2  .1 .1 .2 | .3 .3      -> .2 .2 .6
    """
    words = to_words([[0.1, 0.3, 0.6], [0.2, 0.2, 0.1, 0.5], [0.1, 0.1, 0.2, 0.3, 0.3]], [0, 0, 1], [0, 0, 1])
    assert words[0] == pytest.approx([0.8 / 1.5, 0.7 / 1.5])
    assert words[1] == pytest.approx([0.2, 0.2, 0.6])


def test_region_mass_adds_up_to_one():
    found = region_mass([0.1, 0.2, 0.3, 0.15, 0.25], ["template", "user", "user", "template"])
    assert found == pytest.approx({"template": 0.25, "user": 0.5, "generated": 0.25})
