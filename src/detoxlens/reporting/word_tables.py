"""Toxic words in the report: one table, and a sentence per model that carries its nulls and its n."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detoxlens.common.names import BASE
from detoxlens.common.numbers import number
from detoxlens.reporting.cells import estimate, interval
from detoxlens.reporting.table import MODEL, VARIANT, Column, Table, table, value_at
from detoxlens.reporting.tables import variant_rows
from detoxlens.reporting.wording import sign

Json = Mapping[str, Any]
ENTROPY = "prompt_entropy_bits"
ALPHA = 0.05


def word_tables(metrics: Json) -> list[Table]:
    """The table; none where toxic words play no part, or where no model has enough: `word_sentences` says which."""
    at = ("attribution", "toxic_words")
    rows = [row for row in variant_rows(metrics) if value_at(row.found, *at) is not None]
    return [_table(rows)] if any(not value_at(row.found, *at, "reason") for row in rows) else []


def _table(rows) -> Table:
    at = ("attribution", "toxic_words")
    return table(
        "At the toxic words of base's answers",
        "Every model reads base's toxic completions. Prompt entropy over the user's text, in bits, at toxic words "
        "minus elsewhere: at the same step of other toxic completions, and in a regression with step, probability, "
        "beginning of a word and completion held alike. In brackets 95 % intervals over prompts; p by labels turned "
        "round within their completion / dealt out anew within the step. Lift: share of a toxic token's attribution on "
        "the prompt's toxic words over their share of the tokens, of words that the prompt does not contain (new) and "
        "of copied ones; p by which of the prompt's words are toxic, anew. AUROC of the first three steps' entropy for "
        "what turns toxic later, beside that of the prompt's toxicity. Rise: steps 4 to 8 minus 1 to 3.",
        [
            MODEL,
            VARIANT,
            Column("toxic completions", (*at, "num_toxic")),
            Column("entropy, same step", (*at, "contrast", ENTROPY), _tested),
            Column("entropy, regression", (*at, "regression"), _tested),
            Column("lift, new", (*at, "enrichment", "novel", "lift"), interval(2)),
            Column("p", (*at, "enrichment", "novel", "p"), p_text),
            Column("lift, copied", (*at, "enrichment", "copied", "lift"), interval(2)),
            Column("p", (*at, "enrichment", "copied", "p"), p_text),
            Column("AUROC", (*at, "early_warning", ENTROPY), interval(2)),
            Column("of prompt", (*at, "early_warning", "prompt_toxicity"), interval(2)),
            Column("rise, bits", (*at, "rise"), interval(2, signed=True)),
            Column("minus base's", (*at, "rise", "delta_vs_it"), interval(2, signed=True)),
        ],
        rows,
    )


def word_sentences(metrics: Json, *, num_draws: int) -> dict[str, str]:
    """Per model: are base's toxic words connected with a sharper use of the prompt?"""
    found = {}
    for model, variants in metrics.items():
        base = value_at(variants, BASE, "attribution", "toxic_words")
        if base is not None:
            found[model] = _nothing(base) if base["reason"] else _sentence(base, num_draws)
    return found


def _nothing(base: Json) -> str:
    return f"Whether toxic words are connected with the use of the prompt is not said: {base['reason']}."


def _sentence(base: Json, num_draws: int) -> str:
    contrast, regression, copying = (
        base["contrast"][ENTROPY],
        base["regression"],
        base["regression_with_copying"],
    )
    novel, early = base["enrichment"]["novel"], base["early_warning"]
    said = [
        f"{_verdict(contrast, regression, copying)}: in {base['num_toxic']} toxic completions of base "
        f"({base['num_tokens']} tokens of toxic words) prompt entropy there is {_change(contrast)} against the same "
        f"step of other ones, {_change(regression)} with completion, step and probability held alike, and "
        f"{_change(copying)} with copying from the prompt held alike too"
    ]
    if novel["lift"]:
        said.append(
            f"Toxic words that are new put {estimate(novel['lift'], 2)} times their tokens' share on the prompt's "
            f"toxic words ({p_text(novel['p'], name=True)} by which of its words are toxic, n = "
            f"{novel['num_completions']})"
        )
    if early.get(ENTROPY):
        said.append(
            f"Entropy in the first three steps tells what turns toxic later with AUROC {estimate(early[ENTROPY], 2)}, "
            f"the prompt's toxicity with {estimate(early['prompt_toxicity'], 2)} (n = {early['num_toxic']} and "
            f"{early['num_other']})"
        )
    return f"{'. '.join(said)}. p by {num_draws:,} draws of each null."


def _verdict(*tests: Json | None) -> str:
    """Sharper, flatter, or not shown: all tests have to agree, each by its interval and both nulls."""
    signs = {_shown(test) for test in tests}
    if signs == {-1}:
        return "Toxic words go with a sharper use of the prompt"
    if signs == {1}:
        return "Toxic words go with a less sharp use of the prompt"
    return "A sharper use of the prompt at toxic words is not shown"


def _shown(test: Json | None) -> int:
    if test is None or any(test[p] is None or test[p] > ALPHA for p in ("p_shift", "p_step")):
        return 0
    return sign(test) or 0


def _change(test: Json | None) -> str:
    if test is None:
        return "not known (the label cannot be told from the other terms)"
    return (
        f"{estimate(test, 2, signed=True)} bits ({p_text(test['p_shift'], name=True)} shifted, "
        f"{p_text(test['p_step'], name=True)} permuted)"
    )


def _tested(found: Json) -> str:
    """`−.10 [−.20, .00] (.012 / .034)`."""
    return f"{estimate(found, 2, signed=True)} ({p_text(found['p_shift'])} / {p_text(found['p_step'])})"


def p_text(p: float | None, *, name: bool = False) -> str:
    """`0.012`, or `p = 0.012`."""
    if p is None:
        return "p unknown" if name else "–"
    text = number(p, 4 if p < 0.001 else 3)
    return f"p = {text}" if name else text
