"""The pieces of reports/index.html. Text from data or models is escaped; no script, no network, pictures inside."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Mapping, Sequence

from detoxlens.reporting.claims import Claim
from detoxlens.reporting.page_style import NARROW, STYLE
from detoxlens.reporting.table import Table, superscript
from detoxlens.reporting.trust import Check

TITLE = "What detoxification changed"


def page(head: Sequence[str], sections: Mapping[str, Sequence[str]], *, footer: str = "") -> str:
    """A whole HTML 5 page.

    Args:
        head: ready HTML blocks under the title; the links to the sections follow them.
        sections: heading -> ready HTML blocks.
        footer: ready HTML.
    """
    names = {heading: re.sub(r"\W+", "-", heading.lower()) for heading in sections}
    links = "".join(f'<a href="#{name}">{text(heading)}</a>' for heading, name in names.items())
    body = [f"<h1>{text(TITLE)}</h1>", *head, f"<nav>{links}</nav>"]
    for heading, blocks in sections.items():
        body += [f'<h2 id="{names[heading]}">{text(heading)}</h2>', *blocks]
    body.append(f"<footer>{footer}</footer>")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(TITLE)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(block for block in body if block)
        + "\n</body>\n</html>\n"
    )


def paragraph(plain: str, kind: str, *, about: str = "") -> str:
    """A paragraph, begun by what it is about in bold."""
    head = f"<b>{text(about)}.</b> " if about else ""
    return f'<p class="{kind}">{head}{text(plain)}</p>'


def glossary(terms: Mapping[str, str]) -> str:
    """One line: what each name in the tables means."""
    parts = " · ".join(f"<b>{text(term)}</b>: {text(phrase)}" for term, phrase in terms.items())
    return f'<p class="glossary">{parts}</p>'


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


def term_list(named: Mapping[str, str]) -> str:
    return f"<dl>{terms(named)}</dl>"


def terms(named: Mapping[str, str]) -> str:
    """The rows of a term list."""
    return "".join(f"<dt>{text(k)}</dt><dd>{text(v)}</dd>" for k, v in named.items())


def table(content: Table) -> str:
    """A table under its caption; a line where it has no rows."""
    caption = f'<p class="caption"><b>{text(_sentence(content.title))}</b> {text(content.caption)}</p>'
    if not content.rows:
        return f"{caption}<p>No rows.</p>"

    def line(tag: str, cells: Sequence[str]) -> str:
        left = [' class="left"' if i < content.num_names else "" for i in range(len(cells))]
        return "".join(f"<{tag}{kind}>{text(cell)}</{tag}>" for kind, cell in zip(left, cells, strict=True))

    below = "".join(f'<p class="caption">{superscript(i)} {text(note)}</p>' for i, note in enumerate(content.notes, 1))
    rows = []
    for i, row in enumerate(content.rows):
        first = ' class="first"' if i > 0 and row[0] != content.rows[i - 1][0] else ""
        rows.append(f"<tr{first}>{line('td', row)}</tr>")
    return (
        f'{caption}<div class="wide"><table><thead><tr>{line("th", content.header)}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{below}"
    )


def _sentence(title: str) -> str:
    """With the full stop that a question does without."""
    return title if title.endswith(("?", "!", ".")) else f"{title}."


def picture(name: str, title: str, caption: str, svg: bytes, narrow_svg: bytes, *, width_px: int) -> str:
    """A figure, inside the page, with where it lies as a file. It scrolls sideways rather than shrink out of sight.

    Args:
        name: of its file.
        title: plain text.
        caption: plain text.
        svg: the picture.
        narrow_svg: the one that a narrow screen shows instead.
        width_px: narrowest width at which its letters can be read.
    """
    wide, narrow = (f"data:image/svg+xml;base64,{base64.b64encode(data).decode('ascii')}" for data in (svg, narrow_svg))
    return (
        f'<figure id="{html.escape(name)}"><div class="wide"><picture><source media="{NARROW}" srcset="{narrow}">'
        f'<img alt="{html.escape(title)}" style="--width:{width_px}px" src="{wide}"></picture>'
        f"</div><figcaption><b>{text(_sentence(title))}</b> {text(caption)} "
        f"(<code>figures/{html.escape(name)}.svg</code>)</figcaption></figure>"
    )


def trust_box(checks: Sequence[Check]) -> str:
    """Every check with its verdict as a word."""
    rows = [(check.status, check.status, f"<b>{text(check.name)}.</b> {text(check.text)}") for check in checks]
    return _prose(("check", "what it says"), [(kind, (verdict, body)) for kind, verdict, body in rows])


def claim_table(claims: Sequence[Claim]) -> str:
    """The paper's claims with their verdicts and evidence."""
    rows = [
        (
            claim.verdict.replace(" ", "-"),
            (claim.verdict, f"{text(claim.model)}: {text(claim.claim)}", text(claim.evidence)),
        )
        for claim in claims
    ]
    return _prose(("verdict", "claim", "in this run"), rows)


def _prose(header: Sequence[str], rows: Sequence[tuple[str, tuple[str, ...]]]) -> str:
    """A table of sentences, a verdict first: (class, (verdict, ready HTML, ...)) per row."""
    head = "".join(f"<th>{text(name)}</th>" for name in header)
    lines = [
        f'<tr><td class="verdict {kind}">{text(verdict)}</td>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for kind, (verdict, *cells) in rows
    ]
    return f'<table class="prose"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
