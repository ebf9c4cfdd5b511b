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
from typing import Final, TypeAlias

from tests.integration.browser.chromium import Page, browser
from tests.integration.browser.launched import Faulty, press
from tests.integration.support.waiting import wait_until

FRAMES_S: Final = 15
Wanted: TypeAlias = tuple[str, str, int, str]
"""A cell: caption of its table, beginning of its row, number of the cell, and its text before the fault."""
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
const [label, wanted, done] = arguments;
const found = [...document.querySelectorAll("button")].find((each) => each.getAttribute("aria-label") === label);
const begin = performance.now();
found.click();
const table = [...document.querySelectorAll("table")].find((each) => each.caption.textContent === wanted[0]);
const look = () => {
  const row = [...table.tBodies[0].rows].find((each) => each.textContent.startsWith(wanted[1]));
  if (!row.cells[wanted[2]].textContent.startsWith(wanted[3])) done(performance.now() - begin);
  else requestAnimationFrame(look);
};
look();
"""
_IS_OFF: Final = """
const named = (each) => each.getAttribute("aria-label") === arguments[0];
return [...document.querySelectorAll("button")].find(named)?.disabled;
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


def faults(page: Page, what: str, ask: Callable[[Page], tuple[str, Wanted]], times: int) -> None:
    """From the click until a cell of a table says that it is so no more."""
    found = list[float]()
    for _ in range(times):
        label, wanted = ask(page)
        found.append(float(page.driver.execute_async_script(_CLICK, label, wanted)))
        press(page, "Heal everything")
        wait_until(lambda: is_idle(page) and "3 of 3" in page.text(), what="the healed cluster", deadline_s=60)
    say(what, found)


def is_idle(page: Page) -> bool:
    """Whether no act is carried out."""
    return page.driver.execute_script(_IS_OFF, "Kill node 3") is False and not page.text(".broken")


def node(page: Page) -> tuple[str, Wanted]:
    """The button that kills a node, and the cell with its state."""
    wait_until(lambda: page.rows("Nodes")[2][1] == "active", what="node 3 to be active")
    return "Kill node 3", ("Nodes", "node 3", 1, "active")


def link(page: Page) -> tuple[str, Wanted]:
    """The same for a link over which nodes speak now."""
    wait_until(lambda: any(row[2] == "open" for row in page.rows("Connections")), what="a link that is open")
    one, other = next(row[:2] for row in page.rows("Connections") if row[2] == "open")
    label = f"Cut the links between nodes {one.removeprefix('node ')} and {other.removeprefix('node ')}"
    return label, ("Connections", one + other, 2, "open")


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
            press(page, "Start")
            page.wait_for("acknowledged", ".counts", deadline_s=60)
            faults(page, "a node is killed by a click, and down", node, times)
            faults(page, "a link is cut by a click, and closed", link, times)

            def measure(screen: str) -> None:
                found = page.driver.execute_async_script(_FRAMES, FRAMES_S * 1_000)
                say(f"frames: {screen}", found)
                print(f"  tasks over 50 ms: {page.driver.execute_script('return window.longTasks')}", flush=True)

            frames(page, measure)
            print("load", os.getloadavg(), flush=True)
    finally:
        faulty.end()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
