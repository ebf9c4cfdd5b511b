"""The console of a node in a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from axe_selenium_python import Axe
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.integration.browser.chromium import NARROW, WIDE, Colours, Page
from tests.integration.conftest import run_cluster
from tests.integration.support.cluster import Cluster
from tests.integration.support.configuration import REPLICATED
from tests.integration.support.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]
SCREENS = (
    *("cluster", "partitions", "partition/orders-0", "timeline", "groups", "queues", "transactions"),
    "messages/orders-0",
)
HOSTILE = "<img src=x onerror='window.hacked = 1'><script>window.hacked = 1</script>"
SHOWS = {
    "cluster": "3 of 3",
    "timeline": "orders-0",
    "groups": "There is no consumer group",
    "queues": "There is no share group",
    "transactions": "No producer has a transactional id",
    "messages/orders-0": "records; the next has offset",
}
"""Text by which a screen is complete."""
KEPT_QUIET = ("net::ERR_", "Failed to load resource")
"""What the browser logs of a node that was killed."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    for each in run_cluster(tmp_path_factory.mktemp("console"), settings=REPLICATED):
        each.create_topic("orders", partitions=2)
        each.write_all("orders", ["a", "b", "c"])
        yield each


def console(cluster: Cluster, screen: str = "cluster", *, node: int = 1) -> str:
    return f"{cluster.node(node).rest}/console#/{screen}"


def problems(page: Page) -> list[str]:
    found = Axe(page.driver)
    found.inject()
    result: dict[str, Any] = found.run()
    return [f"{each['id']}: {[node['html'][:150] for node in each['nodes']][:3]}" for each in result["violations"]]


def test_the_numbers_of_the_page_are_those_of_the_nodes(cluster: Cluster, page: Page) -> None:
    page.open(console(cluster))
    page.wait_for("3 of 3")
    assert f"node {cluster.controller()}" in page.text(".tiles")
    assert [row[:2] for row in page.rows("Nodes")] == [[f"node {node}", "active"] for node in (1, 2, 3)]
    assert {row[2] for row in page.rows("Connections")} <= {"open", "? unknown"}
    page.find("nav a[href='#/partitions']").click()
    page.wait_for("orders-1")
    page.find("main a[href='#/partition/orders-0']").click()
    wait_until(lambda: len(page.rows("Replicas")) == 3, what="three replicas")
    leader = cluster.leader_of("orders", 0)
    by_node = {row[0]: row for row in page.rows("Replicas")}
    assert by_node[f"node {leader}"][1] == "leader"
    wait_until(lambda: len(page.rows("Why")) > 1, what="the deciders of the explanation")
    wait_until(lambda: {row[7] for row in page.rows("Replicas")} == {"3"}, what="the log end of all replicas")
    cluster.write_all("orders", ["d"])
    wait_until(lambda: {row[6] for row in page.rows("Replicas")} == {"4"}, what="the high watermark to move")
    assert page.complaints() == []
    assert page.violations() == []
    assert page.strangers() == set()


def test_a_dead_node_is_seen_and_its_page_leads_to_another(cluster: Cluster, page: Page) -> None:
    page.open(console(cluster, node=2))
    page.wait_for("3 of 3")
    try:
        cluster.kill(3)
        page.wait_for("2 of 3")
        page.wait_for("under-replicated", ".pair")
        cluster.kill(2)
        page.wait_for("Go on with node 1", "#notice")
        assert page.text(".pill") == "lost"
        cluster.restart_unready(2)
        wait_until(lambda: page.text(".pill") == "live", what="the stream to resume")
        cluster.restart_unready(3)
        page.wait_for("3 of 3")
        assert page.text("#notice") == ""
    finally:
        for node in cluster.ids:
            if not cluster.is_running(node):
                cluster.restart_unready(node)
        cluster.heal()
    assert [each for each in page.complaints() if not any(quiet in each for quiet in KEPT_QUIET)] == []
    assert page.violations() == []


def test_contents_of_records_are_text(cluster: Cluster, page: Page) -> None:
    cluster.create_topic("hostile")
    cluster.write_all("hostile", [HOSTILE, "plain"])
    page.open(console(cluster, "messages/hostile-0"))
    page.wait_for(HOSTILE)
    assert [row[3] for row in page.rows("Records")] == [HOSTILE, "plain"]
    page.find("#m-live").click()
    cluster.write_all("hostile", ["later"])
    page.wait_for("later")
    page.find("#m-filter").send_keys("plain")
    wait_until(lambda: len(page.rows("Records")) == 1, what="the filter")
    assert page.driver.execute_script("return window.hacked === undefined")
    assert page.complaints() == []
    assert page.violations() == []


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_nothing_on_any_screen(cluster: Cluster, page: Page, colours: Colours) -> None:
    found: dict[str, list[str]] = {}
    for size in (WIDE, NARROW):
        page.show(colours=colours, size=size)
        for screen in SCREENS:
            page.open(console(cluster, screen))
            page.driver.refresh()
            page.wait_for(SHOWS.get(screen, "orders"))
            if problems_here := problems(page):
                found[f"{screen} {size[0]}"] = problems_here
            if page.driver.execute_script("return document.documentElement.scrollWidth > innerWidth"):
                found[f"{screen} {size[0]} width"] = ["the page scrolls sideways"]
    assert not found, json.dumps(found, indent=1)


def test_every_control_is_reached_by_the_keyboard(cluster: Cluster, page: Page) -> None:
    page.open(console(cluster))
    page.wait_for("3 of 3")
    body = page.find("body")
    body.send_keys("2")
    page.wait_for("Replicas by node")
    assert page.driver.switch_to.active_element.get_attribute("id") == "main"
    page.driver.refresh()
    page.wait_for("orders-0")
    reached = []
    for _ in range(20):
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
        focused = page.driver.switch_to.active_element
        if focused.tag_name == "body":
            break
        reached.append(focused.get_attribute("href") or focused.get_attribute("id") or focused.text)
        outline = focused.value_of_css_property("outline-style")
        assert outline != "none", reached
    for wanted in ("#main", "#/cluster", "Pause", "filter", "only-bad", "#/partition/orders-0"):
        assert any(str(each).endswith(wanted) for each in reached), (wanted, reached)
    page.find("body").send_keys("p")
    assert page.text(".pill") == "paused"
    page.find("body").send_keys("p")
    wait_until(lambda: page.text(".pill") == "live", what="the stream to go on")
    page.find("#filter").send_keys("orders-1")
    wait_until(lambda: len(page.driver.find_elements(By.CSS_SELECTOR, "tbody tr")) == 1, what="one partition")
    assert page.complaints() == []
