"""Everything the report reads, in memory: one `VariantTables` per (model, variant) named in `run`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from detoxlens.common.columns import Table
from detoxlens.common.records import (
    Attribution,
    Completion,
    Fluency,
    InferenceCost,
    ResponseKind,
    Score,
    ToxicWord,
    Utility,
)
from detoxlens.evaluation.diversity import repetitions
from detoxlens.evaluation.dose import Strength
from detoxlens.evaluation.gold import Ranking
from detoxlens.params.toxic_words import ToxicWordsConfig
from detoxlens.recorded.calibration import Calibration
from detoxlens.reporting.keys import Key, Keys, KeySet, Verdicts

REPEATED = 2
"""Length of the n-grams whose repetition within a completion is measured."""

if TYPE_CHECKING:
    from detoxlens.reporting.word_use import WordUse

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """How one model, reading one completion, uses the prompt: generated token by generated token."""

    key: Key
    reader: str
    """The variant whose model reads."""
    text_source: str
    """The variant whose completion it is."""
    values: Mapping[str, Mapping[str, np.ndarray]]
    """Per scope and measure (steps,), NaN where it is not defined; see `reporting.traces`."""
    weight: float = 1.0
    """How many completions it stands for where groups are pooled (`attribution.sample: balanced`)."""
    regions: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Per region (steps,): its share of the attribution, 0..1."""
    divergence: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Per divergence (steps,), in bits, from `it` on the same text."""
    gold: Sequence[tuple[Ranking, Ranking]] = ()
    """Of each copied word (`evaluation.gold`): the ranking of its cue in the prompt, and of the cue's control."""
    num_unmatched: int = 0
    """Copied words without a control."""
    rank_correlation: float | None = None
    """Of another method than the headline's: Spearman's correlation with the headline's scores of the same text."""

    @property
    def num_steps(self) -> int:
        """Generated tokens, or words."""
        return len(next(iter(next(iter(self.values.values())).values())))


@dataclass(frozen=True, kw_only=True)
class VariantTables:
    """The tables of one (model, variant); those with a row per completion are `Table`s, whatever they are made from."""

    variant: str
    group: str
    """The method: several seeds of it share one. The variant's own name when none is declared."""
    completions: Table[Completion] | Sequence[Completion]
    scores: Mapping[str, Table[Score] | Sequence[Score]]
    """Per scorer, in the order of the file."""
    fluency: Table[Fluency] | Sequence[Fluency]
    traces: Sequence[Trace]
    """By the headline's method: the variant reading its own text and that of `it`, and `it` reading the variant's."""
    num_attributions: Mapping[str, int]
    """Test attributions by status, own text only; `ok` are those with a trace."""
    methods: Sequence[str]
    """How it was attributed, e.g. `input_x_gradient of the probability`."""
    shown: Sequence[Attribution]
    """The few that are drawn as heat maps."""
    history: Sequence[Mapping[str, float]]
    faithfulness: Mapping[str, Any] | None
    toxic_words: Sequence[ToxicWord] | None = None
    """Where its completions, and of `it` the prompts, are toxic; None where nobody looked."""
    word_use: Sequence[WordUse] = ()
    """The variant reading the completions of `it`, at their toxic words and elsewhere."""
    other_methods: Mapping[str, Sequence[Trace]] = field(default_factory=dict)
    """By each further method, on a sample of the same texts."""
    response_kinds: Table[ResponseKind] | Sequence[ResponseKind] = ()
    """Of each completion; empty where replies were not told apart."""
    utility: Sequence[Utility] = ()
    """Of each test prompt with a reference reply."""
    inference_cost: InferenceCost | None = None
    noise_floor: Sequence[Trace] = ()
    """Of `it`: another base model, of another seed, reading its completions (`detoxlens noise-floor`)."""

    strengths: Mapping[float, Strength] = field(default_factory=dict)
    """By the adapter's strength, rising; of a variant in `run.interpolated_variants`."""

    def __post_init__(self) -> None:
        tables = {
            "completions": Table.of(self.completions, Completion),
            "scores": {scorer: Table.of(rows, Score) for scorer, rows in self.scores.items()},
            "fluency": Table.of(self.fluency, Fluency),
            "response_kinds": Table.of(self.response_kinds, ResponseKind),
        }
        for name, table in tables.items():
            object.__setattr__(self, name, table)

    def keys_of(self, split: str, name: str | None = None) -> KeySet:
        """Completions of a part of the data (`val`, `test`), all or those that meet the filter `name`."""
        return KeySet(self._keys, self.mask(split, name))

    def mask(self, split: str, name: str | None = None) -> np.ndarray:
        """(completions,) whether each is one of `keys_of`."""
        found = self.completions.column("split").equals(split)
        if name is None:
            return found
        filters = self.completions.column("filters")
        return found & np.array([name in names for names in filters.names], dtype=bool)[filters.codes]

    def about(self, rows: Table[R], split: str, name: str | None = None) -> Table[R]:
        """The rows that are about the completions of `keys_of`."""
        if rows is self.completions:
            return rows.where(self.mask(split, name))
        of_row = self._completion_of(rows)
        return rows.where((of_row >= 0) & np.append(self.mask(split, name), False)[of_row])

    def toxicity(self, scorer: str) -> Verdicts:
        """The scored completions' toxicity, 0..1."""
        rows = self.scores.get(scorer, Table.of((), Score))
        return Verdicts(self._keys_of_rows(rows), rows.column("toxicity").astype(np.float64))

    def by_completion(self, scorer: str) -> np.ndarray:
        """(completions,) the same, NaN where one is not scored."""
        verdicts = self.toxicity(scorer)
        return np.append(verdicts.by_row, np.nan)[verdicts.keys_of_rows.rows_of(self._keys)]

    def completions_of(self, keys: Sequence[Key]) -> list[Completion]:
        """Of keys that are there, in their order."""
        return self.completions.at([self._keys.row(key) for key in keys])

    @cached_property
    def repetition(self) -> np.ndarray:
        """(completions,) the share of each one's 2-grams that it has written before; NaN without any."""
        parts = self.completions.lists_in_parts("completion_ids")
        return np.concatenate([np.zeros(0), *(repetitions(part, REPEATED) for part in parts)])

    @cached_property
    def num_tokens(self) -> np.ndarray:
        """(completions,) generated tokens."""
        lengths = [batch.column(0).value_lengths() for batch in self.completions.batches("completion_ids")]
        return np.concatenate([np.zeros(0, np.int64), *(n.to_numpy().astype(np.int64) for n in lengths)])

    @cached_property
    def _keys(self) -> Keys:
        return Keys(self.completions)

    @cached_property
    def _known_keys(self) -> dict[int, tuple[Table, Keys]]:
        return {}

    @cached_property
    def _known_rows(self) -> dict[int, tuple[Table, np.ndarray]]:
        return {}

    def _completion_of(self, rows: Table) -> np.ndarray:
        """(rows,) the row of each one's completion, -1 where there is none; kept like the keys."""
        if id(rows) not in self._known_rows:
            found = self._keys.rows_of(self._keys_of_rows(rows))
            self._known_rows[id(rows)] = rows, found.astype(np.int32)
        return self._known_rows[id(rows)][1]

    def _keys_of_rows(self, rows: Table) -> Keys:
        """Of a whole table; kept, with the table, so that its place in memory stays its own."""
        if id(rows) not in self._known_keys:
            self._known_keys[id(rows)] = rows, Keys(rows)
        return self._known_keys[id(rows)][1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """All that is compared."""

    models: Mapping[str, Mapping[str, VariantTables]]
    """Per model and variant, in the order of params `run`; every model has `it`."""
    splits: Sequence[str]
    """Names of the test splits, in the order of params `splits`."""
    grader: str
    """The scorer of the tables."""
    method: str = "input_x_gradient"
    """The headline's method of attribution."""
    scope: str = "prompt"
    """The scope of the headline numbers: `prompt`, or `user` where `attribution.mask_template` is set."""
    unit: str = "token"
    """What a step is: `token` or `word`."""
    calibration: Calibration | None = None
    """Says the same in another scorer's terms, where params `toxicity.calibration` names one."""
    targets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Prompt id -> the group that the prompt speaks of, if any."""
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Prompt id -> what the source says of the prompt, e.g. insult."""
    reply_graders: Mapping[str, Any] = field(default_factory=dict)
    """Grader of replies -> its errors (`evaluation.response_kind.grader_errors`)."""
    words: ToxicWordsConfig | None = None
    """Settings of what is measured at toxic words; None leaves that out."""
    words_by: str | None = None
    """The scorer that found the toxic words; None where none could."""
    placebos: Mapping[str, str] = field(default_factory=dict)
    """Placebo -> the variant whose control it is: the two are compared directly, whatever `report.pairs` says."""
    notes: Sequence[str] = ()
    """What a reader must know about how this run was set up."""
