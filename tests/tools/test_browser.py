"""MLflow's own pages in a real browser: which variant is less toxic, and at what cost in entropy and fluency.

DETOXLENS_SCREENSHOTS names a folder that keeps the pictures. The one in docs/guide.md is of the demo's results:

    python -m tests.tools.test_browser docs/mlflow.png        # after `dvc repro` or `dvc pull` and `detoxlens log`
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from detoxlens.common.names import shown_name
from detoxlens.params.load import load_params
from detoxlens.pipeline.publish import GLANCE, GLANCE_CURVE, publish_runs
from detoxlens.reporting.report import write_report
from detoxlens.tracking import Store, charts_url, resolve_store
from tests.reporting.synthetic import write_study
from tests.reporting.test_report import CONFIG, load
from tests.root import ROOT
from tests.tracking.stores import NOISE

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings(NOISE)]
MODEL, VARIANTS = "tiny-neox", ("it", "ft", "rl")
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 180  # seconds for a page to show something


@contextlib.contextmanager
def served(store: Store) -> Iterator[str]:
    """The address of the page with all charts while `detoxlens ui` runs in the store's project."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = charts_url(store, port=port)
    command = [sys.executable, "-m", "detoxlens", "--root", str(store.state.parent), "ui", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        wait(lambda: answers(f"http://127.0.0.1:{port}/health") or server.poll() is not None)
        assert server.poll() is None, "the server has ended"
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)  # MLflow's server too
        server.wait()


def answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=2).close()
    except OSError:
        return False
    return True


def wait(until):
    """What `until` returns as soon as it is true."""
    import time

    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := until():
            return found
        time.sleep(0.3)
    raise AssertionError("the page did not show it in time")


class Page:
    """A tab of headless Chromium with what a reader does in it."""

    def __init__(self, profile: str):
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        for option in (*OPTIONS, f"--user-data-dir={profile}", "--window-size=1500,1300"):
            options.add_argument(option)
        options.binary_location = shutil.which("chromium")
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        self.driver = webdriver.Chrome(options=options, service=service)

    def text(self) -> str:
        return self.driver.execute_script("return document.body.innerText")

    def all(self, xpath: str) -> list:
        return [e for e in self.driver.find_elements("xpath", xpath) if e.is_displayed()]

    def click(self, xpath: str) -> None:
        from selenium.common.exceptions import WebDriverException

        def clicked() -> bool:
            try:
                self.all(xpath)[0].click()
            except (IndexError, WebDriverException):  # not drawn yet, or drawn anew just now
                return False
            return True

        wait(clicked)

    def close_assistant(self) -> None:
        """MLflow's chat takes a third of the page until it is closed."""
        self.click(
            "//*[text()='MLflow Assistant']/ancestor::*[.//button[@aria-label='Close']][1]//button[@aria-label='Close']"
        )

    def num_curves(self) -> int:
        """Lines with points in the charts of the page."""
        lines = "return document.querySelectorAll('.js-plotly-plot .scatterlayer .trace .lines path').length"
        return self.driver.execute_script(lines)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(path))


@contextlib.contextmanager
def browser() -> Iterator[Page]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        page = Page(profile)
        try:
            yield page
        finally:
            page.driver.quit()


def show_charts(page: Page, address: str, model: str) -> None:
    """The charts of one model's runs, the first group of them drawn, the variants' curves in one."""
    page.driver.get(f"{address}&searchFilter=tags.%60detoxlens.model%60%20%3D%20%27{model}%27")
    page.close_assistant()
    legend = [f"{model}/{shown_name(variant)} ({GLANCE_CURVE})" for variant in VARIANTS]
    wait(lambda: all(words in page.text() for words in legend))
    wait(lambda: len(page.all("//*[contains(@class, 'js-plotly-plot')]")) >= 6)


def compare(page: Page, address: str, model: str) -> None:
    """Ticks `it`, `ft` and `rl` in the table of runs and presses Compare."""
    page.driver.get(address.replace("CHART", "TABLE"))
    for variant in VARIANTS:
        row = f"//*[@role='row'][.//*[text()='{model}/{shown_name(variant)}']]"
        page.click(f"{row}//*[contains(@class, 'ag-checkbox-input-wrapper')]")
    page.click("//button[.//*[text()='Compare'] or text()='Compare']")
    wait(lambda: "Comparing 3 Runs" in page.text())


def row_of(page: Page, metric: str) -> list[float]:
    """A metric's numbers in the comparison, one per run: the cells at the height of its name."""
    cells = """
        const link = [...document.querySelectorAll("a[title='Plot chart']")].find(a => a.textContent === arguments[0]);
        if (!link) return [];
        link.scrollIntoView({block: "center"});
        const top = link.parentElement.getBoundingClientRect().top;
        return [...document.querySelectorAll(".ReactVirtualized__Grid__innerScrollContainer > div")]
            .filter(cell => Math.abs(cell.getBoundingClientRect().top - top) < 2 && !cell.contains(link))
            .map(cell => parseFloat(cell.textContent));
    """
    return wait(lambda: page.driver.execute_script(cells, metric))


@pytest.fixture
def store(tmp_path) -> Store:
    """`it`, `ft` and `rl` of one model, as `report` leaves them."""
    layout = write_study(tmp_path, [MODEL])
    for folder in (layout.prompts.parent, layout.base(MODEL), layout.reward_model):
        folder.mkdir(parents=True, exist_ok=True)
    layout.prompts.write_bytes(b"prompts")
    layout.dialogues.write_bytes(b"dialogues")
    write_report(layout.reports, load(layout, models=(MODEL,)), CONFIG)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    params = load_params(ROOT / "params.yaml")
    params.raw["run"] |= {"models": [MODEL], "variants": list(VARIANTS)}
    store = resolve_store(tmp_path, {})
    publish_runs(tmp_path, params, store)
    return store


def test_the_comparison_of_three_variants_shows_toxicity_and_overlaid_entropy_curves(store, tmp_path):
    pytest.importorskip("selenium", reason="pip install -e '.[browser]'")
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("apt-get install chromium chromium-driver")
    kept = Path(os.environ.get("DETOXLENS_SCREENSHOTS", tmp_path / "screenshots"))
    with served(store) as address, browser() as page:
        show_charts(page, address, MODEL)
        titles = [e.text for e in page.all(f"//*[starts-with(text(), '{GLANCE}/')]")]
        assert titles[:3] == [f"{GLANCE}/{name}" for name in ("01 toxicity", "02 entropy bits", "03 perplexity")]
        page.save(kept / "charts.png")
        compare(page, address, MODEL)
        rates = sorted(row_of(page, f"{GLANCE}/01 toxicity"))
        assert len(rates) == 3 and rates[2] > 2 * rates[1]  # `it` far above the other two
        assert len(row_of(page, f"{GLANCE}/03 perplexity")) == 3
        page.save(kept / "comparison.png")
        page.click(f"//a[@title='Plot chart'][text()='{GLANCE_CURVE}']")
        wait(
            lambda: (
                all(f"{MODEL}/{shown_name(variant)}" in page.text() for variant in VARIANTS) and page.num_curves() >= 3
            )
        )
        page.save(kept / "entropy.png")


if __name__ == "__main__":
    with served(resolve_store(ROOT, os.environ)) as charts, browser() as tab:
        show_charts(tab, charts, MODEL)
        tab.save(Path(sys.argv[1]))
