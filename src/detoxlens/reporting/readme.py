"""The result as a README shows it: a table and the first sentences per model, written from metrics.json."""

from __future__ import annotations

from collections.abc import Mapping

from detoxlens.reporting.about import About
from detoxlens.reporting.by_method import by_method
from detoxlens.reporting.cells import POINTS, interval, plain, rate
from detoxlens.reporting.lead import ENTROPY, lead
from detoxlens.reporting.table import MODEL, VARIANT, Column, Json, table
from detoxlens.reporting.tables import variant_rows
from detoxlens.reporting.wording import headline_scope


def readme_result(metrics: Json, *, primary: str, polite: str | None, groups: Mapping[str, str], about: About) -> str:
    """Markdown: the table, then a bullet per model.

    Args:
        metrics: reports/metrics.json.
        primary: split of the toxicity.
        polite: split that must not get worse; None: the study has none.
        groups: variant -> method.
        about: which variants are placebos.
    """
    scope = headline_scope(next(variant_rows(metrics)).found)
    effect = ("attribution", "effects", scope, ENTROPY, "model_effect")
    columns = [
        MODEL,
        VARIANT,
        Column("toxic, %", ("toxicity", primary), rate),
        Column("against base, points", ("toxicity", primary, "delta_vs_it"), POINTS),
        *([Column("polite prompts, %", ("toxicity", polite), rate)] if polite else []),
        Column("model effect on prompt entropy, bits", effect, interval(3, signed=True)),
        Column("perplexity", ("fluency", "perplexity"), plain(1)),
        Column("tokens", ("fluency", "mean_length"), plain(1)),
    ]
    shown = table("", "", columns, variant_rows(metrics))
    said = [
        f"- **{model}.** {lead(variants, primary=primary, about=about)}"
        for model, variants in by_method(metrics, groups).items()
    ]
    return "\n".join([shown.grid, "", *said]) + "\n"
