"""Who leads, and who may: preferred and unclean elections, reassignment, a minimum that changes while running.

One controller that holds no partitions and three brokers that are no voters, so that any broker may die without the
quorum noticing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import run_cluster
from tests.integration.support.cluster import Cluster
from tests.integration.support.configuration import QUICK_FAILURES
from tests.integration.support.load import Load
from tests.integration.support.reading import values, wait_for_values
from tests.integration.support.waiting import wait_until

CONTROLLER = 10
BROKERS = [1, 2, 3]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    roles = {CONTROLLER: ["controller"], **{broker: ["broker"] for broker in BROKERS}}
    yield from run_cluster(tmp_path_factory.mktemp("leaders"), settings=QUICK_FAILURES, roles=roles)


@pytest.fixture(autouse=True)
def _healed(nodes: Cluster) -> None:
    nodes.heal()


def elect(nodes: Cluster, kind: str, topic: str) -> dict[str, Any]:
    asked = {"election_type": kind, "partitions": [{"topic_name": topic, "partition_id": 0}]}
    answer = nodes.call("POST", "/elections", asked)
    assert answer.status == 200, answer
    (result,) = answer.json()["data"]
    return dict(result)


def reassign(nodes: Cluster, topic: str, replicas: list[int]) -> None:
    answer = nodes.call("POST", f"/topics/{topic}/partitions/0/reassignment", {"replicas": replicas})
    assert answer.status == 204, answer


def put(nodes: Cluster, path: str, value: str) -> None:
    assert nodes.call("PUT", path, {"value": value}).status == 204


def remove(nodes: Cluster, path: str) -> None:
    assert nodes.call("DELETE", path).status == 204


def numbers(prefix: str, count: int = 10) -> list[str]:
    return [f"{prefix}{n}" for n in range(count)]


# Preferred leaders


@pytest.mark.slow
def test_the_preferred_leader_returns_on_request(nodes: Cluster):
    nodes.create_assigned("preferred", [1, 2, 3])
    with Load(nodes, "preferred", through=[2, 3]) as load:
        nodes.kill(1)
        nodes.wait_for_leader("preferred", other_than=1)
        assert elect(nodes, "preferred", "preferred")["kafka_code"] == 80, "the preferred one is dead"
        nodes.restart(1)
        nodes.wait_for_isr("preferred", 0, BROKERS)
        assert nodes.leader_of("preferred") == 2
        assert elect(nodes, "preferred", "preferred")["error_code"] is None
        wait_until(lambda: nodes.leader_of("preferred") == 1, what="the preferred leader")
        assert elect(nodes, "preferred", "preferred")["kafka_code"] == 84, "it leads already"
        load.wait_for_acknowledgements(50)
    load.verify(node_id=3)


@pytest.mark.long
def test_the_preferred_leader_returns_by_itself(tmp_path: Path) -> None:
    settings = {**QUICK_FAILURES, "leader.imbalance.check.interval.seconds": 1}
    for nodes in run_cluster(tmp_path, settings=settings):
        nodes.create_assigned("balanced", [2, 3, 1])
        nodes.kill(2)
        nodes.wait_for_leader("balanced", other_than=2)
        nodes.restart(2)
        wait_until(lambda nodes=nodes: nodes.leader_of("balanced") == 2, what="the preferred leader")


# Reassignment


def test_a_partition_moves_with_its_data_while_it_is_written(nodes: Cluster):
    nodes.create_assigned("moves", [1, 2], min_insync_replicas="1")
    nodes.write_all("moves", numbers("before-"))
    old_home = nodes.folder(1, "moves")
    assert old_home.is_dir()
    reassign(nodes, "moves", [3])
    nodes.wait_for_isr("moves", 0, [3])
    nodes.write_all("moves", numbers("after-"))
    assert values(nodes, 1, "moves") == numbers("before-") + numbers("after-")
    wait_until(lambda: not old_home.exists(), what="the old home to be empty")
    assert nodes.call("GET", "/topics/moves/partitions/0/reassignment").status == 404
    reassign(nodes, "moves", [2, 1])
    nodes.wait_for_isr("moves", 0, [1, 2])
    wait_for_values(nodes, 3, "moves", numbers("before-") + numbers("after-"))


def test_a_reassignment_under_load_loses_nothing(nodes: Cluster):
    nodes.create_assigned("shifts", [1, 2])
    with Load(nodes, "shifts") as load:
        reassign(nodes, "shifts", [3, 1])
        nodes.wait_for_isr("shifts", 0, [1, 3])
        load.wait_for_acknowledgements(50)
    load.verify(node_id=2)


def test_a_reassignment_that_cannot_end_is_cancelled(nodes: Cluster):
    nodes.create_assigned("stays", [1], min_insync_replicas="1")
    nodes.write_all("stays", numbers("kept-"))
    nodes.kill(3)
    nodes.wait_for_state(3, "fenced")
    reassign(nodes, "stays", [3])
    path = "/topics/stays/partitions/0/reassignment"
    wait_until(lambda: nodes.call("GET", path).status == 200, what="the reassignment to be under way")
    assert nodes.call("GET", path).json()["adding_replicas"] == [3]
    nodes.write_all("stays", ["meanwhile"])
    assert nodes.call("DELETE", path).status == 204
    wait_until(lambda: nodes.call("GET", path).status == 404, what="the reassignment to be gone")
    assert nodes.call("DELETE", path).json()["kafka_code"] == 85
    assert values(nodes, 2, "stays") == [*numbers("kept-"), "meanwhile"]


# The minimum


def test_the_minimum_of_the_isr_can_change_while_running(nodes: Cluster):
    nodes.create_assigned("strict", [1, 2, 3], min_insync_replicas="3")
    nodes.write_all("strict", ["three"])
    nodes.kill(3)
    nodes.wait_for_isr("strict", 0, [1, 2])
    (refused,) = nodes.write("strict", ["refused"])
    reported = {name: refused[name] for name in ("kafka_code", "retriable", "isr", "min_isr", "is_appended")}
    assert reported == {"kafka_code": 19, "retriable": True, "isr": [1, 2], "min_isr": 3, "is_appended": False}
    (hidden,) = nodes.write("strict", ["hidden"], query="?acks=1")
    assert hidden["error_code"] is None, "P1: acks=1 is not checked"
    assert values(nodes, 2, "strict") == ["three"], "P3: and not visible"
    put(nodes, "/topics/strict/configs/min.insync.replicas", "2")
    wait_until(lambda: not nodes.write("strict", ["two"])[0]["error_code"], what="the smaller minimum to be enough")
    assert values(nodes, 1, "strict") == ["three", "hidden", "two"]


# Unclean elections


def leave_with_three_lengths(nodes: Cluster, topics: list[str]) -> None:
    """Broker 3 has A, 2 has A and B, 1 has A, B and C; then only 2 and 3 live. All was acknowledged by min ISR 1."""
    for topic in topics:
        nodes.create_assigned(topic, [1, 3, 2], min_insync_replicas="1")
        nodes.write_all(topic, numbers("A"))
    for dying, written in ((3, "B"), (2, "C"), (1, None)):
        nodes.kill(dying)
        nodes.wait_for_state(dying, "fenced")
        for topic in topics:
            if written is not None:
                wait_until(lambda topic=topic, gone=dying: gone not in nodes.isr_of(topic), what="a smaller ISR")
                nodes.write_all(topic, numbers(written))
    for returning in (2, 3):
        nodes.restart(returning)


def test_an_unclean_election_takes_the_longest_log_and_reports_what_is_lost(nodes: Cluster):
    by_topic, by_request, by_cluster = topics = ["by-topic", "by-request", "by-cluster"]
    leave_with_three_lengths(nodes, topics)
    for topic in topics:
        assert nodes.leader_of(topic) == -1, "B4: the last ISR member stays, and is dead"
        assert nodes.write(topic, ["x"])[0]["kafka_code"] == 5
    put(nodes, f"/topics/{by_topic}/configs/unclean.leader.election.enable", "true")
    assert nodes.wait_for_leader(by_topic) == 2, "L8: not 3, which comes first in the assignment and has less"
    assert elect(nodes, "unclean", by_topic)["kafka_code"] == 84, "it has a leader"
    assert elect(nodes, "unclean", by_request)["error_code"] is None
    assert nodes.wait_for_leader(by_request) == 2
    assert nodes.leader_of(by_cluster) == -1
    put(nodes, "/broker-configs/unclean.leader.election.enable", "true")
    assert nodes.wait_for_leader(by_cluster) == 2
    remove(nodes, "/broker-configs/unclean.leader.election.enable")
    for topic in topics:
        wait_for_values(nodes, 3, topic, numbers("A") + numbers("B"))
        nodes.write_all(topic, numbers("D"))
    nodes.restart(1)
    for topic in topics:
        nodes.wait_for_isr(topic, 0, BROKERS)
        for broker in BROKERS:
            assert values(nodes, broker, topic) == numbers("A") + numbers("B") + numbers("D")
        election = event_of(nodes, "unclean_election", topic, node_id=CONTROLLER)
        assert (election["leader"], election["log_end_offset"]) == (2, 20), election
        assert {broker: answer[-1] for broker, answer in election["answers"].items()} == {"2": 20, "3": 10}
        cut = event_of(nodes, "truncated", topic, node_id=1)
        assert (cut["from_offset"], cut["to_offset"]) == (20, 30), cut
        wait_until(lambda topic=topic: same_logs(nodes, topic), what="three equal copies")


def event_of(nodes: Cluster, name: str, topic: str, *, node_id: int) -> dict[str, Any]:
    found = [event for event in nodes.events(name, node_id=node_id) if event["topic"] == topic]
    assert found, f"no event {name} of {topic} at node {node_id}"
    return found[-1]


def same_logs(nodes: Cluster, topic: str) -> bool:
    return len({nodes.log_bytes(broker, topic) for broker in BROKERS}) == 1
