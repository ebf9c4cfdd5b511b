"""Breaking a cluster by clicks at the console of `kraft up --faults`, and what is saved of it."""

from __future__ import annotations

import asyncio
import html
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Final

import pytest

from kraft.chaos.live import NobodyWatches
from kraft.chaos.scenario_loader import load
from kraft.chaos.worlds.processes.run import run_scenario
from tests.integration.browser.chromium import NARROW, Colours, Page
from tests.integration.browser.launched import Faulty, press
from tests.integration.support.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(280)]
COLOURS: Final[tuple[Colours, ...]] = ("light", "dark")


def test_what_is_clicked_happens_and_is_judged_and_saved(faulty: Faulty, page: Page, tmp_path: Path) -> None:
    page.open(faulty.console)
    page.wait_for("3 of 3")
    press(page, "Start")
    page.wait_for("acknowledged", ".counts", deadline_s=60)
    page.find("[data-key=node-3] rect").click()
    page.wait_for("Node 3", ".chosen")
    press(page, "Kill node 3")
    page.wait_for("2 of 3")
    wait_until(
        lambda: {node["id"]: node["state"] for node in faulty.status()["nodes"]}[3] in ("fenced", "down"),
        what="kraft status to show that node 3 is not active",
    )
    press(page, "Cut the link from node 1 to node 2")
    page.wait_for("the link 1 -> 2 was cut", ".broken")
    wait_until(
        lambda: {tuple(row[:2]): row[2] for row in page.rows("Connections")}["node 1", "node 2"] != "open",
        what="the cut link to be seen",
    )
    assert_readable(page)
    press(page, "Heal and judge")
    page.wait_for("acknowledged records are there", ".verdict", deadline_s=90)
    page.wait_for("3 of 3")
    assert page.violations() == []
    story = tmp_path / "story.py"
    story.write_text(faulty.saved("story"))
    assert "await run.kill(3)" in story.read_text()
    scenario = load(str(story))
    result = asyncio.run(run_scenario(scenario, seed=1, watcher=NobodyWatches()))
    assert result.outcome == "as expected", result.problems
    test = tmp_path / "test_saved.py"
    test.write_text(faulty.saved("test"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(test)],
        capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120,
    )  # fmt: skip
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def assert_readable(page: Page) -> None:
    """The page as it is, for everybody."""
    for colours in COLOURS:
        page.show(colours=colours, size=NARROW)
        assert page.problems() == []
        assert not page.is_too_wide()
    page.show()


def choose(page: Page, selector: str, value: str) -> None:
    page.driver.execute_script(
        "const found = document.querySelector(arguments[0]); found.value = arguments[1];"
        "found.dispatchEvent(new Event('change'))",
        selector,
        value,
    )


def test_a_transactional_client_gets_wrong_answers(faulty: Faulty, page: Page, tmp_path: Path) -> None:
    page.open(faulty.console)
    page.wait_for("3 of 3")
    choose(page, "#w-topic", "paid")
    choose(page, "#w-client", "kafka")
    page.find("#w-transactional").click()
    press(page, "Start")
    page.wait_for("transactions committed", ".counts", deadline_s=60)
    choose(page, "#a-times", "2")
    press(page, "Answer wrongly")
    page.wait_for("Produce is answered with NOT_LEADER_OR_FOLLOWER, 2 times", ".broken")
    choose(page, "#a-way", "drop_answer")
    choose(page, "#a-api", "EndTxn")
    choose(page, "#a-times", "1")
    press(page, "Answer wrongly")
    page.wait_for("answers to EndTxn are lost", ".broken")
    choose(page, "#a-api", "NoSuchApi")
    press(page, "Answer wrongly")
    page.wait_for("Kafka has no API 'NoSuchApi'", ".said")
    committed = int(number_of(page, "transactions committed"))
    wait_until(lambda: int(number_of(page, "transactions committed")) > committed + 3, what="it goes on", deadline_s=60)
    page.driver.get(f"{faulty.console}#/transactions/w1")
    page.wait_for("w", "main table")
    wait_until(lambda: len(page.rows("Why")) > 0, what="the explanation of a transaction", deadline_s=60)
    page.driver.get(f"{faulty.console}#/node/2")
    wait_until(lambda: len(page.rows("Why")) > 0, what="the explanation of a node", deadline_s=60)
    page.driver.get(faulty.console)
    page.wait_for("3 of 3")
    press(page, "Heal and judge")
    page.wait_for("acknowledged records are there", ".verdict", deadline_s=120)
    story = tmp_path / "story.py"
    story.write_text(faulty.saved("story"))
    assert "await run.answer('Produce', error='NOT_LEADER_OR_FOLLOWER', times=2)" in story.read_text()
    assert "await run.drop_answer('EndTxn')" in story.read_text()
    result = asyncio.run(run_scenario(load(str(story)), seed=1, watcher=NobodyWatches(), clients="kafka"))
    assert result.outcome == "as expected", result.problems
    page.open_other(f"{faulty.console}/report/0")
    assert "paid" in page.text("main")
    assert page.violations() == []


def number_of(page: Page, label: str) -> str:
    lines = page.text(".counts").splitlines()
    return lines[lines.index(label) - 1].replace(",", "")


_CAUSES = """
const card = document.querySelector(".verdict").parentElement;
return [...card.querySelectorAll("ul:not(.tiles) > li")].map((each) => each.firstChild.textContent);
"""


def leaders(page: Page, partition: str) -> list[int]:
    """The nodes that hold themselves for its leader, as the page shows them."""
    caption = "Replicas of each partition by node"
    row = next((row for row in page.rows(caption) if row[0] == partition), [])
    return [number for number, cell in enumerate(row[4:], 1) if cell.startswith("L ")]


def test_a_lost_record_has_its_cause_on_the_page_as_in_the_report(faulty: Faulty, page: Page) -> None:
    """A leader that is cut off goes on with acks=1; once it is healed, it truncates what it has acknowledged."""
    page.open(faulty.console)
    page.wait_for("3 of 3")
    press(page, "Forget what was done")
    for selector, value in (("#w-topic", "risky"), ("#w-acks", "1"), ("#w-client", "kafka")):
        choose(page, selector, value)
    press(page, "Start")
    page.wait_for("acknowledged", ".counts", deadline_s=60)
    page.driver.get(f"{faulty.console}#/partitions/filter=risky")
    wait_until(lambda: leaders(page, "risky-0"), what="the leader of risky-0")
    (leader,) = leaders(page, "risky-0")
    page.driver.get(faulty.console)
    press(page, f"Cut node {leader} off from all others")
    page.wait_for(f"node {leader} was cut off from all others", ".broken")
    page.driver.get(f"{faulty.console}#/partitions/filter=risky")
    wait_until(lambda: len(leaders(page, "risky-0")) == 2, what="a second leader of risky-0", deadline_s=60)
    page.driver.get(faulty.console)
    press(page, "Heal and judge")
    page.wait_for("acknowledged records are lost", ".verdict", deadline_s=120)
    causes: list[str] = page.driver.execute_script(_CAUSES)
    assert int(number_of(page, "lost")) > 0
    assert causes, page.text()
    with urllib.request.urlopen(f"{faulty.console}/report/0", timeout=20) as answer:
        report = html.unescape(re.sub("<[^>]*>", "", answer.read().decode()))
    for each in causes:
        found = re.fullmatch(r"losses: \d+ of (risky-\d) at offset (\d+): (.+)", each)
        assert found, each
        assert found[3] in report, (found[3], report)
    page.find("main a[href^='#/record/risky-']").click()
    wait_until(lambda: len(page.rows("Why")) > 0, what="the explanation of the record", deadline_s=60)
    assert "lost=SOME" in faulty.saved("story")
    page.driver.get(faulty.console)
    assert_readable(page)
    assert page.violations() == []


def test_a_stranger_breaks_nothing(faulty: Faulty) -> None:
    for headers in ({}, {"X-Kraft-Console": "1", "Origin": "http://evil.example"}):
        request = urllib.request.Request(
            f"{faulty.console}/act", data=b'{"do": "kill", "nodes": [1]}',
            headers={"Content-Type": "application/json", **headers},
        )  # fmt: skip
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=20)
        assert refused.value.code == 403
        refused.value.close()
