"""The reply in what a model wrote: one function for the reward, the selector, the grader and the tables.

ids   They keep time . \\n <human> : you fool EOS       stop = ("<human>:",)
kept  They keep time . \\n                              text "They keep time.", finish_reason "stop"
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detoxlens.common.records import FinishReason
from detoxlens.data.templates import Template, next_turn_marks
from detoxlens.params.generation import GenerationConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast


def stops_of(config: GenerationConfig, tokenizer: PreTrainedTokenizerFast, template: Template) -> tuple[str, ...]:
    """The texts at which replies end: `generation.stop`, what begins the human's next turn written out."""
    return next_turn_marks(tokenizer, template) if config.stop == "next_turn" else config.stop


@dataclass(frozen=True, slots=True)
class Reply:
    """Reply(token_ids=(5, 9), text="the cat", finish_reason="eos")"""

    token_ids: tuple[int, ...]
    """Without the end token, up to where the human's next turn begins."""
    text: str
    """Without special tokens and surrounding white space; what spells a special token in letters is text."""
    finish_reason: FinishReason


def reply_of(
    tokenizer: PreTrainedTokenizerBase,
    token_ids: Sequence[int],
    finish_reason: FinishReason,
    *,
    stop: Sequence[str] = (),
) -> Reply:
    """The reply in what was generated.

    Args:
        tokenizer: the model's.
        token_ids: all that was generated; the last is the end token iff `finish_reason` is `eos`.
        finish_reason: why generation ended.
        stop: texts at the first of which the reply ends; a line break at the beginning of one also stands for the
            beginning of the reply.
    """
    ids = tuple(token_ids[:-1] if finish_reason == "eos" else token_ids)
    if stop:
        written = "\n" + _decode(tokenizer, ids, skip_special_tokens=False)
        found = [at for text in stop if (at := written.find(text)) >= 0]
        if found:
            ids, finish_reason = _up_to(tokenizer, ids, max(0, min(found) - 1)), "stop"
    return Reply(ids, _decode(tokenizer, ids, skip_special_tokens=True).strip(), finish_reason)


def _up_to(tokenizer: PreTrainedTokenizerBase, ids: tuple[int, ...], num_characters: int) -> tuple[int, ...]:
    """The most of the first tokens that spell no more than so many characters."""
    num = len(ids)
    while num and len(_decode(tokenizer, ids[:num], skip_special_tokens=False)) > num_characters:
        num -= 1
    return ids[:num]


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
    return tokenizer.decode(ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False)
