"""docs/controls.md: its tables and sentences with the numbers of reports/studies/controls.

`written(page, metrics, study)` fills the regions between `<!-- results: ... -->` and `<!-- end of results -->`. Every
number that the study found is read from metrics.json, and with it the verdict that its sentence rests on: one that a
run no longer gives raises `OutOfDate`, and the sentence has to be written anew.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from detoxlens.common.names import BASE, shown_name
from detoxlens.common.numbers import number
from detoxlens.reporting.about import About, Role
from detoxlens.reporting.between import between
from detoxlens.reporting.by_method import by_method, num_seeds
from detoxlens.reporting.cells import POINTS, estimate, interval, rate
from detoxlens.reporting.claims import claims
from detoxlens.reporting.dose_tables import HEADINGS
from detoxlens.reporting.table import Column, Row, table, value_at
from detoxlens.reporting.wording import difference, listed, points, sign

Json = Mapping[str, Any]
MODEL, SPLIT, POLITE = "tiny-neox", "p50", "polite"
ENTROPY, DEPENDENCE, KL = "prompt_entropy_bits", "prompt_dependence_excess_bits", "prompt_kl_bits"
BELOW, UNSHOWN, ABOVE = -1, 0, 1
"""Which side of 0 an interval lies on; UNSHOWN: it holds 0."""
SIGNED = interval(3, signed=True)


class OutOfDate(Exception):
    """A sentence says what the metrics do not."""


def written(page: str, metrics: Json, study: Json) -> str:
    """The page with its regions filled.

    Raises:
        OutOfDate: a sentence has another verdict than the metrics.
    """
    for name, region in REGIONS.items():
        marks = re.compile(rf"(<!-- {name}: [^\n]* -->\n)(.*?)(<!-- end of {name} -->)", re.DOTALL)
        if not marks.search(page):
            raise OutOfDate(f"docs/controls.md has lost the comments around {name}")
        text = region(Numbers(metrics[MODEL]), study)
        page = marks.sub(lambda found, text=text: f"{found[1]}{text}\n{found[3]}", page)
    return page


class Numbers:
    """The study's numbers: of single trainings, and of methods, all seeds of each together."""

    def __init__(self, variants: Json) -> None:
        self.variants = variants
        groups = {seed: v for v, found in variants.items() for seed in value_at(found, "method", "variants") or ()}
        self.methods = by_method({MODEL: variants}, groups)[MODEL]

    def effect(self, method: str, measure: str, scope: str, way: int) -> str:
        """A method's model effect, in bits."""
        found = value_at(self.methods, method, *_effect_at(measure, scope))
        return checked(found, way, f"{method}, {measure}, {scope}")

    def apart(self, one: str, other: str, measure: str, scope: str, way: int) -> str:
        """One method's model effect minus another's, in bits."""
        return checked(
            between(self.methods, one, other, *_effect_at(measure, scope)), way, f"{one} - {other}, {measure}, {scope}"
        )

    def toxic(self, method: str, way: int) -> str:
        """A method's toxicity minus base's, in percentage points."""
        found = self.methods[method]["toxicity"][SPLIT]["delta_vs_it"]
        return checked(found, way, f"{method}, toxicity", points)

    def by_others(self, method: str, measure: str, scope: str, unit: str = " bits") -> str:
        """A model effect by further methods of attribution, and whether its sign is the headline's."""
        name = "methods_user_text" if scope == "user" else "methods"
        found = self.variants[method]["method"]["attribution"][name]
        said = {True: "the same sign", False: "**the sign turns**", None: "not shown by one of the two"}
        return listed(
            [
                f"{other} {difference(effect, 3, unit)} ({said[found['sign_holds'][measure][other]]})"
                for other, effect in found["effects"][measure].items()
            ]
        )

    def each(self, method: str) -> list[Json]:
        """The entries of its trainings."""
        return [self.variants[seed] for seed in self.methods[method]["method"]["variants"]]

    def verdicts(self, method: str, *path: str) -> list[int | None]:
        """Which side of 0 the interval of each of its trainings lies on."""
        return [sign(value_at(found, *path)) for found in self.each(method)]


def checked(found: Json | None, way: int, what: str, form: Callable[[Json], str] | None = None) -> str:
    """The difference in words, if it lies where the sentence says."""
    if sign(found) != way:
        raise OutOfDate(f"docs/controls.md says that {what} has the sign {way}; it has {sign(found)}: {found}")
    return form(found) if form else difference(found, 3, " bits")


def holds(claim: bool, what: str) -> None:
    """A sentence that names no number."""
    if not claim:
        raise OutOfDate(f"docs/controls.md says that {what}; it does not hold")


def _effect_at(measure: str, scope: str) -> tuple[str, ...]:
    return ("attribution", "effects", scope, measure, "model_effect")


def setting(of: Numbers, study: Json) -> str:
    machine, found = study["machine"], of.methods["ft"]
    minutes = f"{sum(study['wall_seconds']) / 60:.0f} minutes"
    effect = value_at(found, *_effect_at(ENTROPY, "prompt")[:-1])
    return (
        f"{num_seeds(found)} trainings of each on {MODEL}: {minutes} on {machine['num_cores']} cores of an "
        f"{machine['cpu']}, {study['note']} ([report](../reports/studies/controls/report.md), `study.json` beside it). "
        f"Split {SPLIT}, {found['toxicity'][SPLIT]['num_scored']} prompts, graded by `profanity_check`. The model "
        f"effect, in bits, is variant minus base on the same text, steps 1 to {effect['num_steps']}, "
        f"{effect['num_prompts']} prompts. 95 % intervals: of a training, over prompts; of a method, over seeds and "
        "prompts, by Student's t, which three seeds make wide."
    )


def results(of: Numbers, study: Json) -> str:
    columns = [
        Column("variant", lambda row: row.key, is_name=True),
        Column("toxic, %", ("toxicity", SPLIT), rate),
        Column("minus base, points", ("toxicity", SPLIT, "delta_vs_it"), POINTS),
        Column("entropy, with the template", _effect_at(ENTROPY, "prompt"), SIGNED),
        Column("entropy, user's text", _effect_at(ENTROPY, "user"), SIGNED),
        Column("dependence, with the template", _effect_at(DEPENDENCE, "prompt"), SIGNED),
        Column("dependence, user's text", _effect_at(DEPENDENCE, "user"), SIGNED),
    ]
    return table("", "", columns, _rows(of)).grid


def _rows(of: Numbers) -> Iterator[Row]:
    """Of every method a row, below it those of its trainings."""
    for method, found in of.methods.items():
        several = num_seeds(found) > 1
        name = f"**`{method}`, {num_seeds(found)} seeds**" if several else shown_name(method)
        yield Row(model=MODEL, variant=method, found=found, key=name)
        for seed in found["method"]["variants"] if several else ():
            yield Row(model=MODEL, variant=seed, found=of.variants[seed], key=f"`{seed}`")


def equal(of: Numbers, study: Json) -> str:
    (levels,) = (found["dose"]["at_equal_toxicity"]["rl"] for v, found in of.methods.items() if v == "ft")
    columns = [
        Column("toxicity", ("level",), "{} % of base’s".format, is_name=True),
        Column("strengths", ("strengths",), lambda s: ", ".join(f"`{v}` {number(a, 2)}" for v, a in s.items())),
        *(Column(name, (quantity,), SIGNED) for quantity, name in HEADINGS.items()),
    ]
    rows = [Row(model=MODEL, variant="ft", found={"level": level} | found) for level, found in levels.items()]
    return table("", "", columns, rows).grid


def sentences(of: Numbers, study: Json) -> str:
    walks = [points(found["toxicity"][SPLIT]["delta_vs_it"]) for found in of.each("placebo_rl")]
    signs = set(of.verdicts("placebo_rl", "toxicity", SPLIT, "delta_vs_it"))
    holds({BELOW, ABOVE} <= signs, "placebo_rl goes either way")
    turned = value_at(of.variants, "ft", "method", "attribution", "methods", "sign_holds", DEPENDENCE, "occlusion")
    holds(turned is False, "occlusion turns the sign of the dependence of ft")
    effect, apart = of.effect, of.apart
    return _bullets(
        f"**Toxicity falls by what was taught**: `ft` {of.toxic('ft', BELOW)}, its placebo "
        f"{of.toxic('placebo_ft', UNSHOWN)}; `rl` {of.toxic('rl', BELOW)}. PPO on permuted rewards is a random walk "
        f"that goes either way: {listed(walks)}.",
        "**Over the user's text alone `ft` makes importance more uniform**, by "
        f"{effect('ft', ENTROPY, 'user', ABOVE)}; its placebo {effect('placebo_ft', ENTROPY, 'user', UNSHOWN)}, the "
        f"difference {apart('ft', 'placebo_ft', ENTROPY, 'user', ABOVE)}. By other methods of attribution: "
        f"{of.by_others('ft', ENTROPY, 'user')}.",
        "**With the template the entropy of `ft` shows nothing**, "
        f"{effect('ft', ENTROPY, 'prompt', UNSHOWN)}: the result hinges on whether the template counts.",
        "**By gradients and by KL `ft` depends less on the prompt; occlusion does not bear it out.** Input x "
        f"gradient, beyond uniform: {effect('ft', DEPENDENCE, 'prompt', BELOW)} with the template, "
        f"{effect('ft', DEPENDENCE, 'user', BELOW)} without; placebo "
        f"{effect('placebo_ft', DEPENDENCE, 'prompt', UNSHOWN)} and "
        f"{effect('placebo_ft', DEPENDENCE, 'user', UNSHOWN)}; differences "
        f"{apart('ft', 'placebo_ft', DEPENDENCE, 'prompt', BELOW)} and "
        f"{apart('ft', 'placebo_ft', DEPENDENCE, 'user', BELOW)}. KL, without any attribution: "
        f"{effect('ft', KL, 'any_method', BELOW)}. With the template, by other methods: "
        f"{of.by_others('ft', DEPENDENCE, 'prompt')}; as the plain share of attribution on the "
        f"prompt: {of.by_others('ft', 'prompt_dependence', 'prompt', unit='')}.",
        f"`rl` is not shown to do either: entropy {effect('rl', ENTROPY, 'prompt', UNSHOWN)} with the template, "
        f"{effect('rl', ENTROPY, 'user', UNSHOWN)} without; dependence "
        f"{effect('rl', DEPENDENCE, 'prompt', UNSHOWN)} and {effect('rl', DEPENDENCE, 'user', UNSHOWN)}.",
    )


def verdicts(of: Numbers, study: Json) -> str:
    """The paper's claims, as the report has them."""
    names = {"ft": "sft", "rl": "rl", BASE: "base"}
    roles = {v: Role(kind=kind, text="") for v, kind in names.items()}
    roles |= {f"placebo_{v}": Role(kind=names[v], text="", placebo_of=v) for v in ("ft", "rl")}
    found = claims({MODEL: of.methods}, primary=SPLIT, about=About(variants=roles))
    return _bullets(*(f"{claim.claim}: **{claim.verdict}** ({claim.evidence})" for claim in found))


def elsewhere(of: Numbers, study: Json) -> str:
    at = ("attribution", "other_prompts", POLITE)
    entropy, dependence = (value_at(of.methods, "ft", *at, measure) for measure in (ENTROPY, DEPENDENCE))
    each = of.verdicts("ft", *at, DEPENDENCE, "difference")
    return (
        "Over three seeds `ft` changes its dependence with the template by "
        f"{checked(dependence['primary'], BELOW, 'ft, hostile')} on hostile prompts and by "
        f"{difference(dependence['other'], 3, ' bits')} on polite ones; the difference is "
        f"{checked(dependence['difference'], BELOW, 'ft, hostile - polite')}, below 0 in {each.count(BELOW)} of "
        f"{len(each)} trainings. Of its entropy it is "
        f"{checked(entropy['difference'], UNSHOWN, 'ft, entropy, hostile - polite')}."
    )


def floor(of: Numbers, study: Json) -> str:
    found = of.variants[BASE]["attribution"]["noise_floor"]
    js = {
        reader: value_at(found, reader, "divergence_from_it_bits", "jensen_shannon")
        for reader in (found["reader"], *(v for v in of.variants if v != BASE))
    }

    def spread(method: str) -> str:
        values = sorted(js[seed]["value"] for seed in of.methods[method]["method"]["variants"])
        return f"`{method}` {values[0]:.3f} to {values[-1]:.3f}"

    return (
        f"On base's text of the results above: a base model of {found['reader']} is "
        f"{estimate(js[found['reader']], 3)} bits of Jensen–Shannon from base, "
        f"{listed([spread(m) for m in of.methods if m != BASE])}."
    )


def readme_sentence(of: Numbers) -> str:
    """What the README says of the study."""
    return (
        f"Over the user's text alone `ft` makes importance more uniform, as in the paper: "
        f"{of.effect('ft', ENTROPY, 'user', ABOVE)} over three seeds of {MODEL}, its placebo "
        f"{of.effect('placebo_ft', ENTROPY, 'user', UNSHOWN)};"
    )


def _bullets(*texts: str) -> str:
    return "\n".join(f"- {text}" for text in texts)


REGIONS: Mapping[str, Callable[[Numbers, Json], str]] = {
    "setting": setting,
    "results": results,
    "sentences": sentences,
    "equal": equal,
    "claims": verdicts,
    "elsewhere": elsewhere,
    "floor": floor,
}
