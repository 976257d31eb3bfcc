"""The report's tables about costs: what each method does, the kinds of its replies, and whom its toxicity is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detoxlens.common.names import shown_name
from detoxlens.params.report import ReportConfig
from detoxlens.reporting.cells import PERCENT, POINTS, interval, plain, rate, with_interval
from detoxlens.reporting.cost_metrics import KINDS
from detoxlens.reporting.table import MODEL, VARIANT, Column, Json, Row, Table, key_column, table, value_at
from detoxlens.reporting.tables import variant_rows
from detoxlens.reporting.wording import headline_scope

SMALL = "*"


def cost_tables(metrics: Json, graders: Mapping[str, Any], splits: Sequence[str], config: ReportConfig) -> list[Table]:
    """What each method does, then what stands behind it; those about what was not measured are left out."""
    civil = [split for split in config.civil_splits if split in splits]
    return [
        _methods(metrics, civil, config),
        _differences(metrics, civil),
        *([_kinds(metrics, splits)] if _any(metrics, "response_kind") else []),
        *([_graders(graders)] if graders else []),
    ]


def group_tables(metrics: Json, config: ReportConfig) -> list[Table]:
    """Toxicity by attribute, by target group and by category, where there are any."""
    return [
        *_attributes(metrics, config),
        *(
            _groups(metrics, kind, title, config)
            for kind, title in (("target", "target group"), ("category", "category of the prompt"))
            if any(_has(row.found, "groups", kind) for row in variant_rows(metrics))
        ),
    ]


def _has(found: Json, *path: str) -> bool:
    part = value_at(found, "costs", *path)
    return bool(part) and "reason" not in part


def _any(metrics: Json, part: str) -> bool:
    return any(_has(row.found, part) for row in variant_rows(metrics))


def _effect(row: Row) -> Json | None:
    scope = headline_scope(row.found)
    return value_at(row.found, "attribution", "effects", scope, "prompt_entropy_bits", "model_effect")


def _methods(metrics: Json, civil: Sequence[str], config: ReportConfig) -> Table:
    return table(
        "What each method does",
        f"Toxic completions of {config.primary_split}; replies to civil prompts that counter or refuse instead of "
        "answering, by a classifier and by rules whose errors stand below; bits per token of reference replies to "
        "civil prompts (less is more useful) and KL to base on them; perplexity under base; model effect on prompt "
        "entropy; matrix operations per token beside base's, memory for weights and tokens of prompt beyond base's. "
        "95 % intervals. Minutes depend on the machine: MLflow's stage runs have them.",
        [
            MODEL,
            VARIANT,
            Column("toxic, %", ("toxicity", config.primary_split), rate),
            *(
                Column(f"{split}: not answered, %", ("costs", "response_kind", split, "not_answered"), PERCENT)
                for split in civil
            ),
            Column("reference, bits/token", ("costs", "utility", "bits_per_token"), interval(2)),
            Column("KL to base, bits/token", ("costs", "utility", "kl_to_base_bits_per_token"), interval(3)),
            Column("perplexity", ("fluency", "measures", "perplexity"), interval(2)),
            Column("prompt entropy, model effect, bits", _effect, interval(3, signed=True)),
            Column("operations, × base", ("costs", "inference", "flops_ratio"), plain(2)),
            Column("extra memory, MiB", ("costs", "inference", "extra_weights_mib"), plain(2)),
            Column("extra prompt tokens", ("costs", "inference", "extra_prompt_tokens"), plain(1)),
        ],
        variant_rows(metrics),
    )


def _differences(metrics: Json, civil: Sequence[str]) -> Table:
    return table(
        "What it cost: difference to base",
        "On the same prompts, with 95 % intervals: above zero is worse. Not answered and repeated in points.",
        [
            MODEL,
            VARIANT,
            *(
                Column(
                    f"{split}: not answered", ("costs", "response_kind", split, "not_answered", "delta_vs_it"), POINTS
                )
                for split in civil
            ),
            Column(
                "reference, bits/token", ("costs", "utility", "bits_per_token", "delta_vs_it"), interval(3, signed=True)
            ),
            *(
                Column(f"{split}: repeated 2-grams", ("costs", "repetition", split, "delta_vs_it"), POINTS)
                for split in civil
            ),
        ],
        variant_rows(metrics, base=False),
    )


def _kinds(metrics: Json, splits: Sequence[str]) -> Table:
    return table(
        "Kinds of reply",
        "In % of the replies that are not empty, with 95 % intervals; difference to base of what is not answered, in "
        "points. On hostile prompts counter-speech is what detoxification is for; on civil ones it is a mistake.",
        [
            MODEL,
            VARIANT,
            key_column("split"),
            *(Column(f"{name.replace('_', '-')}, %", (name,), PERCENT) for name in KINDS if name != "not_answered"),
            Column("not answered, points", ("not_answered", "delta_vs_it"), POINTS),
            Column("judged / empty", lambda row: f"{row.found['num_judged']} / {row.found['num_empty']}"),
        ],
        [
            Row(model=row.model, variant=row.variant, found=row.found["costs"]["response_kind"][split], key=split)
            for row in variant_rows(metrics)
            if _has(row.found, "response_kind")
            for split in splits
            if row.found["costs"]["response_kind"][split]["num_judged"]
        ],
    )


def _graders(graders: Mapping[str, Any]) -> Table:
    return table(
        "How often the graders of replies are wrong",
        "On replies labelled by hand (params `data.response_kinds`, part `test`), and on turns of dialogues held out "
        "from training. Who labelled them also wrote the rules: on other models' replies expect more errors.",
        [
            key_column("grader"),
            Column("missed", lambda row: f"{row.found['num_missed']} of {row.found['num_of_kind']}"),
            Column("false alarms", lambda row: f"{row.found['num_false_alarms']} of {row.found['num_others']}"),
        ],
        [Row(model="", variant="", found=found, key=name) for name, found in graders.items()],
    )


def _groups(metrics: Json, kind: str, title: str, config: ReportConfig) -> Table:
    """A row per model and group, a column per variant."""
    variants = list(dict.fromkeys(row.variant for row in variant_rows(metrics)))

    def groups_of(model: str, variant: str) -> Json:
        found = value_at(metrics, model, variant, "costs", "groups", kind) or {}
        return {} if "reason" in found else found

    def cell(row: Row, variant: str) -> str | None:
        group = groups_of(row.model, variant).get(row.key)
        return group and with_interval(group["rate_gt_50"], group["ci95"], 1, scale=100)

    rows = []
    for model in metrics:
        sizes = {name: group for variant in variants for name, group in groups_of(model, variant).items()}
        rows += [Row(model=model, variant="", found=group, key=name) for name, group in sizes.items()]
    return table(
        f"Toxicity by {title}",
        f"Share > .5 of the completions of {config.primary_split}, in %, with 95 % intervals, the largest first. "
        f"{SMALL}: fewer than {config.min_group_size} prompts; of so many groups some differ by chance.",
        [
            MODEL,
            key_column(title),
            Column("prompts", lambda row: f"{row.found['num_prompts']}{SMALL if row.found['is_small'] else ''}"),
            *(Column(shown_name(v), lambda row, v=v: cell(row, v)) for v in variants),
        ],
        rows,
    )


def _attributes(metrics: Json, config: ReportConfig) -> list[Table]:
    """Several labels of one grader, e.g. hf:<model>#insult=sigmoid and hf:<model>#threat=sigmoid."""
    labels: dict[str, list[str]] = {}
    for scorer in dict.fromkeys(s for row in variant_rows(metrics) for s in row.found["scorers"]):
        if "#" in scorer:
            labels.setdefault(scorer.partition("#")[0], []).append(scorer)
    return [
        table(
            f"Toxicity by attribute, by {grader}",
            f"Share > .5 of the completions of {config.primary_split}, in %, with 95 % intervals.",
            [
                MODEL,
                VARIANT,
                *(
                    Column(
                        s.partition("#")[2].partition("=")[0],
                        lambda row, s=s: value_at(row.found, "scorers", s, config.primary_split),
                        rate,
                    )
                    for s in scorers
                ),
            ],
            variant_rows(metrics),
        )
        for grader, scorers in labels.items()
        if len(scorers) > 1
    ]
