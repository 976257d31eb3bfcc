"""The report's page with what two runs of the same content differ in: date, commit, changed settings, hardware, hours.

index.html is the same bytes in every clone, so none of these is on it. The dated page is index.html with them in the
place of the row that says where they are; it is made from MLflow's runs and git, and no tool versions it.
"""

from __future__ import annotations

from collections.abc import Mapping

from detoxlens.reporting import html

UNDATED = "Date, commit, changed settings, hardware, hours"
WHERE = (
    "on `reports/dated.html`, this page with them, which `detoxlens log` writes; per stage in MLflow: `detoxlens ui`"
)
"""The row of the provenance box that the dated page replaces: its name and its text."""


def dated_page(page: str, facts: Mapping[str, str]) -> str | None:
    """The page with the facts under its title and in its provenance box; None where it has no row for them.

    Args:
        page: reports/index.html.
        facts: name -> value, plain text; `Date` and `Commit` stand under the title too.
    """
    row = html.terms({UNDATED: WHERE})
    if row not in page:
        return None
    said = ". ".join(f"{name}: {facts[name]}" for name in ("Date", "Commit") if name in facts)
    title = f"<h1>{html.text(html.TITLE)}</h1>\n"
    return page.replace(row, html.terms(facts), 1).replace(
        title, title + html.paragraph(f"{said}.", "summary") + "\n", 1
    )
