"""Scenarios that are run, watched and read at the console of a launcher."""

from __future__ import annotations

import json

import pytest

from tests.integration.browser.chromium import NARROW, WIDE, Colours, Page
from tests.integration.browser.launched import Faulty, press

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]
STORY = "acks1-leader-kill"


def test_a_scenario_is_run_watched_and_judged(faulty: Faulty, page: Page) -> None:
    page.open(f"{faulty.console}#/scenarios")
    page.wait_for(STORY)
    page.find("#s-filter").send_keys("acks=1 dies")
    assert [row[0] for row in page.rows("Scenarios")] == [STORY]
    page.find("#s-simulated").click()
    press(page, f"Run {STORY}")
    page.wait_for("as expected", ".verdict", deadline_s=120)
    counts = {row[0]: row[1:] for row in page.rows("Verdict")}
    assert counts["kept"] == ["250", "250"]
    assert int(counts["lost"][0]) > 0
    assert "lost: " in page.text("main ul")
    assert "kill" in page.text(".lines")
    assert [row[1:5] for row in page.rows("Runs")] == [[STORY, "1", "virtual", "as expected"]]
    page.open_other(page.find("main a[href^='/console/report/']").get_attribute("href"))
    assert "acks=1" in page.text("main")
    assert page.driver.execute_script("return document.querySelectorAll('svg').length") > 0
    assert page.driver.execute_script("return getComputedStyle(document.body).margin") != "8px", "its style applies"
    assert page.violations() == []
    assert page.complaints() == []


SHOWS = {
    "cluster": "Answer wrongly",
    "partitions": "Map",
    "timeline": "Lanes",
    "groups": "Groups",
    "node/1": "active",
    "messages": "Messages",
    f"scenarios/{STORY}": "async def",
    "scenarios": STORY,
}


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_nothing_on_the_page_of_the_launcher(faulty: Faulty, page: Page, colours: Colours) -> None:
    found: dict[str, list[str]] = {}
    for size in (WIDE, NARROW):
        page.show(colours=colours, size=size)
        for screen, text in SHOWS.items():
            page.open(f"{faulty.console}#/{screen}")
            page.driver.refresh()
            page.wait_for(text)
            if problems := page.problems():
                found[f"{screen} {size[0]}"] = problems
            if page.is_too_wide():
                found[f"{screen} {size[0]} width"] = ["the page scrolls sideways"]
    assert not found, json.dumps(found, indent=1)


def test_a_scenario_on_real_nodes_is_stopped(faulty: Faulty, page: Page) -> None:
    page.open(f"{faulty.console}#/scenarios/{STORY}")
    page.wait_for("async def", "pre")
    press(page, f"Run {STORY}")
    page.wait_for("starting", ".lines", deadline_s=60)
    press(page, "Stop")
    page.wait_for("ended without a verdict", ".verdict", deadline_s=60)
    assert page.violations() == []
