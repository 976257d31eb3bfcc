"""Stage base@model: trains an embedded model, converts a GGUF file, or pins a hub model's revision.

outs: models/<m>/base   weights and tokenizer (embedded, GGUF), or model_ref.json alone (hub, local folder)
      adapters/<m>/it   model_ref.json, from which every later stage loads, and the training curve
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from detoxlens.common.artifacts import Layout, write_history, write_model_ref
from detoxlens.common.errors import UserError
from detoxlens.common.records import ModelRef
from detoxlens.data.templates import check_template
from detoxlens.jobs.scratch import replace_output
from detoxlens.jobs.stage_scratch import stage_scratch
from detoxlens.models.gguf import check_sha256, convert, find_gguf, is_gguf
from detoxlens.models.loading import load_tokenizer, resolve, weights_sha256
from detoxlens.models.quant import quantization_config
from detoxlens.params.load import Params
from detoxlens.params.models import ChatTemplate, ModelConfig
from detoxlens.params.tiny import TinyConfig
from detoxlens.pipeline.embedded_model import TINY, architecture_of, train_embedded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)


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
    architecture_of(spec, model)  # refused here, before a folder is made
    config, run_config = params.section("tiny", TinyConfig, model=model), params.run
    with stage_scratch(
        layout.root,
        f"base@{model}",
        module=__name__,
        settings={"tiny": config.model_dump(), "model": spec.model_dump(), "seed": run_config.seed},
        inputs=[],
        seed=run_config.seed,
        num_threads=run_config.num_threads,
    ) as scratch:
        network, tokenizer, history = train_embedded(
            spec,
            config,
            name=model,
            corpus_seed=run_config.seed,
            seed=run_config.seed,
            checkpoint=scratch.path / "checkpoint.pt",
        )
        built = scratch.path / "base"
        network.save_pretrained(built)
        tokenizer.save_pretrained(built)
        adapter = scratch.path / "it"
        write_history(adapter, history)
        _move_into_place(layout, model, built, adapter)
        scratch.finish()
