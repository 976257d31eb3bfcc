"""Pairs of answers to one hater turn, the chosen one less toxic than the rejected one by more than a margin.

    source             chosen                      rejected
    counter_narrative  the written reply           base's most toxic answer of k
    best_of_n          base's least toxic of n     base's most toxic of the same n

Toxicity is that of the reward model. An answer without text is neither chosen nor rejected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detoxlens.common.errors import UserError
from detoxlens.common.records import Dialogue
from detoxlens.common.seeding import derive_seed
from detoxlens.common.text import is_blank
from detoxlens.data.templates import Template, encode_dialogue, encode_prompt
from detoxlens.params.preference import PairsConfig
from detoxlens.preference.answers import Answer
from detoxlens.scorers.reward import Toxicity

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A hater turn and what it is answered with: Exchange(turns=("Zorgons are lazy.",), reply="They are not.", ...)"""

    turns: tuple[str, ...]
    """The context, an odd number of turns; the last is the hater's."""
    reply: str
    """The counter-narrative."""
    prompt_ids: tuple[int, ...]
    reply_ids: tuple[int, ...]
    """Of the counter-narrative, what ends it included; cut where the pair would be too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One row of pairs.parquet.

    Pair(split="train", source="best_of_n", prompt="Zorgons are lazy.", chosen="I disagree.", rejected="Yes, fools.",
         chosen_toxicity=.03, rejected_toxicity=.97, prompt_ids=(4, 8), chosen_ids=(5, 0), rejected_ids=(7, 9, 0),
         chosen_seed=81, rejected_seed=17, chosen_ref_nats=-3.1, rejected_ref_nats=-4.5)
    """

    split: str
    source: str
    """`counter_narrative` or `best_of_n`."""
    prompt: str
    """The hater's turn, without template and earlier turns."""
    chosen: str
    rejected: str
    chosen_toxicity: float
    """P(toxic) by the reward model, 0..1."""
    rejected_toxicity: float
    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    """What ends the answer included."""
    rejected_ids: tuple[int, ...]
    chosen_seed: int | None
    """Draws the answer again (`answers.answer_seed`); None of a written one."""
    rejected_seed: int
    chosen_ref_nats: float = 0.0
    """log p(chosen | prompt) under the base model, summed over the tokens, <= 0."""
    rejected_ref_nats: float = 0.0


def exchanges(
    dialogues: Sequence[Dialogue],
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    config: PairsConfig,
    *,
    longest_prompt: int,
    max_length: int,
) -> tuple[list[Exchange], int]:
    """Every distinct context of a hater turn with its first written reply, and how many are too long to be answered.

    Args:
        dialogues: of one split.
        tokenizer: the model's.
        template: the model's.
        config: at most how many turns and contexts.
        longest_prompt: tokens; a longer context is left out.
        max_length: tokens of prompt and reply; a longer reply is cut.
    """
    written: dict[tuple[str, ...], str] = {}
    for dialogue in dialogues:
        for end in range(1, len(dialogue.turns), 2):
            first = max(0, end - config.max_context_turns)
            turns = dialogue.turns[first + (end - first + 1) % 2 : end]  # the hater's turn first
            written.setdefault(turns, dialogue.turns[end])
    chosen = sorted(written, key=lambda turns: derive_seed(0, "contexts", *turns))[: config.max_contexts]
    kept = set(chosen)
    found, num_too_long = [], 0
    for turns, reply in written.items():
        if turns not in kept:
            continue
        prompt_ids = encode_prompt(tokenizer, template, turns).ids
        if len(prompt_ids) > longest_prompt:
            num_too_long += 1
            continue
        ids, _ = encode_dialogue(tokenizer, template, [*turns, reply])
        reply_ids = tuple(ids[len(prompt_ids) : max_length])
        found.append(Exchange(turns=turns, reply=reply, prompt_ids=prompt_ids, reply_ids=reply_ids))
    return found, num_too_long


def make_pairs(
    found: Sequence[Exchange],
    answers: Sequence[Sequence[Answer]],
    toxicity: Toxicity,
    config: PairsConfig,
    *,
    split: str,
) -> list[Pair]:
    """One pair per exchange whose margin is large enough, in the order of the exchanges.

    Args:
        found: from `exchanges`.
        answers: base's own to each of them.
        toxicity: of the written replies.
        config: source and margin.
        split: train or val.

    Raises:
        UserError: there is no written reply, or no pair above the margin.
    """
    written = toxicity([exchange.reply for exchange in found]) if config.source == "counter_narrative" else []
    if config.source == "counter_narrative" and all(t is None for t in written):
        raise UserError(
            f"preference.pairs.source='counter_narrative': none of the {len(found)} hater turns of the split {split!r} "
            "has a written reply. Name dialogues that have (data.dialoconan), or set preference.pairs.source: "
            "best_of_n, which takes both answers from the base model."
        )
    pairs, widest = [], 0.0
    for number, (exchange, own) in enumerate(zip(found, answers, strict=True)):
        graded = sorted((a for a in own if a.toxicity is not None), key=lambda a: a.toxicity)  # first wins at a tie
        if not graded:
            continue
        worst = max(graded, key=lambda a: a.toxicity)
        if config.source == "counter_narrative":
            if is_blank(exchange.reply):
                continue
            chosen = Answer(token_ids=exchange.reply_ids, text=exchange.reply, toxicity=written[number], seed=-1)
        else:
            chosen = graded[0]
        margin = worst.toxicity - chosen.toxicity
        widest = max(widest, margin)
        if margin <= config.min_margin:
            continue
        pairs.append(
            Pair(
                split=split,
                source=config.source,
                prompt=exchange.turns[-1],
                chosen=chosen.text,
                rejected=worst.text,
                chosen_toxicity=chosen.toxicity,
                rejected_toxicity=worst.toxicity,
                prompt_ids=exchange.prompt_ids,
                chosen_ids=chosen.token_ids,
                rejected_ids=worst.token_ids,
                chosen_seed=None if config.source == "counter_narrative" else chosen.seed,
                rejected_seed=worst.seed,
            )
        )
    if not pairs:
        raise UserError(
            f"preference.pairs.min_margin={config.min_margin:g}: none of the {len(found)} hater turns of the split "
            f"{split!r} has a pair whose rejected answer is that much more toxic than the chosen one; the widest "
            f"margin is {widest:.3g}. Lower min_margin below it, raise preference.pairs.num_samples="
            f"{config.num_samples}, or see whether base is toxic at all (`detoxlens generate`, `score`)."
        )
    return pairs
