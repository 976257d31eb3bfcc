"""Stage score@model-variant: grades every completion with every scorer, says how fluent it is, and where it is toxic.

deps: outputs/<m>/<v>/completions.parquet, models/<m>/base, adapters/<m>/<v>, models/reward, data/prepared
outs: outputs/<m>/<v>/scores.parquet, fluency.parquet, toxic_words.parquet, drawn_by (for `attribute`);
      response_kinds.parquet, utility.parquet, inference_cost.parquet (`pipeline.costs`)

What is computed here (verdicts of local scorers, the likelihoods) is kept in batches of `BATCH_SIZE`: a killed run goes
on behind the last and gives the same bytes; so do several processes with a share each. Remote services have their own
cache, which shares fill: each asks about texts of its own, at its share of the pace that the key is given.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from detoxlens.attribution.sampling import basis
from detoxlens.common.arrow import arrow_table, concatenated
from detoxlens.common.artifacts import Layout, open_rows, read_model_ref, write_json, write_rows, write_table
from detoxlens.common.columns import Table
from detoxlens.common.errors import UserError
from detoxlens.common.records import Completion, Fluency, ModelRef, Score, ToxicWord
from detoxlens.common.scoring import Scorer
from detoxlens.evaluation.fluency import mentions_prompt
from detoxlens.jobs.batches import Batches, tell_share_done
from detoxlens.jobs.progress import progress
from detoxlens.jobs.shares import Share, device_of
from detoxlens.jobs.stage_scratch import stage_scratch
from detoxlens.models.capabilities import Capabilities, examine
from detoxlens.models.classifier import weights_version
from detoxlens.models.likelihood import completion_nll
from detoxlens.models.loading import load_model, load_tokenizer
from detoxlens.params.load import Params
from detoxlens.params.toxic_words import ToxicWordsConfig
from detoxlens.params.toxicity import ToxicityConfig
from detoxlens.pipeline.costs import inputs_of_costs, write_costs
from detoxlens.pipeline.measures import (
    Blocks,
    Measure,
    asked,
    gathered,
    kept_batches,
    num_tokens,
    plan_of,
    score_completions,
)
from detoxlens.pipeline.toxic_words import words_measure
from detoxlens.recorded.calibration import Calibration
from detoxlens.recorded.scores import Recorded
from detoxlens.scorers import make_scorers
from detoxlens.scorers.profanity_check import toxic_content_words

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NLL_BATCH_SIZE = 16
BATCH_SIZE = 64
"""Completions kept together: what a kill can cost. A multiple of `NLL_BATCH_SIZE`: no forward pass is cut short."""
R = TypeVar("R")
T = TypeVar("T")
Gather = Callable[[Iterable[tuple[int, dict[str, Any]]]], T]
log = logging.getLogger(__name__)


def run(root: Path, params: Params, *, model: str, variant: str, share: Share | None = None) -> None:
    """Runs the stage; or a share of it, which waits in the scratch folder and the score cache for a run without it."""
    layout, run_config = Layout(root), params.run
    config = params.section("toxicity", ToxicityConfig, model=model, variant=variant)
    words_config = params.section("toxic_words", ToxicWordsConfig, model=model, variant=variant)
    located_by = words_config.located_by(config.headline)
    completions = open_rows(layout.completions(model, variant), Completion)
    num_generated = num_tokens(completions, "completion_ids")
    recorded = layout.scores(model, variant).with_name("recorded.parquet")  # of completions made elsewhere
    calibration = Calibration.read(root / config.calibration) if config.calibration else None
    names = [name for name in config.scorers if name != "recorded"]
    device = device_of(share, run_config.device)
    made = dict(zip(names, make_scorers(names, root=root, device=device, normalize=config.normalize), strict=True))
    scorers = [made.get(name) or Recorded(str(recorded), root=root, name=name) for name in config.scorers]
    imported = not num_generated.any()
    if not imported or layout.reward_model.exists():
        refuse_rewarder(scorers, read_model_ref(layout.reward_model), root=root)

    if calibration and calibration.scorer not in config.scorers:
        raise UserError(
            f"toxicity.calibration={config.calibration!r} is of {calibration.scorer}, which is not among "
            f"toxicity.scorers={config.scorers}; add it, or calibrate one of them."
        )
    title, part = f"score {model}/{variant}", share.part if share else None
    with stage_scratch(
        root,
        f"score@{model}-{variant}",
        module=__name__,
        settings={
            "scorers": [[s.name, s.version, config.normalize] for s in scorers],
            "toxic_words": [located_by, words_config.max_words],
            "model": params.model(model).model_dump(exclude={"overrides"}),
            "device": run_config.device,
        },
        inputs=[
            layout.completions(model, variant),
            *([] if imported else [layout.adapter(model, "it")]),
            *inputs_of_costs(layout, model, variant),
        ],
        seed=run_config.seed,
        num_threads=run_config.num_threads,
        part=part,
    ) as scratch:
        lengths = num_tokens(completions, "prompt_ids") + num_generated
        plan = plan_of(list(completions.column("split")), lengths, batch_size=BATCH_SIZE)
        blocks = Blocks(completions)
        base = functools.cache(lambda: load_base(layout, params, model, share))

        def kept(name: str, measure: Callable[[list[Completion]], list[R]], gather: Gather[T]) -> Measure[T]:
            batches = Batches(scratch, plan, name=name, share=share)
            return kept_batches(batches, blocks, measure, gather, share=share)

        measures = [
            asked(scorer, blocks, share)
            if scorer.source in ("file", "service")
            else kept(
                f"scores-{number}", functools.partial(score_completions, scorer), functools.partial(gathered, cls=Score)
            )
            for number, scorer in enumerate(scorers)
        ]
        likelihood = kept("fluency", fluency_measure(base, imported=imported), functools.partial(gathered, cls=Fluency))
        locate = words_measure(layout, params, model, variant, share, scorers, config, words_config)
        words = kept("toxic-words", locate, word_rows_of)
        total = sum(m.num_rows for m in (*measures, likelihood, words))
        done = sum(m.num_done for m in (*measures, likelihood, words))
        with progress(f"{title} {share}" if share else title, total=total, num_done=done, unit="verdicts") as bar:
            verdicts = [measure.run(bar) for measure in measures]
            fluency, located = likelihood.run(bar), words.run(bar)
        if share is not None:
            tell_share_done(title, share, num_left=sum((*verdicts, fluency, located)), unit="verdicts")
            return
        for scorer, rows in zip(scorers, verdicts, strict=True):
            statuses = Table.held(rows, Score).column("status")
            log.info("%s/%s by %s: %s", model, variant, scorer.name, dict(Counter(statuses)))
        scores = concatenated(verdicts)
        if calibration:
            scores = concatenated([scores, arrow_table(calibration.apply(list(Table.held(scores, Score))), Score)])
        write_table(layout.scores(model, variant), scores)
        write_table(layout.fluency(model, variant), fluency)
        write_rows(layout.toxic_words(model, variant), located, ToxicWord)
        write_costs(layout, params, model, variant, completions, lambda: base().network, scratch)
        for sample, toxicities in basis(Table.held(scores, Score), config.headline).items():
            write_json(layout.drawn_by(model, variant, sample), toxicities)
        scratch.finish()


def refuse_rewarder(scorers: Iterable[Scorer], reward: ModelRef, *, root: Path) -> None:
    """The grader must not be the rewarder: whoever was trained against a judge looks good to that judge.

    Raises:
        UserError: a grader has the reward model's weights, under whatever name.
    """
    classifiers = [scorer for scorer in scorers if scorer.source == "classifier"]
    if not classifiers:
        return
    folder = root / reward.base
    reward_version = weights_version(str(folder) if folder.is_dir() else reward.base, reward.revision)
    for scorer in classifiers:
        if scorer.version == reward_version:
            raise UserError(
                f"toxicity.scorers: {scorer.name} has the same weights ({scorer.version}) as the reward model that PPO "
                "trains against, so its scores would flatter `rl`. Grade with another scorer, e.g. profanity_check, or "
                "train with another reward_model."
            )


def word_rows_of(results: Iterable[tuple[int, dict[str, Any]]]) -> list[ToxicWord]:
    """The words of all completions, in their order."""
    found = {row: result["rows"] for row, result in results if result["rows"]}
    return [ToxicWord(**word) for row in sorted(found) for word in found[row]]


@dataclasses.dataclass(frozen=True, slots=True)
class Base:
    """The model as released (`it`), loaded."""

    network: PreTrainedModel
    pad_token_id: int
    capabilities: Capabilities


def load_base(layout: Layout, params: Params, model: str, share: Share | None) -> Base:
    """`it`, on the share's device."""
    spec, ref = params.model(model), read_model_ref(layout.adapter(model, "it"))
    network = load_model(layout.root, ref, spec, device=device_of(share, params.run.device))
    pad = load_tokenizer(layout.root, ref, trust_remote_code=spec.trust_remote_code).pad_token_id
    return Base(network, pad, examine(network, pad_token_id=pad, name=ref.base))


def fluency_measure(base: Callable[[], Base], *, imported: bool) -> Callable[[list[Completion]], list[Fluency]]:
    """Likelihood under the model as released (`it`), whichever variant wrote the completions; it is loaded when needed.

    Where none has token ids (`imported`: they were made elsewhere) there is no likelihood, and no model is loaded.
    """

    def measure(part: list[Completion]) -> list[Fluency]:
        if imported:
            return _fluency(part, [None] * len(part))
        it = base()
        nll_nats = completion_nll(
            it.network,
            [c.prompt_ids for c in part],
            [c.completion_ids for c in part],
            batch_size=NLL_BATCH_SIZE,
            pad_token_id=it.pad_token_id,
            capabilities=it.capabilities,
        )
        return _fluency(part, nll_nats)

    return measure


def _fluency(completions: Sequence[Completion], nll_nats: Sequence[float | None]) -> list[Fluency]:
    toxic = toxic_content_words([c.prompt for c in completions])
    return [
        Fluency(
            prompt_id=c.prompt_id,
            sample_index=c.sample_index,
            nll_nats=nll if c.completion_ids else None,
            num_tokens=None if c.finish_reason == "unknown" else len(c.completion_ids),
            mentions_prompt=mentions_prompt(c.prompt, c.completion, toxic),
        )
        for c, nll in zip(completions, nll_nats, strict=True)
    ]
