"""The report's tables about attribution: how the prompt is used, and whether the attributions can be believed."""

from __future__ import annotations

import dataclasses

from detoxlens.common.numbers import number
from detoxlens.reporting.cells import interval, plain
from detoxlens.reporting.table import MODEL, VARIANT, Column, Form, Json, Table, table
from detoxlens.reporting.tables import variant_rows

MEASURES = {
    "prompt_entropy_bits": "prompt entropy, bits",
    "prompt_entropy_normalized": "normalised entropy",
    "prompt_dependence": "prompt dependence",
}
"""Measure -> heading."""
REGIONS = {"template": "template", "user": "user's text", "generated": "generated before"}
"""Where attribution lies -> heading."""


def prompt_use_tables(metrics: Json) -> list[Table]:
    """Levels and differences of the measures, the regions, and the divergence from base on the same text."""
    use, divergence = "attribution", ("attribution", "divergence_from_it_bits")
    others = list(variant_rows(metrics, base=False))
    return [
        table(
            "Use of the prompt",
            "Means over generated tokens, then over completions, with 95 % intervals.",
            [
                MODEL,
                VARIANT,
                *(Column(heading, (use, measure), interval(3)) for measure, heading in MEASURES.items()),
                Column("completions", (use, "num_sequences")),
            ],
            variant_rows(metrics),
        ),
        table(
            "Where the attribution lies",
            "Share of the attribution on the chat template, on the user's text and on what the model has generated "
            "before; the first two make up the prompt dependence when no token is masked. Means over generated tokens, "
            "then over completions, with 95 % intervals.",
            [
                MODEL,
                VARIANT,
                *(Column(heading, (use, "region_share", region), interval(3)) for region, heading in REGIONS.items()),
            ],
            variant_rows(metrics),
        ),
        table(
            "Use of the prompt: difference to base",
            "On the same prompts, each variant's own completions, with 95 % intervals. |ΔH| is taken token by token on "
            "the text of base's completions.",
            [
                MODEL,
                VARIANT,
                *(
                    Column(heading, (use, measure, "delta_vs_it"), interval(3, signed=True))
                    for measure, heading in MEASURES.items()
                ),
                Column("|ΔH|, bits", (use, "entropy_shift_bits", "absolute"), interval(3)),
            ],
            others,
        ),
        table(
            "Use of the prompt: same text, different model",
            "Divergence of the variant's attribution from that of base, both reading base's completions: over the "
            "prompt and what was generated before, in bits per generated token, with 95 % intervals. 0: the same "
            "weights; Jensen–Shannon is 1 where no token counts for both.",
            [
                MODEL,
                VARIANT,
                Column("KL(variant | base)", (*divergence, "kl"), interval(3)),
                Column("Jensen–Shannon", (*divergence, "jensen_shannon"), interval(3)),
                Column("completions", (*divergence, "num_sequences")),
            ],
            [row for row in others if row.found["attribution"].get("divergence_from_it_bits")],
        ),
    ]


def check_tables(metrics: Json) -> list[Table]:
    """Deletion, randomisation and precision, of the variants that were tested; none where none was."""
    checked = [(row, row.found["attribution"]["checks"]) for row in variant_rows(metrics)]
    found = [
        table(
            "Faithfulness of the attributions",
            "Drop in the generated token's log-odds, in nats, when the top-attributed share of the user's tokens is "
            "deleted (comprehensiveness: high is good) or all others of them are (sufficiency: low is good), minus the "
            "same for as many random tokens, with 95 % intervals over a random sample of sequences. Rank correlation "
            "of the scores with those of the same network with shuffled weights: near 0 is good.",
            FAITHFULNESS,
            [
                dataclasses.replace(row, found=deleted | {"randomization": checks["randomization"]})
                for row, checks in checked
                for deleted in checks["deletion"]
            ],
        ),
        table(
            "Precision of the attributions",
            "The same sequences attributed in float32 too: size of the difference in the scores and in the prompt "
            "entropy of each generated token, and the entropy's mean difference with its sign, by which the means "
            "above may be off; largest difference in the tokens' probabilities.",
            PRECISION,
            [dataclasses.replace(row, found=checks) for row, checks in checked if "precision" in checks],
        ),
    ]
    return [t for t in found if t.rows]


def _deletion(name: str) -> list[Column]:
    return [
        Column(name, (name, "attributed"), interval(3)),
        Column("against random", (name, "difference"), interval(3, signed=True)),
    ]


FAITHFULNESS = (
    MODEL,
    VARIANT,
    Column("deleted", ("fraction",), lambda fraction: f"{100 * fraction:.0f} %"),
    Column("sequences", ("num_sequences",)),
    *_deletion("comprehensiveness"),
    *_deletion("sufficiency"),
    Column("after shuffling", ("randomization", "rank_correlation"), interval(2)),
)


def _precision(heading: str, measure: str, which: str, form: Form) -> Column:
    return Column(heading, ("precision", measure, which), form)


PRECISION = (
    MODEL,
    VARIANT,
    Column("dtype", ("precision", "dtype")),
    Column("sequences", ("precision", "num_sequences")),
    _precision("score, max", "score", "max", plain(4)),
    _precision("score, median", "score", "median", plain(5)),
    _precision("entropy, bits: max", "prompt_entropy_bits", "max", plain(4)),
    _precision("median", "prompt_entropy_bits", "median", plain(5)),
    _precision("mean", "prompt_entropy_bits", "mean", lambda value: number(value, 5, signed=True)),
    _precision("probability, max", "token_prob", "max", plain(4)),
)
