"""The pieces of reports/index.html. Text from data or models is escaped; no script, no network, pictures inside."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Mapping, Sequence

from detoxlens.attribution.heatmap import STYLE as HEATMAP_STYLE
from detoxlens.common.names import shown_name
from detoxlens.common.numbers import number
from detoxlens.reporting.examples import Example
from detoxlens.reporting.table import Table

STYLE = """
:root { color-scheme: light; --ink: #1c1c1c; --soft: #5f5f5f; --line: #dddddd; --tint: #f6f6f4; --warn: #8a4b00; }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: #fff; max-width: 66rem; margin: 2rem auto;
       padding: 0 1.25rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h3 { font-size: 1rem; margin-bottom: .2rem; }
h2 { font-size: 1.3rem; margin-top: 3rem; border-bottom: 1px solid var(--line); padding-bottom: .3rem; }
p, ul, dl { max-width: 48rem; } ul { margin-top: .2rem; padding-left: 1.2rem; }
.lead { color: var(--soft); margin-top: 0; }
nav a { margin-right: 1rem; } a { color: #0060a0; }
figure { margin: 1.2rem 0 2rem; } figure img { max-width: 100%; height: auto; }
.caption, figcaption { color: var(--soft); font-size: .88rem; max-width: 48rem; margin: 1.6rem 0 .3rem; }
figcaption { margin-top: .3rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .88rem; margin: 0 0 1.4rem; }
th, td { padding: .3rem 0 .3rem 1.3rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap;
         font-variant-numeric: tabular-nums; }
th { border-bottom: 1.5px solid var(--ink); font-weight: 600; }
.left { text-align: left; padding-left: 0; padding-right: .6rem; }
.first td { border-top: 2px solid #999; }
.warnings { border-left: 4px solid #e69f00; background: #fdf6e9; padding: .5rem 1rem; max-width: 48rem;
            margin: 1.2rem 0; }
.heatmap th, .heatmap td { border-bottom: 0; }
.warnings h2 { margin: .2rem 0; font-size: 1rem; color: var(--warn); border: 0; }
details { border: 1px solid var(--line); border-radius: 6px; padding: .6rem 1rem; margin: 1rem 0; }
summary { cursor: pointer; font-weight: 600; }
.example { border-top: 1px solid var(--line); padding: .8rem 0; margin-top: .6rem; }
.example p { margin: .2rem 0; max-width: none; }
.said { white-space: pre-wrap; overflow-wrap: anywhere; }
.who { display: inline-block; min-width: 4.5rem; font-weight: 600; }
.score { display: inline-block; min-width: 3rem; color: var(--soft); font-variant-numeric: tabular-nums; }
.toxic { color: #b3003c; font-weight: 600; }
dt { font-weight: 600; margin-top: .6rem; } dd { margin-left: 0; } code { background: var(--tint); padding: 0 .25em; }
footer { color: var(--soft); font-size: .85rem; margin-top: 3rem; }
"""


def page(title: str, lead: str, sections: Mapping[str, Sequence[str]], *, before: str = "", footer: str = "") -> str:
    """A whole HTML 5 page.

    Args:
        title: of the page, plain text.
        lead: one line under the title, plain text.
        sections: heading -> ready HTML blocks.
        before: ready HTML above the first section.
        footer: ready HTML.
    """
    names = {heading: re.sub(r"\W+", "-", heading.lower()) for heading in sections}
    links = "".join(f'<a href="#{name}">{text(heading)}</a>' for heading, name in names.items())
    body = [f"<h1>{text(title)}</h1>", f'<p class="lead">{text(lead)}</p>', f"<nav>{links}</nav>", before]
    for heading, blocks in sections.items():
        body += [f'<h2 id="{names[heading]}">{text(heading)}</h2>', *blocks]
    body.append(f"<footer>{footer}</footer>")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}{HEATMAP_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(block for block in body if block)
        + "\n</body>\n</html>\n"
    )


def text(plain: str) -> str:
    """Escaped, with `code` in backticks."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(plain))


def bullets(sentences: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{text(sentence)}</li>" for sentence in sentences) + "</ul>"


def warning_box(warnings: Sequence[str]) -> str:
    """What weakens the numbers; nothing when there is nothing."""
    return f'<div class="warnings"><h2>Warnings</h2>{bullets(warnings)}</div>' if warnings else ""


def folded(summary: str, *blocks: str) -> str:
    """Shown on a click."""
    return f"<details><summary>{text(summary)}</summary>{''.join(blocks)}</details>"


def term_list(terms: Mapping[str, str]) -> str:
    return "<dl>" + "".join(f"<dt>{text(k)}</dt><dd>{text(v)}</dd>" for k, v in terms.items()) + "</dl>"


def table(content: Table) -> str:
    """A table under its caption; a line where it has no rows."""
    caption = f'<p class="caption"><b>{text(content.title)}.</b> {text(content.caption)}</p>'
    if not content.rows:
        return f"{caption}<p>No rows.</p>"

    def line(tag: str, cells: Sequence[str]) -> str:
        left = [' class="left"' if i < content.num_names else "" for i in range(len(cells))]
        return "".join(f"<{tag}{kind}>{text(cell)}</{tag}>" for kind, cell in zip(left, cells, strict=True))

    rows = []
    for i, row in enumerate(content.rows):
        first = ' class="first"' if i > 0 and row[0] != content.rows[i - 1][0] else ""
        rows.append(f"<tr{first}>{line('td', row)}</tr>")
    return (
        f'{caption}<div class="wide"><table><thead><tr>{line("th", content.header)}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def picture(name: str, title: str, caption: str, svg: bytes) -> str:
    """A figure, inside the page, with where it lies as a file."""
    data = base64.b64encode(svg).decode("ascii")
    return (
        f'<figure id="{html.escape(name)}"><img alt="{html.escape(title)}" src="data:image/svg+xml;base64,{data}">'
        f"<figcaption><b>{text(title)}.</b> {text(caption)} "
        f"(<code>figures/{html.escape(name)}.svg</code>)</figcaption></figure>"
    )


def example_list(examples: Sequence[Example], threshold: float) -> str:
    """One prompt after the other, each with every variant's completion and its toxicity."""
    return "".join(_example(example, threshold) for example in examples)


def _example(example: Example, threshold: float) -> str:
    lines = [f'<p><span class="who">prompt</span> <span class="said">{html.escape(example.prompt)}</span></p>']
    for answer in example.answers:
        toxic = " toxic" if answer.toxicity is not None and answer.toxicity > threshold else ""
        score = "–" if answer.toxicity is None else number(answer.toxicity, 2)
        said = html.escape(answer.completion) or "<i>(empty)</i>"
        who = html.escape(shown_name(answer.variant))
        lines.append(
            f'<p><span class="who">{who}</span> <span class="score{toxic}">{score}</span> '
            f'<span class="said">{said}</span></p>'
        )
    return f'<div class="example">{"".join(lines)}</div>'
