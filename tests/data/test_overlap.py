"""Texts that stand in dialogues, counted on constructed files and by the command."""

import csv

import pytest
from typer.testing import CliRunner

from detoxlens.cli import app
from detoxlens.common.errors import UserError
from detoxlens.data.overlap import Overlap, overlap, overlap_of_files

TURNS = {  # dialogue -> its turns, the hater's first
    "0": ("Zorgons are dumb fools who sing all night", "They sing well.", "Accordion players are noisy", "So is rain."),
    "1": ("Zorgons smell of soup", "Soup is fine."),
}
TEXTS = (
    "Zorgons smell of soup",  # verbatim
    "zorgons  SMELL of soup",  # the same text
    "Accordion players are noisy",  # verbatim, a later turn
    "I say Zorgons are dumb fools who sing all night long",  # 4 of 7 word 5-grams
    "They sing well.",  # a counter-narrative, no turn of a hater's
    "Soup is dull",
    " ",
)


@pytest.fixture
def files(tmp_path):
    with (tmp_path / "dialogues.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "TARGET", "dialogue_id", "turn_id", "type", "source"])
        for dialogue, turns in TURNS.items():
            rows.writerows(
                [turn, "OTHER", dialogue, number, ("HS", "CN")[number % 2], "x"] for number, turn in enumerate(turns)
            )
    with (tmp_path / "texts.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["HATE_SPEECH", "TARGET"])
        rows.writerows([text, "OTHER"] for text in TEXTS)
    return tmp_path


def test_distinct_texts_are_counted_that_are_a_haters_turn():
    turns = [turn for of in TURNS.values() for turn in of[0::2]]
    assert overlap(TEXTS, turns) == Overlap(num_texts=5, num_verbatim=2, num_near_copies=3)
    assert overlap([], turns) == Overlap(num_texts=0, num_verbatim=0, num_near_copies=0)


def test_the_command_says_how_many_of_how_many(files):
    done = CliRunner().invoke(
        app, ["--root", str(files), "overlap", "texts.csv", "--dialogues", "dialogues.csv"], catch_exceptions=False
    )
    assert " ".join(done.output.split()) == (
        "Of 5 distinct texts in HATE_SPEECH, 2 (40.0 %) stand verbatim among the hater's turns of dialogues.csv, but "
        "for case and white space; of 3 (60.0 %) at least half of the word 5-grams do."
    )


def test_a_column_that_is_not_there_or_empty_is_named(files):
    with pytest.raises(UserError, match=r"lacks the column 'HATE'. Its header is HATE_SPEECH,TARGET"):
        overlap_of_files(files, "texts.csv", "HATE", "dialogues.csv")
    (files / "texts.csv").write_text("HATE_SPEECH\n \n", encoding="utf-8")
    with pytest.raises(UserError, match="holds no text in the column 'HATE_SPEECH'"):
        overlap_of_files(files, "texts.csv", "HATE_SPEECH", "dialogues.csv")
