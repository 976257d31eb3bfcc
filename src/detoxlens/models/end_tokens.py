"""End tokens of a reply: those that a checkpoint names in its generation_config, and its tokenizer's own.

A chat model often has two: <|endoftext|> ends a document, <|im_end|> a turn. The same list stands in the model's
generation_config afterwards, where transformers and TRL look for it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from detoxlens.common.tokens import control_ids

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)
EndTokens = int | Sequence[int]
"""One id, or several, each of which ends a reply."""


def end_token_ids(model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The ids that end a reply, the tokenizer's own first."""
    config = getattr(model, "generation_config", None)
    return named_end_tokens(tokenizer, getattr(config, "eos_token_id", None))


def named_end_tokens(tokenizer: PreTrainedTokenizerBase, named: EndTokens | None) -> tuple[int, ...]:
    """The tokenizer's end token and those of `named` that it knows as control tokens.

    An id of ordinary text is no end token: configs without one of their own are given a number that means nothing here
    (Llama's 2, GPT-2's 50256).
    """
    own = tokenizer.eos_token_id
    named = () if named is None else (named,) if isinstance(named, int) else tuple(named)
    others = [i for i in named if i != own]
    known = control_ids(tokenizer) if others else ()
    if ordinary := [i for i in others if i not in known]:
        log.warning(
            "the checkpoint's generation_config has the end token(s) %s, which are ordinary text to its tokenizer and "
            "end no reply",
            ", ".join(map(str, ordinary)),
        )
    return tuple(dict.fromkeys([own, *(i for i in others if i in known)]))


def set_end_tokens(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, more: Sequence[int] = ()
) -> tuple[int, ...]:
    """Writes `end_token_ids` and `more` into the model's generation_config; the ids."""
    ids = tuple(dict.fromkeys([*end_token_ids(model, tokenizer), *more]))
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if getattr(base, "generation_config", None) is not None:
        base.generation_config.eos_token_id = list(ids)
    return ids
