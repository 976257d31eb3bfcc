"""Chats as token ids, and which of them are the template's.

A chat is tokenised piece by piece, so that training and generation see the same ids (BPE would merge across the seam):

    user(h1) bot | reply(r1) EOS | end user(h2) bot | reply(r2) EOS       a generation prompt ends with `bot`

Where template and text meet inside a piece, character offsets tell one from the other; a token that holds any character
of the text is text. Text that spells a control token stays text; begin and end tokens stand once, whoever writes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from detoxlens.common.errors import UserError
from detoxlens.common.tokens import After, Token, begin_ids, control_ids, tokens_of, unread
from detoxlens.data.chat_template import before_reply, check_growth, end_of_reply, prompt_literals
from detoxlens.params.models import ChatTemplate, TemplateConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Template = TemplateConfig | ChatTemplate
Region = Literal["template", "system", "user", "earlier"]
"""Where a prompt token comes from: the template, the system message, the last human turn, or a turn before it."""


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


@dataclass(frozen=True, slots=True)
class Piece:
    """What is tokenised by itself: Piece("<human>: Hi\\n<bot>:", ((9, 11, "user"),))"""

    text: str
    texts: tuple[tuple[int, int, Region], ...]
    """[start, stop) of what is not template, and which region it is."""
    is_reply: bool = False
    ends: bool = False
    """An end-of-sequence token stands behind it."""


def encode_prompt(
    tokenizer: PreTrainedTokenizerFast, template: Template, turns: Sequence[str], *, evaluation: bool = False
) -> EncodedPrompt:
    """What the model is given to reply to the last of `turns`.

    Args:
        tokenizer: The model's; a begin-of-sequence token stands first if it adds one of its own accord.
        template: The model's.
        turns: Human, bot, human, ...: an odd number, the last is the human's.
        evaluation: Write the last turn as `template.eval_user` does, where that is set.

    Raises:
        UserError: the number of turns is even, the tokenizer is not a fast one or has no token for a character of the
            text, or the template lacks `{text}`, is missing, or refuses these turns.
    """
    if len(turns) % 2 == 0:
        raise UserError(f"a prompt needs an odd number of turns, the last the human's; got {len(turns)}.")
    encoded = _encode(tokenizer, template, _prompt_pieces(tokenizer, template, turns, evaluation=evaluation))
    return EncodedPrompt(tuple(e.id for e in encoded), tuple(e.region for e in encoded))


def with_system(template: Template, message: str | None) -> Template:
    """The template with `message` as its system message; as it is for None."""
    return template if message is None else template.model_copy(update={"system": message})


@dataclass(frozen=True, slots=True)
class EncodedDialogue:
    """EncodedDialogue(ids=[12, 7, 30, 9, 4, 0], is_user=[0, 1, 1, 0, 0, 0], is_reply=[0, 0, 0, 0, 1, 1])"""

    ids: list[int]
    is_user: list[bool]
    """Per id: is it the text of a human turn?"""
    is_reply: list[bool]
    """Per id: is it the bot's own, end-of-sequence included?"""


def encode_dialogue(
    tokenizer: PreTrainedTokenizerFast, template: Template, turns: Sequence[str]
) -> tuple[list[int], list[bool]]:
    """A whole dialogue to learn from: its ids, and per id whether it is the bot's own, end-of-sequence included.

    Args and errors: as `encode_whole`.
    """
    encoded = encode_whole(tokenizer, template, turns)
    return encoded.ids, encoded.is_reply


def encode_whole(tokenizer: PreTrainedTokenizerFast, template: Template, turns: Sequence[str]) -> EncodedDialogue:
    """A whole dialogue, and whose each of its tokens is.

    Args:
        tokenizer: The model's.
        template: The model's.
        turns: Human, bot, human, bot, ...: an even number.

    Raises:
        UserError: the number of turns is odd or zero, or as `encode_prompt`.
    """
    if not turns or len(turns) % 2:
        raise UserError(f"a dialogue needs an even number of turns, each human turn with its reply; got {len(turns)}.")
    pieces = _prompt_pieces(tokenizer, template, turns[:-1], evaluation=False)
    pieces.append(_reply_piece(tokenizer, template, len(turns) - 1, turns[-1], of=None))
    encoded = _encode(tokenizer, template, pieces)
    return EncodedDialogue(
        ids=[e.id for e in encoded],
        is_user=[not e.is_reply and e.region in ("user", "earlier") for e in encoded],
        is_reply=[e.is_reply for e in encoded],
    )


def encode_reply(tokenizer: PreTrainedTokenizerFast, template: Template, prompt: str, reply: str) -> tuple[int, ...]:
    """Ids of a given reply to a prompt of one turn, without what ends it; none for an empty one.

    Raises:
        UserError: as `encode_prompt`.
    """
    if not reply:
        return ()
    pieces = _prompt_pieces(tokenizer, template, [prompt], evaluation=False)
    pieces.append(_reply_piece(tokenizer, template, 1, reply, is_ended=False))
    return tuple(e.id for e in _encode(tokenizer, template, pieces) if e.is_reply)


def next_turn_marks(tokenizer: PreTrainedTokenizerFast, template: Template) -> tuple[str, ...]:
    """What shows that a reply runs on into the human's next turn: the text that begins such a turn, or nothing.

    `<human>:`, `<|im_start|>user`; what begins like a word counts at the beginning of a line alone: `\\nHuman:`.
    """
    if isinstance(template, ChatTemplate):
        between = prompt_literals(tokenizer, template, 3).between
        mark = between[2][len(end_of_reply(tokenizer, template)) :]
    else:
        mark = template.end + _around_text(template.user, "user")[0]
    mark = mark.strip()
    return () if not mark else ("\n" + mark,) if mark[0].isalnum() else (mark,)


def turn_end_ids(tokenizer: PreTrainedTokenizerFast, template: Template) -> tuple[int, ...]:
    """The token by which the template ends a reply, e.g. <|im_end|>, which may be the tokenizer's own; or none."""
    if isinstance(template, ChatTemplate):
        end = end_of_reply(tokenizer, template)
    else:
        end = _around_text(template.reply, "reply")[1] + template.end
    control = control_ids(tokenizer)
    return tuple(token.id for token in tokens_of(tokenizer, end, own=[]) if token.id in control)[:1]


def check_template(tokenizer: PreTrainedTokenizerFast, template: Template) -> None:
    """Raises UserError where one exchange cannot be written by `template`: before hours are spent, not after."""
    encode_dialogue(tokenizer, template, ["a", "b"])


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


@dataclass(frozen=True, slots=True)
class _Encoded:
    id: int
    region: Region
    is_reply: bool


def _encode(tokenizer: PreTrainedTokenizerFast, template: Template, pieces: Sequence[Piece]) -> list[_Encoded]:
    """The tokens of a chat, begin- and end-of-sequence tokens among them."""
    control, begin, eos = control_ids(tokenizer), begin_ids(tokenizer), tokenizer.eos_token_id
    done: list[_Encoded] = []
    after: After = "nothing"
    for number, piece in enumerate(pieces):
        tokens = tokens_of(tokenizer, piece.text, own=[(start, stop) for start, stop, _ in piece.texts], after=after)
        if lost := unread(tokenizer, piece.text, tokens):
            raise UserError(
                f"the model's tokenizer has no token for {lost!r} of {piece.text[:60]!r}, so the model cannot be given "
                "this text. Remove it from the data, or take a model whose tokenizer knows every character."
            )
        encoded = [_Encoded(t.id, _region(t, piece), piece.is_reply) for t in tokens]
        if number == 0 and [e.id for e in encoded[: len(begin)]] != begin:
            encoded = [*(_Encoded(i, "template", False) for i in begin), *encoded]
        if number > 0 and pieces[number - 1].ends and encoded and encoded[0].id == eos:
            encoded = encoded[1:]  # written out by the template, too
        if piece.ends and (not encoded or encoded[-1].id != eos):
            if eos is None:
                raise UserError(
                    "the tokenizer has no end-of-sequence token, but the model's template.eos_after_reply is true."
                )
            encoded.append(_Encoded(eos, "template", piece.is_reply))
        done += encoded
        follows_control = isinstance(template, ChatTemplate) and done and done[-1].id in control
        after = "control" if follows_control else "text" if done else "nothing"
    return done


def _region(token: Token, piece: Piece) -> Region:
    for start, stop, region in piece.texts:
        trimmed = start <= token.start == token.stop < stop  # a token of white space whose offsets were trimmed
        if trimmed or max(token.start, start) < min(token.stop, stop):
            return region
    return "template"


def _prompt_pieces(
    tokenizer: PreTrainedTokenizerFast, template: Template, turns: Sequence[str], *, evaluation: bool
) -> list[Piece]:
    """human | reply | human | ...: an odd number of pieces, each human turn up to where its reply begins."""
    if isinstance(template, ChatTemplate):
        check_growth(tokenizer, template, len(turns))
    pieces = []
    for i, turn in enumerate(turns):
        if i % 2 == 1:
            pieces.append(_reply_piece(tokenizer, template, i, turn, of=len(turns)))
            continue
        is_last = i == len(turns) - 1
        before, after, system = _around_human(tokenizer, template, i, len(turns), evaluation=evaluation and is_last)
        own = (len(before), len(before) + len(turn), "user" if is_last else "earlier")
        texts = (own,) if system[0] == system[1] else ((*system, "system"), own)
        pieces.append(Piece(before + turn + after, texts))
    return pieces


def _around_human(
    tokenizer: PreTrainedTokenizerFast, template: Template, i: int, num_turns: int, *, evaluation: bool
) -> tuple[str, str, tuple[int, int]]:
    """What stands before and after turn `i`, up to the reply, and which characters before it are the system message."""
    if isinstance(template, ChatTemplate):
        chat = prompt_literals(tokenizer, template, num_turns)
        after = prompt_literals(tokenizer, template, i + 1).between[-1]
        if i == 0:
            return chat.between[0], after, chat.system
        return chat.between[i][len(end_of_reply(tokenizer, template, i)) :], after, (0, 0)
    key = "eval_user" if evaluation and template.eval_user is not None else "user"
    before, after = _around_text(getattr(template, key), key)
    if i:
        return template.end + before, after + template.bot, (0, 0)
    if template.system is None:
        return before, after + template.bot, (0, 0)
    ahead, behind = _around_text(template.system_turn, "system_turn")
    system = (len(ahead), len(ahead) + len(template.system))
    return ahead + template.system + behind + before, after + template.bot, system


def _reply_piece(
    tokenizer: PreTrainedTokenizerFast,
    template: Template,
    i: int,
    turn: str,
    *,
    of: int | None = None,
    is_ended: bool = True,
) -> Piece:
    """Turn `i`, a reply; in a prompt of `of` turns, or the last of its chat (None)."""
    if isinstance(template, ChatTemplate):
        end = end_of_reply(tokenizer, template, i + 1)
        if of is None:
            before = before_reply(tokenizer, template, i)
        else:
            asked = prompt_literals(tokenizer, template, i).between[-1]
            before = prompt_literals(tokenizer, template, of).between[i][len(asked) :]
        ends = of is None and not end
    else:
        before, end = _around_text(template.reply, "reply")
        ends = template.eos_after_reply
    texts = ((len(before), len(before) + len(turn), "earlier"),)
    return Piece(before + turn + (end if is_ended else ""), texts, is_reply=True, ends=ends and is_ended)


def _around_text(pattern: str, key: str) -> tuple[str, str]:
    """The template's parts before and after `{text}`."""
    if pattern.count("{text}") != 1:
        raise UserError(f"models.<model>.template.{key}={pattern!r} must contain {{text}} exactly once.")
    before, after = pattern.split("{text}")
    return before, after
