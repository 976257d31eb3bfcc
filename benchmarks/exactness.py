"""Rounding errors of attribution, ours and Inseq's: this project's trained adapters, in float64 and in float32.

In float64 the two must agree; what is left is Captum's path of integrated gradients, whose nodes are float32. Against
that, the error of each in float32 shows what the formula costs where the model is sure: with p near 1, p (1 - p) of the
probability's gradient is lost in rounding, the log-odds' is not.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.attribution import max_abs_difference
from benchmarks.cases import Text
from benchmarks.hardware import hardware
from benchmarks.script import run, write_figures
from detoxlens.attribution.api import attribute
from detoxlens.attribution.inseq_backend import id_tokenizer
from detoxlens.attribution.sampling import choose
from detoxlens.common.artifacts import Layout, read_model_ref, read_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Completion
from detoxlens.common.seeding import use_threads
from detoxlens.models.loading import load_model
from detoxlens.params.attribution import AttributionConfig
from detoxlens.params.load import Params, load_params

METHODS = ("input_x_gradient", "saliency", "integrated_gradients")
NUM_PATH_STEPS = 20
Scores = list[list[list[float]]]
"""Text, generated token, token before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exactness:
    """One variant by one method: largest absolute differences of any normalised score."""

    model: str
    variant: str
    method: str
    num_texts: int
    num_scores: int
    highest_token_prob: float
    """The surest generated token's probability, 0..1."""
    float64_difference: float
    """|ours - Inseq|, both in float64."""
    float32_error_ours: float
    """|ours in float32 - Inseq in float64|."""
    float32_error_inseq: float
    """|Inseq in float32 - Inseq in float64|."""


def bench_exactness(root: Path, params_path: Path, *, num_texts: int, num_threads: int) -> None:
    """Measures every trained variant, prints the table, writes benchmarks/results/exactness.json.

    Args:
        root: repository root.
        params_path: params.yaml.
        num_texts: completions per variant, evenly spaced over those that the stage `attribute` takes.
        num_threads: torch's threads.

    Raises:
        UserError: there is no trained variant with completions.
    """
    use_threads(num_threads)
    params, layout, console = load_params(params_path), Layout(root), Console(highlight=False)
    found: list[Exactness] = []
    for model in params.run.models:
        for variant in params.run.variants:
            ref = layout.adapter(model, variant) / "model_ref.json"
            if ref.exists() and read_model_ref(ref.parent).adapter and layout.completions(model, variant).exists():
                found += measure(layout, params, model, variant, num_texts)
    if not found:
        raise UserError("No variant of run.models has an adapter and completions; run `dvc repro`.")
    console.print(table_of(found))
    figures = {"hardware": hardware(), "cases": [dataclasses.asdict(e) for e in found]}
    console.print(f"Wrote {write_figures(root, 'exactness', figures)}")


def measure(layout: Layout, params: Params, model: str, variant: str, num_texts: int) -> list[Exactness]:
    """One variant by every gradient method."""
    table = layout.completions(model, variant)
    config = params.section("attribution", AttributionConfig, model=model, variant=variant)
    rows = choose(read_rows(table, Completion), config, seed=params.run.seed, where=table)
    rows = [c for c in rows if c.completion_ids]
    texts = [(c.prompt_ids, c.completion_ids) for c in rows[:: max(1, len(rows) // num_texts)][:num_texts]]
    spec = params.model(model).model_copy(update={"dtype": "float32", "quantization": None})
    network = load_model(layout.root, read_model_ref(layout.adapter(model, variant)), spec, device="cpu")
    exact = copy.deepcopy(network).double()
    merged, merged_exact = (copy.deepcopy(n).merge_and_unload() for n in (network, exact))  # Inseq takes no PeftModel
    used = {i for text in texts for ids in text for i in ids}
    unused = [i for i in range(merged.get_input_embeddings().num_embeddings) if i not in used]
    found = []
    for method in METHODS:
        (ours, probs), (ours_exact, _) = (our_scores(n, texts, method, baseline_id=unused[1]) for n in (network, exact))
        inseq, reference = (
            inseq_scores(n, texts, method, pad_id=unused[0], unk_id=unused[1]) for n in (merged, merged_exact)
        )
        found.append(
            Exactness(
                model=model,
                variant=variant,
                method=method,
                num_texts=len(texts),
                num_scores=sum(len(row) for text in reference for row in text),
                highest_token_prob=max(probs),
                float64_difference=max_abs_difference(ours_exact, reference),
                float32_error_ours=max_abs_difference(ours, reference),
                float32_error_inseq=max_abs_difference(inseq, reference),
            )
        )
    return found


def our_scores(model: nn.Module, texts: Sequence[Text], method: str, *, baseline_id: int) -> tuple[Scores, list[float]]:
    """Scores, and the probability of every generated token."""
    found = attribute(
        model,
        prompt_ids=[p for p, _ in texts],
        completion_ids=[c for _, c in texts],
        method=method,
        num_path_steps=NUM_PATH_STEPS,
        baseline_id=baseline_id,
    )
    scores = [[list(row) for row in a.scores or ()] for a in found]
    return scores, [p for a in found for p in a.token_prob or ()]


def inseq_scores(model: nn.Module, texts: Sequence[Text], method: str, *, pad_id: int, unk_id: int) -> Scores:
    """Inseq's aggregated scores in the model's own precision; neither `pad_id` nor `unk_id` may occur in a text."""
    tokenizer = id_tokenizer(model.get_input_embeddings().num_embeddings, pad_id=pad_id, unk_id=unk_id)
    path = {"n_steps": NUM_PATH_STEPS} if method == "integrated_gradients" else {}
    own_pad, found = model.config.pad_token_id, []
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")  # captum and treescope warn on import and on every call
        import inseq

        try:
            model.config.pad_token_id = pad_id
            wrapped = inseq.load_model(model, method, tokenizer=tokenizer, device="cpu")
            with _unrounded():
                for prompt, completion in texts:
                    words = tokenizer.convert_ids_to_tokens([*prompt, *completion])
                    out = wrapped.attribute(
                        " ".join(words[: len(prompt)]),
                        " ".join(words),
                        show_progress=False,
                        attributed_fn="probability",
                        **path,
                    )
                    scores = out.sequence_attributions[0].aggregate().target_attributions
                    found.append([scores[: len(prompt) + t, t].tolist() for t in range(len(completion))])
        finally:
            model.config.pad_token_id = own_pad
    return found


@contextlib.contextmanager
def _unrounded() -> Iterator[None]:
    """Inseq rounds every step's result to float32; inside this block it does not."""
    from inseq.data.attribution import FeatureAttributionStepOutput as Step

    def keep(self) -> None:
        self._num_dimensions = self._num_dimensions or 0
        self.step_scores = self.step_scores or {}
        self.sequence_scores = self.sequence_scores or {}

    rounding = Step.__post_init__
    Step.__post_init__ = keep
    try:
        yield
    finally:
        Step.__post_init__ = rounding


def table_of(found: Sequence[Exactness]) -> Table:
    """One row per variant and method."""
    table = Table(
        title="Largest difference of a score (0..1) to Inseq in float64", title_justify="left", padding=(0, 0)
    )
    for head in ("variant", "method"):
        table.add_column(head, no_wrap=True)
    for head in ("top p", "ours f64", "ours f32", "Inseq f32"):
        table.add_column(head, justify="right", no_wrap=True)
    for e in found:
        differences = (e.float64_difference, e.float32_error_ours, e.float32_error_inseq)
        numbers = [f"{e.highest_token_prob:.6f}", *(f"{d:.1e}" for d in differences)]
        table.add_row(f"{e.model}/{e.variant}", e.method, *numbers)
    return table


def main(
    texts: Annotated[int, typer.Option(min=1, help="Completions per trained variant.")] = 4,
    num_threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 2,
) -> None:
    """Compare our scores with Inseq's on this project's trained adapters, in float64 and in float32."""
    bench_exactness(Path(), Path("params.yaml"), num_texts=texts, num_threads=num_threads)


if __name__ == "__main__":
    run(main)
