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


def test_on_a_desk_and_on_a_telephone_nothing_is_cut_and_all_is_legible_and_dark_is_dark(tmp_path):
    pytest.importorskip("selenium", reason="pip install -e '.[browser]'")
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("apt-get install chromium chromium-driver")
    layout = write_study(tmp_path, [MODEL])
    write_report(layout.reports, load(layout, models=(MODEL,)), CONFIG)
    address = (layout.reports / "index.html").as_uri()
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
