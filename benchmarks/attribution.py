"""Attribution beside Inseq's: the same models and texts, in one run.

Inseq is called as the study's authors did, text by text with step_scores=["probability"]; ours gets all texts in one
call and returns the probabilities too. Repetitions are paired (one of each, order alternating), after one untimed
call of either; the speed-up is the median of the pairs' ratios. Loading is not timed.
"""

from __future__ import annotations

import copy
import dataclasses
import statistics
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.cases import Case, demo_case, gpu_case, gpu_cases, neox_256, shape_of
from benchmarks.floor import Floor, Rates, Work, best_seconds, count, floor, measure_rates, timed
from benchmarks.hardware import hardware, in_words
from benchmarks.script import run, write_figures
from detoxlens.attribution.api import attribute
from detoxlens.attribution.inseq_backend import id_tokenizer
from detoxlens.attribution.plan import targets_per_chunk
from detoxlens.common.seeding import use_threads
from detoxlens.params.load import load_params

FLOOR_AIM = 1.3
"""Times the arithmetic floor that is aimed at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one case showed; seconds are for all its texts."""

    case: str
    num_texts: int
    num_prompt_tokens: int
    num_generated_tokens: int
    num_repetitions: int
    ours_seconds: float
    """Median."""
    inseq_seconds: float
    """Median."""
    speedup: float
    """Median of the pairs' ratios, Inseq / ours."""
    speedup_range: tuple[float, float]
    target_speedup: float
    max_abs_difference: float
    """Largest |ours - Inseq| of any normalised score."""
    error_ours: float | None
    """float32 only: largest |ours - ours in float64|."""
    error_inseq: float | None
    """float32 only: largest |Inseq - ours in float64|; where p is near 1, Inseq's p (1 - p) is lost in rounding."""
    floor: Floor
    ours_over_floor: float
    """Ours / arithmetic floor."""
    work: Work
    rates: Rates
    peak_share: float | None
    """On a GPU: the counted operations per second of ours, as a share of a large product's rate."""
    peak_memory_gib: float | None
    """On a GPU: most memory that ours held, weights included."""


def bench_attribution(root: Path, params_path: Path, *, num_repetitions: int, num_threads: int) -> None:
    """Measures every case that this machine can, prints the table, writes benchmarks/results/attribution.json.

    Args:
        root: repository root.
        params_path: params.yaml; says which of the demo's completions are attributed.
        num_repetitions: pairs of measurements per case.
        num_threads: torch's threads, for both.
    """
    use_threads(num_threads)
    found = hardware() | {"num_threads": num_threads}
    console = Console(highlight=False)
    console.print(f"{in_words(found)}; {num_threads} threads")
    measured = [measure(neox_256(), num_repetitions)]
    demo = demo_case(root, load_params(params_path))
    if demo is None:
        console.print("tiny-neox: not measured, there is no model and no output yet; `dvc repro` makes them.")
    else:
        measured.append(measure(demo, num_repetitions))
    if torch.cuda.is_available():
        measured += [measure(gpu_case(name, target), num_repetitions) for name, target in gpu_cases()]
    else:
        names = " and ".join(name for name, _ in gpu_cases())
        console.print(f"{names}: not measured, no GPU was found; nothing is recorded for them.")
    console.print(table_of(measured))
    for m in measured:
        if m.error_ours is not None and m.max_abs_difference > 1e-5:
            console.print(
                f"{m.case}: against float64, ours is off by {m.error_ours:.1e}, Inseq by {m.error_inseq:.1e}."
            )
    figures = {"hardware": found, "cases": [dataclasses.asdict(m) for m in measured]}
    console.print(f"Wrote {write_figures(root, 'attribution', figures)}")


def measure(case: Case, num_repetitions: int) -> Measurement:
    """Both on one case, in pairs."""
    prompts, completions = [p for p, _ in case.texts], [c for _, c in case.texts]

    def ours(model: nn.Module = case.model) -> list[list[Sequence[float]]]:
        found = attribute(model, prompt_ids=prompts, completion_ids=completions)
        return [[] if a.scores is None else list(a.scores) for a in found]

    with inseq_of(case) as inseq:
        scores, other_scores = ours(), inseq()  # also warms both up
        pairs = []
        for i in range(num_repetitions):
            order = (ours, inseq) if i % 2 == 0 else (inseq, ours)
            seconds = {work: timed(work, case.device)[0] for work in order}
            pairs.append((seconds[ours], seconds[inseq]))
    peak_share = peak_memory_gib = error_ours = error_inseq = None
    if case.dtype == torch.float32:
        exact = ours(copy.deepcopy(case.model).double())
        error_ours, error_inseq = (max_abs_difference(found, exact) for found in (scores, other_scores))
    lengths = [(len(p), len(c)) for p, c in case.texts]
    shape = shape_of(case.model)
    work = count(shape, lengths, bytes_per_element=case.dtype.itemsize)
    seq = round(statistics.mean(p + c / 2 for p, c in lengths))
    targets = targets_per_chunk(*max((p + c, c) for p, c in lengths))
    rates = measure_rates(shape, seq=seq, targets=targets, device=case.device, dtype=case.dtype)
    least, ours_seconds = floor(work, rates), statistics.median(o for o, _ in pairs)
    if case.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        ours()
        peak_memory_gib = torch.cuda.max_memory_allocated() / 2**30
        peak_share = (work.weight_flops + work.attention_flops) / ours_seconds / _peak_flops(case.dtype)
    ratios = [i / o for o, i in pairs]
    return Measurement(
        case=case.name,
        num_texts=len(case.texts),
        num_prompt_tokens=sum(p for p, _ in lengths),
        num_generated_tokens=sum(c for _, c in lengths),
        num_repetitions=num_repetitions,
        ours_seconds=ours_seconds,
        inseq_seconds=statistics.median(i for _, i in pairs),
        speedup=statistics.median(ratios),
        speedup_range=(min(ratios), max(ratios)),
        target_speedup=case.target_speedup,
        max_abs_difference=max_abs_difference(scores, other_scores),
        error_ours=error_ours,
        error_inseq=error_inseq,
        floor=least,
        ours_over_floor=ours_seconds / least.matmul_seconds,
        work=work,
        rates=rates,
        peak_share=peak_share,
        peak_memory_gib=peak_memory_gib,
    )


@contextmanager
def inseq_of(case: Case) -> Iterator[Callable[[], list[list[Sequence[float]]]]]:
    """A function that attributes the case's texts with Inseq and gives the aggregated rows of each text."""
    model, used = case.model, {i for text in case.texts for ids in text for i in ids}
    vocabulary = model.get_input_embeddings().num_embeddings
    # Inseq drops padding wherever it stands: what pads must not occur in a text.
    pad, unk = (i for i, _ in zip((i for i in range(vocabulary) if i not in used), range(2), strict=False))
    tokenizer = id_tokenizer(vocabulary, pad_id=pad, unk_id=unk)
    words = [(tokenizer.convert_ids_to_tokens(p), tokenizer.convert_ids_to_tokens((*p, *c))) for p, c in case.texts]
    own_pad = model.config.pad_token_id
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")  # captum and treescope warn on import and on every call
        import inseq

        try:
            model.config.pad_token_id = pad
            wrapped = inseq.load_model(model, "input_x_gradient", tokenizer=tokenizer, device=case.device)

            def attribute_all() -> list[list[Sequence[float]]]:
                rows = []
                for prompt, whole in words:
                    out = wrapped.attribute(
                        " ".join(prompt), " ".join(whole), step_scores=["probability"], show_progress=False
                    )
                    scores = out.sequence_attributions[0].aggregate().target_attributions
                    rows.append([scores[: len(prompt) + t, t].tolist() for t in range(len(whole) - len(prompt))])
                return rows

            yield attribute_all
        finally:
            model.config.pad_token_id = own_pad


def max_abs_difference(ours: list[list[Sequence[float]]], theirs: list[list[Sequence[float]]]) -> float:
    """Largest |difference| of two nested tables of the same form: text, generated token, token before it."""
    return max(
        abs(a - b)
        for text, other_text in zip(ours, theirs, strict=True)
        for row, other in zip(text, other_text, strict=True)
        for a, b in zip(row, other, strict=True)
    )


def _peak_flops(dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product on the GPU."""
    size = 8192
    a = torch.randn(size, size, device="cuda", dtype=dtype)
    return 2 * size**3 / best_seconds(lambda: a @ a, "cuda", 1.0)


def table_of(measured: Sequence[Measurement]) -> Table:
    """One row per case."""
    title = f"Input x gradient, median seconds; aim {FLOOR_AIM} x the floor"
    table = Table(title=title, title_justify="left", padding=(0, 0))
    table.add_column("case", no_wrap=True)
    for head in ("tokens", "ours", "Inseq", "faster", "range", "target", "floor", "x floor", "max |diff|"):
        table.add_column(head, justify="right", no_wrap=True)
    gpu = any(m.peak_share is not None for m in measured)
    for head in ("of peak", "GiB") if gpu else ():
        table.add_column(head, justify="right")
    for m in measured:
        table.add_row(*_cells(m, gpu))
    return table


def _cells(m: Measurement, gpu: bool) -> list[str]:
    low, high = m.speedup_range
    reached = "[green]" if m.speedup >= m.target_speedup else "[red]"
    cells: list[Any] = [
        m.case,
        f"{m.num_prompt_tokens}+{m.num_generated_tokens}",
        f"{m.ours_seconds:.3f}",
        f"{m.inseq_seconds:.3f}",
        f"{reached}{m.speedup:.1f}x[/]",
        f"{low:.1f}-{high:.1f}",
        f"{m.target_speedup:g}x",
        f"{m.floor.matmul_seconds:.3f}",
        f"{m.ours_over_floor:.2f}",
        f"{m.max_abs_difference:.1e}",
    ]
    if gpu:
        share, memory = m.peak_share, m.peak_memory_gib
        cells += ["" if share is None else f"{share:.0%}", "" if memory is None else f"{memory:.1f}"]
    return cells


def main(
    repetitions: Annotated[int, typer.Option(min=1, help="Pairs of measurements per case; the median counts.")] = 5,
    num_threads: Annotated[int, typer.Option(min=1, help="Threads of torch, for both.")] = 2,
) -> None:
    """Time our attribution and Inseq's on the same models and texts."""
    bench_attribution(Path(), Path("params.yaml"), num_repetitions=repetitions, num_threads=num_threads)


if __name__ == "__main__":
    run(main)
