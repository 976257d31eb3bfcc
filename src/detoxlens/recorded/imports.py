"""`import-completions` and `replay`: from files made elsewhere into outputs/ and reports/replay/."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from detoxlens.common.artifacts import Layout, write_json, write_rows, write_text
from detoxlens.common.errors import UserError
from detoxlens.common.records import Attribution, Completion, Fluency, Score
from detoxlens.evaluation.fluency import mentions_prompt
from detoxlens.evaluation.toxicity import Missing
from detoxlens.params.report import Bootstrap
from detoxlens.params.section import NAME
from detoxlens.recorded.completions import Imported, columns_of, read_completions
from detoxlens.recorded.replay import markdown, reference_of, replay

RECORDED_FILE = "recorded.parquet"
"""The imported scores, where the stage score does not write: it reads them as the scorer `recorded`."""


def read(file: Path, *, format: str, columns: str | None, split: str | None) -> Imported:
    """The file's completions and scores; see `read_completions`."""
    if split:
        _check_name("--split", split)
    named = [pair.partition("=")[0] for pair in columns.split(",")] if columns else []
    return read_completions(file, columns=columns_of(format, columns), format=format, given=named, split=split)


def import_completions(
    root: Path,
    file: Path,
    *,
    model: str,
    variant: str,
    format: str,
    columns: str | None,
    force: bool,
    split: str | None = None,
) -> str:
    """Writes outputs/<model>/<variant>/completions.parquet, and scores.parquet where the file has scores.

    Likelihoods and attributions are written as missing, so that `report` has what it reads.

    Returns:
        What was written, in a sentence.

    Raises:
        UserError: the file cannot be taken in, or the variant has completions already and `force` is false.
    """
    for option, name in (("--model", model), ("--variant", variant)):
        _check_name(option, name)
    layout = Layout(root)
    target = layout.completions(model, variant)
    if target.exists() and not force:
        raise UserError(f"{target} exists; name another --variant, or replace it with --force.")
    imported = read(file, format=format, columns=columns, split=split)
    tables = (
        *(layout.scores, layout.fluency, layout.toxic_words, layout.attributions, layout.faithfulness),
        *(layout.response_kinds, layout.utility, layout.inference_cost),
    )
    for path in (*(table(model, variant) for table in tables), target.with_name(RECORDED_FILE)):
        path.unlink(missing_ok=True)  # they belong to the completions that were there
    if imported.scores:
        write_rows(layout.scores(model, variant), imported.scores, Score)
        write_rows(layout.scores(model, variant).with_name(RECORDED_FILE), imported.scores, Score)
    write_rows(layout.fluency(model, variant), [_fluency(c) for c in imported.completions], Fluency)
    write_rows(layout.attributions(model, variant), [], Attribution)
    write_rows(target, imported.completions, Completion)
    statuses = Counter(score.status for score in imported.scores)
    scores = (
        ", ".join(f"{statuses[s]} {s}" for s in ("ok", "empty", "failed")) if imported.scores else "none in the file"
    )
    return f"{len(imported.completions)} completions -> {target.relative_to(root)}; recorded scores: {scores}."


def replay_files(
    root: Path,
    files: Sequence[str],
    *,
    name: str,
    format: str,
    columns: str | None,
    bootstrap: Bootstrap,
    missing: Missing,
    split: str | None = None,
) -> str:
    """Writes reports/replay/<name>.json and .md from `variant=file` pairs.

    Args:
        root: repository root.
        files: `variant=file` pairs.
        name: of the result.
        format: one of `FORMATS`.
        columns: see `columns_of`.
        bootstrap: the draws behind the intervals.
        missing: the rule for completions without a score that the table goes by; the other is shown beside it.
        split: the set of prompts that all files are about; None goes by the format.

    Returns:
        The Markdown table.

    Raises:
        UserError: a pair is malformed, a variant is named twice, or a file has no scores.
    """
    _check_name("--name", name)
    variants: dict[str, Imported] = {}
    for pair in files:
        variant, equals, file = pair.partition("=")
        if not equals or not file or variant in variants:
            raise UserError(f"{pair!r}: each file is given once as <variant>=<file>, e.g. it=released.csv.")
        _check_name(pair, variant)
        variants[variant] = read(Path(file), format=format, columns=columns, split=split)
        if not variants[variant].scores:
            raise UserError(f"{file} has no scores; name their column: --columns toxicity=<column>.")
    found = replay(variants, bootstrap)
    text = markdown(found, title=f"Replay of {name}", missing=missing, reference=reference_of(variants))
    folder = Layout(root).reports / "replay"
    write_json(folder / f"{name}.json", {"bootstrap": bootstrap.model_dump(), "missing": missing, "splits": found})
    write_text(folder / f"{name}.md", text)
    return text


def _fluency(completion: Completion) -> Fluency:
    """What the text alone tells; there are no token ids to measure a likelihood of."""
    return Fluency(
        prompt_id=completion.prompt_id,
        sample_index=completion.sample_index,
        nll_nats=None,
        num_tokens=None,
        mentions_prompt=mentions_prompt(completion.prompt, completion.completion),
    )


def _check_name(where: str, name: str) -> None:
    if not re.fullmatch(NAME, name):
        raise UserError(f"{where}: {name!r} is no name; lower-case letters, digits, - and _ are allowed.")
