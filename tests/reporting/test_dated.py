"""The page with date and commit: index.html otherwise, and index.html has nothing of them."""

from detoxlens.reporting import html
from detoxlens.reporting.dated import UNDATED, WHERE, dated_page

FACTS = {"Date": "2025-12-01 12:00 to 12:19 UTC", "Commit": "0123456789ab", "Hardware": "2 cores <of> a machine"}


def undated(named):
    return html.page(["<p>Summary.</p>"], {"Provenance": [html.term_list(named)]})


def test_the_facts_take_the_place_of_the_row_and_stand_under_the_title():
    page = undated({"Seed": "0", UNDATED: WHERE})
    found = dated_page(page, FACTS)
    assert "<dt>Commit</dt><dd>0123456789ab</dd>" in found and UNDATED not in found
    assert "2 cores &lt;of&gt; a machine" in found and "<dt>Seed</dt><dd>0</dd>" in found
    said = '<p class="summary">Date: 2025-12-01 12:00 to 12:19 UTC. Commit: 0123456789ab.</p>\n'
    assert f"<h1>{html.TITLE}</h1>\n{said}" in found
    # nothing else differs
    assert found.replace(said, "").replace(html.terms(FACTS), html.terms({UNDATED: WHERE})) == page


def test_a_page_of_a_former_version_has_no_place_for_them():
    assert dated_page(undated({"Seed": "0"}), FACTS) is None
