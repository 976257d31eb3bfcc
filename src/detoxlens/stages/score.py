"""Stage score@model-variant: grades every completion with every scorer, and says how fluent it is.

deps: outputs/<m>/<v>/completions.parquet, models/<m>/base, models/reward
outs: outputs/<m>/<v>/scores.parquet, outputs/<m>/<v>/fluency.parquet

What a model has to compute (an `hf:` scorer, the likelihoods) is kept in pieces of `PIECE` completions: a killed run
goes on behind the last and gives the same bytes. Remote services have their own cache; the others cost nothing.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from detoxlens.artifacts import Layout, read_model_ref, read_rows, write_rows
from detoxlens.config import Params
from detoxlens.errors import UserError
from detoxlens.evaluation.calibration import Calibration
from detoxlens.evaluation.fluency import mentions_prompt
from detoxlens.models.classifier import weights_version
from detoxlens.models.likelihood import completion_nll
from detoxlens.models.loading import load_model, load_tokenizer
from detoxlens.progress import progress
from detoxlens.records import Completion, Fluency, ModelRef, Score
from detoxlens.scorers import make_scorer
from detoxlens.scorers.base import Scorer
from detoxlens.scorers.config import ToxicityConfig
from detoxlens.scorers.hf import HfClassifier
from detoxlens.scorers.recorded import Recorded
from detoxlens.scratch import LineLog, open_scratch, scratch_key
from detoxlens.seeding import fix_global_state

NLL_BATCH_SIZE = 16
PIECE = 1024
"""Completions measured together: what a kill can cost."""
R = TypeVar("R")
log = logging.getLogger(__name__)


def run(root: Path, params: Params, *, model: str, variant: str) -> None:
    layout, run_config = Layout(root), params.run
    config = params.section("toxicity", ToxicityConfig, model=model, variant=variant)
    fix_global_state(run_config.seed, run_config.num_threads)
    completions = read_rows(layout.completions(model, variant), Completion)
    recorded = layout.scores(model, variant).with_name("recorded.parquet")  # of completions made elsewhere
    calibration = Calibration.read(root / config.calibration) if config.calibration else None
    scorers = [
        Recorded(str(recorded), root=root, name=name)
        if name == "recorded"
        else make_scorer(name, root=root, device=run_config.device)
        for name in config.scorers
    ]
    imported = not any(c.completion_ids for c in completions)
    if not imported or layout.reward_model.exists():
        refuse_rewarder(scorers, read_model_ref(layout.reward_model), root=root)

    if calibration and calibration.scorer not in config.scorers:
        raise UserError(
            f"toxicity.calibration={config.calibration!r} is of {calibration.scorer}, which is not among "
            f"toxicity.scorers={config.scorers}; add it, or calibrate one of them."
        )
    key = scratch_key(
        params={
            "scorers": [[s.name, s.version] for s in scorers],
            "model": params.model(model).model_dump(exclude={"overrides"}),
            "device": run_config.device,
        },
        inputs=[layout.completions(model, variant), *([] if imported else [layout.adapter(model, "it")])],
        num_threads=run_config.num_threads,
    )
    scores: list[Score] = []
    total = len(completions) * (len(scorers) + 1)
    with (
        open_scratch(layout.state, f"score@{model}-{variant}", key) as scratch,
        progress(f"score {model}/{variant}", total=total, unit="verdicts") as bar,
    ):
        for number, scorer in enumerate(scorers):
            if isinstance(scorer, Recorded):  # may know one split and not another; only knowing none is a mistake
                rows = score_completions(scorer, completions)
            elif isinstance(scorer, HfClassifier):
                kept = scratch.log(f"scores-{number}")
                rows = kept_pieces(kept, completions, lambda part, s=scorer: score_completions(s, part), Score)
            else:
                rows = part_by_part(completions, lambda part, scorer=scorer: score_completions(scorer, part))
            scores += rows
            bar.advance(len(rows))
            log.info("%s/%s by %s: %s", model, variant, scorer.name, dict(Counter(row.status for row in rows)))
        fluency = measure_fluency(layout, params, model, completions, scratch.log("fluency"))
        bar.advance(len(fluency))
        if calibration:
            scores += calibration.apply(scores)
        write_rows(layout.scores(model, variant), scores, Score)
        write_rows(layout.fluency(model, variant), fluency, Fluency)
        scratch.finish()


def refuse_rewarder(scorers: Iterable[Scorer], reward: ModelRef, *, root: Path) -> None:
    """The grader must not be the rewarder: whoever was trained against a judge looks good to that judge.

    Raises:
        UserError: a grader has the reward model's weights, under whatever name.
    """
    classifiers = [scorer for scorer in scorers if isinstance(scorer, HfClassifier)]
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


def part_by_part(completions: list[Completion], measure: Callable[[list[Completion]], list[R]]) -> list[R]:
    """`measure` of each split's completions on their own, in the order of `completions`.

    A batch's company changes the last bits. A sweep has the validation prompts alone, and is to find the same numbers.
    """
    found: dict[int, R] = {}
    for members in _members(completions).values():
        found.update(zip(members, measure([completions[i] for i in members]), strict=True))
    return [found[i] for i in range(len(completions))]


def kept_pieces(
    kept: LineLog, completions: list[Completion], measure: Callable[[list[Completion]], list[R]], cls: type[R]
) -> list[R]:
    """`part_by_part` with at most `PIECE` completions at a time; pieces that `kept` holds are not measured again.

    Args:
        kept: {"piece": number, "rows": [fields of `cls`, ...]} per line.
        completions: what is measured.
        measure: one row per completion, in their order.
        cls: the rows' dataclass.
    """
    done = {line["piece"]: [cls(**fields) for fields in line["rows"]] for line in kept.read()}
    pieces = [
        members[start : start + PIECE]
        for members in _members(completions).values()
        for start in range(0, len(members), PIECE)
    ]
    found: dict[int, R] = {}
    for number, members in enumerate(pieces):
        if number not in done:
            done[number] = measure([completions[i] for i in members])
            kept.append([{"piece": number, "rows": [dataclasses.asdict(row) for row in done[number]]}])
        found.update(zip(members, done[number], strict=True))
    return [found[i] for i in range(len(completions))]


def _members(completions: Sequence[Completion]) -> dict[str, list[int]]:
    """Split -> the numbers of its completions."""
    found: dict[str, list[int]] = {}
    for i, completion in enumerate(completions):
        found.setdefault(completion.split, []).append(i)
    return found


def score_completions(scorer: Scorer, completions: list[Completion]) -> list[Score]:
    """One row per completion, in their order."""
    texts = [c.completion for c in completions]
    if isinstance(scorer, Recorded):
        verdicts = scorer.score_rows([(c.prompt_id, c.sample_index) for c in completions], texts)
    else:
        verdicts = scorer.score(texts)
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


def measure_fluency(
    layout: Layout, params: Params, model: str, completions: list[Completion], kept: LineLog
) -> list[Fluency]:
    """Likelihood of every completion under the model as released (`it`), whichever variant wrote it.

    Without any token ids (completions made elsewhere) there is none, and no model is loaded.
    """
    if not any(c.completion_ids for c in completions):
        return _fluency(completions, [None] * len(completions))
    return _with_likelihood(layout, params, model, completions, kept)


def _fluency(completions: Sequence[Completion], nll_nats: Sequence[float | None]) -> list[Fluency]:
    return [
        Fluency(
            prompt_id=c.prompt_id,
            sample_index=c.sample_index,
            nll_nats=nll if c.completion_ids else None,
            num_tokens=len(c.completion_ids),
            mentions_prompt=mentions_prompt(c.prompt, c.completion),
        )
        for c, nll in zip(completions, nll_nats, strict=True)
    ]


def _with_likelihood(
    layout: Layout, params: Params, model: str, completions: list[Completion], kept: LineLog
) -> list[Fluency]:
    spec = params.model(model)
    ref = read_model_ref(layout.adapter(model, "it"))
    network = load_model(
        layout.root, ref, device=params.run.device, dtype=spec.dtype, trust_remote_code=spec.trust_remote_code,
        quantization=spec.quantization, device_map=spec.device_map,
    )  # fmt: skip
    tokenizer = load_tokenizer(layout.root, ref, trust_remote_code=spec.trust_remote_code)

    def measure(part: list[Completion]) -> list[Fluency]:
        nll_nats = completion_nll(
            network,
            [c.prompt_ids for c in part],
            [c.completion_ids for c in part],
            batch_size=NLL_BATCH_SIZE,
            pad_token_id=tokenizer.pad_token_id,
        )
        return _fluency(part, nll_nats)

    return kept_pieces(kept, completions, measure, Fluency)
