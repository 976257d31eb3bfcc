"""Training of an embedded base model (`models.tiny`) on the sample's conversations, its tokenizer learnt from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

from detoxlens.common.errors import UserError
from detoxlens.data.chat_template import HOW_TO_WRITE_ONE
from detoxlens.data.sample import base_corpus
from detoxlens.data.templates import encode_dialogue
from detoxlens.jobs.progress import progress
from detoxlens.models import tiny
from detoxlens.params.models import ChatTemplate, ModelConfig
from detoxlens.params.tiny import TinyConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TINY = "tiny:"
"""How the source of an embedded model begins."""


def architecture_of(spec: ModelConfig, name: str) -> tiny.Architecture:
    """The network that the source of the model `name` means.

    Raises:
        UserError: there is no embedded model of that source, or it has no template.
    """
    architecture = spec.source.removeprefix(TINY)
    if architecture not in get_args(tiny.Architecture) or architecture == "roberta":
        raise UserError(
            f"params.yaml: models.{name}.source={spec.source!r}; embedded are tiny:gpt_neox and tiny:falcon."
        )
    if isinstance(spec.template, ChatTemplate):
        raise UserError(
            f"params.yaml: models.{name}.template is missing or chat: an embedded model is made with its chats, and "
            f"has no template until one is written; {HOW_TO_WRITE_ONE.replace('<model>', name)}."
        )
    return architecture


def train_embedded(
    spec: ModelConfig, config: TinyConfig, *, name: str, corpus_seed: int, seed: int, checkpoint: Path
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, tiny.History]:
    """The trained network, its tokenizer and its training curve.

    Args:
        spec: the declared model.
        config: size and training.
        name: its key in params.yaml, for messages.
        corpus_seed: of the conversations, and so of the tokenizer.
        seed: of the order of batches; the weights start from torch's global state (`stage_scratch`).
        checkpoint: where the training is kept, to resume.

    Raises:
        UserError: as `architecture_of`, or the loss is not finite.
    """
    architecture = architecture_of(spec, name)
    corpus = [
        [turn for exchange in conversation for turn in (exchange.human, exchange.reply)]
        for conversation in base_corpus(
            config.num_examples, corpus_seed, rude=config.rude_share, counter=config.counter_share
        )
    ]
    written = [spec.template.user.format(text="") + spec.template.bot]
    tokenizer = tiny.train_tokenizer(written + [turn for turns in corpus for turn in turns], config.vocab_size)
    encoded = [encode_dialogue(tokenizer, spec.template, turns) for turns in corpus]
    ids = [tokens for tokens, _ in encoded]
    weights = [[1.0 if reply else config.prompt_loss_weight for reply in mask] for _, mask in encoded]
    network = tiny.build(architecture, config, vocab_size=len(tokenizer))
    plan = list(tiny.batches([len(i) for i in ids], config.batch_size, config.num_steps, seed))
    with progress(f"train {name}", total=len(plan), unit="steps") as bar:
        history = tiny.fit(
            network,
            plan,
            lambda batch: tiny.causal_lm_loss(
                network, [ids[i] for i in batch], [weights[i] for i in batch], pad_token_id=tokenizer.pad_token_id
            ),
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            checkpoint=checkpoint,
            on_step=bar.advance,
        )
    return network, tokenizer, history
