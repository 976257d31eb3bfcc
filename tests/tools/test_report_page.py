"""The report in a real browser, as on a desk and on a telephone, light and dark: pictures and what lies outside them.

DETOXLENS_SCREENSHOTS names a folder that keeps the pictures.
"""

import os
import shutil
from pathlib import Path

import pytest

from detoxlens.reporting.report import write_report
from tests.reporting.synthetic import write_study
from tests.reporting.test_report import CONFIG, load
from tests.tools.test_browser import MODEL, browser

pytestmark = pytest.mark.slow
SCREENS = {"desk": 1300, "telephone": 420}
"""Name -> width in CSS pixels."""
OUTSIDE = """
    const wide = e => e.closest(".wide") || e.closest("svg");
    return [...document.querySelectorAll("body *")]
        .filter(e => !wide(e) && e.getBoundingClientRect().right > window.innerWidth + 1)
        .map(e => e.tagName + ": " + e.textContent.slice(0, 40));
"""
SMALL = """
    return [...document.querySelectorAll("body *")]
        .filter(e => e.childNodes.length && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
        .filter(e => e.getClientRects().length && parseFloat(getComputedStyle(e).fontSize) < 11)
        .map(e => e.tagName + ": " + e.textContent.slice(0, 40));
"""
LETTERS = """
    return [...document.querySelectorAll("figure img")]
        .map(e => [e.closest("figure").id, e.getBoundingClientRect().width, arguments[0] * e.width / e.naturalWidth]);
"""
"""Per figure its name, its width, and the height of its smallest letters, all in CSS pixels."""
SMALLEST_PT, PX_PER_PT = 8, 96 / 72
CUT = """
    return [...document.querySelectorAll(".wide")]
        .filter(e => e.scrollWidth > e.clientWidth + 1)
        .map(e => getComputedStyle(e).backgroundImage.includes("gradient"));
"""
"""Per frame that holds more than it shows: is there a shadow at its edges?"""
FAINT = """
    const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
    const over = (above, below) => {
        const [r, g, b, a = 1] = parse(above);
        return [r, g, b].map((c, i) => a * c + (1 - a) * below[i]);
    };
    const paper = e => e ? over(getComputedStyle(e).backgroundColor, paper(e.parentElement)) : [255, 255, 255];
    const light = ([r, g, b]) => [[r, .2126], [g, .7152], [b, .0722]]
        .map(([c, w]) => [c / 255, w])
        .reduce((sum, [c, w]) => sum + w * (c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4), 0);
    const contrast = e => {
        const below = paper(e);
        const both = [light(below), light(over(getComputedStyle(e).color, below))].sort((a, b) => a - b);
        return (both[1] + .05) / (both[0] + .05);
    };
    return [...document.querySelectorAll("body *")]
        .filter(e => e.getClientRects().length && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
        .filter(e => contrast(e) < 4.5)
        .map(e => e.tagName + "." + e.className + " " + contrast(e).toFixed(2) + ": " + e.textContent.slice(0, 40));
"""
"""Texts with less contrast to what is behind them than WCAG 2.2 asks for, 4.5 (criterion 1.4.3)."""
TOPS = """return [...document.querySelector(".columns").children].map(e => e.getBoundingClientRect().top)"""
"""Where the answers of one prompt begin."""


def shown(page, address, *, width, dark):
    """Opens the page on a screen of that width."""
    page.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    page.driver.get(address)
    page.driver.execute_script("document.querySelectorAll('details').forEach(e => e.open = true)")


def brightness(page, picture):
    """Mean of a screenshot's grey values, 0..255."""
    from PIL import Image, ImageStat

    page.save(picture)
    return ImageStat.Stat(Image.open(picture).convert("L")).mean[0]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A page of one model."""
    pytest.importorskip("selenium", reason="pip install -e '.[browser]'")
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("apt-get install chromium chromium-driver")
    layout = write_study(tmp_path_factory.mktemp("study"), [MODEL])
    write_report(layout.reports, load(layout, models=(MODEL,)), CONFIG)
    return (layout.reports / "index.html").as_uri()


def test_on_a_desk_and_on_a_telephone_nothing_is_cut_and_all_is_legible_and_dark_is_dark(address, tmp_path):
    kept = Path(os.environ.get("DETOXLENS_SCREENSHOTS", tmp_path / "screenshots"))
    with browser() as page:
        for name, width in SCREENS.items():
            shown(page, address, width=width, dark=False)
            assert page.driver.execute_script("return document.documentElement.scrollWidth") <= width
            assert page.driver.execute_script(OUTSIDE) == []  # what is wider scrolls within its own frame
            assert page.driver.execute_script(SMALL) == []
            light = brightness(page, kept / f"report-{name}.png")
            first = (kept / f"report-{name}.png").read_bytes()
            shown(page, address, width=width, dark=False)
            brightness(page, kept / f"report-{name}.png")
            assert (kept / f"report-{name}.png").read_bytes() == first  # the same page is the same picture
            shown(page, address, width=width, dark=True)
            assert brightness(page, kept / f"report-{name}-dark.png") < 80 < 200 < light


def test_letters_of_figures_are_large_enough_and_on_a_telephone_no_figure_is_wider_than_it(address):
    with browser() as page:
        for name, width in SCREENS.items():
            shown(page, address, width=width, dark=False)
            figures = page.driver.execute_script(LETTERS, SMALLEST_PT * PX_PER_PT)
            assert len(figures) >= 6 and min(letters for _, _, letters in figures) >= 9, figures
            if name == "telephone":
                assert max(wide for _, wide, _ in figures) <= width


def test_every_text_stands_out_from_what_is_behind_it_in_light_and_dark(address):
    with browser() as page:
        for dark in (False, True):
            shown(page, address, width=1300, dark=dark)
            assert page.driver.execute_script(FAINT) == []


def test_what_is_cut_has_a_shadow_and_answers_stand_side_by_side_on_a_desk(address):
    with browser() as page:
        shown(page, address, width=420, dark=False)
        cut = page.driver.execute_script(CUT)
        assert cut and all(cut)  # tables are wider than a telephone
        assert len(set(page.driver.execute_script(TOPS))) == 3
        shown(page, address, width=1300, dark=False)
        assert len(set(page.driver.execute_script(TOPS))) == 1
