"""What a penalty on the use of the prompt looks at in the prompts of PPO (`detoxlens.regularization`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from detoxlens.attribution.pieces import pieces_of
from detoxlens.common.errors import UserError
from detoxlens.data.templates import Template, encode_prompt
from detoxlens.evaluation.toxic_words import Judge
from detoxlens.params.regularizer import RegularizerConfig
from detoxlens.regularization.columns import MarkedSequence
from detoxlens.regularization.regularizer import Regularizer, check_regularizer
from detoxlens.regularization.toxic_tokens import toxic_tokens
from detoxlens.rl.learner import Marks

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase


def prompt_marks(
    tokenizer: PreTrainedTokenizerBase, template: Template, contexts: Sequence[Sequence[str]], judge: Judge | None
) -> Marks:
    """Marks the last human turn of each context, and its toxic words; without a judge no word is toxic."""
    marks = {}
    for turns in contexts:
        prompt = encode_prompt(tokenizer, template, turns)
        exchange = [int(region == "user") for region in prompt.regions]
        is_toxic = [False] * len(exchange)
        if judge is not None:
            is_toxic = toxic_tokens({1: turns[-1]}, exchange, pieces_of(tokenizer, prompt.ids), judge)
        marks[prompt.ids] = exchange, is_toxic
    return marks


def check_penalty(config: RegularizerConfig, model: PeftModel, marks: Marks, *, seed: int) -> None:
    """Raises UserError if the penalty cannot be computed on the model, or no prompt has what it looks at."""
    regularizer = Regularizer(config, seed=seed, section="ppo")
    check_regularizer(regularizer, model)
    replied = (
        MarkedSequence(ids=(*ids, 0), exchange=(*exchange, -1), is_toxic=(*is_toxic, False))
        for ids, (exchange, is_toxic) in marks.items()
    )
    if not any(len(regularizer.rows(sequence)) for sequence in replied):
        missing = "with toxic words and others" if config.kind == "toxic_share" else "of two tokens or more"
        raise UserError(
            f"ppo.regularizer.kind={config.kind!r}: none of the {len(marks)} prompts ends in a human turn {missing}, "
            "so there is nothing to penalise. Set kind: none, or check data.dialoconan."
        )
