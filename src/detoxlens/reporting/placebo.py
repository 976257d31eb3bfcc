"""A method's effect beside that of its placebo: by the sizes of both and their difference, not by what is "shown".

That one interval excludes 0 and the other does not is no difference between them (Gelman and Stern 2006,
doi:10.1198/000313006X152649): the two are subtracted, on the same prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detoxlens.common.numbers import number
from detoxlens.reporting.about import About
from detoxlens.reporting.between import between
from detoxlens.reporting.table import value_at
from detoxlens.reporting.wording import could_detect, difference, sign

Json = Mapping[str, Any]


def against_placebo(variant: str, variants: Json, about: About, *, scope: str, measure: str, unit: str) -> str:
    """What the placebo has of a model effect that was shown, as a clause.

    Args:
        variant: whose effect it is.
        variants: of one model, from `by_method`.
        about: which variants are placebos.
        scope: of the effect.
        measure: of the attribution.
        unit: with a blank before it.
    """
    if (control := about.placebo(variant, variants)) is None:
        return "no placebo shows whether any training does this"
    at = ("effects", scope, measure, "model_effect")
    ours, theirs = (value_at(variants, name, "attribution", *at) for name in (variant, control))
    apart = between(variants, variant, control, "attribution", *at)
    if theirs is None or sign(apart) is None:
        return f"its placebo `{control}` was not measured beside it"
    size, gap = difference(theirs, 3, unit), f"the difference is {difference(apart, 3, unit)}"
    if not sign(apart):
        gap += f", not shown; {could_detect(apart, 3, unit)}"
    if sign(theirs) != sign(ours):
        return f"its placebo `{control}` does not show it ({size}); {gap}"
    if not sign(apart):
        return f"its placebo `{control}` shows it too ({size}): not particular to detoxification; {gap}"
    return f"its placebo `{control}` has {number(100 * theirs['value'] / ours['value'], 0)} % of it ({size}); {gap}"
