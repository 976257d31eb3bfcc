"""Words and regions: hand arithmetic, and mass is kept."""

import numpy as np
import pytest
import torch

from detoxlens.attribution.aggregate import grouped, region_mass, to_words, words_of


def test_a_word_begins_with_white_space_or_after_a_line_break():
    assert words_of(["<human>", ":", " Zor", "gons", " play", "\n", "<bot>"]) == [0, 0, 1, 1, 2, 3, 4]
    assert words_of(["ĠZor", "gons", "▁play", "s"]) == [0, 0, 1, 1]


ROWS = [[0.1, 0.3, 0.6], [0.2, 0.2, 0.1, 0.5], [0.1, 0.1, 0.2, 0.3, 0.3]]


def test_scores_are_summed_over_input_words_and_averaged_over_generated_ones():
    """Prompt words (0 0 1); generated: word 0 of two subwords, word 1 of one.

    t = 0  .1 .3 .6              -> .4 .6 | 0
    t = 1  .2 .2 .1 | .5         -> .4 .1 | .5   the second subword's share on the first: the word's on itself
    word 0 = the mean of the two    .4 .35 | .25
    t = 2  .1 .1 .2 | .3 .3      -> .2 .2 | .6 | 0
    """
    words = to_words(ROWS, [0, 0, 1], [0, 0, 1])
    assert words[0] == pytest.approx([0.4, 0.35, 0.25])
    assert words[1] == pytest.approx([0.2, 0.2, 0.6, 0.0])
    assert [sum(row) for row in words] == pytest.approx([1.0, 1.0])


def test_words_equal_inseqs_subword_aggregator():
    """Its sums over both directions, divided by the number of subwords of each generated word."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum and treescope warn on import
        from inseq.data.attribution import CoarseFeatureAttributionSequenceOutput
        from inseq.utils.typing import TokenWithId

        tokens = [TokenWithId(p, i) for i, p in enumerate(["▁Zor", "gons", "▁sing", "▁accor", "dions", "▁well"])]
        table = torch.zeros(6, 3)  # Inseq has NaN where nothing can count, which its sum would spread
        for t, row in enumerate(ROWS):
            table[: len(row), t] = torch.tensor(row)
        whole = CoarseFeatureAttributionSequenceOutput(
            source=tokens[:3],
            target=tokens,
            target_attributions=table,
            step_scores={},
            sequence_scores={},
            attr_pos_start=3,
            attr_pos_end=6,
        )
        theirs = whole.aggregate("subwords", aggregate_fn="sum").target_attributions
    assert theirs.shape == (4, 2)  # two prompt words, two generated ones
    ours = to_words(ROWS, words_of(["▁Zor", "gons", "▁sing"]), words_of(["▁accor", "dions", "▁well"]))
    assert ours[0] == pytest.approx((theirs[:3, 0] / 2).tolist())
    assert ours[1] == pytest.approx(theirs[:, 1].tolist())


def test_a_word_ends_where_the_template_begins_and_an_empty_piece_begins_none():
    pieces, template = ['"', "Zor", "gons", '".', "\n"], [True, False, False, True, True]
    assert words_of(pieces) == [0, 0, 0, 0, 1]
    assert words_of(pieces, template) == [0, 1, 1, 2, 3]
    assert words_of(["a", "", "b"]) == [0, 0, 0]  # half a character has no text of its own


def test_values_are_grouped_by_word():
    assert grouped([5, 6, 7], [0, 0, 1]) == [[5, 6], [7]]
    assert grouped([], []) == []


def test_region_mass_adds_up_to_one():
    found = region_mass(np.array([[0.1, 0.2, 0.3, 0.15, 0.25]]), ["template", "user", "user", "template"])
    assert {region: mass.item() for region, mass in found.items()} == pytest.approx(
        {"template": 0.25, "user": 0.5, "generated": 0.25}
    )


def test_regions_of_a_chat_tell_earlier_turns_from_the_last_one():
    from detoxlens.data.templates import encode_prompt
    from detoxlens.models.tiny import train_tokenizer
    from detoxlens.params.models import TemplateConfig

    tokenizer = train_tokenizer(["abc"], 256 + 8)
    template = TemplateConfig(user="[{text}]", bot=">", reply="{text}", end=".", eos_after_reply=False)
    chat = encode_prompt(tokenizer, template, ["a", "b", "c"])  # [a]> b .[c]>
    assert chat.regions == (
        *["template"],
        "earlier",
        *["template"] * 2,
        "earlier",
        *["template"] * 2,
        "user",
        *["template"] * 2,
    )
    row = [0.04, 0.1, 0.03, 0.03, 0.2, 0.02, 0.02, 0.3, 0.01, 0.05, 0.2]
    found = region_mass(np.array([row]), chat.regions)
    assert {region: mass.item() for region, mass in found.items()} == pytest.approx(
        {"template": 0.2, "earlier": 0.3, "user": 0.3, "generated": 0.2}
    )
