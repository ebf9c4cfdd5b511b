"""The console of a node in a real browser."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.integration.browser.chromium import NARROW, WIDE, Colours, Page, assert_fine
from tests.integration.conftest import run_cluster
from tests.integration.support.cluster import Cluster, kraft
from tests.integration.support.configuration import REPLICATED
from tests.integration.support.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]
SCREENS = (
    *("cluster", "partitions", "partition/orders-0", "timeline", "groups", "queues", "transactions"),
    *("messages/orders-0", "node/1", "record/orders-0/1", "client/nobody"),
)
HOSTILE = "<img src=x onerror='window.hacked = 1'><script>window.hacked = 1</script>"
SHOWS = {
    "cluster": "3 of 3",
    "timeline": "orders-0",
    "groups": "There is no consumer group",
    "queues": "There is no share group",
    "transactions": "No producer has a transactional id",
    "messages/orders-0": "records; the next has offset",
    "node/1": "active",
    "record/orders-0/1": "committed",
    "client/nobody": "Client nobody",
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
    page.show(colours=colours)
    screens = {console(cluster, screen): SHOWS.get(screen, "orders") for screen in SCREENS}
    assert_fine(page, screens, sizes=(WIDE, NARROW))
    assert page.violations() == []
    assert [each for each in page.complaints() if "client/nobody" not in each] == []


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


async def be_hostile(bootstrap: str, topic: str, done: asyncio.Event, ready: threading.Event) -> None:
    """A member of a group and an open transaction whose names are markup, until `done`."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=HOSTILE, client_id=HOSTILE)
    names = {"transactional_id": HOSTILE, "client_id": HOSTILE}
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transaction_timeout_ms=300_000, **names)
    async with consumer, producer, producer.transaction():
        await producer.send_and_wait(topic, b"x", headers=[(HOSTILE, HOSTILE.encode())])
        ready.set()
        await done.wait()


@contextmanager
def hostile_clients(bootstrap: str, topic: str) -> Iterator[None]:
    loop, ready = asyncio.new_event_loop(), threading.Event()
    done = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(be_hostile(bootstrap, topic, done, ready)))
    thread.start()
    try:
        assert ready.wait(60)
        yield
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(60)
        loop.close()


def test_names_of_topics_and_clients_are_text(cluster: Cluster, page: Page) -> None:
    """The last test: other screens show its group and its transaction, too."""
    topics = ("__proto__", "constructor", "a-0-1", "x" * 200 + ".-_")
    for each in topics:
        cluster.create_topic(each)
    kraft("queues", "create", f"{HOSTILE}!", topics[-1], "--rest", cluster.node(1).rest)
    names = {
        "partitions": topics[-1], f"partition/{topics[-1]}-0": topics[-1], "groups": HOSTILE, "queues": HOSTILE,
        "transactions": HOSTILE, f"messages/{topics[-1]}-0": "next has offset", f"record/{topics[-1]}-0/0": topics[-1],
        f"client/{quote(HOSTILE, safe='')}": HOSTILE, "timeline": ".-_-0", "node/1": "active",
    }  # fmt: skip
    with hostile_clients(cluster.node(1).kafka, "constructor"):
        page.open(console(cluster, "partitions"))
        for each in topics:
            page.wait_for(f"{each}-0")
            page.driver.get(console(cluster, f"partition/{each}-0"))
            wait_until(lambda: len(page.rows("Replicas")) == 3, what=f"the replicas of {each}")
            page.driver.get(console(cluster, "partitions"))
        page.driver.get(console(cluster, "groups"))
        wait_until(lambda: HOSTILE in {row[0] for row in page.rows("Groups")}, what="the group")
        wait_until(lambda: HOSTILE in {row[2] for row in page.rows("Members")}, what="the client of the member")
        page.driver.get(console(cluster, "transactions"))
        wait_until(lambda: HOSTILE in {row[0] for row in page.rows("Transactions")}, what="the transaction")
        page.find("main table a").click()
        page.wait_for(HOSTILE, "h2")
        page.driver.get(console(cluster, f"client/{quote(HOSTILE, safe='')}"))
        page.wait_for(HOSTILE, "h1")
        page.driver.get(console(cluster, "messages/constructor-0"))
        wait_until(lambda: page.rows("Records") == [] or HOSTILE in page.rows("Records")[0][4], what="its header")
        assert_fine(page, {console(cluster, screen): text for screen, text in names.items()})
        for nowhere in ("constructor", "__proto__", "%E0%A4%A"):
            page.driver.get(console(cluster, nowhere))
            page.wait_for("3 of 3")
    assert page.driver.execute_script("return window.hacked === undefined")
    assert page.violations() == []
    assert [each for each in page.complaints() if "Failed to load resource" not in each] == []
