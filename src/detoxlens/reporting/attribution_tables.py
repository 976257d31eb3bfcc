"""The report's tables about attribution: how the prompt is used, and whether the attributions can be believed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from detoxlens.common.numbers import number
from detoxlens.evaluation.rise import FIRST, LATER
from detoxlens.reporting.cells import interval, plain
from detoxlens.reporting.method_tables import method_tables, pair_tables
from detoxlens.reporting.other_prompts import other_prompts_tables
from detoxlens.reporting.table import MODEL, VARIANT, Column, Form, Json, Row, Table, table
from detoxlens.reporting.tables import variant_rows

LEVELS = {
    "prompt_entropy_bits": "prompt entropy, bits",
    "prompt_entropy_normalized": "normalised entropy",
    "prompt_dependence": "prompt dependence",
    "prompt_dependence_excess_bits": "dependence beyond uniform, bits",
}
"""Measure of the attribution -> heading."""
EFFECTS = {
    "prompt_entropy_bits": "prompt entropy, bits",
    "prompt_dependence_excess_bits": "dependence beyond uniform, bits",
}
"""Measures of which the model effect is shown on its own."""
SCOPE_NAMES = {"prompt": "with the template", "user": "user's text alone", "no_first": "without the first token"}
REGIONS = {"template": "template", "user": "user's text", "generated": "generated before"}
"""Where attribution lies -> heading."""
SIGNED = interval(3, signed=True)


def prompt_use_tables(metrics: Json) -> list[Table]:
    """What the model does on the same text, what a user sees, how the two differ, and where the attribution lies."""
    others = list(variant_rows(metrics, base=False))
    scope = next(row.found["attribution"]["scope"] for row in variant_rows(metrics))
    return [
        _model_effects(others, scope),
        *method_tables(others),
        *pair_tables(metrics, scope),
        _decomposition(others, scope),
        _scopes(others, scope),
        _rise(metrics, scope),
        *other_prompts_tables(others),
        _toxic_against_other(list(variant_rows(metrics))),
        _own_text(metrics),
        _regions(metrics),
        _divergence(others),
    ]


def _model_effects(others: Sequence[Row], scope: str) -> Table:
    """The headline of every measure."""
    of = ("attribution", "effects", scope)
    return table(
        "Model effect: the same text at the same positions",
        "Variant minus base, the mean over both texts (base's and the variant's own), each step with the same weight, "
        "with 95 % intervals. Positive entropy: the model spreads its attribution over more prompt tokens. KL: how "
        "much the user's text moves the predictions, without any attribution. Prompts and steps: what all variants "
        "share.",
        [
            MODEL,
            VARIANT,
            *(Column(name, (*of, measure, "model_effect"), SIGNED) for measure, name in EFFECTS.items()),
            Column("KL by the user's text, bits", (*ANY, "prompt_kl_bits", "model_effect"), SIGNED),
            Column("prompts", (*of, "prompt_entropy_bits", "num_prompts")),
            Column("steps", (*of, "prompt_entropy_bits", "num_steps")),
        ],
        others,
    )


def _decomposition(others: Sequence[Row], scope: str) -> Table:
    """Model effect + text effect = total."""
    return table(
        "Model and text: what makes up a difference in prompt entropy",
        "Position by position. Total: variant reading its own text minus base reading its own. It is the sum of what "
        "the model does on the same text (the mean over base's text and its own) and of what the text does to the "
        "same model.",
        [
            MODEL,
            VARIANT,
            *(
                Column(heading, ("attribution", "effects", scope, "prompt_entropy_bits", name), SIGNED)
                for heading, name in (
                    ("total", "total"),
                    ("model", "model_effect"),
                    ("on base's text", "model_effect_on_base_text"),
                    ("on its own", "model_effect_on_own_text"),
                    ("text", "text_effect"),
                )
            ),
        ],
        others,
    )


def _scopes(others: Sequence[Row], headline: str) -> Table:
    """Does the effect hinge on the template or on the first token?"""
    return table(
        "Does it hinge on the template or the first token?",
        "Model effect on prompt entropy, in bits, over three sets of prompt tokens. The first token draws attribution "
        f"whatever it is (Xiao et al. 2023). Headline: {SCOPE_NAMES[headline]}.",
        [
            MODEL,
            VARIANT,
            *(
                Column(heading, ("attribution", "effects", scope, "prompt_entropy_bits", "model_effect"), SIGNED)
                for scope, heading in SCOPE_NAMES.items()
            ),
        ],
        others,
    )


def _rise(metrics: Json, scope: str) -> Table:
    """The paper's rise, paired within completions."""
    of = ("attribution", "rise", scope)
    (first, last), (start, end) = FIRST, LATER
    return table(
        "Does entropy rise after the first tokens?",
        f"Prompt entropy, in bits: mean of steps {start} to {end} minus mean of steps {first} to {last} of the same "
        "completion, of own text, with 95 % intervals. Beside it the difference to base, of which model: on the same "
        f"text. Prompts that base and the variant both answer with {end} steps or more.",
        [
            MODEL,
            VARIANT,
            Column("rise", (*of, "level"), SIGNED),
            Column("minus base", (*of, "total"), SIGNED),
            Column("model", (*of, "model_effect"), SIGNED),
            Column("text", (*of, "text_effect"), SIGNED),
            Column("prompts", (*of, "num_prompts")),
        ],
        list(variant_rows(metrics)),
    )


def _toxic_against_other(rows: Sequence[Row]) -> Table:
    """Figure 1 in numbers."""
    contrast = ("attribution", "contrast", "by_it", "prompt_entropy_bits")
    return table(
        "Toxic against other text (Figure 1, as in the paper)",
        "Prompt entropy, in bits, while reading base's completions, grouped by base's toxicity: the same text for "
        "every variant, the same positions for both groups. Change: toxic minus other of the variant, minus that of "
        "base.",
        [
            MODEL,
            VARIANT,
            Column("toxic", (*contrast, "toxic"), interval(3)),
            Column("other", (*contrast, "other"), interval(3)),
            Column("toxic − other", (*contrast, "toxic_minus_other"), SIGNED),
            Column("change from base", (*contrast, "change_from_it"), SIGNED),
            Column("toxic, other", contrast, "{0[num_toxic]}, {0[num_other]}".format),
            Column("steps", (*contrast, "num_steps")),
        ],
        rows,
    )


def _own_text(metrics: Json) -> Table:
    return table(
        "What a user sees: each variant's own text",
        "Means over generated tokens, then over completions, with 95 % intervals. Length, wording and model all move "
        "these: what the model alone does stands above.",
        [
            MODEL,
            VARIANT,
            *(Column(heading, ("attribution", measure), interval(3)) for measure, heading in LEVELS.items()),
            Column("completions", ("attribution", "num_sequences")),
        ],
        variant_rows(metrics),
    )


def _regions(metrics: Json) -> Table:
    return table(
        "Where the attribution lies",
        "Share of the attribution on the chat template, on the user's text and on what the model has generated before; "
        "the first two make up the prompt dependence when no token is masked. Own text; means over generated tokens, "
        "then over completions, with 95 % intervals.",
        [
            MODEL,
            VARIANT,
            *(
                Column(heading, ("attribution", "region_share", region), interval(3))
                for region, heading in REGIONS.items()
            ),
        ],
        variant_rows(metrics),
    )


def _divergence(others: Sequence[Row]) -> Table:
    divergence = ("attribution", "divergence_from_it_bits")
    return table(
        "How differently the same text is weighed",
        "Divergence of the variant's attribution from that of base, both reading base's completions: over the prompt "
        "and what was generated before, in bits per generated token, with 95 % intervals; each step with the same "
        "weight, on the steps that all variants share. 0: the same weights; "
        "Jensen–Shannon is 1 where no token counts for both. |ΔH|: mean absolute difference in prompt entropy. None "
        "of them can be negative, so they are above 0 for any training: compare them between variants and with a "
        "placebo.",
        [
            MODEL,
            VARIANT,
            Column("KL(variant | base)", (*divergence, "kl"), interval(3)),
            Column("Jensen–Shannon", (*divergence, "jensen_shannon"), interval(3)),
            Column("|ΔH|, bits", ("attribution", "entropy_shift_bits", "absolute"), interval(3)),
            Column("completions", (*divergence, "num_sequences")),
            Column("steps", (*divergence, "jensen_shannon", "num_steps")),
        ],
        [row for row in others if row.found["attribution"].get("divergence_from_it_bits")],
    )


ANY = ("attribution", "effects", "any_method")


def check_tables(metrics: Json) -> list[Table]:
    """Deletion, randomisation and precision, of the variants that were tested; none where none was."""
    checked = [(row, row.found["attribution"]["checks"]) for row in variant_rows(metrics)]
    found = [
        table(
            "Faithfulness of the attributions",
            "Drop in the generated token's log-odds, in nats, when the top-attributed share of the user's tokens is "
            "deleted (comprehensiveness: above 0 is good) or all others of them are (sufficiency: below 0 is good), "
            "minus the same for as many random tokens, with 95 % intervals over a random sample of sequences. Rank "
            "correlation of the scores with those of the same network with shuffled weights: near 0 is good.",
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


FAITHFULNESS = (
    MODEL,
    VARIANT,
    Column("deleted", ("fraction",), lambda fraction: f"{100 * fraction:.0f} %"),
    Column("sequences", ("num_sequences",)),
    *(Column(name, (name, "difference"), SIGNED) for name in ("comprehensiveness", "sufficiency")),
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
