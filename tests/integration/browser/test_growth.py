"""Ten minutes of the page: neither the page nor its node grows, and frames are short."""

from __future__ import annotations

import os
import statistics
import sys
import threading
from pathlib import Path

import pytest

from tests.integration.browser.chromium import Page
from tests.integration.browser.launched import Faulty, press
from tests.integration.support.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(1_200)]
MINUTES = int(os.environ.get("CONSOLE_MINUTES", "10"))
LOOK_S = 15
GROWTH_MAX = 1.25
"""The mean of the last third against that of the middle one; the first fills the lanes of the time line."""
FRAME_MS_MAX = 50
_WATCH = """
window.frameTimes = [];
let before = performance.now();
const frame = (now) => {
  window.frameTimes.push(now - before);
  before = now;
  if (window.frameTimes.length > 600) window.frameTimes.shift();
  requestAnimationFrame(frame);
};
requestAnimationFrame(frame);
"""
_ELEMENTS = "return document.querySelectorAll('*').length"
SCREENS = ("cluster", "partitions", "timeline", "partition/orders-0", "groups", "messages/orders-0")


def heap_bytes(page: Page) -> int:
    page.devtools("HeapProfiler.collectGarbage", {})
    return int(page.devtools("Runtime.getHeapUsage", {})["usedSize"])


def resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def test_ten_minutes_without_growth(faulty: Faulty, page: Page) -> None:
    page.open(faulty.console)
    page.wait_for("3 of 3")
    press(page, "Start")
    page.wait_for("acknowledged", ".counts", deadline_s=60)
    page.driver.execute_script(_WATCH)
    heaps, elements, pause = list[int](), list[int](), threading.Event()
    console = int(Path(faulty.facts["data"], "console.pid").read_text("ascii"))
    residents: list[int] = []
    for turn in range(MINUTES * 60 // LOOK_S):
        page.driver.execute_script(f"location.hash = '#/{SCREENS[turn % len(SCREENS)]}'")
        pause.wait(LOOK_S)
        if turn % len(SCREENS) == len(SCREENS) - 1:
            page.driver.execute_script("location.hash = '#/cluster'")
            page.wait_for("3 of 3")
            heaps.append(heap_bytes(page))
            elements.append(int(page.driver.execute_script(_ELEMENTS)))
            residents.append(resident_kib(console))
            said = f"heap {heaps[-1]:,} B, {elements[-1]} elements, console {residents[-1]:,} KiB"
            print(f"{turn * LOOK_S:4d} s: {said}", file=sys.stderr)
    frames = page.driver.execute_script("return window.frameTimes")
    print(f"frame time: median {statistics.median(frames):.1f} ms of {len(frames)}", file=sys.stderr)
    third = max(len(heaps) // 3, 1)
    for name, found in (("heap", heaps), ("elements", elements), ("console", residents)):
        middle, last = statistics.mean(found[-2 * third : -third]), statistics.mean(found[-third:])
        assert last < GROWTH_MAX * middle, (name, found)
    assert statistics.median(frames) < FRAME_MS_MAX
    page.driver.execute_script("location.hash = '#/cluster'")
    press(page, "Heal and judge")
    wait_until(lambda: "records are there" in page.text(".verdict"), what="the verdict", deadline_s=200)
    assert page.violations() == []
