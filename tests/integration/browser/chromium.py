"""Debian's chromium without a window, driven by Selenium: what a person sees, presses and is warned of."""

from __future__ import annotations

import json
import shutil
import tempfile
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from axe_selenium_python import Axe
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.integration.support.waiting import wait_until

CHROMIUM: Final = shutil.which("chromium")
DRIVER: Final = shutil.which("chromedriver")
WIDE: Final = (1360, 1000)
NARROW: Final = (320, 900)
_FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.*, EXCLUDE localhost",
)
_WATCH_POLICY: Final = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(event.violatedDirective + " " + event.blockedURI));
"""
_ROWS: Final = """
const table = [...document.querySelectorAll("table")].find((each) => each.caption.textContent === arguments[0]);
const rows = table ? [...table.tBodies[0].rows] : [];
return rows.map((row) => [...row.cells].map((cell) => cell.innerText.trim()));
"""
Colours = Literal["light", "dark"]


class Page:
    """One browser with one page."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver
        self._hosts: set[str] = set()
        self._colours: Colours = "light"

    def open(self, url: str) -> None:
        self._hosts.add(urlsplit(url).netloc)
        self.driver.get(url)
        wait_until(lambda: self.text(".pill") == "live", what=f"the stream of {url}")

    def open_other(self, url: str | None) -> None:
        """A page that is not one of the console's screens."""
        assert url
        self.driver.get(url)

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str = "main") -> str:
        """The text as it is shown, in one reading: elements come and go."""
        found: str = self.driver.execute_script(
            "return [...document.querySelectorAll(arguments[0])].map((each) => each.innerText).join('\\n')", selector
        )
        return found

    def wait_for(self, text: str, selector: str = "main", *, deadline_s: float = 30) -> None:
        try:
            wait_until(lambda: text in self.text(selector), what=f"{text!r} in {selector}", deadline_s=deadline_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; it has {self.text(selector)[:2_000]!r}") from error

    def rows(self, caption: str) -> list[list[str]]:
        """The rows of the table with this caption."""
        found: list[list[str]] = self.driver.execute_script(_ROWS, caption)
        return found

    def show(self, *, colours: Colours | None = None, size: tuple[int, int] = WIDE) -> None:
        """As a person sees it in a window of this size; with these colours from now on."""
        self._colours = colours = colours or self._colours
        self.devtools("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": colours}]})
        width, height = size
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )

    def begin(self) -> None:
        """Before the first page: violations are noted, and requests are logged."""
        self.devtools("Page.addScriptToEvaluateOnNewDocument", {"source": _WATCH_POLICY})

    def log_in(self, user: str, password: str) -> None:
        """Each request has this login from now on."""
        login = b64encode(f"{user}:{password}".encode()).decode()
        self.devtools("Network.enable", {})
        self.devtools("Network.setExtraHTTPHeaders", {"headers": {"Authorization": f"Basic {login}"}})

    def devtools(self, command: str, options: dict[str, Any]) -> Any:
        """One command of the DevTools protocol; returns its answer."""
        return self.driver.execute_cdp_cmd(command, options)

    # --- what went wrong --------------------------------------------------------------------------------------------

    def complaints(self) -> list[str]:
        """What the browser has logged since the last call."""
        return [f"{each['level']}: {each['message']}" for each in self.driver.get_log("browser")]

    def problems(self) -> list[str]:
        """What axe finds on the page as it is now."""
        found = Axe(self.driver)
        found.inject()
        result: dict[str, Any] = found.run()
        return [f"{each['id']}: {[node['html'][:150] for node in each['nodes']][:3]}" for each in result["violations"]]

    def is_too_wide(self) -> bool:
        """Whether the page scrolls sideways."""
        return bool(self.driver.execute_script("return document.documentElement.scrollWidth > innerWidth"))

    def violations(self) -> list[str]:
        found: list[str] = self.driver.execute_script("return window.violations")
        return found

    def strangers(self) -> set[str]:
        """Hosts that were asked and are not the page's own."""
        asked = set()
        for each in self.driver.get_log("performance"):
            message = json.loads(each["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                parts = urlsplit(message["params"]["request"]["url"])
                asked |= {parts.netloc} if parts.scheme.startswith("http") else set()
        return asked - self._hosts - {""}


def assert_fine(page: Page, screens: Mapping[str, str], *, sizes: Iterable[tuple[int, int]] = (NARROW,)) -> None:
    """Nobody is kept out of these pages (URL -> text by which it is complete): axe finds nothing, and none scrolls
    sideways, also in a narrow window."""
    found: dict[str, list[str]] = {}
    for size in sizes:
        page.show(size=size)
        for url, text in screens.items():
            page.open(url)
            page.driver.refresh()
            page.wait_for(text)
            if problems := page.problems():
                found[f"{url} {size[0]}"] = problems
            if page.is_too_wide():
                found[f"{url} {size[0]} width"] = ["the page scrolls sideways"]
    assert not found, json.dumps(found, indent=1)


@contextmanager
def browser() -> Iterator[Page]:
    """A browser with a profile of its own, gone at the end."""
    assert CHROMIUM, "no chromium"
    assert DRIVER, "no chromedriver"
    options = ChromeOptions()
    options.binary_location = CHROMIUM
    options.accept_insecure_certs = True  # clusters of tests have a CA of their own
    with tempfile.TemporaryDirectory(prefix="kraft-chromium-", ignore_cleanup_errors=True) as profile:
        for flag in (*_FLAGS, f"--user-data-dir={profile}", f"--window-size={WIDE[0]},{WIDE[1]}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = Chrome(options=options, service=Service(DRIVER))
        try:
            page = Page(driver)
            page.begin()
            page.show()
            yield page
        finally:
            driver.quit()
