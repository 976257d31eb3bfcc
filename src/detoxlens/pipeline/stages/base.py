"""Stage base@model: trains an embedded model, converts a GGUF file, or pins a hub model's revision.

outs: models/<m>/base   weights and tokenizer (embedded, GGUF), or model_ref.json alone (hub, local folder)
      adapters/<m>/it   model_ref.json, from which every later stage loads, and the training curve
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from detoxlens.common.artifacts import Layout, write_history, write_model_ref
from detoxlens.common.errors import UserError
from detoxlens.common.records import ModelRef
from detoxlens.data.chat_template import HOW_TO_WRITE_ONE
from detoxlens.data.sample import base_corpus
from detoxlens.data.templates import check_template, encode_dialogue
from detoxlens.jobs.progress import progress
from detoxlens.jobs.scratch import replace_output
from detoxlens.jobs.stage_scratch import stage_scratch
from detoxlens.models import tiny
from detoxlens.models.gguf import check_sha256, convert, find_gguf, is_gguf
from detoxlens.models.loading import load_tokenizer, resolve, weights_sha256
from detoxlens.models.quant import quantization_config
from detoxlens.params.load import Params
from detoxlens.params.models import ChatTemplate, ModelConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)
TINY = "tiny:"


def run(root: Path, params: Params, *, model: str) -> None:
    layout, spec = Layout(root), params.model(model)
    if spec.source.startswith(TINY):
        _train(layout, params, model, spec)
        return
    if is_gguf(spec.source):
        _convert(layout, params, model, spec)
        return
    if spec.quantization:  # refused here, not hours later
        quantization_config(spec.quantization, device=params.run.device, dtype=spec.dtype, name=f"models.{model}")
    ref = resolve(root, spec.source, spec.revision)
    if (root / ref.base).is_dir() or isinstance(spec.template, ChatTemplate):
        tokenizer = load_tokenizer(root, ref, trust_remote_code=spec.trust_remote_code)
        _check_template(tokenizer, spec, model)  # here, not hours later
    for folder in (layout.base(model), layout.adapter(model, "it")):
        shutil.rmtree(folder, ignore_errors=True)  # of an embedded model that went by this name
        write_model_ref(folder, ref)


def _convert(layout: Layout, params: Params, model: str, spec: ModelConfig) -> None:
    """A GGUF file as safetensors, tokenizer and chat template; moved into place when all of it is written."""
    path = find_gguf(layout.root, spec.source)
    check_sha256(path, spec.revision, key=f"{params.path}: models.{model}.revision")
    with stage_scratch(
        layout.root,
        f"base@{model}",
        module=__name__,
        settings={"model": spec.model_dump(exclude={"overrides"})},
        inputs=[path],
        seed=params.run.seed,
        num_threads=params.run.num_threads,
    ) as scratch:
        built, adapter = scratch.path / "base", scratch.path / "it"
        shutil.rmtree(built, ignore_errors=True)  # what a kill has left is not trusted
        contents = convert(path, built, dtype=spec.dtype)
        log.info("%s: %s, %s values", model, contents.title, f"{contents.num_values:,}")
        tokenizer = load_tokenizer(built, ModelRef(base=".", revision="", adapter=None))
        _check_template(tokenizer, spec, model)
        _move_into_place(layout, model, built, adapter)
        scratch.finish()


def _check_template(tokenizer: PreTrainedTokenizerBase, spec: ModelConfig, model: str) -> None:
    """`check_template`, its errors with the model's own key in them."""
    try:
        check_template(tokenizer, spec.template)
    except UserError as e:
        raise UserError(str(e).replace("models.<model>", f"models.{model}")) from None


def _move_into_place(layout: Layout, model: str, built: Path, adapter: Path) -> None:
    """Moves the checkpoint and the folder that refers to it, adapter/model_ref.json, into place."""
    base = layout.base(model).relative_to(layout.root).as_posix()
    write_model_ref(adapter, ModelRef(base=base, revision=weights_sha256(built), adapter=None))
    replace_output(adapter, layout.adapter(model, "it"))
    replace_output(built, layout.base(model))


def _train(layout: Layout, params: Params, model: str, spec: ModelConfig) -> None:
    architecture = spec.source.removeprefix(TINY)
    if architecture not in get_args(tiny.Architecture) or architecture == "roberta":
        raise UserError(
            f"params.yaml: models.{model}.source={spec.source!r}; embedded are tiny:gpt_neox and tiny:falcon."
        )
    if isinstance(spec.template, ChatTemplate):
        raise UserError(
            f"params.yaml: models.{model}.template is missing or chat: an embedded model is made with its chats, and "
            f"has no template until one is written; {HOW_TO_WRITE_ONE.replace('<model>', model)}."
        )
    config, run_config = params.section("tiny", tiny.TinyConfig, model=model), params.run
    with stage_scratch(
        layout.root,
        f"base@{model}",
        module=__name__,
        settings={"tiny": config.model_dump(), "model": spec.model_dump(), "seed": run_config.seed},
        inputs=[],
        seed=run_config.seed,
        num_threads=run_config.num_threads,
    ) as scratch:
        corpus = [
            [turn for exchange in conversation for turn in (exchange.human, exchange.reply)]
            for conversation in base_corpus(
                config.num_examples, run_config.seed, rude=config.rude_share, counter=config.counter_share
            )
        ]
        written = [spec.template.user.format(text="") + spec.template.bot]
        tokenizer = tiny.train_tokenizer(written + [turn for turns in corpus for turn in turns], config.vocab_size)
        encoded = [encode_dialogue(tokenizer, spec.template, turns) for turns in corpus]
        ids = [tokens for tokens, _ in encoded]
        weights = [[1.0 if reply else config.prompt_loss_weight for reply in mask] for _, mask in encoded]
        network = tiny.build(architecture, config, vocab_size=len(tokenizer))
        plan = list(tiny.batches([len(i) for i in ids], config.batch_size, config.num_steps, run_config.seed))
        with progress(f"train {model}", total=len(plan), unit="steps") as bar:
            history = tiny.fit(
                network,
                plan,
                lambda batch: tiny.causal_lm_loss(
                    network, [ids[i] for i in batch], [weights[i] for i in batch], pad_token_id=tokenizer.pad_token_id
                ),
                learning_rate=config.learning_rate,
                weight_decay=config.weight_decay,
                checkpoint=scratch.path / "checkpoint.pt",
                on_step=bar.advance,
            )
        built = scratch.path / "base"
        network.save_pretrained(built)
        tokenizer.save_pretrained(built)
        adapter = scratch.path / "it"
        write_history(adapter, history)
        _move_into_place(layout, model, built, adapter)
        scratch.finish()
