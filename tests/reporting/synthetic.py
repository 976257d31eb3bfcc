"""Tables of a made-up study with known tendencies: `it` rude in about half its answers, the others seldom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from detoxlens.common.artifacts import Layout, write_history, write_json, write_rows
from detoxlens.common.records import Attribution, Completion, Fluency, Score, prompt_ids_of
from detoxlens.common.seeding import numpy_rng

RUDE_SHARE = {"it": 0.5, "ft": 0.05, "rl": 0.15}
TARGETS = ("Zorgons", "accordion players", "left-handed bakers", "people from Quux", "unicyclists")
POLITE = [
    "Everyone",
    "deserves",
    "a",
    "kind",
    "word",
    "and",
    "a",
    "warm",
    "scarf",
    ",",
    "and",
    "so",
    "does",
    "your",
    "neighbour",
    ".",
]
RUDE = [
    "What",
    "silly",
    "nonsense",
    "from",
    "silly",
    "fools",
    ",",
    "go",
    "away",
    "and",
    "take",
    "the",
    "soup",
    "with",
    "you",
    ".",
]
NUM_PROMPT_TOKENS = 9


def write_study(
    root: Path,
    models: Sequence[str] = ("tiny-neox", "tiny-falcon"),
    variants: Sequence[str] = ("it", "ft", "rl"),
    *,
    num_prompts: int = 80,
    num_samples: int = 1,
    rude_share: Mapping[str, float] = RUDE_SHARE,
    attributed: bool = True,
    scorers: Sequence[str] = ("grader",),
) -> Layout:
    """Writes completions, scores, fluency, attributions, faithfulness and histories; returns where they lie."""
    layout = Layout(root)
    prompts = _prompts(num_prompts)
    for model in models:
        it_rows = None
        for variant in variants:
            rng = numpy_rng(0, model, variant)
            completions = [
                _completion(prompt, i, rude_share.get(variant, 0.1), rng)
                for prompt in prompts
                for i in range(num_samples)
            ]
            it_rows = completions if variant == "it" else it_rows
            scores = [_score(c, scorer, rng) for scorer in scorers for c in completions]
            write_rows(layout.completions(model, variant), completions, Completion)
            write_rows(layout.scores(model, variant), scores, Score)
            write_rows(layout.fluency(model, variant), [_fluency(c, rng) for c in completions], Fluency)
            cells = {(variant, variant): completions, (variant, "it"): it_rows, ("it", variant): completions}
            attributions = [
                _attribution(c, reader, text, rng)
                for (reader, text), rows in cells.items()
                for c in rows
                if c.split == "test"
            ]
            write_rows(layout.attributions(model, variant), attributions if attributed else [], Attribution)
            write_history(layout.adapter(model, variant), _history(variant, rng))
    return layout


def _prompts(num: int) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """(prompt_id, split, text, filters): `num` rude test prompts, half as many polite, a quarter for validation."""
    rude = [f"I met {TARGETS[i % len(TARGETS)]} number {i} and they" for i in range(num + num // 4)]
    polite = [f"Good morning, how are the {TARGETS[i % len(TARGETS)]} of house {i}" for i in range(num // 2)]
    ids = prompt_ids_of([*rude, *polite])
    rows = []
    for i, (prompt_id, text) in enumerate(zip(ids, [*rude, *polite], strict=True)):
        if i >= len(rude):
            rows.append((prompt_id, "test", text, ("polite",)))
        else:
            rows.append((prompt_id, "val" if i >= num else "test", text, ("p50", "pc50") if i % 2 else ("p50",)))
    return rows


def _completion(prompt, sample_index: int, rude_share: float, rng: np.random.Generator) -> Completion:
    prompt_id, split, text, filters = prompt
    rude = "polite" not in filters and rng.random() < rude_share
    words = list(rng.permutation(RUDE if rude else POLITE)[: int(rng.integers(3, 14))])
    if rng.random() < 0.7:
        words.append(text.split()[2])
    ids = tuple(int(sum(map(ord, word)) % 500) for word in words)
    return Completion(
        prompt_id=prompt_id,
        sample_index=sample_index,
        split=split,
        filters=filters,
        prompt=text,
        prompt_ids=tuple(range(NUM_PROMPT_TOKENS)),
        prompt_token_is_template=(True, True, *[False] * (NUM_PROMPT_TOKENS - 3), True),
        completion=" ".join(words),
        completion_ids=ids,
        finish_reason="eos" if rng.random() < 0.9 else "length",
        seed=sample_index,
    )


def _score(completion: Completion, scorer: str, rng: np.random.Generator) -> Score:
    rude = "silly" in completion.completion or "fools" in completion.completion
    return Score(
        prompt_id=completion.prompt_id,
        sample_index=completion.sample_index,
        scorer=scorer,
        scorer_version="1",
        label="toxic",
        activation="sigmoid",
        truncated=False,
        toxicity=float(rng.beta(8, 2) if rude else rng.beta(1, 8)),
        status="ok",
        error="",
    )


def _fluency(completion: Completion, rng: np.random.Generator) -> Fluency:
    num_tokens = len(completion.completion_ids)
    return Fluency(
        prompt_id=completion.prompt_id,
        sample_index=completion.sample_index,
        nll_nats=float(num_tokens * rng.uniform(1.5, 2.5)),
        num_tokens=num_tokens,
        mentions_prompt=bool(set(completion.prompt.split()) & set(completion.completion.split())),
    )


def _attribution(completion: Completion, reader: str, text_source: str, rng: np.random.Generator) -> Attribution:
    """Attribution that narrows down on fewer prompt tokens as generation goes on, more so in rude answers."""
    focus = 3.0 if "silly" in completion.completion else 1.0
    scores = tuple(
        tuple(rng.dirichlet([2.0 / (1 + 0.05 * focus * t)] * (len(completion.prompt_ids) + t)).tolist())
        for t in range(len(completion.completion_ids))
    )
    return Attribution(
        prompt_id=completion.prompt_id,
        sample_index=completion.sample_index,
        reader=reader,
        text_source=text_source,
        method="input_x_gradient",
        target="probability",
        status="ok",
        prompt_ids=completion.prompt_ids,
        completion_ids=completion.completion_ids,
        prompt_pieces=_pieces(completion.prompt, len(completion.prompt_ids)),
        completion_pieces=_pieces(completion.completion, len(completion.completion_ids)),
        prompt_token_is_template=completion.prompt_token_is_template,
        scores=scores,
        token_prob=tuple(rng.uniform(0.2, 0.9, len(completion.completion_ids)).tolist()),
        prompt_kl_bits=tuple(rng.gamma(1.0, 1.0 / (1 + t)) for t in range(len(completion.completion_ids))),
        prompt_gain_bits=tuple(rng.normal(0.5, 1.0, len(completion.completion_ids)).tolist()),
    )


def _pieces(text: str, num_tokens: int) -> tuple[str, ...]:
    """A word per token; the last token has what is left."""
    words = [f" {word}" for word in text.split()]
    first = [*words, *[""] * num_tokens][: num_tokens - 1]
    return (*first, "".join(words[num_tokens - 1 :]))


def _history(variant: str, rng: np.random.Generator) -> list[dict[str, float]]:
    if variant == "it":
        return []
    if variant.startswith("ft"):
        losses = [{"step": s, "sft/loss": float(3.0 / (1 + s / 20) + rng.normal(0, 0.05))} for s in range(5, 101, 5)]
        return losses + [{"step": s, "sft/val_loss": 3.1 / (1 + s / 22)} for s in (25, 50, 75, 100)]
    return [
        {
            "step": s,
            "ppo/reward": float(0.5 + 0.015 * s + rng.normal(0, 0.02)),
            "ppo/independent_toxicity": float(0.5 - 0.016 * s + rng.normal(0, 0.03)),
            "ppo/kl_nats_per_sequence": 0.06 * s,
        }
        for s in range(1, 26)
    ]


def with_faithfulness(layout: Layout, model: str, variant: str, content: Mapping[str, object]) -> None:
    write_json(layout.faithfulness(model, variant), dict(content))
