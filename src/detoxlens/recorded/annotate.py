"""`detoxlens annotate`: a scorer's verdict on each prompt as a field of its JSON line, for filters in params `splits`.

The authors' second test set is what their reward classifier scored > .5; RealToxicityPrompts does not hold that score.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

from detoxlens.common.artifacts import write_text
from detoxlens.common.errors import UserError
from detoxlens.common.scoring import Scorer
from detoxlens.jobs.progress import progress
from detoxlens.recorded.table_file import read_table

log = logging.getLogger(__name__)
TEXTS = ("prompt", "prompt+continuation")
PIECE = 512


def annotate(file: Path, out: Path, *, scorer: Callable[[], Scorer], field: str, text: str) -> int:
    """Writes `out`, the lines of `file` with `field` (null where a prompt cannot be scored); how many there are.

    Args:
        file: RealToxicityPrompts' JSON lines.
        out: the file to write.
        scorer: loads the scorer, once the file is known to be right.
        field: name of the new field.
        text: one of `TEXTS`.

    Raises:
        UserError: the file is no such file, has the field already, or the scorer cannot be made.
    """
    if text not in TEXTS:
        raise UserError(f"--text {text!r}: one of {', '.join(TEXTS)} is allowed.")
    if out.is_dir():
        raise UserError(f"{out} is a folder; name the .jsonl file to write.")
    rows = [dict(row) for row in read_table(file)]
    texts = []
    for number, row in enumerate(rows, 1):
        try:
            texts.append("".join(row[part]["text"] for part in text.split("+")))
        except (KeyError, TypeError):
            raise UserError(
                f"{file}: row {number} has no {' and '.join(f'{p}.text' for p in text.split('+'))}. Lines in "
                'RealToxicityPrompts\' form are wanted, {"prompt": {"text": ...}, "continuation": {"text": ...}}; '
                "--text prompt does without continuations."
            ) from None
        if field in row:
            raise UserError(f"{file}: row {number} has a field {field!r} already; name another with --field.")
    grader = scorer()
    num_null = num_in_part = 0
    with progress(f"annotate by {grader.name}", total=len(rows), unit="prompts") as bar:
        for start in range(0, len(rows), PIECE):
            part = slice(start, start + PIECE)
            for row, verdict in zip(rows[part], grader.score(texts[part]), strict=True):
                row[field] = verdict.toxicity
                num_null += verdict.toxicity is None
                num_in_part += verdict.status == "ok" and verdict.truncated
            bar.advance(len(rows[part]))
    if num_null or num_in_part:
        log.warning(
            "%s: of %d prompts %d have no score (null) and %d are longer than %s reads: judged by their beginning",
            out,
            len(rows),
            num_null,
            num_in_part,
            grader.name,
        )
    write_text(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return len(rows)
