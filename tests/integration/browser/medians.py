"""How quick the page of a launcher is, in a real browser: medians of its first paint, of a fault's way from the click
to the screen, and of its frames.

    python -m tests.integration.browser.medians [TIMES]
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from tests.integration.browser.chromium import Page, browser
from tests.integration.browser.launched import Faulty, press
from tests.integration.support.waiting import wait_until

FRAMES_S: Final = 15
SCREENS: Final = ("cluster", "partitions", "timeline", "partition/orders-0")
_NOTE: Final = """
window.shownAt = 0;
window.longTasks = [];
new PerformanceObserver((list) => list.getEntries().forEach((each) => window.longTasks.push(each.duration)))
  .observe({ type: "longtask" });
new MutationObserver((_, observer) => {
  if (!document.querySelector(".tiles")?.textContent.includes("3 of 3")) return;
  window.shownAt = performance.now();
  observer.disconnect();
}).observe(document, { childList: true, characterData: true, subtree: true });
"""
_CLICK: Final = """
const [label, text, done] = arguments;
const found = [...document.querySelectorAll("button")].find((each) => each.getAttribute("aria-label") === label);
const begin = performance.now();
found.click();
const look = () => {
  const shown = [...document.querySelectorAll(".tiles, table")].map((each) => each.textContent).join();
  if (shown.includes(text)) done(performance.now() - begin);
  else requestAnimationFrame(look);
};
look();
"""
_FRAMES: Final = """
const [ms, done] = arguments, times = [];
let before = performance.now();
const begin = before;
const frame = (now) => {
  times.push(now - before);
  before = now;
  if (now - begin < ms) requestAnimationFrame(frame);
  else done(times.slice(1));
};
requestAnimationFrame(frame);
"""


def say(what: str, found: Sequence[float]) -> None:
    """One line: the median, and how far apart the numbers are."""
    text = f"median {statistics.median(found):7.1f} ms of {len(found)} ({min(found):.1f} to {max(found):.1f})"
    print(f"{what:<46} {text}", flush=True)


def first_paints(page: Page, url: str, times: int) -> None:
    """Without anything in the browser's cache."""
    painted, complete = list[float](), list[float]()
    for _ in range(times):
        page.driver.get("about:blank")
        page.devtools("Network.clearBrowserCache", {})
        page.driver.get(url)
        wait_until(lambda: page.driver.execute_script("return window.shownAt > 0"), what="the nodes")
        script = "return performance.getEntriesByName('first-contentful-paint')[0].startTime"
        painted.append(float(page.driver.execute_script(script)))
        complete.append(float(page.driver.execute_script("return window.shownAt")))
    say("first paint", painted)
    say("three nodes are shown", complete)


def faults(page: Page, what: str, label: str, text: str, times: int) -> None:
    """From the click to the text on the screen."""
    found = list[float]()
    for _ in range(times):
        wait_until(lambda: not page.driver.execute_script(_IS_OFF, label), what=f"the button {label!r}", deadline_s=60)
        found.append(float(page.driver.execute_async_script(_CLICK, label, text)))
        press(page, "Heal everything")
        wait_until(lambda: "3 of 3" in page.text() and is_whole(page), what="the healed cluster", deadline_s=60)
    say(what, found)


_IS_OFF: Final = """
const named = (each) => each.getAttribute("aria-label") === arguments[0];
return [...document.querySelectorAll("button")].find(named)?.disabled;
"""


def is_whole(page: Page) -> bool:
    """Whether no connection is closed, and no act is carried out."""
    rows = page.rows("Connections")
    return bool(rows) and all("closed" not in row[2] for row in rows) and not page.all(".break button:disabled")


def frames(page: Page, times: Callable[[str], None]) -> None:
    """While a workload writes."""
    for screen in SCREENS:
        page.driver.execute_script(f"location.hash = '#/{screen}'")
        page.driver.execute_script("window.longTasks.length = 0")
        times(screen)


def main(times: int = 10) -> None:
    """Prints the medians."""
    faulty = Faulty()
    try:
        with browser() as page:
            page.driver.set_script_timeout(60)
            page.devtools("Page.addScriptToEvaluateOnNewDocument", {"source": _NOTE})
            print(time.strftime("%Y-%m-%d"), "load", os.getloadavg(), flush=True)
            first_paints(page, faulty.console, times)
            faults(page, "a node is killed by a click, and shown to be down", "Kill node 3", "2 of 3", times)
            faults(page, "a link is cut by a click, and shown to be cut", CUT, "closed", times)
            press(page, "Start")
            page.wait_for("acknowledged", ".counts", deadline_s=60)

            def measure(screen: str) -> None:
                found = page.driver.execute_async_script(_FRAMES, FRAMES_S * 1_000)
                say(f"frames: {screen}", found)
                print(f"  tasks over 50 ms: {page.driver.execute_script('return window.longTasks')}", flush=True)

            frames(page, measure)
            print("load", os.getloadavg(), flush=True)
    finally:
        faulty.end()


CUT: Final = "Cut the link from node 1 to node 2"

if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
