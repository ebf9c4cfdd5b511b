"""The two flows of Kafka's transactions side by side, and a transaction that hangs: on three real nodes, by single
requests."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.support.cluster import Cluster, kraft
from tests.integration.support.transactional import V1, V2, RawProducer, committed, config_of_brokers
from tests.integration.support.waiting import NotYet, wait_until

INVALID_PRODUCER_EPOCH, INVALID_TXN_STATE, PRODUCER_FENCED, TRANSACTION_ABORTABLE = 47, 48, 90, 120
OLD_MS = 20 * 60_000
"""Longer than any transaction may be open: transaction.max.timeout.ms is a quarter of an hour."""


@pytest.fixture
def nodes(fragile_cluster: Cluster) -> Cluster:
    fragile_cluster.heal()
    return fragile_cluster


def now_ms() -> int:
    return int(time.time() * 1_000)


def until_committed(nodes: Cluster, topic: str, expected: list[str], partition: int = 0) -> None:
    for node_id in nodes.ids:
        wait_until(
            lambda at=node_id: committed(nodes, at, topic, partition) == expected,
            what=f"{expected} at node {node_id}",
        )


# --- both flows -------------------------------------------------------------------------------------------------------


def test_both_flows_commit_abort_and_fence_side_by_side(nodes: Cluster) -> None:
    """Transaction version 1 adds its partitions and keeps its epoch; version 2 writes at once, and has an epoch for
    each transaction. They share a partition, where readers wait for the older one."""
    topic, at = "flows", now_ms()
    nodes.create_topic(topic, partitions=2)
    old, new = RawProducer(nodes, "flow-1", V1), RawProducer(nodes, "flow-2", V2)
    old.init()
    new.init()
    began = {each.flow.version: each.epoch for each in (old, new)}

    assert old.write(topic, "not added", timestamp_ms=at) == TRANSACTION_ABORTABLE, "its leader asks the coordinator"
    assert old.end(commits=False) == INVALID_TXN_STATE, "nothing was begun by it"
    for each in (old, new):
        if each.flow.adds_partitions:
            assert each.add((topic, 0), (topic, 1)) == 0
        for partition in (0, 1):
            assert each.write(topic, f"{each.flow.version} kept", partition=partition, timestamp_ms=at) == 0
    assert new.end(commits=True) == 0
    until_open_from(nodes, topic, 0)  # the other one began before it
    assert old.end(commits=True) == 0
    for partition in (0, 1):
        until_committed(nodes, topic, ["1 kept", "2 kept"], partition)
    assert (old.epoch, new.epoch) == (began[1], began[2] + 1)

    for each in (new, old):
        if each.flow.adds_partitions:
            assert each.add((topic, 0)) == 0
        assert each.write(topic, f"{each.flow.version} aborted", timestamp_ms=at) == 0
        assert each.end(commits=False) == 0
    until_committed(nodes, topic, ["1 kept", "2 kept"])
    assert (old.epoch, new.epoch) == (began[1], began[2] + 2)

    for zombie in (old, new):
        if zombie.flow.adds_partitions:
            assert zombie.add((topic, 0)) == 0
        assert zombie.write(topic, "of the zombie", timestamp_ms=at) == 0
        heir = RawProducer(nodes, zombie.transactional_id, zombie.flow)
        heir.init()
        assert heir.producer_id == zombie.producer_id
        assert heir.epoch > zombie.epoch
        assert zombie.write(topic, "late", timestamp_ms=at) == INVALID_PRODUCER_EPOCH
        assert zombie.end(commits=True) == PRODUCER_FENCED
        if zombie.flow.adds_partitions:
            assert zombie.add((topic, 0)) == PRODUCER_FENCED
            assert heir.add((topic, 0)) == 0
        assert heir.write(topic, f"{heir.flow.version} heir", timestamp_ms=at) == 0
        assert heir.end(commits=True) == 0
    until_committed(nodes, topic, ["1 kept", "2 kept", "1 heir", "2 heir"])


def until_open_from(nodes: Cluster, topic: str, offset: int) -> None:
    """The last stable offset of partition 0, which is below its end; a new leader tells it once it is replicated."""

    def reported_end() -> int:
        return int(nodes.get(f"/topics/{topic}/partitions/0/offsets?isolation_level=read_committed")["end_offset"])

    wait_until(lambda: reported_end() == offset, what=f"the last stable offset {offset} of {topic}-0")


# --- one that hangs ---------------------------------------------------------------------------------------------------


@pytest.fixture
def unverified(nodes: Cluster) -> Iterator[Cluster]:
    """As before KIP-890: leaders take a transactional batch at its word."""
    config_of_brokers(nodes, transaction_partition_verification_enable="false")
    yield nodes
    nodes.heal()
    config_of_brokers(nodes, transaction_partition_verification_enable=None)


def reported(nodes: Cluster, *arguments: str) -> Any:
    """By the command, which is asked again while nodes do not agree on who leads."""
    found: list[Any] = []

    def is_informed() -> bool:
        done = kraft("transactions", *arguments, "--json", "--data", nodes.data, check=False)
        if done.returncode:
            raise NotYet(f"{arguments}: {done.stderr}")
        found[:] = [json.loads(done.stdout)]
        return True

    wait_until(is_informed, what=f"kraft transactions {' '.join(arguments)}")
    return found[0]


def test_a_late_batch_hangs_and_is_found_described_and_aborted(unverified: Cluster) -> None:
    """A produce that arrives after its transaction has ended opens one that no coordinator knows of. Readers of
    committed records wait before it, also at the next leader, until an operator aborts it."""
    nodes, topic, name = unverified, "hangs", "late-writer"
    nodes.create_topic(topic)
    late, open_one = RawProducer(nodes, name, V1), RawProducer(nodes, "open-one", V1)
    for each in (late, open_one):
        each.init()
        assert each.add((topic, 0)) == 0
    assert late.write(topic, "in time", timestamp_ms=now_ms()) == 0
    assert late.end(commits=True) == 0
    until_committed(nodes, topic, ["in time"])
    assert reported(nodes, "describe", name)["state"] == "CompleteCommit"

    wait_until(
        lambda: late.write(topic, "late", timestamp_ms=now_ms() - OLD_MS) != TRANSACTION_ABORTABLE,
        what="a leader that does not ask",
    )
    assert late.sequences[topic, 0] == 2, "and it is written"
    assert open_one.write(topic, "open", timestamp_ms=now_ms() - OLD_MS) == 0
    nodes.write(topic, ["plain"])
    killed = nodes.leader_of(topic)
    nodes.kill(killed)
    nodes.wait_for_leader(topic, other_than=killed)
    until_open_from(nodes, topic, 2)

    row = only(reported(nodes, "find-hanging", "--topic", topic))
    assert (row["topic"], row["partition"], row["start_offset"]) == (topic, 0, 2)
    assert (row["producer_id"], row["producer_epoch"]) == (late.producer_id, late.epoch)
    assert row["duration_min"] >= 20
    assert reported(nodes, "find-hanging", "--topic", topic, "--max-transaction-timeout", "60") == [], "it is younger"
    producers = {each["producer_id"]: each for each in reported(nodes, "describe-producers", topic, "0")}
    assert producers[late.producer_id]["transaction_start_offset"] == 2
    assert producers[open_one.producer_id]["transaction_start_offset"] == 3
    described = reported(nodes, "describe", name)
    assert (described["state"], described["partitions"]) == ("CompleteCommit", []), (
        "and its coordinator will not end it"
    )

    kraft("transactions", "abort", topic, "0", "--start-offset", str(row["start_offset"]), "--data", nodes.data)
    assert reported(nodes, "find-hanging", "--topic", topic) == []
    until_open_from(nodes, topic, 3)  # the other one is its coordinator's
    assert open_one.end(commits=True) == 0
    nodes.heal()
    until_committed(nodes, topic, ["in time", "open", "plain"])

    assert late.add((topic, 0)) == 0
    assert late.write(topic, "goes on", timestamp_ms=now_ms()) == 0
    assert late.end(commits=True) == 0
    until_committed(nodes, topic, ["in time", "open", "plain", "goes on"])


def only(rows: list[dict[str, Any]]) -> dict[str, Any]:
    (row,) = rows
    return row
