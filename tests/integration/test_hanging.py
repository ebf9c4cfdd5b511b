"""Real nodes whose main loop hangs: the cluster goes on without them, and one that is past help ends itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kraft.client.response import Answer
from kraft.launcher.processes import is_alive
from tests.integration.conftest import run_cluster
from tests.integration.planted.hangs import hang, nodes_that_can_hang, release
from tests.integration.support.cluster import Cluster
from tests.integration.support.configuration import QUICK_FAILURES, THREE
from tests.integration.support.forks import ForkServer
from tests.integration.support.waiting import wait_until

TOPIC = "hanging"
VOTERS = (1, 2, 3)
OBSERVER = 4
ROLES = {**THREE, OBSERVER: ("broker",)}
PAUSE_S = 60
DEADLINE_S = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hangs")


@pytest.fixture(scope="module")
def planted_cluster(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    forks = ForkServer()
    try:
        with nodes_that_can_hang(folder):  # that process starts with the first node
            data = tmp_path_factory.mktemp("hanging")
            yield from run_cluster(data, settings=QUICK_FAILURES, roles=ROLES, forks=forks)
    finally:
        forks.close()


@pytest.fixture
def nodes(planted_cluster: Cluster, folder: Path) -> Iterator[Cluster]:
    cluster = planted_cluster
    cluster.heal()
    if TOPIC not in cluster.get("/topics"):
        cluster.create_assigned(TOPIC, list(VOTERS))
    cluster.wait_for_isr(TOPIC, 0, VOTERS)
    yield cluster
    for node in cluster.nodes:
        release(node.pid, folder)
    cluster.paused.clear()


def is_taken(nodes: Cluster, node_id: int) -> bool:
    """A record under acks=all, by way of that node."""
    body = {"records": [{"value": "eA=="}]}
    outcome = nodes.send(node_id, "POST", f"/topics/{TOPIC}?acks=all", body)
    return isinstance(outcome, Answer) and outcome.is_success and not outcome.json()["offsets"][0].get("error_code")


def other_controller(nodes: Cluster, *, than: int) -> int:
    found = wait_until(
        lambda: (known := nodes.controller()) != than and known, deadline_s=DEADLINE_S, what=f"another than {than}"
    )
    return int(found)


@pytest.mark.long
@pytest.mark.parametrize("does", ["wait", "compute"])
def test_a_leader_that_hangs_leads_no_longer_and_comes_back(nodes: Cluster, folder: Path, does: str) -> None:
    hung = nodes.controller()
    pid = nodes.node(hung).pid
    hangs, turns, given_up = (
        len(nodes.events(event, node_id=hung))
        for event in ("main_loop_hangs", "main_loop_turns_again", "quorum_leadership_given_up")
    )
    nodes.paused.add(hung)  # it answers nobody
    hang(pid, folder, computes=does == "compute")
    successor = other_controller(nodes, than=hung)
    wait_until(lambda: is_taken(nodes, successor), deadline_s=DEADLINE_S, what="a record without the node that hangs")
    reported = nodes.events("main_loop_hangs", node_id=hung)[hangs]
    assert any(f"in {does}_without_end" in call for call in reported["stack"]), reported
    known = len(nodes.events("quorum_leadership_given_up", node_id=hung))
    assert known == given_up, "told in order, so when the loop turns again"
    release(pid, folder)
    nodes.paused.discard(hung)
    wait_until(
        lambda: len(nodes.events("main_loop_turns_again", node_id=hung)) > turns,
        deadline_s=DEADLINE_S,
        what=f"the loop of node {hung} to turn again",
    )
    nodes.heal()
    assert len(nodes.events("quorum_leadership_given_up", node_id=hung)) > given_up
    assert nodes.node(hung).pid == pid
    assert is_alive(pid)


@pytest.mark.long
def test_a_voter_that_hangs_votes_and_is_not_elected(nodes: Cluster, folder: Path) -> None:
    leader = nodes.controller()
    hung, other = (node_id for node_id in VOTERS if node_id != leader)
    nodes.paused.add(hung)
    hang(nodes.node(hung).pid, folder, computes=False)
    before = len(nodes.events("main_loop_hangs", node_id=hung))
    wait_until(
        lambda: len(nodes.events("main_loop_hangs", node_id=hung)) > before, deadline_s=DEADLINE_S, what="the event"
    )
    nodes.kill(leader)
    assert other_controller(nodes, than=leader) == other, "with the vote of the one that hangs"
    release(nodes.node(hung).pid, folder)
    nodes.paused.discard(hung)


@pytest.mark.parametrize("hung", [pytest.param(VOTERS[0], marks=pytest.mark.long), OBSERVER])
def test_a_node_that_is_past_help_ends_itself_and_reports_where_it_stood(
    nodes: Cluster, folder: Path, hung: int
) -> None:
    name = "node.hang.timeout.ms"
    assert nodes.call("PUT", f"/broker-configs/{name}", {"value": "1000"}).status == 204
    pid = nodes.node(hung).pid
    wait_until(lambda: _setting(nodes, hung, name) == "1000", deadline_s=DEADLINE_S, what="the setting")
    nodes.paused.add(hung)
    hang(pid, folder, computes=True)
    wait_until(lambda: not is_alive(pid), deadline_s=DEADLINE_S, what="the end of the node")
    nodes.paused.discard(hung)
    release(pid, folder)
    (reported,) = nodes.events("main_loop_past_help", node_id=hung)
    assert any("in compute_without_end" in call for call in reported["stack"]), reported
    log = (Path(nodes.data) / f"node-{hung}" / "node.log").read_text()
    assert "this node ends itself: its main loop has not turned for" in log
    assert "in compute_without_end" in log
    nodes.heal()
    assert nodes.call("DELETE", f"/broker-configs/{name}").status == 204


def _setting(nodes: Cluster, node_id: int, name: str) -> str:
    """Empty until the node has heard that it was set."""
    return str(nodes.call("GET", f"/broker-configs/{name}", node_id=node_id).json().get("value", ""))


@pytest.mark.slow
def test_pause_of_a_minute_is_survived(nodes: Cluster) -> None:
    paused = nodes.controller()
    pid, before = nodes.node(paused).pid, len(nodes.events("main_loop_hangs"))
    nodes.pause(paused)
    until = time.monotonic() + PAUSE_S
    successor = other_controller(nodes, than=paused)
    wait_until(lambda: is_taken(nodes, successor), deadline_s=DEADLINE_S, what="a record without the paused node")
    time.sleep(max(0.0, until - time.monotonic()))
    nodes.resume(paused)
    nodes.heal()
    assert nodes.node(paused).pid == pid
    assert is_alive(pid)
    assert len(nodes.events("main_loop_hangs")) == before
