"""A headless Chromium, and the demo's page in it."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.acceptance.server import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from selenium.webdriver import Chrome

    from tests.acceptance.demo import Demo

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1000",
)

#: Lets a test cut the page's connections, and keep them from coming back.
CUT = """
    const Real = WebSocket;
    window.sockets = [];
    window.cut = false;
    window.WebSocket = class extends Real {
        constructor(url) {
            super(window.cut ? "ws://127.0.0.1:1/" : url);
            window.sockets.push(this);
        }
    };
"""


#: Contrast as WCAG defines it, of every element that has text of its own.
CONTRAST = """
    const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
    const rgb = (colour) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = (c) => {
        const [r, g, b] = c.map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (e) => {
        for (; e; e = e.parentElement) {
            const colour = rgb(getComputedStyle(e).backgroundColor);
            if (colour[3] === 255) return colour;
        }
        return [255, 255, 255];
    };
    const bad = [];
    for (const e of document.querySelectorAll('body *')) {
        const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
        if (!own || !e.checkVisibility()) continue;
        const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))];
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (contrast < 4.5) bad.push(`${e.tagName} ${e.className} ${e.textContent.slice(0, 20)}: ${contrast.toFixed(2)}`);
    }
    return bad;
"""


@contextmanager
def chromium() -> Iterator[Chrome]:
    """Run a headless Chromium with a profile of its own for the length of a ``with`` block."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        try:
            driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": CUT})
            yield driver
        finally:
            driver.quit()


class Page:
    """
    The page, as its visitor sees it.

    Attributes:
        browser: The browser that shows it.
        demo: What serves it.
    """

    def __init__(self, browser: Chrome, demo: Demo) -> None:
        self.browser = browser
        self.demo = demo

    def text(self, selector: str) -> str:
        """Return what an element says, or nothing if there is none."""
        script = "return document.querySelector(arguments[0])?.innerText ?? ''"
        return str(self.browser.execute_script(script, selector))

    def row(self, key: int) -> str:
        """Return what a row says."""
        return self.text(f'#ships tr[data-key="{key}"]')

    def keys(self) -> list[int]:
        """Return the keys of the rows that the table shows."""
        script = (
            "return [...document.querySelectorAll('#ships tbody tr')].map((tr) => tr.dataset.key)"
        )
        return [int(key) for key in self.browser.execute_script(script)]

    def choose(self, state: str) -> None:
        """Filter by a state."""
        self._chip(state).click()

    def chip(self, state: str) -> str:
        """Return how many ships the page says are in a state."""
        return str(self._chip(state).find_element("class name", "count").text)

    def _chip(self, state: str) -> Any:
        path = f"//label[@class='chip'][span[@class='name']='{state}']"
        return self.browser.find_element("xpath", path)

    def count(self, selector: str) -> int:
        """Return how many elements there are."""
        script = "return document.querySelectorAll(arguments[0]).length"
        return int(self.browser.execute_script(script, selector))

    def click(self, selector: str) -> None:
        """Click an element."""
        self.browser.find_element("css selector", selector).click()

    def example(self, title: str) -> None:
        """Click an example statement."""
        self.browser.find_element("xpath", f"//button[text()='{title}']").click()

    def run(self, sql: str) -> None:
        """Type a statement into the box and run it."""
        box = self.browser.find_element("id", "sql")
        box.clear()
        box.send_keys(sql)
        self.click("#run")

    def emulate(self, width: int, *, dark: bool = False, calm: bool = False) -> None:
        """Be another screen, and a visitor with other wishes."""
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if calm else "no-preference"},
        ]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def until(self, condition: Callable[[], Any]) -> None:
        """Wait until the page is so."""
        from selenium.webdriver.support.wait import WebDriverWait

        wait = WebDriverWait(self.browser, PATIENCE, poll_frequency=0.02)
        wait.until(lambda _: condition(), message=self.text("body"))
