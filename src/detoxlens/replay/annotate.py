"""`detoxlens annotate`: a scorer's verdict on each prompt as a field of its JSON line, for filters in params `splits`.

The authors' second test set is what their reward classifier scored > .5; RealToxicityPrompts does not hold that score.
"""

from __future__ import annotations

import json
from pathlib import Path

from detoxlens.artifacts import write_text
from detoxlens.errors import UserError
from detoxlens.progress import progress
from detoxlens.scorers import make_scorer
from detoxlens.scorers.table_file import read_table

TEXTS = ("prompt", "prompt+continuation")
PIECE = 512


def annotate(root: Path, file: Path, out: Path, *, scorer_name: str, field: str, text: str, device: str = "cpu") -> int:
    """Writes `out`, the lines of `file` with `field` (null where a prompt cannot be scored); how many there are.

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
    scorer = make_scorer(scorer_name, root=root, device=device)
    with progress(f"annotate by {scorer.name}", total=len(rows), unit="prompts") as bar:
        for start in range(0, len(rows), PIECE):
            part = slice(start, start + PIECE)
            for row, verdict in zip(rows[part], scorer.score(texts[part]), strict=True):
                row[field] = verdict.toxicity
            bar.advance(len(rows[part]))
    write_text(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return len(rows)
