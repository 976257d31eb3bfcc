"""Reading DialoCONAN: every row ends up in a conversation or is named among the dropped."""

from __future__ import annotations

from pathlib import Path

import pytest

from detoxlens.common.errors import UserError
from detoxlens.data.dialoconan import read_dialoconan, read_pairs
from detoxlens.params.data import PairColumns
from detoxlens.params.section import parse
from tests.data.files import write_dialogues

HEADER = "text,TARGET,dialogue_id,turn_id,type,source\n"


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_turns_alternate_in_the_order_of_turn_id_and_lose_outer_white_space(tmp_path):
    path = write(
        tmp_path / "d.csv",
        HEADER
        + "The spoon is in your drawer.,ZORGONS,7,1,CN,s1\n"
        + "Zorgons stole my spoon. ,ZORGONS,7,0,HS,s1\n"
        + '"Accordions are ""loud"", all\nof them.",PLAYERS,8,0,HS,s2\n'
        + "So is rain.,PLAYERS,8,1,CN,s2\n",
    )
    file = read_dialoconan(path)
    assert [c.turns for c in file.conversations] == [
        ("Zorgons stole my spoon.", "The spoon is in your drawer."),
        ('Accordions are "loud", all\nof them.', "So is rain."),
    ]
    assert [(c.dialogue_id, c.target, c.source) for c in file.conversations] == [
        ("7", "ZORGONS", "s1"),
        ("8", "PLAYERS", "s2"),
    ]
    assert (file.num_rows, file.num_dialogues, file.num_trimmed, file.dropped) == (4, 2, 1, ())


@pytest.mark.parametrize(
    ("speakers", "kept", "dropped"),
    [
        # The four ways in which dialogues of the published file break the alternation (2503, 2580, 2956, 3030).
        (["HS", "CN", "HS", "HS"], [0, 1], {2: "hater turn without a reply", 3: "hater turn without a reply"}),
        (["HS", "CN", "HS", "CN", "CN"], [0, 1, 2, 3], {4: "reply without a hater turn"}),
        (
            ["HS", "CN", "HS", "CN", "CN", "HS"],
            [0, 1, 2, 3],
            {4: "reply without a hater turn", 5: "hater turn without a reply"},
        ),
        (
            ["HS", "CN", "HS", "CN", "HS", "HS"],
            [0, 1, 2, 3],
            {4: "hater turn without a reply", 5: "hater turn without a reply"},
        ),
        (["CN", "HS", "HS", "CN"], [2, 3], {0: "reply without a hater turn", 1: "hater turn without a reply"}),
    ],
)
def test_unpaired_turns_are_dropped_and_named_and_the_dialogue_kept(tmp_path, speakers, kept, dropped):
    path = write_dialogues(tmp_path / "d.csv", {"2503": [(speaker, f"turn {i}") for i, speaker in enumerate(speakers)]})
    file = read_dialoconan(path)
    assert file.conversations[0].turns == tuple(f"turn {i}" for i in kept)
    assert {d.row: d.reason for d in file.dropped} == {
        f"line {i + 2}, dialogue 2503, turn {i}": reason for i, reason in dropped.items()
    }
    assert file.num_rows == len(speakers)


def test_empty_and_nan_texts_are_dropped_and_named(tmp_path):
    turns = [("HS", "a"), ("CN", "b"), ("HS", "  "), ("CN", "NaN"), ("HS", "c"), ("CN", "d")]
    file = read_dialoconan(write_dialogues(tmp_path / "d.csv", {"1369": turns}))
    assert file.conversations[0].turns == ("a", "b", "c", "d")
    assert [(d.row, d.reason) for d in file.dropped] == [
        ("line 4, dialogue 1369, turn 2", "empty text"),
        ("line 5, dialogue 1369, turn 3", "empty text"),
    ]


def test_a_turn_whose_reply_is_empty_goes_with_it(tmp_path):
    turns = [("HS", "a"), ("CN", ""), ("HS", "b"), ("CN", "c")]
    file = read_dialoconan(write_dialogues(tmp_path / "d.csv", {"1": turns}))
    assert file.conversations[0].turns == ("b", "c")
    assert {d.reason for d in file.dropped} == {"empty text", "hater turn without a reply"}
    assert file.num_rows == 4 == len(file.conversations[0].turns) + len(file.dropped)


def test_a_byte_order_mark_extra_columns_and_windows_line_ends_are_no_trouble(tmp_path):
    text = "id,text,TARGET,dialogue_id,turn_id,type,source\r\n0,a,Z,1,0,HS,s\r\n1,b,Z,1,1,CN,s\r\n"
    file = read_dialoconan(write(tmp_path / "d.csv", b"\xef\xbb\xbf" + text.encode()))
    assert file.conversations[0].turns == ("a", "b")


ROW = "a,Z,1,0,HS,s\n"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "is empty; it must begin with the header text,TARGET"),
        (HEADER, "holds a header and no rows"),
        (HEADER.replace("TARGET", "target"), "lacks the column 'TARGET'"),
        (HEADER.replace("turn_id", "turn"), "lacks the column 'turn_id'. Did you mean 'turn'? Its header is text,"),
        (HEADER + ROW + "b,Z,1,0,CN,s\n", "dialogue 1 has turn_id 0 twice, on lines 2 and 3"),
        (HEADER + ROW.replace("0", "0.5"), "line 2: turn_id is '0.5'; it must be a whole number"),
        (HEADER + ROW + ROW.replace("HS", "hate"), "line 3: type is 'hate'; it must be HS (hater) or CN"),
        (HEADER + ROW.replace(",1,", ",,"), "line 2: dialogue_id is empty"),
        (HEADER + ROW + "b, and c,Z,1,1,CN,s\n", "line 3: 7 fields, but the header has 6"),
        (HEADER + ROW + '"b,Z,1,1,CN,s\n', "line 3: unexpected end of data"),
        (HEADER + '"a" b,Z,1,0,HS,s\n', "line 2: ',' expected after '\"'"),
        (
            HEADER + ROW,
            "none of its 1 rows is left: 1 x hater turn without a reply (first: line 2,",
        ),
        (HEADER + ROW.replace("a", "nan", 1), "none of its 1 rows is left: 1 x empty text"),
        (HEADER.encode() + b"caf\xe9,Z,1,0,HS,s\n", "not UTF-8: byte 0xe9 at offset 47 (line 2, byte 4 of it)"),
        (HEADER.encode("utf-16"), "looks like UTF-16"),
        (b"\x1f\x8b\x08\x00", "unpack it first"),
    ],
)
def test_a_bad_file_is_told_in_one_paragraph_that_names_the_place(tmp_path, content, told):
    path = write(tmp_path / "d.csv", content)
    with pytest.raises(UserError) as caught:
        read_dialoconan(path, "data.dialoconan")
    assert told in str(caught.value)
    assert str(caught.value).startswith("data.dialoconan")
    assert "\n" not in str(caught.value)


def test_ids_that_pandas_wrote_as_floats_are_whole_numbers(tmp_path):
    rows = "Ferries are slow,F,7.0,0.0,HS,x\nThey are calm,F,7.0,1.0,CN,x\nAnd late,F,7,2.0,HS,x\nYes,F,7,3,CN,x\n"
    (tmp_path / "d.csv").write_text("text,TARGET,dialogue_id,turn_id,type,source\n" + rows)
    (one,) = read_dialoconan(tmp_path / "d.csv").conversations
    assert (one.dialogue_id, len(one.turns)) == ("7", 4)
    (tmp_path / "d.csv").write_text("text,TARGET,dialogue_id,turn_id,type,source\nA,F,7,0.5,HS,x\n")
    with pytest.raises(UserError, match=r"line 2: turn_id is '0\.5'; it must be a whole number"):
        read_dialoconan(tmp_path / "d.csv")


def test_a_turn_that_nobody_sees_is_empty(tmp_path):
    write_dialogues(tmp_path / "d.csv", {"1": [("HS", "a"), ("CN", "\u200b \ufeff"), ("HS", "b"), ("CN", "c")]})
    found = read_dialoconan(tmp_path / "d.csv")
    assert found.conversations[0].turns == ("b", "c") and [d.reason for d in found.dropped].count("empty text") == 1


CONAN = """cn_id,hateSpeech,counterSpeech,hsType,hsSubType
EN1,Ferrymen cheat.,They count twice.,x,y
EN1T02P1,"Cheats, ferrymen are.",They count again.,x,y
FR1,Les passeurs trichent.,Ils comptent bien.,x,y
FR1T1,Boatmen swindle.,Nearly all recount.,x,y
IT1,I traghettatori imbrogliano.,Contano due volte.,x,y
X,Ferry people fib.,They do not.,x,y
"""
PAIRS = {"hater": "hateSpeech", "counter": "counterSpeech", "target": "hsSubType"}


def test_conans_ids_tell_languages_and_versions_of_one_pair(tmp_path):
    (tmp_path / "conan.csv").write_text(CONAN, encoding="utf-8")
    found = read_pairs(tmp_path / "conan.csv", PairColumns(**PAIRS, id="cn_id", language="EN"))
    assert [c.turns[0] for c in found.conversations] == ["Ferrymen cheat.", "Cheats, ferrymen are.", "Boatmen swindle."]
    assert [c.version_of for c in found.conversations] == ["EN1", "EN1", "FR1"]
    assert [d.reason for d in found.dropped] == [
        "in another language than EN",
        "in another language than EN",
        "its id does not say its language",
    ]
    everything = read_pairs(tmp_path / "conan.csv", PairColumns(**PAIRS, id="cn_id")).conversations
    assert [c.version_of for c in everything] == ["EN1", "EN1", "FR1", "FR1", "IT1", "X"]
    with pytest.raises(UserError, match=r"no row with text .* in DE"):
        read_pairs(tmp_path / "conan.csv", PairColumns(**PAIRS, id="cn_id", language="DE"))


def test_a_mix_of_languages_that_nobody_asked_about_is_said(tmp_path, caplog):
    (tmp_path / "conan.csv").write_text(CONAN, encoding="utf-8")
    assert len(read_pairs(tmp_path / "conan.csv", PairColumns(**PAIRS)).conversations) == 6
    assert "cn_id tells languages (EN 3, FR 1, IT 1) and versions of one pair (2 " in caplog.text


def test_a_language_needs_the_ids_that_tell_it():
    with pytest.raises(UserError, match=r"data\.dialogue_columns\.language='EN': .* name the column, id: cn_id"):
        parse(PairColumns, PAIRS | {"language": "EN"}, "data.dialogue_columns")
