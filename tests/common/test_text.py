"""What is seen of a text: invisible characters, letters in disguise, versions of one text."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detoxlens.common.text import as_read, is_blank, match_key, same_text_key


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t",
        "\u200b",
        "\u200b \u2060",
        "\ufeff",
        "\u00ad",
        "\u034f",
        "\u3164",
        "\u115f",
        "\u180e",
        "\ufe0f",
        "\U000e0041\U000e0042",
        "\u2800",
        "\x00\x07",
        "\u2028\u00a0\u3000",
        "\u202e\u2066",
        "\U000e0100",
    ],
)
def test_what_nobody_sees_is_blank(text):
    assert is_blank(text)


@pytest.mark.parametrize("text", ["a", ".", "\u200ba", "\u0301", "🪗", "船", "\u0627"])
def test_what_is_seen_is_not(text):
    assert not is_blank(text)


@pytest.mark.parametrize(
    "text",
    [
        "id\u200biot",
        "\u202eidiot\u202c",
        "id\u00adiot\ufe0f",
        "\uff49\uff44\uff49\uff4f\uff54",
        "\u0456di\u043et",
        "\U0001d4f2\U0001d4ed\U0001d4f2\U0001d4f8\U0001d4fd",
        "\u24d8\u24d3\u24d8\u24de\u24e3",
        "i\u0336d\u0336i\u0336o\u0336t\u0336",
        "i\u20ddd\u20ddi\u20ddo\u20ddt\u20dd",
        "\u026a\u1d05\u026a\u1d0f\u1d1b",
        "\u03b9\u0501\u0456\u03bft",
        "idiot\U000e0041",
    ],
)
def test_disguised_letters_are_read_as_what_they_imitate(text):
    assert as_read(text) == "idiot"


@pytest.mark.parametrize(
    "text",
    [
        "idiot\nand so on\t.",
        "caf\u00e9",
        "\u041f\u0440\u0438\u0432\u0435\u0442, \u043e\u0441\u0430",
        "kad\u0131n",
        "船夫们",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\u0915\u094d\u200d\u0937",
        "👨\u200d👩\u200d👧 \u2764\ufe0f",
        "\u03b1\u03bb\u03c6\u03b1",
    ],
)
def test_ordinary_text_of_any_script_stays(text):
    assert as_read(text) == text


@given(st.text())
def test_reading_twice_changes_nothing_more(text):
    once = as_read(text)
    assert as_read(once) == once
    assert is_blank(text) == (match_key(text) == "")


@given(st.text(st.characters(exclude_categories=("Cs", "Cn"))))
def test_forms_white_space_and_line_ends_do_not_tell_two_records_apart(text):
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert match_key(unicodedata.normalize(form, text)) == match_key(text)
    assert match_key(f"\ufeff {text}\r\n") == match_key(text)
    assert same_text_key(same_text_key(text)) == same_text_key(text)


def test_case_tells_records_apart_and_texts_not():
    assert match_key("A") != match_key("a") and same_text_key("CAFE\u0301") == same_text_key("caf\u00e9")
