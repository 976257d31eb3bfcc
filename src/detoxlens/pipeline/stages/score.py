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
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from detoxlens.attribution.sampling import basis
from detoxlens.common.artifacts import Layout, read_model_ref, read_rows, write_json, write_rows
from detoxlens.common.errors import UserError
from detoxlens.common.records import Completion, Fluency, ModelRef, Score, ToxicWord
from detoxlens.common.scoring import CachedService, Scorer
from detoxlens.evaluation.fluency import mentions_prompt
from detoxlens.jobs.batches import Batches, tell_share_done
from detoxlens.jobs.progress import Bar, progress
from detoxlens.jobs.shares import Share, device_of
from detoxlens.jobs.stage_scratch import stage_scratch
from detoxlens.models.capabilities import Capabilities, examine
from detoxlens.models.classifier import weights_version
from detoxlens.models.generation import plan_batches
from detoxlens.models.likelihood import completion_nll
from detoxlens.models.loading import load_model, load_tokenizer
from detoxlens.params.load import Params
from detoxlens.params.toxic_words import ToxicWordsConfig
from detoxlens.params.toxicity import ToxicityConfig
from detoxlens.pipeline.costs import inputs_of_costs, write_costs
from detoxlens.pipeline.toxic_words import Words, words_measure
from detoxlens.recorded.calibration import Calibration
from detoxlens.recorded.scores import Recorded
from detoxlens.scorers import make_scorers
from detoxlens.scorers.profanity_check import toxic_content_words
from detoxlens.scorers.remote import unique_texts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NLL_BATCH_SIZE = 16
BATCH_SIZE = 64
"""Completions kept together: what a kill can cost. A multiple of `NLL_BATCH_SIZE`: no forward pass is cut short."""
R = TypeVar("R")
log = logging.getLogger(__name__)


def run(root: Path, params: Params, *, model: str, variant: str, share: Share | None = None) -> None:
    """Runs the stage; or a share of it, which waits in the scratch folder and the score cache for a run without it."""
    layout, run_config = Layout(root), params.run
    config = params.section("toxicity", ToxicityConfig, model=model, variant=variant)
    words_config = params.section("toxic_words", ToxicWordsConfig, model=model, variant=variant)
    located_by = words_config.located_by(config.headline)
    completions = read_rows(layout.completions(model, variant), Completion)
    recorded = layout.scores(model, variant).with_name("recorded.parquet")  # of completions made elsewhere
    calibration = Calibration.read(root / config.calibration) if config.calibration else None
    names = [name for name in config.scorers if name != "recorded"]
    device = device_of(share, run_config.device)
    made = dict(zip(names, make_scorers(names, root=root, device=device, normalize=config.normalize), strict=True))
    scorers = [made.get(name) or Recorded(str(recorded), root=root, name=name) for name in config.scorers]
    imported = not any(c.completion_ids for c in completions)
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
        plan = plan_of(completions)
        base = functools.cache(lambda: load_base(layout, params, model, share))

        def kept(name: str, measure: Callable[[list[Completion]], list[R]], cls: type[R]) -> Measure[R]:
            return kept_batches(Batches(scratch, plan, name=name, share=share), completions, measure, cls)

        measures = [
            asked(scorer, completions, share)
            if scorer.source in ("file", "service")
            else kept(f"scores-{number}", functools.partial(score_completions, scorer), Score)
            for number, scorer in enumerate(scorers)
        ]
        likelihood = kept("fluency", fluency_measure(base, imported=imported), Fluency)
        locate = words_measure(layout, params, model, variant, share, scorers, config, words_config)
        words = kept("toxic-words", locate, Words)
        total = sum(m.num_rows for m in (*measures, likelihood, words))
        done = sum(m.num_done for m in (*measures, likelihood, words))
        with progress(f"{title} {share}" if share else title, total=total, num_done=done, unit="verdicts") as bar:
            verdicts = [measure.run(bar) for measure in measures]
            fluency, located = likelihood.run(bar), words.run(bar)
        if share is not None:
            num_left = sum(rows.count(None) for rows in (*verdicts, fluency, located))
            tell_share_done(title, share, num_left=num_left, unit="verdicts")
            return
        for scorer, rows in zip(scorers, verdicts, strict=True):
            log.info("%s/%s by %s: %s", model, variant, scorer.name, dict(Counter(row.status for row in rows)))
        scores = [row for rows in verdicts for row in rows]
        if calibration:
            scores += calibration.apply(scores)
        write_rows(layout.scores(model, variant), scores, Score)
        write_rows(layout.fluency(model, variant), fluency, Fluency)
        write_rows(
            layout.toxic_words(model, variant), [ToxicWord(**w) for found in located for w in found.rows], ToxicWord
        )
        write_costs(layout, params, model, variant, completions, lambda: base().network, scratch)
        for sample, toxicities in basis(scores, config.headline).items():
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


@dataclasses.dataclass(frozen=True, slots=True)
class Measure(Generic[R]):
    """One thing that is measured of the completions."""

    num_rows: int
    """What this process has to do of it."""
    num_done: int
    """How much of that was done before."""
    run: Callable[[Bar], list[R | None]]
    """Does the rest. A row per completion; of a share, None for each row that others have left."""


def plan_of(completions: Sequence[Completion]) -> list[list[int]]:
    """Batches of similar length. No batch mixes splits: company changes the last bits, and a sweep, which has the
    validation prompts alone, is to find the same numbers.
    """
    plan: list[list[int]] = []
    for split in dict.fromkeys(c.split for c in completions):
        members = [i for i, c in enumerate(completions) if c.split == split]
        lengths = [len(completions[i].prompt_ids) + len(completions[i].completion_ids) for i in members]
        plan += [[members[k] for k in batch] for batch in plan_batches(lengths, BATCH_SIZE)]
    return plan


def kept_batches(
    batches: Batches, completions: Sequence[Completion], measure: Callable[[list[Completion]], list[R]], cls: type[R]
) -> Measure[R]:
    """What is computed here, a batch at a time; `measure` gives a row of the dataclass `cls` per completion."""

    def work(numbers: Sequence[int]) -> list[dict[str, Any]]:
        return [dataclasses.asdict(row) for row in measure([completions[i] for i in numbers])]

    def run(bar: Bar) -> list[R | None]:
        found = batches.run(work, bar)
        return [cls(**found[i]) if i in found else None for i in range(len(completions))]

    return Measure(batches.num_rows, batches.num_done, run)


def asked(scorer: Scorer, completions: list[Completion], share: Share | None) -> Measure[Score]:
    """What others have said, or say now. A share asks a service about its part of the texts, no two about the same."""
    if share is None:

        def ask_all(bar: Bar) -> list[Score | None]:
            rows = score_completions(scorer, completions)
            bar.advance(len(rows))
            return rows

        return Measure(len(completions), 0, ask_all)
    if scorer.source == "file":  # read when the shares are put together; costs nothing
        return Measure(0, 0, lambda bar: [])
    service = cast(CachedService, scorer)
    service.divide_pace(share.count)
    texts = unique_texts([c.completion for c in completions])
    mine = [text for number, text in enumerate(texts) if share.takes(number)]

    def ask(bar: Bar) -> list[Score | None]:
        service.score(mine)
        bar.advance(len(mine))
        return [None] * (len(texts) - len(service.known(texts)))

    return Measure(len(mine), 0, ask)


def score_completions(scorer: Scorer, completions: list[Completion]) -> list[Score]:
    """One row per completion, in their order."""
    keys = [(c.prompt_id, c.sample_index) for c in completions]
    verdicts = scorer.score([c.completion for c in completions], keys)
    return [
        Score(
            prompt_id=completion.prompt_id,
            sample_index=completion.sample_index,
            scorer=scorer.name,
            scorer_version=scorer.version,
            label=scorer.label,
            activation=scorer.activation,
            truncated=scored.truncated,
            toxicity=scored.toxicity,
            status=scored.status,
            error=scored.error,
        )
        for completion, scored in zip(completions, verdicts, strict=True)
    ]


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
