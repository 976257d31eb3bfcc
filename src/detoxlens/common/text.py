"""Text as people see it: characters that nobody sees, letters in disguise, and texts that look alike.

Unicode 17: default ignorable code points (UAX 44), normalisation forms (UAX 15), confusable letters (UTS 39: those that
imitate Latin letters). Pure functions.
"""

from __future__ import annotations

import unicodedata

import regex

INVISIBLE = regex.compile(
    r"[\p{Default_Ignorable_Code_Point}\p{Cc}\u2800\uFFF9-\uFFFB\U0001D159\U00016FE4--\s]", regex.V1
)
"""Zero-width characters, byte order marks, soft hyphens, variation selectors, tags, fillers, control characters."""
_LOOKALIKES = {
    "a": "аαɑᴀ",
    "b": "ЬьƄʙ",
    "c": "сϲᴄ",
    "d": "ԁᴅ",
    "e": "еҽєεᴇ",
    "f": "ꜰ",
    "g": "ɡɢց",
    "h": "һհʜ",
    "i": "іɩιɪ",
    "j": "јյᴊϳ",
    "k": "кκᴋ",
    "l": "ӏʟ",
    "m": "мᴍ",
    "n": "пηոɴ",
    "o": "оοօσᴏ",
    "p": "рρᴘ",
    "q": "ԛզ",
    "r": "гᴦʀ",
    "s": "ѕꜱ",
    "t": "тτᴛ",
    "u": "υսᴜ",
    "v": "ѵνᴠ",
    "w": "ѡԝωᴡ",
    "x": "хχ",
    "y": "уγүʏ",
    "z": "ᴢ",
    "A": "АΑᎪ",
    "B": "ВΒ",
    "C": "СϹ",
    "D": "Ꭰ",
    "E": "ЕΕ",
    "G": "Ԍ",
    "H": "НΗ",
    "I": "ІΙӀ",
    "J": "ЈᎫ",
    "K": "КΚ",
    "L": "Ꮮ",
    "M": "МΜ",
    "N": "Ν",
    "O": "ОΟՕ",
    "P": "РΡ",
    "Q": "Ԛ",
    "S": "ЅՏ",
    "T": "ТΤ",
    "V": "ѴᏙ",
    "W": "ԜᎳ",
    "X": "ХΧ",
    "Y": "ҮΥ",
    "Z": "ΖᏃ",
}
"""Latin letter -> letters of other scripts, and small capitals, that look like it."""
_LATIN = {ord(twin): letter for letter, twins in _LOOKALIKES.items() for twin in twins}
_LATIN |= {0x1F130 + k + n: chr(65 + n) for k in (0, 32, 64) for n in range(26)}  # squared and filled letters
_WORD = regex.compile(r"[\p{L}\p{M}\U0001F130-\U0001F189]+")
_ORDINARY = regex.compile(r"\p{Latin}")
_STROKES = regex.compile(r"[\u0334-\u0338\u20D0-\u20FF\p{Me}]")
"""Marks drawn over a letter that make no other letter of it: struck through, circled, boxed."""
_SHAPES = "\u200c\u200d\ufe00-\ufe0f\u180b-\u180f\U000e0020-\U000e007f\U000e0100-\U000e01ef"
_SHAPED = regex.compile(
    r"[\p{Extended_Pictographic}\p{Emoji_Modifier}\p{Regional_Indicator}\p{L}--\p{Latin}\p{Greek}\p{Cyrillic}\p{DI}]"
    rf"[\p{{M}}{_SHAPES}]*",
    regex.V1,
)
"""An emoji, or a letter of Arabic, Indic, Han, ..., with the joiners and selectors that shape it."""


def is_blank(text: str) -> bool:
    """Is there nothing to see: no character, or white space and invisible characters alone?"""
    return not INVISIBLE.sub("", text).strip()


def as_read(text: str) -> str:
    """`text` in the letters that a reader takes it for, so that a judge of texts cannot be fooled by others.

    "id\\u200biot", "ｉｄｉｏｔ" and "іdiоt" (two of its letters Cyrillic) -> "idiot". Words of other scripts stay.
    """
    if text.isascii() and text.isprintable():
        return text
    kept = [match.span() for match in _SHAPED.finditer(text)]
    pieces, end = [], 0
    for start, stop in [*kept, (len(text), len(text))]:
        pieces += [INVISIBLE.sub("", text[end:start]), text[start:stop]]
        end = stop
    text = _STROKES.sub("", unicodedata.normalize("NFKC", "".join(pieces)))
    foreign = {word for word in _WORD.findall(text) if not _ORDINARY.search(word)}
    is_latin = all(ord(c) in _LATIN for word in foreign for c in word if c.isalpha())
    return _WORD.sub(lambda match: _undisguised(match[0], alone=is_latin), text)


def match_key(text: str) -> str:
    """What two records of one text have in common: all but white space, Unicode forms and invisible characters.

    match_key(" cafe\\u0301\\r\\nau lait") == match_key("caf\\u00e9 au lait")
    """
    return " ".join(unicodedata.normalize("NFKC", INVISIBLE.sub("", text)).split())


def same_text_key(text: str) -> str:
    """`match_key` without case: equal for texts that a reader takes for the same."""
    return match_key(match_key(text).casefold())


def _undisguised(word: str, *, alone: bool) -> str:
    """The word in Latin letters if it imitates one: each of its letters is Latin or looks so.

    Args:
        word: letters and marks.
        alone: may a word without any Latin letter imitate one, since the text has no other word of its script?
    """
    plain = word.translate(_LATIN)
    imitates = plain != word and all(not c.isalpha() or _ORDINARY.match(c) for c in plain)
    return plain if imitates and (alone or _ORDINARY.search(word)) else word
