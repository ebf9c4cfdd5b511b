"""Scenarios that are run, watched and read at the console of a launcher."""

from __future__ import annotations

import pytest

from tests.integration.browser.chromium import NARROW, WIDE, Colours, Page, assert_fine
from tests.integration.browser.launched import Faulty, press
from tests.integration.support.cluster import kraft

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
    "partitions": "shown-0",
    "partition/shown-0": "leader epoch",
    "timeline": "Lanes",
    "groups": "Groups",
    "queues": "Queues",
    "transactions": "Transactions",
    "node/1": "active",
    "messages": "Messages",
    "messages/shown-0": "next has offset",
    "record/shown-0/0": "Why",
    "client/nobody": "Client nobody",
    f"scenarios/{STORY}": "async def",
    "scenarios": STORY,
}


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_nothing_on_the_page_of_the_launcher(faulty: Faulty, page: Page, colours: Colours) -> None:
    kraft("topics", "create", "shown", "--data", faulty.facts["data"], check=False)  # it may be there
    page.show(colours=colours)
    assert_fine(page, {f"{faulty.console}#/{screen}": text for screen, text in SHOWS.items()}, sizes=(WIDE, NARROW))
    assert page.violations() == []
    assert page.complaints() == []


def test_a_scenario_on_real_nodes_is_stopped(faulty: Faulty, page: Page) -> None:
    page.open(f"{faulty.console}#/scenarios/{STORY}")
    page.wait_for("async def", "pre")
    press(page, f"Run {STORY}")
    page.wait_for("starting", ".lines", deadline_s=60)
    press(page, "Stop")
    page.wait_for("ended without a verdict", ".verdict", deadline_s=60)
    assert page.violations() == []
