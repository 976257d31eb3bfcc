"""A made-up study of any size: prompts as RealToxicityPrompts has them, and the tables that `generate` and `attribute`
would write of two variants. Words are made up, toxicities are drawn; nothing in it is unkind.

    write_project(folder, root, num_prompts)      params.yaml, data/raw/prompts.jsonl, a base model of random weights
    `detoxlens prepare` in folder
    write_completions(folder)                     from data/prepared/prompts.parquet: outputs/made-up/{it,ft}
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from detoxlens.common.arrow import arrow_schema
from detoxlens.common.artifacts import Layout, read_rows, write_model_ref, write_rows
from detoxlens.common.records import Attribution, Completion, ModelRef, Prompt, Score
from detoxlens.common.seeding import derive_seed
from detoxlens.data.realtoxicityprompts import CATEGORIES
from detoxlens.models.loading import weights_sha256
from detoxlens.params.edit import change_params

MODEL, VARIANTS = "made-up", ("it", "ft")
NUM_SAMPLES = 25
"""Completions of a prompt, as Gehman et al. 2020 and the paper have them."""
NUM_ATTRIBUTED = 60
"""Test prompts with attributions: the stage takes a fixed number, whatever the number of prompts."""
WORDS = tuple(a + b + c for a, b, c in product(("ba", "de", "ki", "lo", "mu", "na", "po", "ri", "su", "te"), repeat=3))
"""Token i is word i."""
BOS, BOT, EOS = len(WORDS), len(WORDS) + 1, len(WORDS) + 2
VOCAB = len(WORDS) + 3
TARGETS = ("Zorgons", "unicyclists", "people from Quux")
TOXIC_SHARE = {"it": 0.3, "ft": 0.1}
ROW_GROUP = 2**20
"""Rows that `generate` writes together."""

SETTINGS = {
    "run.models": [MODEL],
    "run.variants": list(VARIANTS),
    "run.sft_variants": ["ft"],
    "run.rl_variants": [],
    "run.num_threads": 1,
    "variants": {"it": {"kind": "base"}, "ft": {"kind": "sft"}},
    "models": {
        MODEL: {
            "source": f"models/{MODEL}/base",
            "template": {"user": "<human>: {text}\n", "bot": "<bot>:", "reply": " {text}", "end": "\n"},
        }
    },
    "data.rtp": "data/raw/prompts.jsonl",
    "splits": {  # every prompt is of the first or of the last
        "p50": {"where": {"prompt.toxicity": {"gt": 0.5}}},
        "pc50": {"where": {"prompt.toxicity": {"gt": 0.5}, "continuation.toxicity": {"gt": 0.5}}},
        "polite": {"where": {"prompt.toxicity": {"le": 0.5}}},
    },
    "toxicity.scorers": ["recorded"],
    "toxicity.headline": "recorded",
    "report.civil_splits": ["polite"],
    "generation.num_samples": NUM_SAMPLES,
    "attribution.max_sequences": NUM_ATTRIBUTED,
}


def write_project(folder: Path, root: Path, num_prompts: int, *, seed: int = 0) -> None:
    """A folder with what `prepare` and the base model of `score` need; no checkout, no results.

    Args:
        folder: is made.
        root: the checkout whose params.yaml and sample data it takes.
        num_prompts: lines of data/raw/prompts.jsonl.
        seed: of the texts.
    """
    (folder / "data/raw").mkdir(parents=True)
    shutil.copy(root / "params.yaml", folder)
    change_params(folder / "params.yaml", {tuple(key.split(".")): value for key, value in SETTINGS.items()})
    (folder / "data/sample").symlink_to((root / "data/sample").resolve())
    rng = np.random.default_rng(derive_seed(seed, "growth", "prompts"))
    with (folder / "data/raw/prompts.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in prompt_rows(num_prompts, rng))
    _write_model(folder)


def prompt_rows(num: int, rng: np.random.Generator) -> Iterator[dict[str, object]]:
    """Lines of RealToxicityPrompts: the scores of Perspective's attributes are uniform, a third names a group."""
    for number in range(num):
        words = _words(_tokens(int(rng.integers(8, 15)), rng))
        group = f" {TARGETS[number % len(TARGETS)]} and" if rng.random() < 1 / 3 else ""
        scores = dict(zip(("toxicity", *CATEGORIES), rng.random(1 + len(CATEGORIES)).round(3).tolist(), strict=True))
        yield {
            "prompt": {"text": words.capitalize() + group} | scores,
            "continuation": {"text": " " + _words(_tokens(8, rng)), "toxicity": round(float(rng.random()), 3)},
            "challenging": False,
        }


def write_completions(folder: Path, *, seed: int = 0) -> None:
    """outputs/made-up/<variant>: completions, recorded scores and attributions, for the prompts that were prepared."""
    layout = Layout(folder)
    prompts = [p for p in read_rows(layout.prompts, Prompt) if p.split != "train"]
    chosen = [p for p in prompts if p.split == "test" and "p50" in p.filters][:NUM_ATTRIBUTED]
    attributed: dict[str, list[Attribution]] = {}
    for variant in VARIANTS:
        rng = np.random.default_rng(derive_seed(seed, "growth", variant))
        path = layout.completions(MODEL, variant)
        path.parent.mkdir(parents=True, exist_ok=True)
        recorded, block = path.with_name("recorded.parquet"), ROW_GROUP // NUM_SAMPLES
        with (
            pq.ParquetWriter(path, arrow_schema(Completion), compression="zstd") as completions,
            pq.ParquetWriter(recorded, arrow_schema(Score), compression="zstd") as scores,
        ):
            for start in range(0, len(prompts), block):
                part = prompts[start : start + block]
                completions.write_table(completion_table(part, rng))
                scores.write_table(score_table(part, TOXIC_SHARE[variant], rng))
        cells = [(variant, variant)] if variant == "it" else [(variant, variant), (variant, "it"), ("it", variant)]
        attributed[variant] = [_attribution(p, *cell, seed) for cell in cells for p in chosen]
        write_rows(layout.attributions(MODEL, variant), attributed[variant], Attribution)


def completion_table(prompts: Sequence[Prompt], rng: np.random.Generator) -> pa.Table:
    """`NUM_SAMPLES` rows per prompt: 5 to 35 tokens, a word each."""
    num = len(prompts) * NUM_SAMPLES
    of_prompt = np.repeat(np.arange(len(prompts)), NUM_SAMPLES)
    lengths = rng.integers(5, 36, num)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = _tokens(int(offsets[-1]), rng)
    names = np.array(WORDS, dtype=object)[tokens].tolist()
    texts = [" ".join(names[a:b]) for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]
    prompt_ids = [_prompt_ids(p.text) for p in prompts]
    is_template = [[True, *[False] * (len(ids) - 2), True] for ids in prompt_ids]
    columns = {
        "prompt_id": [p.prompt_id for p in prompts],
        "sample_index": np.tile(np.arange(NUM_SAMPLES), len(prompts)),
        "split": [p.split for p in prompts],
        "filters": [list(p.filters) for p in prompts],
        "prompt": [p.text for p in prompts],
        "prompt_ids": prompt_ids,
        "prompt_token_is_template": is_template,
        "completion": texts,
        "completion_ids": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(tokens)),
        "finish_reason": np.where(rng.random(num) < 0.9, "eos", "length"),
        "seed": rng.integers(0, 2**62, num),
    }
    schema = arrow_schema(Completion)
    found = {name: pa.array(column, schema.field(name).type) for name, column in columns.items()}
    return pa.table({n: a if len(a) == num else a.take(pa.array(of_prompt)) for n, a in found.items()}, schema=schema)


def score_table(prompts: Sequence[Prompt], toxic_share: float, rng: np.random.Generator) -> pa.Table:
    """Of a share of the completions near 1, of the others near 0; one in a thousand has none."""
    num = len(prompts) * NUM_SAMPLES
    toxicity = np.where(rng.random(num) < toxic_share, rng.beta(8, 2, num), rng.beta(1, 8, num)).round(4)
    failed = rng.random(num) < 0.001
    columns = {
        "prompt_id": np.repeat([p.prompt_id for p in prompts], NUM_SAMPLES),
        "sample_index": np.tile(np.arange(NUM_SAMPLES), len(prompts)),
        "scorer": np.full(num, "recorded"),
        "scorer_version": np.full(num, "made-up"),
        "label": np.full(num, "toxicity"),
        "activation": np.full(num, "recorded"),
        "truncated": np.zeros(num, bool),
        "toxicity": toxicity,
        "status": np.where(failed, "failed", "ok"),
        "error": np.where(failed, "no answer", ""),
    }
    schema = arrow_schema(Score)
    masks = {"toxicity": failed}
    return pa.table(
        {n: pa.array(column, schema.field(n).type, mask=masks.get(n)) for n, column in columns.items()}, schema=schema
    )


def _attribution(prompt: Prompt, reader: str, text_source: str, seed: int) -> Attribution:
    """Of the first completion's length; shares are Dirichlet."""
    rng = np.random.default_rng(derive_seed(seed, "growth", prompt.prompt_id, text_source))
    ids = _prompt_ids(prompt.text)
    tokens = _tokens(int(rng.integers(12, 24)), rng).tolist()
    rng = np.random.default_rng(derive_seed(seed, "growth", prompt.prompt_id, text_source, reader))
    rows = tuple(tuple(rng.dirichlet(np.ones(len(ids) + t)).tolist()) for t in range(len(tokens)))
    kl_bits, gain_bits, prob = (tuple(rng.random(len(tokens)).tolist()) for _ in range(3))
    return Attribution(
        prompt_id=prompt.prompt_id,
        sample_index=0,
        reader=reader,
        text_source=text_source,
        method="input_x_gradient",
        target="probability",
        status="ok",
        prompt_ids=tuple(ids),
        completion_ids=tuple(tokens),
        prompt_pieces=("<human>:", *(f" {WORDS[i]}" for i in ids[1:-1]), "\n<bot>:"),
        completion_pieces=tuple(f" {WORDS[i]}" for i in tokens),
        prompt_token_is_template=(True, *[False] * (len(ids) - 2), True),
        scores=rows,
        token_prob=prob,
        prompt_kl_bits=kl_bits,
        prompt_gain_bits=gain_bits,
    )


def _tokens(num: int, rng: np.random.Generator) -> np.ndarray:
    """(num,) words, the early ones of `WORDS` more often, as in a language."""
    return (len(WORDS) * rng.random(num) ** 2).astype(np.int64)


def _words(tokens: np.ndarray) -> str:
    return " ".join(WORDS[i] for i in tokens.tolist())


_NUMBER = {word: number for number, word in enumerate(WORDS)}


def _prompt_ids(text: str) -> list[int]:
    """A token per word, between the template's two; a word that is none of ours is the first."""
    return [BOS, *(_NUMBER.get(word.casefold(), 0) for word in text.split()), BOT]


def _write_model(folder: Path) -> None:
    """models/made-up/base: a GPT-NeoX of one layer of width 16, random weights, with a tokenizer of our words."""
    import torch
    import transformers as hf
    from tokenizers import Tokenizer, models, pre_tokenizers

    base = Layout(folder).base(MODEL)
    names = {**_NUMBER, "<human>:": BOS, "<bot>:": BOT, "<eos>": EOS}
    tokenizer = Tokenizer(models.WordLevel(names, unk_token=WORDS[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>").save_pretrained(base)
    torch.manual_seed(0)
    config = hf.GPTNeoXConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=256,
        bos_token_id=EOS,
        eos_token_id=EOS,
    )
    hf.AutoModelForCausalLM.from_config(config).save_pretrained(base)
    ref = ModelRef(base=base.relative_to(folder).as_posix(), revision=weights_sha256(base), adapter=None)
    for place in (Layout(folder).reward_model, *(Layout(folder).adapter(MODEL, variant) for variant in VARIANTS)):
        write_model_ref(place, ref)
