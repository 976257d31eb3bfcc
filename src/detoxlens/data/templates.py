"""Chats as token ids, and which of them are the template's.

A chat is tokenised piece by piece, so that training and generation see the same ids (BPE would merge across the seam):

    user(h1) bot | reply(r1) EOS | end user(h2) bot | reply(r2) EOS       a generation prompt ends with `bot`

Character offsets of the fast tokenizer tell text from template; a token that holds any character of the text is text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from detoxlens.common.errors import UserError
from detoxlens.params.models import TemplateConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Region = Literal["template", "user", "earlier"]
"""Where a prompt token comes from: the template, the last human turn, or a turn before it."""


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """EncodedPrompt(ids=(12, 7, 30, 9, 4), regions=("template", "template", "user", "user", "template"))"""

    ids: tuple[int, ...]
    regions: tuple[Region, ...]
    """One per id."""

    @property
    def is_template(self) -> tuple[bool, ...]:
        """Per token: does it come from the template (begin- and end-of-sequence tokens included)?"""
        return tuple(region == "template" for region in self.regions)


def encode_prompt(
    tokenizer: PreTrainedTokenizerFast, template: TemplateConfig, turns: Sequence[str], *, evaluation: bool = False
) -> EncodedPrompt:
    """What the model is given to reply to the last of `turns`.

    Args:
        tokenizer: The model's; a begin-of-sequence token is put first if it adds one of its own accord.
        template: The model's.
        turns: Human, bot, human, ...: an odd number, the last is the human's.
        evaluation: Write the last turn as `template.eval_user` does, where that is set.

    Raises:
        UserError: the number of turns is even, the tokenizer is not a fast one, or the template lacks `{text}`.
    """
    if len(turns) % 2 == 0:
        raise UserError(f"a prompt needs an odd number of turns, the last the human's; got {len(turns)}.")
    ids: list[int] = _first_ids(tokenizer)
    regions: list[Region] = ["template"] * len(ids)
    for i, turn in enumerate(turns):
        is_last = i == len(turns) - 1
        piece_ids, is_text = _encode_turn(tokenizer, template, i, turn, evaluation=evaluation and is_last)
        ids += piece_ids
        regions += [("user" if is_last else "earlier") if inside else "template" for inside in is_text]
    return EncodedPrompt(tuple(ids), tuple(regions))


def encode_dialogue(
    tokenizer: PreTrainedTokenizerFast, template: TemplateConfig, turns: Sequence[str]
) -> tuple[list[int], list[bool]]:
    """A whole dialogue to learn from: its ids, and per id whether it is the bot's own, end-of-sequence included.

    Args:
        tokenizer: The model's.
        template: The model's.
        turns: Human, bot, human, bot, ...: an even number.

    Raises:
        UserError: the number of turns is odd or zero, the tokenizer is not a fast one, or the template lacks `{text}`.
    """
    if not turns or len(turns) % 2:
        raise UserError(f"a dialogue needs an even number of turns, each human turn with its reply; got {len(turns)}.")
    ids = _first_ids(tokenizer)
    is_reply = [False] * len(ids)
    for i, turn in enumerate(turns):
        piece_ids, _ = _encode_turn(tokenizer, template, i, turn, evaluation=False)
        ids += piece_ids
        is_reply += [i % 2 == 1] * len(piece_ids)
    return ids, is_reply


def check_length(prompts: Mapping[str, EncodedPrompt], *, max_new_tokens: int, context_length: int) -> None:
    """Checks that every prompt and its completion fit into the model's context.

    Args:
        prompts: Name for messages (a prompt id) to prompt.
        max_new_tokens: Longest completion.
        context_length: Most positions the model has, e.g. `model.config.max_position_embeddings`.

    Raises:
        UserError: some do not fit; names the longest.
    """
    room = context_length - max_new_tokens
    too_long = {name: len(prompt.ids) for name, prompt in prompts.items() if len(prompt.ids) > room}
    if too_long:
        name = max(too_long, key=too_long.__getitem__)
        others = f" ({len(too_long) - 1} more are too long)" if len(too_long) > 1 else ""
        left = context_length - too_long[name]
        lower = f", or lower generation.max_new_tokens (at most {left} for this prompt)" if left > 0 else ""
        raise UserError(
            f"prompt {name} has {too_long[name]} tokens with its template{others}: with generation.max_new_tokens="
            f"{max_new_tokens} it does not fit into the model's context of {context_length} tokens. Shorten or remove "
            f"the prompt in the file that data.rtp names{lower}."
        )


def _encode_turn(
    tokenizer: PreTrainedTokenizerFast, template: TemplateConfig, index: int, turn: str, *, evaluation: bool
) -> tuple[list[int], list[bool]]:
    """Ids of turn `index` (even: human and `bot`; odd: reply and EOS), and which of them hold text of the turn."""
    if index % 2 == 0:
        key = "eval_user" if evaluation and template.eval_user is not None else "user"
        before, after = _around_text(getattr(template, key), key)
        before = template.end + before if index else before
        after += template.bot
    else:
        before, after = _around_text(template.reply, "reply")
    ids, is_text = _encode_piece(tokenizer, before, turn, after)
    if index % 2 == 1 and template.eos_after_reply:
        if tokenizer.eos_token_id is None:
            raise UserError(
                "the tokenizer has no end-of-sequence token, but the model's template.eos_after_reply is true."
            )
        ids, is_text = [*ids, tokenizer.eos_token_id], [*is_text, False]
    return ids, is_text


def _encode_piece(
    tokenizer: PreTrainedTokenizerFast, before: str, text: str, after: str
) -> tuple[list[int], list[bool]]:
    """Ids of before + text + after, and per id whether it holds a character of `text`."""
    if not tokenizer.is_fast:
        raise UserError(
            f"{type(tokenizer).__name__} gives no character offsets; a model needs a fast tokenizer (tokenizer.json)."
        )
    encoded = tokenizer(before + text + after, add_special_tokens=False, return_offsets_mapping=True)
    begin, end = len(before), len(before) + len(text)
    is_text = [
        max(start, begin) < min(stop, end) or begin <= start == stop < end  # the latter: a token of trimmed white space
        for start, stop in encoded["offset_mapping"]
    ]
    return list(encoded["input_ids"]), is_text


def _around_text(pattern: str, key: str) -> tuple[str, str]:
    """The template's parts before and after `{text}`."""
    if pattern.count("{text}") != 1:
        raise UserError(f"models.<model>.template.{key}={pattern!r} must contain {{text}} exactly once.")
    before, after = pattern.split("{text}")
    return before, after


def _first_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The special tokens that the tokenizer puts before any text: [BOS], or nothing."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    special = tokenizer("a")["input_ids"]
    return list(special[: special.index(plain[0])])
