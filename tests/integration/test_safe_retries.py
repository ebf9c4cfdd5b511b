"""A produce with an Idempotency-Key is sent again after its answer was lost: every record is there exactly once."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from kraft.client.response import Answer, Response
from kraft.wire.channels.transactions import INIT_PRODUCER_ID, InitProducerId
from metadata.producer_ids import RESERVED_PRODUCER_IDS_FROM
from tests.integration.support.cluster import Cluster
from tests.integration.support.inside import ask_as_peer
from tests.integration.support.reading import TEXT, values, wait_for_values
from tests.integration.support.waiting import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def nodes(fragile_cluster: Cluster) -> Cluster:
    fragile_cluster.heal()
    return fragile_cluster


def produce(cluster: Cluster, node_id: int, topic: str, texts: list[str], key: str, **more: str) -> Response:
    body = {"records": [{"value": text} for text in texts]}
    headers = {"Idempotency_Key": key, "Content_Type": TEXT, **more}
    return cluster.send(node_id, "POST", f"/topics/{topic}", body, **headers)


def offsets(outcome: Response) -> list[tuple[int, int]]:
    assert isinstance(outcome, Answer), outcome
    assert outcome.status == 200, outcome
    entries: list[dict[str, Any]] = outcome.json()["offsets"]
    assert not [entry for entry in entries if entry["error_code"]], entries
    return [(entry["partition"], entry["offset"]) for entry in entries]


def others(cluster: Cluster, *ids: int) -> list[int]:
    return [node_id for node_id in cluster.ids if node_id not in ids]


def test_every_node_gives_the_first_result_also_after_a_restart_of_all(nodes: Cluster):
    nodes.create_topic("restart", partitions=4)
    first = offsets(produce(nodes, 1, "restart", ["a", "b", "c"], "one"))
    for node_id in nodes.ids:
        assert offsets(produce(nodes, node_id, "restart", ["a", "b", "c"], "one")) == first
    assert offsets(produce(nodes, 2, "restart", ["a", "b", "c"], "one", Client_Id="another")) != first
    nodes.stop_all()
    nodes.start_again()
    for node_id in nodes.ids:
        assert offsets(produce(nodes, node_id, "restart", ["a", "b", "c"], "one")) == first
    nodes.kill_all()
    nodes.start_again()
    wait_until(lambda: all(nodes.leader_of("restart", p) >= 0 for p in range(4)), what="leaders")
    assert offsets(produce(nodes, 3, "restart", ["a", "b", "c"], "one")) == first
    partition = first[0][0]
    wait_for_values(nodes, 1, "restart", ["a", "b", "c"] * 2, partition)
    reused = produce(nodes, 1, "restart", ["x", "y", "z"], "one")
    assert isinstance(reused, Answer)
    assert (reused.status, reused.json()["kafka_code"]) == (422, 45)
    assert values(nodes, 1, "restart", partition) == ["a", "b", "c"] * 2


def test_the_leader_dies_after_it_replicated_and_before_it_answered(nodes: Cluster):
    """One follower is held, so that acks=all waits; the other has the records when the leader is killed."""
    leader = others(nodes, nodes.controller())[0]
    follower, held = others(nodes, leader)
    nodes.create_assigned("unanswered", [leader, follower, held])
    nodes.pause(held)
    lost: list[Response] = []
    sender = threading.Thread(target=lambda: lost.append(produce(nodes, leader, "unanswered", ["1", "2"], "k")))
    sender.start()
    wait_until(lambda: nodes.log_bytes(follower, "unanswered"), what="the records at the follower")
    nodes.kill(leader)
    sender.join()
    assert not isinstance(lost[0], Answer), "the first attempt was never answered"
    nodes.resume(held)
    nodes.wait_for_leader("unanswered", other_than=leader)
    retries = [offsets(produce(nodes, node_id, "unanswered", ["1", "2"], "k")) for node_id in (follower, held)]
    assert retries == [[(0, 0), (0, 1)]] * 2
    nodes.heal()
    nodes.wait_for_isr("unanswered", 0, nodes.ids)
    assert offsets(produce(nodes, leader, "unanswered", ["1", "2"], "k")) == [(0, 0), (0, 1)]
    for node_id in nodes.ids:
        wait_for_values(nodes, node_id, "unanswered", ["1", "2"])


def test_the_leader_dies_before_anybody_had_it(nodes: Cluster):
    leader = others(nodes, nodes.controller())[0]
    rest = others(nodes, leader)
    nodes.create_assigned("unreplicated", [leader, *rest])
    for follower in rest:
        nodes.pause(follower)
    lost: list[Response] = []
    sender = threading.Thread(target=lambda: lost.append(produce(nodes, leader, "unreplicated", ["1", "2"], "k")))
    sender.start()
    wait_until(lambda: nodes.log_bytes(leader, "unreplicated"), what="the records at the leader")
    nodes.kill(leader)
    sender.join()
    for follower in rest:
        nodes.resume(follower)
    nodes.wait_for_leader("unreplicated", other_than=leader)
    first = offsets(produce(nodes, rest[0], "unreplicated", ["1", "2"], "k"))
    nodes.heal()
    nodes.wait_for_isr("unreplicated", 0, nodes.ids)
    assert [offsets(produce(nodes, node_id, "unreplicated", ["1", "2"], "k")) for node_id in nodes.ids] == [first] * 3
    for node_id in nodes.ids:
        wait_for_values(nodes, node_id, "unreplicated", ["1", "2"])


def test_producer_ids_are_given_once_by_all_nodes(nodes: Cluster):
    given = [ask_as_peer(nodes, n, INIT_PRODUCER_ID, InitProducerId()) for n in nodes.ids for _ in range(3)]
    assert len({each.producer_id for each in given}) == len(given)
    assert all(0 <= each.producer_id < RESERVED_PRODUCER_IDS_FROM and each.epoch == 0 for each in given)
