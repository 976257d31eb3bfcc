"""The only file that knows file names and formats: where each artefact lies and how it is read and written.

Tables are Parquet with an explicit schema; every write goes to a temporary neighbour first and is moved into place, so
a full disk or a kill leaves the earlier file as it was. The same rows give the same bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from detoxlens.common.errors import UserError, explain_full_disk
from detoxlens.common.records import ModelRef
from detoxlens.common.repository import KEPT, STATE, main_repository

R = TypeVar("R")


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
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema(cls)
    names = schema.names
    columns: dict[str, list[Any]] = {name: [] for name in names}
    for row in rows:
        for name in names:
            columns[name].append(getattr(row, name))
    table = pa.table({n: pa.array(columns[n], type=schema.field(n).type) for n in names}, schema=schema)
    with _replacing(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def read_rows(path: Path, cls: type[R]) -> list[R]:
    """Reads what `write_rows` wrote.

    Raises:
        UserError: the file is missing, or lacks a column of `cls`.
    """
    import pyarrow.parquet as pq

    if not path.exists():
        raise UserError(f"{path} does not exist; `dvc repro` makes it.")
    table = pq.read_table(path)
    if missing := [f.name for f in dataclasses.fields(cls) if f.name not in table.column_names]:
        raise UserError(f"{path} lacks the column(s) {', '.join(missing)}; made by another version? Remake it.")
    freeze = {f.name: _freezer(t) for f, t in zip(dataclasses.fields(cls), _types(cls), strict=True)}
    columns_ = {n: [freeze[n](v) for v in table.column(n).to_pylist()] for n in freeze}
    return [cls(**dict(zip(columns_, values, strict=True))) for values in zip(*columns_.values(), strict=True)]


def write_json(path: Path, value: Any) -> None:
    """Indented JSON, keys in the given order, atomically. NaN and infinity are refused."""
    with _replacing(path) as partial:
        partial.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


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


def _types(cls: type) -> list[Any]:
    hints = typing.get_type_hints(cls)
    return [hints[f.name] for f in dataclasses.fields(cls)]


def _schema(cls: type):
    """Arrow schema of a record class; None becomes null."""
    import pyarrow as pa

    scalars = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}

    def arrow(hint: Any):
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if origin in (typing.Union, types.UnionType):
            return arrow(next(a for a in args if a is not type(None)))
        if origin is typing.Literal:
            return pa.string()
        if origin is tuple:
            return pa.list_(arrow(args[0]))
        return scalars[hint]

    return pa.schema([(f.name, arrow(t)) for f, t in zip(dataclasses.fields(cls), _types(cls), strict=True)])


def _freezer(hint: Any):
    """A function that turns lists read from Parquet back into the tuples of the record."""
    if "tuple" not in str(hint):
        return lambda value: value

    def freeze(value: Any) -> Any:
        return tuple(freeze(v) for v in value) if isinstance(value, list) else value

    return freeze
