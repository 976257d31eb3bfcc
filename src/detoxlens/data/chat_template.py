"""A tokenizer's own chat template (Jinja) as the texts between the turns, and what ends a reply in it.

Marks stand in for the turns while it is rendered, so that no turn's text can steer the template:

    <|im_start|>user\\n {0} <|im_end|>\\n<|im_start|>assistant\\n      add_generation_prompt: what a prompt is
    ... {0} <|im_end|>\\n<|im_start|>assistant\\n {1} <|im_end|>\\n     the same with its reply: what is learnt from
                                                  ^ up to here the reply's own, its end token included
"""

from __future__ import annotations

import datetime
import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from detoxlens.common.errors import UserError
from detoxlens.common.tokens import control_ids
from detoxlens.params.models import ChatTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TODAY = datetime.datetime(2024, 7, 26)
"""What a template that writes today's date is given (the day in Llama 3's own): equal params, equal bytes."""
_TODAY = re.compile(r"""strftime_now\(\s*(?P<quote>['"])(?P<form>.*?)(?P=quote)\s*\)""")
HOW_TO_WRITE_ONE = (
    'write it out in params.yaml, e.g. models.<model>.template: {user: "<human>: {text}\\n", bot: "<bot>:", '
    'reply: " {text}", end: "\\n"}'
)
_SYSTEM = "xQsystemQx"
_RAISED = (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What a Jinja template can raise; a missing template is a ValueError."""


@dataclass(frozen=True, slots=True)
class Literals:
    """A rendered chat without its turns: between[0] turn 0 between[1] turn 1 ... between[n]"""

    between: tuple[str, ...]
    system: tuple[int, int]
    """Characters of between[0] that are the system message, the template's own where params name none."""


def prompt_literals(tokenizer: PreTrainedTokenizerFast, template: ChatTemplate, num_turns: int) -> Literals:
    """Around an odd number of turns, the last the human's, up to where the reply begins."""
    return _literals_of(tokenizer, template, num_turns, is_prompt=True)


def dialogue_literals(tokenizer: PreTrainedTokenizerFast, template: ChatTemplate, num_turns: int) -> Literals:
    """Around an even number of turns, the last a reply."""
    return _literals_of(tokenizer, template, num_turns, is_prompt=False)


def end_of_reply(tokenizer: PreTrainedTokenizerFast, template: ChatTemplate, num_turns: int = 2) -> str:
    """What ends the last of an even number of turns, up to its end token: `<|im_end|>`; empty if no token ends it."""
    tail = dialogue_literals(tokenizer, template, num_turns).between[-1]
    tokens = map(tokenizer.convert_ids_to_tokens, control_ids(tokenizer))
    ends = [at + len(token) for token in tokens if (at := tail.find(token)) >= 0]
    return tail[: min(ends, default=0)]


def before_reply(tokenizer: PreTrainedTokenizerFast, template: ChatTemplate, num_turns: int) -> str:
    """What the template puts between a prompt of an odd number of turns and the reply to it; mostly nothing."""
    prompt = prompt_literals(tokenizer, template, num_turns).between[-1]
    whole = dialogue_literals(tokenizer, template, num_turns + 1).between[-2]
    return whole[len(prompt) :] if whole.startswith(prompt) else ""


def check_growth(tokenizer: PreTrainedTokenizerFast, template: ChatTemplate, num_turns: int) -> None:
    """Raises UserError unless a chat of `num_turns` begins, reply by reply, as each shorter prompt in it does.

    Else the model would learn to reply to another text than it is given.
    """
    between = prompt_literals(tokenizer, template, num_turns).between
    for shorter in range(1, num_turns, 2):
        begins = prompt_literals(tokenizer, template, shorter).between
        ends = end_of_reply(tokenizer, template, shorter + 1)
        if (
            between[:shorter] != begins[:shorter]
            or not between[shorter].startswith(begins[shorter])
            or not between[shorter + 1].startswith(ends)
        ):
            raise UserError(
                "models.<model>.template: the tokenizer's chat template writes an earlier reply otherwise than the "
                f"one that it asks for ({between[shorter]!r} against {begins[shorter]!r}), so that no chat of several "
                f"replies can be learnt as it is generated. Use single exchanges, or {HOW_TO_WRITE_ONE}."
            )


def _literals_of(
    tokenizer: PreTrainedTokenizerFast, template: ChatTemplate, num_turns: int, *, is_prompt: bool
) -> Literals:
    return _literals(tokenizer, str(tokenizer.chat_template), template.model_dump_json(), num_turns, is_prompt)


@functools.lru_cache(maxsize=256)
def _literals(
    tokenizer: PreTrainedTokenizerFast, source: str, settings: str, num_turns: int, is_prompt: bool
) -> Literals:
    """`source` and `settings` are the Jinja template and a `ChatTemplate` as JSON: what a rendering depends on."""
    template = ChatTemplate.model_validate_json(settings)
    text = _rendered(tokenizer, template, num_turns, template.system is not None, is_prompt)
    between, rest = [], text
    for number in range(num_turns):
        before, is_there, rest = rest.partition(_mark(number))
        if not is_there or _mark(number) in rest:
            raise UserError(
                f"models.<model>.template: the tokenizer's chat template writes turn {number + 1} of {num_turns} "
                f"{'more than once' if is_there else 'not at all, or not in its place'}; {HOW_TO_WRITE_ONE}."
            )
        between.append(before)
    between.append(rest)
    if template.system is None:
        return Literals(tuple(between), _own_system(tokenizer, template, num_turns, is_prompt, between[0]))
    head, is_there, tail = between[0].partition(_SYSTEM)
    if not is_there or _SYSTEM in tail:
        raise UserError(_no_system("leaves it out or writes it twice"))
    between[0] = head + template.system + tail
    return Literals(tuple(between), (len(head), len(head) + len(template.system)))


def _own_system(
    tokenizer: PreTrainedTokenizerFast, template: ChatTemplate, num_turns: int, is_prompt: bool, begins: str
) -> tuple[int, int]:
    """Characters of `begins`, what stands before the first turn, that a system message would take the place of."""
    try:
        head, is_there, tail = _render(tokenizer, template, num_turns, True, is_prompt).partition(_SYSTEM)
    except _RAISED:
        return 0, 0
    tail = tail.partition(_mark(0))[0]
    own = is_there and begins.startswith(head) and begins.endswith(tail) and len(begins) >= len(head) + len(tail)
    return (len(head), len(begins) - len(tail)) if own else (0, 0)


def _rendered(
    tokenizer: PreTrainedTokenizerFast, template: ChatTemplate, num_turns: int, has_system: bool, is_prompt: bool
) -> str:
    """`_render`, its errors as one paragraph that says what to do."""
    if not tokenizer.chat_template:
        raise UserError(
            "models.<model>.template: chat is asked for (it is the default), and the model's tokenizer has no chat "
            f"template; {HOW_TO_WRITE_ONE}."
        )
    try:
        return _render(tokenizer, template, num_turns, has_system, is_prompt)
    except _RAISED as e:
        said = " ".join(str(e).split()) or type(e).__name__
        if has_system:
            try:
                _render(tokenizer, template, num_turns, False, is_prompt)
            except _RAISED:
                pass  # the system message is not what it fails at
            else:
                raise UserError(_no_system(f"refuses it ({said})")) from None
        raise UserError(
            f"models.<model>.template: the tokenizer's chat template cannot write a chat of {num_turns} turn(s) "
            f"({type(e).__name__}: {said}); {HOW_TO_WRITE_ONE}."
        ) from None


def _render(
    tokenizer: PreTrainedTokenizerFast, template: ChatTemplate, num_turns: int, has_system: bool, is_prompt: bool
) -> str:
    messages = [{"role": "system", "content": _SYSTEM}] if has_system else []
    messages += [{"role": ("user", "assistant")[i % 2], "content": _mark(i)} for i in range(num_turns)]
    source = _TODAY.sub(lambda match: repr(TODAY.strftime(match["form"])), tokenizer.get_chat_template())
    return tokenizer.apply_chat_template(
        messages, chat_template=source, tokenize=False, add_generation_prompt=is_prompt, **template.variables
    )


def _mark(turn: int) -> str:
    """What stands in for a turn: no template writes it, none of them is part of another."""
    return f"xQturn{turn}Qx"


def _no_system(what: str) -> str:
    return (
        f"models.<model>.template.system is set, and the tokenizer's chat template {what}: the model was made without "
        f"system messages. Remove it, or {HOW_TO_WRITE_ONE}."
    )
