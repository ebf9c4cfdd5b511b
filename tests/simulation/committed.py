"""What readers of committed records have in some topics, once every transaction in them has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from typing import NamedTuple

from kraft.chaos.evidence import LogRecord
from kraft.chaos.worlds.simulated.client import records_for
from metadata.image import TopicIdPartition
from metadata.internal_topics import INTERNAL_TOPICS
from replication.partition.replica import Replica
from replication.partition.states import LeaderState
from replication.requests import ReadOptions
from tests.simulation.oracle import Oracle

SETTLE_S = 45
"""Virtual time after the last fault within which every transaction has ended in every partition."""
LOOK_S = 0.2
READ_BYTES = 1 << 22


class Led(NamedTuple):
    """A partition that has a leader now."""

    key: TopicIdPartition
    state: LeaderState
    replica: Replica


def leaders(oracle: Oracle, topics: Collection[str]) -> Iterator[Led]:
    for name in topics:
        topic = oracle.image.topic(name)
        for partition in () if topic is None else topic.partitions.values():
            key = TopicIdPartition(partition.topic_id, partition.partition)
            replica = oracle.replica(partition.leader, key) if partition.has_leader else None
            if replica is not None and isinstance(replica.state, LeaderState):
                yield Led(key, replica.state, replica)


def is_excused(oracle: Oracle, topics: Collection[str]) -> bool:
    """A partition of these, or of what coordinators keep, may have lost what acks=all acknowledged."""
    promise = oracle.promise
    for partition in oracle.image.all_partitions():
        name = oracle.image.topics[partition.topic_id].name
        key = TopicIdPartition(partition.topic_id, partition.partition)
        if name in (*INTERNAL_TOPICS, *topics) and (promise.rotten or promise.may_lose(key)):
            oracle.count("transactions excused")
            return True
    return False


async def wait_decided(oracle: Oracle, topics: Collection[str]) -> None:
    """Until every transaction has ended, by its client or by its coordinator."""
    world = oracle.cluster.world
    deadline = world.loop.time() + SETTLE_S
    while (open_ones := _undecided(oracle, topics)) and oracle.violation is None:
        is_late = world.loop.time() > deadline
        if is_late and not is_excused(oracle, topics):
            oracle.fail(f"transaction_hangs: {SETTLE_S} s after the last fault {open_ones}")
        if is_late:
            break
        await asyncio.sleep(LOOK_S)


def _undecided(oracle: Oracle, topics: Collection[str]) -> str:
    found = []
    for key, state, replica in leaders(oracle, topics):
        stable = replica.log.producers.states.first_unstable_offset(state.high_watermark)
        if stable is not None:
            found.append(f"{oracle.name(key)} is undecided from offset {stable} on")
    return "; ".join(found)


async def read_committed(oracle: Oracle, key: TopicIdPartition) -> tuple[list[LogRecord], int]:
    """The committed records of a partition that is led, and its last stable offset."""
    found, position = list[LogRecord](), 0
    partition = oracle.image.partition(key.topic_id, key.partition)
    assert partition is not None
    node = oracle.cluster.nodes[partition.leader]
    assert node.node is not None
    gateway = node.node.gateway
    while True:
        options = ReadOptions(bytes_max=READ_BYTES, is_read_committed=True)
        read = await node.machine.run(gateway.read(key, position, options))
        following, records = records_for(read, position)
        found += [LogRecord(offset, -1, value) for offset, value in records]
        if following == position:
            return found, read.last_stable_offset
        position = following
