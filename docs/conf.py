"""Sphinx: the manual in MyST Markdown, the reference from docstrings. `make docs` builds it into build/docs."""

from __future__ import annotations

import re

from sphinx.util.docutils import SphinxDirective

project = "detoxlens"
author = "the detoxlens authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "detoxlens"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]  # links from README and CONTRIBUTING; tests/test_docs.py follows every one
default_role = "code"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "undoc-members": False, "show-inheritance": False}

SECTION = re.compile(r"\s*(Args|Returns|Raises|Yields|Attributes):$")
QUOTED = re.compile(r"(`[^`]*`)")
COLON = "\ue000"
"""Stands for a colon in an attribute's text, before which Napoleon would look for a type."""


def as_rst(app, what, name, obj, options, lines: list[str]) -> None:
    """Docstrings are plain text with code in backticks: what reStructuredText would read otherwise is escaped.

    An indented block behind a blank line, which is no section of Google's style, is shown as it is.
    """
    if any(SECTION.match(line) for line in lines):
        first = next(number for number, line in enumerate(lines) if SECTION.match(line))
    else:
        first = len(lines)
    plain: list[str] = []
    block = False
    for number, line in enumerate(lines[:first]):
        starts = line.startswith("    ") and (number == 0 or not lines[number - 1].strip())
        if starts and not block:
            plain += ["::", ""]
        block = starts or (block and (line.startswith("    ") or not line.strip()))
        plain.append(line if block else f"\0{line}")
    text = "\n".join(plain + [f"\0{line}" for line in lines[first:]])
    prose = re.sub(r"(?:^\0.*\n?)+", lambda found: _escaped(found[0].replace("\0", "")), text, flags=re.MULTILINE)
    if what in ("attribute", "data", "property"):
        prose = prose.replace(":", COLON)
    lines[:] = prose.split("\n")


def _escaped(text: str) -> str:
    """Outside backticks: asterisks, bars, backslashes, and underscores that end a word."""
    parts = QUOTED.split(text)
    return "".join(p if QUOTED.fullmatch(p) else re.sub(r"([*|\\]|_\b)", r"\\\1", p) for p in parts)


def with_colons(app, what, name, obj, options, lines: list[str]) -> None:
    lines[:] = [line.replace(COLON, ":") for line in lines]


class ParamsReference(SphinxDirective):
    """Every key of params.yaml with what its class says of it, a table per section."""

    def run(self):
        from detoxlens.params.schema import reference

        lines = []
        for section, about, keys in reference():
            lines += [f"## `{section}`", "", about, "", "| key | |", "|---|---|"]
            lines += [f"| `{key}` | {text.replace('|', chr(92) + '|').replace('<', '&lt;')} |" for key, text in keys]
            lines.append("")
        return self.parse_text_to_nodes("\n".join(lines), allow_section_headings=True)


def setup(app) -> None:
    app.add_directive("params-reference", ParamsReference)
    app.connect("autodoc-process-docstring", as_rst, priority=100)  # before Napoleon
    app.connect("autodoc-process-docstring", with_colons, priority=900)  # after it
