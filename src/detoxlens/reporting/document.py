"""The report's text, once as a page and once as Markdown, in the order in which a reader asks.

What was found (a sentence per model), one figure, examples, whether to believe it, then the details.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from detoxlens.common.names import shown_name
from detoxlens.reporting import html
from detoxlens.reporting.about import About
from detoxlens.reporting.claims import Claim
from detoxlens.reporting.conclusions import Conclusions
from detoxlens.reporting.example_cards import KEY, LOCATED, LOG_ODDS, example_cards
from detoxlens.reporting.examples import Example
from detoxlens.reporting.pictures import Picture
from detoxlens.reporting.study import Study
from detoxlens.reporting.table import Table
from detoxlens.reporting.trust import Check
from detoxlens.reporting.word_marks import Marks, Place

FOOTER = (
    "Numbers: <code>metrics.json</code>, <code>entropy_curves.csv</code>, <code>training_curves.csv</code>, beside "
    "this page. Against another revision: <code>dvc metrics diff</code>, <code>dvc plots diff</code>. Runs with their "
    "dates and hours, parameters and adapters: <code>detoxlens ui</code> (MLflow)."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """All that is shown, ready to be laid out."""

    study: Study
    about: About
    conclusions: Mapping[str, Conclusions]
    warnings: Sequence[str]
    checks: Sequence[Check]
    claims: Sequence[Claim]
    pictures: Mapping[str, Picture]
    tables: Mapping[str, Sequence[Table]]
    """By section: endpoints, toxicity, counts, attribution, toxic_words, dose, fluency, costs, groups, details."""
    word_sentences: Mapping[str, str]
    """Per model, about its toxic words; empty where they play no part."""
    examples: Sequence[Example]
    toxic_words: Mapping[str, frozenset[str]]
    """Per model, words that go with toxic completions: underlined where none were found in the texts themselves."""
    marks: Mapping[Place, Marks]
    """What is underlined."""
    toxic_threshold: float
    definitions: Mapping[str, str]

    @property
    def summary(self) -> str:
        models = self.study.models
        names = dict.fromkeys(shown_name(v) for variants in models.values() for v in variants)
        num = sum(len(t.completions) for variants in models.values() for t in variants.values())
        return (
            f"{', '.join(models)}: {', '.join(names)}; {num:,} completions, graded by {self.study.grader}. Every "
            "sentence, table and figure is computed from this run's tables."
        )

    @property
    def glossary(self) -> dict[str, str]:
        names = dict.fromkeys(v for variants in self.study.models.values() for v in variants)
        return self.about.glossary(names, self.study.splits)

    @property
    def doubts(self) -> str:
        """The checks that failed or are missing, in the same breath as the result."""
        by_status = {s: [c.name.lower() for c in self.checks if c.status == s] for s in ("failed", "absent")}
        parts = [f"{status}: {', '.join(names)}" for status, names in by_status.items() if names]
        return f"Of the checks below, {'; '.join(parts)}." if parts else "All checks below passed."

    @property
    def how_chosen(self) -> str:
        return (
            "Chosen by the hash of the prompt, not by hand: half where base answered toxically, half where it did not, "
            "as far as there are any."
        )


def page(d: Document) -> str:
    """reports/index.html."""
    head = [
        html.paragraph(d.summary, "summary"),
        html.glossary(d.glossary),
        *(html.paragraph(found.lead, "lead", about=model) for model, found in d.conclusions.items()),
        html.paragraph(d.doubts, "summary"),
    ]
    sections = {
        "The result in one figure": [d.pictures["overview"].html, *_html(d, "endpoints")],
        "Examples": _examples(d),
        "Can it be believed?": [html.trust_box(d.checks), html.warning_box(d.warnings)],
        "The paper's claims": _claims(d),
        "Toxicity": [d.pictures["toxicity_rates"].html, *_html(d, "toxicity", "counts")],
        "Use of the prompt": [
            d.pictures["figure1"].html,
            d.pictures["model_effect"].html,
            *_html(d, "attribution"),
        ],
        "Toxic words": _words(d),
        "At equal toxicity": [*([d.pictures["dose"].html] if "dose" in d.pictures else []), *_html(d, "dose")],
        "Language": _html(d, "fluency"),
        "What it cost the civil user": [d.pictures["costs"].html, *_html(d, "costs")],
        "In sentences": [
            f"<h3>{html.text(model)}</h3>{html.bullets(found.details)}" for model, found in d.conclusions.items()
        ],
        "Training": [d.pictures["training"].html],
        "Details": [d.pictures["toxicity_distribution"].html, *_html(d, "groups", "details")],
        "Provenance": _provenance(d),
        "Definitions": [html.term_list(d.definitions)],
    }
    return html.page(head, {name: blocks for name, blocks in sections.items() if blocks}, footer=FOOTER)


def markdown(d: Document) -> str:
    """reports/report.md: the same facts, for a terminal or a code host."""
    parts = [f"# {html.TITLE}", d.summary, " · ".join(f"**{term}**: {phrase}" for term, phrase in d.glossary.items())]
    parts += [f"**{model}.** {found.lead}" for model, found in d.conclusions.items()] + [d.doubts]
    parts += [d.pictures["overview"].markdown, *(t.markdown() for t in d.tables["endpoints"])]
    parts.append("## Can it be believed?")
    parts.append("\n".join(f"- {check.name}: **{check.status}**. {check.text}" for check in d.checks))
    parts += _warnings(d)
    if d.claims:
        parts.append("## The paper's claims")
        parts.append("\n".join(f"- {c.model}: {c.claim}: **{c.verdict}** ({c.evidence})" for c in d.claims))
    parts += [t.markdown() for section in ("toxicity", "counts") for t in d.tables[section]]
    parts += [d.pictures["figure1"].markdown, d.pictures["model_effect"].markdown]
    parts += [t.markdown() for t in d.tables["attribution"]]
    if d.word_sentences:
        parts += ["## Toxic words", *(f"**{model}.** {said}" for model, said in d.word_sentences.items())]
        parts += [d.pictures["toxic_words"].markdown] if "toxic_words" in d.pictures else []
        parts += [t.markdown() for t in d.tables["toxic_words"]]
    parts += [d.pictures["dose"].markdown] if "dose" in d.pictures else []
    parts += [t.markdown() for section in ("dose", "fluency") for t in d.tables[section]]
    parts += [d.pictures["costs"].markdown, *(t.markdown() for t in d.tables["costs"])]
    parts.append("## In sentences")
    for model, found in d.conclusions.items():
        parts.append(f"### {model}\n\n" + "\n".join(f"- {sentence}" for sentence in found.details))
    parts += [t.markdown() for section in ("groups", "details") for t in d.tables[section]]
    if d.about.provenance:
        parts += ["## Provenance", "\n".join(f"- {name}: {value}" for name, value in d.about.provenance.items())]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def table1(d: Document) -> str:
    """reports/table1.md: Table 1 with its differences and counts, what a terminal can show."""
    parts = [
        f"# {html.TITLE}",
        d.summary,
        *(f"**{model}.** {found.lead}" for model, found in d.conclusions.items()),
        d.doubts,
    ]
    parts += [t.markdown() for section in ("toxicity", "counts") for t in d.tables[section]]
    return "\n\n".join(part.strip() for part in [*parts, *_warnings(d)]) + "\n"


def _html(d: Document, *sections: str) -> list[str]:
    return [html.table(t) for section in sections for t in d.tables[section]]


def _warnings(d: Document) -> list[str]:
    return ["## Warnings\n\n" + "\n".join(f"- {sentence}" for sentence in d.warnings)] if d.warnings else []


def _claims(d: Document) -> list[str]:
    if not d.claims:
        return []
    what = "Scalena et al. 2023 (arXiv 2309.00751) of other models and data: what this run says of the same sentences."
    return [html.paragraph(what, "caption"), html.claim_table(d.claims)]


def _examples(d: Document) -> list[str]:
    if not d.examples:
        return ["<p>No prompt that every variant completed.</p>"]
    attributions = {
        (model, variant, a.prompt_id, a.sample_index): a
        for model, variants in d.study.models.items()
        for variant, tables in variants.items()
        for a in tables.shown
    }
    cards = example_cards(d.examples, attributions, d.toxic_words, d.toxic_threshold, d.marks)
    located = {place[0] for place in d.marks}
    return [html.paragraph(d.how_chosen, "caption")] + [
        html.folded(
            f"{model}: the same prompts, every variant's answer (contains rude text)",
            KEY.format(underlined=LOCATED if model in located else LOG_ODDS),
            body,
        )
        for model, body in cards.items()
    ]


def _words(d: Document) -> list[str]:
    if not d.word_sentences:
        return []
    said = [html.paragraph(sentence, "caption", about=model) for model, sentence in d.word_sentences.items()]
    drawn = [d.pictures["toxic_words"].html] if "toxic_words" in d.pictures else []
    return [*said, *drawn, *_html(d, "toxic_words")]


def _provenance(d: Document) -> list[str]:
    return [f'<div class="provenance">{html.term_list(d.about.provenance)}</div>'] if d.about.provenance else []
