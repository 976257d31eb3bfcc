"""One prompt, every variant's answer side by side: toxicity, the words that go with it, and where the attribution lies.

Text from data and models is escaped. Nothing hangs on colour alone: toxic words are underlined, heat maps have a text.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from detoxlens.attribution.heatmap import heatmap_html, underlined_html
from detoxlens.attribution.heatmap import shown as shown_token
from detoxlens.common.names import shown_name
from detoxlens.common.numbers import number
from detoxlens.common.records import Attribution
from detoxlens.reporting.examples import Answer, Example
from detoxlens.reporting.toxic_words import marked
from detoxlens.reporting.word_marks import Marks, Place, marked_words

LOCATED = "words without which the text is not toxic to the grader (params <code>toxic_words</code>)"
LOG_ODDS = "words that go with toxic completions of this model (log-odds, z &gt; 2.58)"
KEY = (
    '<p class="key">Toxicity by the grader, 0 to 1. <mark class="rude">Underlined</mark>: {underlined}. Under each '
    "answer the prompt as the model read it, each token shaded by its share of the attribution, averaged over the "
    "generated tokens: "
    '<span class="scale"></span> none to most. Token by token: rows are generated tokens, columns the tokens before '
    "them, a line parts prompt and answer; the darkest cell of a row holds its largest share.</p>"
)
NUM_NAMED = 3
"""Prompt tokens with the most attribution that the text under a heat map names."""


def example_card(
    example: Example,
    attributions: Mapping[str, Attribution],
    words: frozenset[str],
    threshold: float,
    marks: Mapping[str, Marks] | None = None,
) -> str:
    """One prompt with a column per variant.

    Args:
        example: prompt and answers.
        attributions: variant -> how its model read its own answer; those that were attributed.
        words: that are marked where `marks` has nothing to say.
        threshold: toxicity above which the number is red.
        marks: variant -> the toxic words that were found in its answer and in the prompt.
    """
    marks = marks or {}
    cards = "".join(
        _answer(answer, attributions.get(answer.variant), words, threshold, marks.get(answer.variant))
        for answer in example.answers
    )
    return (
        f'<section class="example"><h4>“{html.escape(shortened(example.prompt))}”</h4>'
        f'<div class="columns">{cards}</div></section>'
    )


def _answer(
    answer: Answer, attribution: Attribution | None, words: frozenset[str], threshold: float, marks: Marks | None
) -> str:
    toxic = " toxic" if answer.toxicity is not None and answer.toxicity > threshold else ""
    score = "not scored" if answer.toxicity is None else f"toxicity {number(answer.toxicity, 2)}"
    pieces = marked(answer.completion, words) if marks is None else marked_words(answer.completion, marks.words)
    said = "".join(
        f'<mark class="rude">{html.escape(piece)}</mark>' if is_toxic else html.escape(piece)
        for piece, is_toxic in pieces
    )
    parts = [
        f'<p class="who">{html.escape(shown_name(answer.variant))} <span class="score{toxic}">{score}</span></p>',
        f'<p class="said">{said or "<i>(empty)</i>"}</p>',
    ]
    if attribution is None or attribution.scores is None:
        parts.append('<p class="caption">Not attributed.</p>')
    else:
        parts += [shaded_prompt(attribution, marks), _heatmap(attribution, marks)]
    return f'<div class="card">{"".join(parts)}</div>'


def shaded_prompt(a: Attribution, marks: Marks | None = None) -> str:
    """The prompt's tokens, template too, each shaded by its mean share of the attribution, toxic ones underlined."""
    toxic = marks.prompt_tokens if marks else ()
    means = prompt_shares(a)
    most = max(means, default=0.0) or 1.0
    tokens = "".join(
        f'<span style="background:rgba(0,114,178,{0.75 * mean / most:.2f})" title="{mean:.1%}">'
        + (f"{underlined_html(html.escape(piece))}</span>" if j in toxic else f"{html.escape(piece)}</span>")
        for j, (piece, mean) in enumerate(zip(a.prompt_pieces, means, strict=True))
    )
    return f'<p class="read">{tokens}</p>'


def prompt_shares(a: Attribution) -> list[float]:
    """Per prompt token its share of the attribution, mean over the generated tokens."""
    num_prompt = len(a.prompt_pieces)
    return (
        [sum(row[j] for row in a.scores) / len(a.scores) for j in range(num_prompt)] if a.scores else [0.0] * num_prompt
    )


def _heatmap(a: Attribution, marks: Marks | None) -> str:
    """Token by token, behind a click, with a caption that says the same in words."""
    shares = prompt_shares(a)
    order = sorted(range(len(shares)), key=lambda j: -shares[j])[:NUM_NAMED]
    most = ", ".join(f"“{shown_token(a.prompt_pieces[j].strip(' '))}” {100 * shares[j]:.0f} %" for j in order)
    caption = f"{100 * sum(shares):.0f} % of the attribution lies on the prompt, most on {most}."
    num_prompt = len(a.prompt_pieces)
    toxic = {*marks.prompt_tokens, *(num_prompt + t for t in marks.completion_tokens)} if marks else ()
    body = heatmap_html(a.scores or (), a.prompt_pieces, a.completion_pieces, token_prob=a.token_prob, underlined=toxic)
    return (
        f'<details class="map"><summary>Token by token</summary><p class="caption">{caption}</p>'
        f'<div class="wide">{body}</div></details>'
    )


def shortened(text: str, longest: int = 110) -> str:
    """One line, cut between words."""
    line = " ".join(text.split())
    return line if len(line) <= longest else line[:longest].rsplit(" ", 1)[0] + " …"


def example_cards(
    examples: Sequence[Example],
    attributions: Mapping[tuple[str, str, str, int], Attribution],
    words: Mapping[str, frozenset[str]],
    threshold: float,
    marks: Mapping[Place, Marks],
) -> dict[str, str]:
    """Per model its examples, one below the other.

    Args:
        examples: in the order of the page.
        attributions: by model, variant, prompt and sample.
        words: per model those that are marked where `marks` has nothing to say.
        threshold: toxicity above which a number is red.
        marks: the toxic words that were found.
    """
    found: dict[str, str] = {}
    for e in examples:
        of = {v: a for (m, v, p, s), a in attributions.items() if (m, p, s) == (e.model, e.prompt_id, e.sample_index)}
        place = e.model, e.prompt_id, e.sample_index
        found_in = {v: found for (m, v, p, s), found in marks.items() if (m, p, s) == place}
        card = example_card(e, of, words.get(e.model, frozenset()), threshold, found_in)
        found[e.model] = found.get(e.model, "") + card
    return found
