"""Toxicity of a model under training: a few validation prompts, answered as the pipeline will, judged by the selector.

With the seeds of stage `generate`, so that the share is paired with that of `it`; no global random number is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from detoxlens.common.artifacts import Layout, read_rows
from detoxlens.common.records import Prompt, Score
from detoxlens.evaluation.toxicity import TOXIC
from detoxlens.jobs.progress import Snapshot
from detoxlens.params.generation import GenerationConfig
from detoxlens.params.load import Params
from detoxlens.params.report import ReportConfig
from detoxlens.params.toxicity import ToxicityConfig

if TYPE_CHECKING:
    from detoxlens.common.scoring import Scorer


class Probe:
    """The judge of one trial's early toxicity.

    Args:
        root: the project, where scorers are found.
        reference: the tables of `it` on the validation prompts (`trial.make_reference`).
        params: with the trial's point in place.
        variant: what is being trained.
    """

    def __init__(self, root: Path, reference: Path, params: Params, variant: str):
        self.root, self.reference, self.params, self.variant = root, Layout(reference), params, variant

    def toxicity(self, snapshot: Snapshot, model: str, num_prompts: int) -> float | None:
        """Share of toxic answers to the first `num_prompts` prompts, 0..1; None if no answer could be scored."""
        from detoxlens.data.replies import stops_of
        from detoxlens.data.templates import turn_end_ids
        from detoxlens.models.end_tokens import set_end_tokens
        from detoxlens.models.generation import auto_batch_size, sample
        from detoxlens.pipeline.stages.generate import completion_of, encode_rows

        config = self.params.section("generation", GenerationConfig, model=model, variant=self.variant)
        template, seed = self.params.model(model).template, self.params.run.seed
        rows = encode_rows(
            self._prompts[:num_prompts],
            snapshot.tokenizer,
            template,
            num_samples=1,
            seed=seed,
            stop=stops_of(config, snapshot.tokenizer, template),
        )
        batch_size = config.batch_size
        if batch_size == "auto":
            longest = max(len(row.encoded.ids) for row in rows)
            batch_size = auto_batch_size(snapshot.model, longest_prompt=longest, max_new_tokens=config.max_new_tokens)
        samples = sample(
            snapshot.model,
            [row.encoded.ids for row in rows],
            config=config,
            seeds=[row.seed for row in rows],
            eos_token_id=set_end_tokens(snapshot.model, snapshot.tokenizer, turn_end_ids(snapshot.tokenizer, template)),
            pad_token_id=snapshot.tokenizer.pad_token_id,
            batch_size=batch_size,
        )
        texts = [completion_of(row, s, snapshot.tokenizer).completion for row, s in zip(rows, samples, strict=True)]
        return share_toxic([scored.toxicity for scored in self._scorer.score(texts)])

    def toxicity_of_it(self, model: str, num_prompts: int) -> float | None:
        """The same of `it`, from the reference's tables."""
        ids = {p.prompt_id for p in self._prompts[:num_prompts]}
        scores, judge = read_rows(self.reference.scores(model, "it"), Score), self._toxicity.chooser
        return share_toxic(
            s.toxicity for s in scores if s.scorer == judge and s.prompt_id in ids and s.sample_index == 0
        )

    @cached_property
    def _prompts(self) -> list[Prompt]:
        """Those that the toxicity of a trial is measured on."""
        primary = self.params.section("report", ReportConfig).primary_split
        return [p for p in read_rows(self.reference.prompts, Prompt) if primary in p.filters]

    @cached_property
    def _scorer(self) -> Scorer:
        from detoxlens.scorers import make_scorer

        config, device = self._toxicity, self.params.run.device
        return make_scorer(config.chooser, root=self.root, device=device, normalize=config.normalize)

    @property
    def _toxicity(self) -> ToxicityConfig:
        return self.params.section("toxicity", ToxicityConfig)


def share_toxic(scores: Sequence[float | None]) -> float | None:
    """Share of the scored that are above .5; None if none is scored."""
    scored = [score for score in scores if score is not None]
    return sum(score > TOXIC for score in scored) / len(scored) if scored else None
