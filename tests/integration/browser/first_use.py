"""A first use of the console, as a script: from `kraft up --faults` to a saved story, with times and pictures.

    python -m tests.integration.browser.first_use FOLDER

It writes PNG files into the folder, in light and dark, and prints how long each step took.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final

from PIL import Image

from tests.integration.browser.chromium import Colours, Page, browser
from tests.integration.browser.launched import Faulty, press
from tests.integration.support.waiting import wait_until

SIZE: Final = (1280, 860)
COLOURS: Final[tuple[Colours, Colours]] = ("light", "dark")
PALETTE: Final = 128
"""Colours of a picture: small files, and nobody sees the difference."""


RECORDS: Final = 1_000
"""What is written before the first fault, so that the time line shows it."""


def acknowledged(page: Page) -> int:
    """The count that the page shows."""
    lines = page.text(".counts").splitlines()
    return int(lines[lines.index("acknowledged") - 1].replace(",", "")) if "acknowledged" in lines else 0


class FirstUse:
    """The steps of a person, timed."""

    def __init__(self, page: Page, folder: Path) -> None:
        self._page = page
        self._folder = folder
        self._began = time.monotonic()

    def step(self, text: str) -> None:
        """Prints how long it took since the step before."""
        now = time.monotonic()
        print(f"{now - self._began:6.1f} s  {text}", flush=True)
        self._began = now

    def picture(self, name: str) -> None:
        """The page as it is, in both colour schemes."""
        for colours in COLOURS:
            self._page.show(colours=colours, size=SIZE)
            file = self._folder / f"{name}-{colours}.png"
            self._page.driver.save_screenshot(str(file))
            with Image.open(file) as shot:
                shot.convert("RGB").quantize(PALETTE).save(file, optimize=True)
        self._began = time.monotonic()


def main(folder: str) -> None:
    """Runs the script."""
    began = time.monotonic()
    faulty = Faulty()
    try:
        with browser() as page:
            use = FirstUse(page, Path(folder))
            use.step(f"kraft up --faults: ready, and its page answers after {time.monotonic() - began:.1f} s")
            page.show(size=SIZE)
            page.open(faulty.console)
            page.wait_for("3 of 3")
            use.step("the page is open, and shows three nodes")
            press(page, "Start")
            page.wait_for("acknowledged", ".counts", deadline_s=60)
            use.step("a topic is made, and a workload writes to it")
            wait_until(lambda: acknowledged(page) >= RECORDS, what=f"{RECORDS} records", deadline_s=90)
            use.step(f"{RECORDS} records are acknowledged")
            wait_until(lambda: len(page.rows("Nodes")) == 3, what="the nodes")
            page.find("[data-key=node-3] rect").click()
            press(page, "Kill node 3")
            page.wait_for("2 of 3")
            use.step("node 3 is killed by a click, and seen to be down")
            press(page, "Cut the link from node 1 to node 2")
            wait_until(lambda: any("closed" in row[2] for row in page.rows("Connections")), what="the cut link")
            wait_until(lambda: "under min ISR" in page.text(".stack"), what="a partition under min ISR", deadline_s=60)
            use.step("a link is cut; writes to a partition stop, and the page says why")
            use.picture("console-cluster")
            page.driver.get(faulty.console + "#/timeline")
            page.wait_for("Lanes")
            wait_until(lambda: len(page.all(".lane rect")) > 4, what="lanes")
            use.picture("console-timeline")
            page.driver.get(faulty.console + "#/partition/orders-0")
            silent = "? does not answer"
            wait_until(
                lambda: [row[1] for row in page.rows("Replicas")].count(silent) == 1, what="the replicas", deadline_s=60
            )
            use.picture("console-partition")
            page.driver.get(faulty.console + "#/cluster")
            page.wait_for("2 of 3")
            use.step("it is looked at from other sides")
            press(page, "Heal and judge")
            page.wait_for("records are", ".verdict", deadline_s=120)
            use.step(f"healed and judged: {page.text('.verdict')}")
            text = faulty.saved("test")
            assert "await run.kill(3)" in text, text
            Path(folder, "test_saved.py").write_text(text, encoding="utf-8")
            use.step("what was done is saved as a pytest test")
    finally:
        faulty.end()


if __name__ == "__main__":
    main(sys.argv[1])
