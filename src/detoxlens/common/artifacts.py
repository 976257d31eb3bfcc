"""The only file that knows file names and formats: where each artefact lies and how it is read and written.

Tables are Parquet with an explicit schema; every write goes to a temporary neighbour first and is moved into place, so
a full disk or a kill leaves the earlier file as it was. The same rows give the same bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from detoxlens.common.errors import UserError, explain_full_disk
from detoxlens.common.records import ModelRef
from detoxlens.common.repository import KEPT, STATE, main_repository

if TYPE_CHECKING:
    import pyarrow as pa

    from detoxlens.common.columns import Table

R = TypeVar("R")
ROW_GROUP = 2**20
"""Rows that are compressed together."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Paths under the repository root."""

    root: Path

    @property
    def state(self) -> Path:
        """Machine-local state that may be deleted: tracking store, scratch, locks; of the main repository."""
        return main_repository(self.root) / STATE

    def kept(self, *names: str) -> Path:
        """A place below `kept/` of the main repository; what former versions kept in the state folder moves there."""
        main = main_repository(self.root)
        place, former = main.joinpath(KEPT, *names), main.joinpath(STATE, *names)
        if former.exists() and not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                former.rename(place)
        return place

    @property
    def sweeps_database(self) -> Path:
        """Optuna's studies, unless --storage names another place."""
        return self.kept("optuna.db")

    @property
    def score_cache(self) -> Path:
        """Answers of remote scorers, by scorer version and text."""
        return self.kept("scores.sqlite")

    def code(self, stage: str) -> Path:
        """The modules that a stage's numbers depend on, with what each does as a hash."""
        return self.root / "code" / f"{stage}.txt"

    @property
    def dialogues(self) -> Path:
        return self.root / "data/prepared/dialogues.parquet"

    @property
    def prompts(self) -> Path:
        return self.root / "data/prepared/prompts.parquet"

    @property
    def data_summary(self) -> Path:
        return self.root / "data/prepared/summary.json"

    @property
    def counter_speech(self) -> Path:
        """The classifier of counter-speech that `prepare` fits; not there where `data.response_kinds` is null."""
        return self.root / "data/prepared/counter_speech.json"

    @property
    def reward_model(self) -> Path:
        return self.root / "models/reward"

    def base(self, model: str) -> Path:
        return self.root / "models" / model / "base"

    def adapter(self, model: str, variant: str) -> Path:
        """Folder with `model_ref.json`, the PEFT files, `history.jsonl` (training curves) and the model card."""
        return self.root / "adapters" / model / variant

    def completions(self, model: str, variant: str) -> Path:
        return self.root / "outputs" / model / variant / "completions.parquet"

    def scores(self, model: str, variant: str) -> Path:
        return self.root / "outputs" / model / variant / "scores.parquet"

    def fluency(self, model: str, variant: str) -> Path:
        return self.root / "outputs" / model / variant / "fluency.parquet"

    def toxic_words(self, model: str, variant: str) -> Path:
        return self.root / "outputs" / model / variant / "toxic_words.parquet"

    def response_kinds(self, model: str, variant: str) -> Path:
        """Of every completion; without rows where `data.response_kinds` is null."""
        return self.root / "outputs" / model / variant / "response_kinds.parquet"

    def utility(self, model: str, variant: str) -> Path:
        """Of every test prompt that has a reference reply."""
        return self.root / "outputs" / model / variant / "utility.parquet"

    def inference_cost(self, model: str, variant: str) -> Path:
        """One row; none where no prompt has a reference reply."""
        return self.root / "outputs" / model / variant / "inference_cost.parquet"

    def drawn_by(self, model: str, variant: str, sample: str) -> Path:
        """What the prompts that are attributed are drawn by, per value of `attribution.sample`."""
        return self.root / "outputs" / model / variant / "drawn_by" / f"{sample}.json"

    def attributions(self, model: str, variant: str) -> Path:
        return self.root / "outputs" / model / variant / "attributions.parquet"

    def noise_floor(self, model: str) -> Path:
        """Attributions of another base model, of another seed, reading the completions of `it`; not of a stage."""
        return self.root / "outputs" / model / "it" / "noise_floor.parquet"

    def faithfulness(self, model: str, variant: str) -> Path:
        return self.root / "outputs" / model / variant / "faithfulness.json"

    def dose(self, model: str, variant: str) -> Path:
        """doses.parquet, attributions.parquet: the adapter at several strengths."""
        return self.root / "outputs" / model / variant / "dose"

    @property
    def reports(self) -> Path:
        return self.root / "reports"


def write_rows(path: Path, rows: Iterable[R], cls: type[R]) -> None:
    """Writes records of the dataclass `cls` as Parquet, atomically, in the given order."""
    from detoxlens.common.arrow import arrow_table

    write_table(path, arrow_table(rows, cls))


def write_table(path: Path, table: pa.Table) -> None:
    """The same of what is in Arrow's columns already."""
    import pyarrow.parquet as pq

    with _replacing(path) as partial, pq.ParquetWriter(partial, table.schema, compression="zstd") as writer:
        for start in range(0, max(1, table.num_rows), ROW_GROUP):
            writer.write_table(table.slice(start, ROW_GROUP).combine_chunks(), row_group_size=ROW_GROUP)


def read_rows(path: Path, cls: type[R]) -> list[R]:
    """Reads what `write_rows` wrote.

    Raises:
        UserError: the file is missing, or lacks a column of `cls`.
    """
    import pyarrow.parquet as pq

    from detoxlens.common.arrow import records

    _check_columns(path, cls)
    return records(pq.read_table(path), cls)


def open_rows(path: Path, cls: type[R]) -> Table[R]:
    """The same rows, in memory only as far as they are asked for; errors as of `read_rows`."""
    from detoxlens.common.columns import Table

    _check_columns(path, cls)
    return Table.read(path, cls)


def _check_columns(path: Path, cls: type) -> None:
    import pyarrow.parquet as pq

    if not path.exists():
        raise UserError(f"{path} does not exist; `dvc repro` makes it.")
    there = pq.read_schema(path).names
    if missing := [f.name for f in dataclasses.fields(cls) if f.name not in there]:
        raise UserError(f"{path} lacks the column(s) {', '.join(missing)}; made by another version? Remake it.")


def write_json(path: Path, value: Any) -> None:
    """Indented JSON, keys in the given order, atomically. NaN and infinity are refused.

    Of an iterator the list of its values, one in memory at a time.
    """
    if not isinstance(value, Iterator):
        write_text(path, _json(value) + "\n")
        return
    with _replacing(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        start = "[\n"
        for item in value:
            file.write(start + _json([item])[2:-2])
            start = ",\n"
        file.write("[]\n" if start == "[\n" else "\n]\n")


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; `dvc repro` makes it.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise UserError(f"{path} is not valid JSON: {e}.") from None


def write_text(path: Path, text: str) -> None:
    """UTF-8 text, atomically."""
    with _replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_history(folder: Path, rows: Iterable[dict[str, float | int]]) -> None:
    """Training curves: one JSON object per step, `step` first, no wall times (they would change the bytes)."""
    lines = [json.dumps(row, allow_nan=False) for row in rows]
    write_text(folder / "history.jsonl", "".join(line + "\n" for line in lines))


def read_history(folder: Path) -> list[dict[str, float | int]]:
    """The training curves of an adapter folder; empty for a variant that was not trained."""
    path = folder / "history.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def write_model_ref(folder: Path, ref: ModelRef) -> None:
    """`model_ref.json`; what only methods without training have is left out where it is None."""
    content = dataclasses.asdict(ref)
    optional = [f.name for f in dataclasses.fields(ref) if f.default is None]
    write_json(folder / "model_ref.json", {k: v for k, v in content.items() if k not in optional or v is not None})


def read_model_ref(folder: Path) -> ModelRef:
    return ModelRef(**read_json(folder / "model_ref.json"))


def link(target: Path, place: Path) -> None:
    """Makes `place` a relative link to `target`, which stays right when both are moved; one that is there is kept."""
    if not place.is_symlink():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(os.path.relpath(target.resolve(), place.parent.resolve()))


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; moves it into place on success, removes it on failure."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with explain_full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
