"""Stage `prepare`: dialogues and evaluation prompts, split and counted. Reads params `data` and `splits`."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from detoxlens.common.artifacts import Layout, write_json, write_rows
from detoxlens.common.records import Dialogue, Prompt
from detoxlens.data.dialoconan import DialoconanFile, read_dialoconan, read_pairs
from detoxlens.data.near_copies import num_near_copies
from detoxlens.data.realtoxicityprompts import RtpFile, merged, read_prompts
from detoxlens.data.response_kinds import read_response_kinds
from detoxlens.data.sources import Dropped, local_file, sha256_of
from detoxlens.data.splits import DialogueSplit, normalize, split_dialogues
from detoxlens.data.targets import with_targets
from detoxlens.evaluation.counter_speech import CounterSpeech
from detoxlens.evaluation.response_kind import fit_classifier, grader_errors
from detoxlens.params.data import DataConfig
from detoxlens.params.load import Params
from detoxlens.params.splits import SplitsConfig

log = logging.getLogger(__name__)


def run(root: Path, params: Params) -> None:
    """Writes data/prepared/{dialogues.parquet, prompts.parquet, counter_speech.json, summary.json}; none of them unless
    all is well."""
    config = params.section("data", DataConfig)
    splits = params.section("splits", SplitsConfig)
    with local_file(config.dialoconan, root, key="data.dialoconan", form="csv") as path:
        pairs = config.dialogue_columns
        dialoconan = read_pairs(path, pairs, config.dialoconan) if pairs else read_dialoconan(path, config.dialoconan)
        dialoconan_sha256 = sha256_of(path)
    split = split_dialogues(
        [conversation.turns for conversation in dialoconan.conversations],
        val_fraction=config.dialogue_val_fraction,
        test_fraction=config.dialogue_test_fraction,
        linked_by=config.dialogue_linked_by,
        seed=config.seed,
        versions_of=[conversation.version_of for conversation in dialoconan.conversations],
    )
    dialogues = [
        Dialogue(dialogue_id=c.dialogue_id, target=c.target, source=c.source, split=side, turns=c.turns)
        for c, side in zip(dialoconan.conversations, split.splits, strict=True)
    ]
    trained_on = set().union(*_turns(dialogues, "train"))
    files, sha256s = [], {}
    for (source, columns), chosen in splits.by_source(config.rtp).items():
        all_for_test = source != config.rtp and all(split.max_val == 0 for split in chosen.values())
        val_fraction = 0.0 if all_for_test else config.prompt_val_fraction
        key = "data.rtp" if source == config.rtp else f"splits.{next(iter(chosen))}.source"
        with local_file(source, root, key=key, form="csv" if columns else "jsonl") as path:
            files.append(
                read_prompts(
                    path,
                    chosen,
                    val_fraction=val_fraction,
                    seed=config.seed,
                    source=source,
                    columns=dict(columns),
                    trained_on=trained_on if config.trained_prompts == "leave_out" else frozenset(),
                )
            )
            sha256s[source] = sha256_of(path)
    rtp = files[0] if len(files) == 1 else merged(files)
    prompts = with_targets(rtp.prompts, {dialogue.target for dialogue in dialogues})
    classifier, errors = _response_kinds(config, root, dialogues)
    summary = {
        "dialogues": {
            "source": config.dialoconan,
            "sha256": dialoconan_sha256,
            **_dialogue_counts(dialoconan, split, dialogues),
        },
        "prompts": {
            "source": ", ".join(sha256s),
            "sha256": ", ".join(sha256s.values()),
            **_prompt_counts(rtp, dialogues),
        },
        **({"response_kinds": errors} if errors else {}),
    }
    layout = Layout(root)
    write_rows(layout.dialogues, dialogues, Dialogue)
    write_rows(layout.prompts, prompts, Prompt)
    layout.counter_speech.unlink(missing_ok=True)
    if classifier is not None:
        write_json(layout.counter_speech, dataclasses.asdict(classifier))
    write_json(layout.data_summary, summary)
    _say(summary, dialoconan.dropped + rtp.dropped)


def _response_kinds(
    config: DataConfig, root: Path, dialogues: Sequence[Dialogue]
) -> tuple[CounterSpeech | None, dict[str, Any]]:
    """The classifier of counter-speech, and how often it and the rules for refusals are wrong; or nothing."""
    source = config.response_kinds
    if source is None:
        return None, {}
    with local_file(source, root, key="data.response_kinds", form="csv") as path:
        labelled, sha256 = read_response_kinds(path, source), sha256_of(path)
    classifier = fit_classifier(labelled, dialogues)
    found = {"source": source, "sha256": sha256, "version": classifier.version}
    return classifier, {**found, "graders": grader_errors(labelled, dialogues, classifier)}


def _dialogue_counts(file: DialoconanFile, split: DialogueSplit, dialogues: Sequence[Dialogue]) -> dict[str, Any]:
    turns = {side: _turns(dialogues, side) for side in ("train", "val", "test")}
    return {
        "num_rows": file.num_rows,
        "num_dialogues": file.num_dialogues,
        "num_dialogues_kept": len(dialogues),
        "num_turns_kept": sum(len(d.turns) for d in dialogues),
        "num_turns_trimmed": file.num_trimmed,
        **_dropped_counts(file.dropped),
        "splits": {
            side: {
                "num_dialogues": sum(d.split == side for d in dialogues),
                "num_turns": sum(len(d.turns) for d in dialogues if d.split == side),
                "targets": dict(sorted(Counter(d.target for d in dialogues if d.split == side).items())),
            }
            for side in turns
        },
        "components": {"num": len(split.component_sizes), "largest": list(split.component_sizes[:10])},
        "overlap": {  # distinct texts, but for case and white space
            f"{a}_in_{b}": {
                "num_hater_turns": len(turns[a][0] & turns[b][0]),
                "num_counter_narratives": len(turns[a][1] & turns[b][1]),
            }
            for a, b in (("val", "train"), ("test", "train"), ("test", "val"))
        },
    }


def _prompt_counts(file: RtpFile, dialogues: Sequence[Dialogue]) -> dict[str, Any]:
    texts = {side: {normalize(p.text) for p in file.prompts if p.split == side} for side in ("val", "test")}
    trained_on = set().union(*_turns(dialogues, "train"))
    learnt = [turn for d in dialogues if d.split == "train" for turn in d.turns]
    near = {
        side: num_near_copies([p.text for p in file.prompts if p.split == side], learnt) for side in ("val", "test")
    }
    return {
        "num_rows": file.num_rows,
        "num_met_no_filter": file.num_met_none,
        **_dropped_counts(file.dropped),
        "filters": {name: dataclasses.asdict(count) for name, count in file.filters.items()},
        "splits": {side: {"num_prompts": sum(p.split == side for p in file.prompts)} for side in texts},
        "overlap": {
            "test_in_val": len(texts["test"] & texts["val"]),
            "val_in_training_turns": len(texts["val"] & trained_on),
            "test_in_training_turns": len(texts["test"] & trained_on),
            "val_near_copies": near["val"],  # at least half of their word 5-grams stand in training turns
            "test_near_copies": near["test"],
        },
    }


def _dropped_counts(dropped: Sequence[Dropped]) -> dict[str, Any]:
    return {
        "num_dropped": dict(sorted(Counter(d.reason for d in dropped).items())),
        "dropped": [dataclasses.asdict(d) for d in dropped],
    }


def _turns(dialogues: Iterable[Dialogue], split: str) -> tuple[set[str], set[str]]:
    """Distinct hater turns and counter-narratives of one split."""
    chosen = [d for d in dialogues if d.split == split]
    return tuple({normalize(turn) for d in chosen for turn in d.turns[who::2]} for who in (0, 1))


def _say(summary: dict[str, Any], dropped: Sequence[Dropped]) -> None:
    for drop in dropped[:20]:
        log.warning("dropped: %s: %s", drop.row, drop.reason)
    if len(dropped) > 20:
        log.warning("dropped: %d more, all named in data/prepared/summary.json", len(dropped) - 20)
    for kind, count in (("dialogues", "num_dialogues"), ("prompts", "num_prompts")):
        sizes = ", ".join(f"{side} {counts[count]}" for side, counts in summary[kind]["splits"].items())
        log.info("%s: %s", kind, sizes)
    for name, count in summary["prompts"]["filters"].items():
        if num := count["num_trained_on"]:
            log.warning("splits.%s: %d prompts stand in the training dialogues and are left out", name, num)
