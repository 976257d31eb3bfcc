"""Stage reward_model: trains tiny-roberta on the sample's labels, or pins a hub classifier's revision.

outs: models/reward   model_ref.json, and weights and tokenizer of the embedded classifier
"""

from __future__ import annotations

from pathlib import Path

from detoxlens.common.artifacts import Layout, read_rows, write_history, write_model_ref
from detoxlens.common.records import Dialogue, ModelRef
from detoxlens.data.sample import base_corpus
from detoxlens.jobs.progress import progress
from detoxlens.jobs.scratch import replace_output
from detoxlens.jobs.stage_scratch import stage_scratch
from detoxlens.models import tiny
from detoxlens.models.loading import resolve, weights_sha256
from detoxlens.params.load import Params
from detoxlens.params.reward_model import RewardModelConfig


def run(root: Path, params: Params) -> None:
    layout, config = Layout(root), params.section("reward_model", RewardModelConfig)
    if config.source != "tiny:roberta":
        write_model_ref(layout.reward_model, resolve(root, config.source, config.revision))
        return
    _train(layout, params, config.tiny)


def labelled_texts(dialogues: list[Dialogue], config: tiny.TinyConfig, seed: int) -> list[tuple[str, int]]:
    """Texts with label 1 (hate) or 0: the training dialogues' turns by who speaks, the corpus by its style."""
    labelled = [(t, 1 - i % 2) for d in dialogues if d.split == "train" for i, t in enumerate(d.turns)]
    corpus = base_corpus(config.num_examples, seed, rude=config.rude_share, counter=config.counter_share)
    for conversation in corpus:
        for exchange in conversation:
            labelled.append((exchange.human, int(exchange.style != "civil")))
            labelled.append((exchange.reply, int(exchange.style == "rude")))
    return labelled


def _train(layout: Layout, params: Params, config: tiny.TinyConfig) -> None:
    run_config = params.run
    with stage_scratch(
        layout.root,
        "reward_model",
        module=__name__,
        settings={"tiny": config.model_dump(), "seed": run_config.seed},
        inputs=[layout.dialogues],
        seed=run_config.seed,
        num_threads=run_config.num_threads,
    ) as scratch:
        labelled = labelled_texts(read_rows(layout.dialogues, Dialogue), config, run_config.seed)
        tokenizer = tiny.train_tokenizer([text for text, _ in labelled], config.vocab_size)
        tokenizer.model_max_length = config.context_length
        tiny.wrap_as_roberta(tokenizer)
        ids = tokenizer([text for text, _ in labelled], truncation=True)["input_ids"]
        labels = [label for _, label in labelled]
        network = tiny.build("roberta", config, vocab_size=len(tokenizer))
        plan = list(tiny.batches([len(i) for i in ids], config.batch_size, config.num_steps, run_config.seed))
        with progress("train tiny-roberta", total=len(plan), unit="steps") as bar:
            history = tiny.fit(
                network,
                plan,
                lambda batch: tiny.classifier_loss(
                    network, [ids[i] for i in batch], [labels[i] for i in batch], pad_token_id=tokenizer.pad_token_id
                ),
                learning_rate=config.learning_rate,
                weight_decay=config.weight_decay,
                checkpoint=scratch.path / "checkpoint.pt",
                on_step=bar.advance,
            )
        built = scratch.path / "reward"
        network.save_pretrained(built)
        tokenizer.save_pretrained(built)
        base = layout.reward_model.relative_to(layout.root).as_posix()
        write_model_ref(built, ModelRef(base=base, revision=weights_sha256(built), adapter=None))
        write_history(built, history)
        replace_output(built, layout.reward_model)
        scratch.finish()
