"""Text as token ids in which no text becomes a control token, each with its place in the text.

A control token means something beyond its letters: special tokens (begin, end, padding, turn marks), and added tokens
that the tokenizer's chat template writes. Where text spells one, it is cut behind the first character and both parts
are tokenised by themselves, so that no kind of tokenizer (BPE, Unigram, WordPiece) finds it whole:

    "a </s> b"  ->  "a <" | "/s> b"

A text that continues another is tokenised without the space that SentencePiece-like tokenizers put before a text.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from detoxlens.common.errors import UserError
from detoxlens.common.text import INVISIBLE

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

Range = tuple[int, int]
"""Characters [start, stop) of a text."""
After = Literal["nothing", "control", "text"]
"""What a text stands behind: it is the first, or follows a control token, or continues text."""


@dataclass(frozen=True, slots=True)
class Token:
    """Token(id=312, start=4, stop=9)"""

    id: int
    start: int
    """First character of the text that it covers."""
    stop: int


def tokens_of(
    tokenizer: PreTrainedTokenizerFast, text: str, *, own: Sequence[Range], after: After = "nothing"
) -> list[Token]:
    """The tokens of `text`, none of them a control token where it covers a character of `own`.

    Args:
        tokenizer: a fast one.
        text: template and text.
        own: which characters are text; control tokens are read outside of them alone.
        after: what `text` stands behind.

    Raises:
        UserError: the tokenizer is not a fast one, `text` holds half a character, or a single character is a control
            token.
    """
    if not tokenizer.is_fast:
        raise UserError(
            f"{type(tokenizer).__name__} gives no character offsets; a model needs a fast tokenizer (tokenizer.json)."
        )
    control = control_ids(tokenizer)
    waiting = [(0, len(text))]  # the parts that are left, the first of the text last
    tokens: list[Token] = []
    while waiting:
        start, stop = waiting.pop()
        part = _encode(tokenizer, text[start:stop], after if start == 0 else "text")
        found = [Token(i, start + begin, start + end) for i, begin, end in part]
        cuts = {cut for token in found if (cut := _cut(tokenizer, token, text, own, control)) is not None}
        if cuts:
            waiting += reversed(list(itertools.pairwise([start, *sorted(cuts), stop])))
        else:
            tokens += found
    return tokens


def control_ids(tokenizer: PreTrainedTokenizerFast) -> frozenset[int]:
    """Ids that mean something beyond their letters; transformers' `sanitize_control_tokens` knows the same ones."""
    written = tokenizer.chat_template or ""
    written = "".join(written.values()) if isinstance(written, dict) else written
    return _control_ids(tokenizer, written, tuple(tokenizer.all_special_ids), len(tokenizer))


@functools.lru_cache(maxsize=8)
def _control_ids(
    tokenizer: PreTrainedTokenizerFast, written: str, special: tuple[int, ...], num_tokens: int
) -> frozenset[int]:
    """See `control_ids`; the other arguments say what the tokenizer was when it was looked at."""
    added = tokenizer.added_tokens_decoder.items()
    spelt = {i for i, t in added if t.special or (t.content in written and not t.content.isspace())}
    return frozenset({*special, *spelt})


def begin_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The control tokens that the tokenizer puts before any text of its own accord: [BOS], or nothing."""
    ids, mask = _encoded_letter(tokenizer, _state(tokenizer.backend_tokenizer.post_processor), len(tokenizer))
    return list(ids[: [*mask, 0].index(0)])


def end_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The control tokens that the tokenizer puts behind any text of its own accord: [EOS] or [SEP], or nothing."""
    ids, mask = _encoded_letter(tokenizer, _state(tokenizer.backend_tokenizer.post_processor), len(tokenizer))
    return list(ids[len(ids) - [*reversed(mask), 0].index(0) :])


@functools.lru_cache(maxsize=8)
def _encoded_letter(
    tokenizer: PreTrainedTokenizerFast, added: bytes, num_tokens: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids of a letter, and which were put around it; `added` and `num_tokens` say what the tokenizer was then."""
    encoded = tokenizer("a", return_special_tokens_mask=True)
    return tuple(encoded["input_ids"]), tuple(encoded["special_tokens_mask"])


def _state(part: Any) -> bytes:
    """What a part of a tokenizer does; empty where there is none."""
    return part.__getstate__() if part else b""


def plain_ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Ids of a text that is nothing but text, without begin and end tokens."""
    return [token.id for token in tokens_of(tokenizer, text, own=[(0, len(text))])]


def unread(tokenizer: PreTrainedTokenizerFast, text: str, tokens: Sequence[Token]) -> str:
    """What of `text` the tokenizer has no token for: the first such piece; empty where all that is seen is read."""
    unknown, read_to = tokenizer.unk_token_id, 0
    for token in [*tokens, Token(-1, len(text), len(text))]:
        if token.id == unknown and text[token.start : token.stop].strip() != tokenizer.unk_token:
            return text[token.start : token.stop]
        for c in text[read_to : token.start]:
            if not (c.isspace() or INVISIBLE.fullmatch(c)):
                return c
        read_to = max(read_to, token.stop)
    return ""


def _cut(
    tokenizer: PreTrainedTokenizerFast, token: Token, text: str, own: Sequence[Range], control: frozenset[int]
) -> int | None:
    """Where to cut, so that a token that would turn text into something else is not found; None: it need not be."""
    spelt = text[token.start : token.stop]
    if token.id not in control and not (len(spelt) == 6 and spelt.startswith("<0x")):  # a byte's name is no byte
        return None
    if token.id == tokenizer.unk_token_id and spelt.strip() != tokenizer.unk_token:  # what is unknown is no control
        return None
    for begin, end in own:
        if max(token.start, begin) < min(token.stop, end):
            if token.start < begin:  # the template's own, which swallows white space of the text behind it
                return begin
            if token.stop > end:
                return end
            if len(spelt) > 1:
                return token.start + 1
            raise UserError(f"the tokenizer reads the character {spelt!r} as a control token; remove it.")
    return None


def _encode(tokenizer: PreTrainedTokenizerFast, text: str, after: After) -> list[tuple[int, int, int]]:
    """(id, start, stop) per token."""
    backend = (None if after == "nothing" else _continuing(tokenizer, after)) or tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    try:
        encoded = backend.encode(text, add_special_tokens=False)
        return [(i, *span) for i, span in zip(encoded.ids, encoded.offsets, strict=True)]
    except TypeError:  # what the tokenizers library says of a lone surrogate
        half = next((c for c in text if "\ud800" <= c <= "\udfff"), None)
        if half is None:
            raise
        raise UserError(
            f"{text[:40]!a} holds half a character ({half!a}), which UTF-8 has no bytes for; replace it."
        ) from None


def _continuing(tokenizer: PreTrainedTokenizerFast, after: After) -> Tokenizer | None:
    """A copy of the tokenizer that puts no space before a text; None where it puts none itself."""
    backend = tokenizer.backend_tokenizer
    spaces = _state(backend.normalizer) + _state(backend.pre_tokenizer)
    if not any(name in spaces for name in (b"Metaspace", b"Prepend", b"ByteLevel")):
        return None
    return _copy_without_prefix(tokenizer, after, spaces, len(tokenizer))


@functools.lru_cache(maxsize=8)
def _copy_without_prefix(
    tokenizer: PreTrainedTokenizerFast, after: After, spaces: bytes, num_tokens: int
) -> Tokenizer | None:
    """See `_continuing`; `spaces` and `num_tokens` say what the tokenizer was when the copy was made."""
    from tokenizers import Tokenizer

    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    changed = {part: _without_prefix(whole[part], after) for part in ("normalizer", "pre_tokenizer")}
    if all(changed[part] == whole[part] for part in changed):
        return None
    return Tokenizer.from_str(json.dumps(whole | changed | {"truncation": None, "padding": None}))


def _without_prefix(part: Any, after: After) -> Any:
    """The JSON of a normalizer or pre-tokenizer that puts no space before a text.

    Behind a control token only the scheme `first` puts none; others put one before every part, as in `</s> word`.
    """
    kind = part and part["type"]
    if kind == "Sequence":
        key = "normalizers" if "normalizers" in part else "pretokenizers"
        if any(step["type"] in ("WhitespaceSplit", "Whitespace", "BertPreTokenizer") for step in part[key]):
            return part  # every word has its space there, and keeps it
        steps = [_without_prefix(step, after) for step in part[key]]
        return part | {key: [step for step in steps if step is not None]}
    if kind == "Metaspace" and (after == "text" or part["prepend_scheme"] == "first"):
        return part | {"prepend_scheme": "never"}
    if kind == "ByteLevel" and after == "text":
        return part | {"add_prefix_space": False}
    return None if kind == "Prepend" and after == "text" else part
