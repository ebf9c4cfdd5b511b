"""`python -m bench.consumers 10000`: the cost of many REST consumers at their coordinator, in this process.

Each is made, subscribed and has read a batch, in a group of its own or ten to a group; an append is answered at once.
Prints by how much the process grows per consumer, with few and with more partitions.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Mapping
from typing import cast
from uuid import UUID

from bench.cluster import process_resident_bytes
from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.consumers import Consumers
from kraft.coordinators.groups.shard import GroupShard
from kraft.coordinators.shard import CoordinatorContext
from kraft.protocol.errors import NotCoordinator
from kraft.protocol.primitives import Buffer
from kraft.runtime.environment import close_environment, system_environment
from metadata.environment import Environment
from metadata.image import MetadataImage, TopicIdPartition
from metadata.internal_topics import offsets_topic_configs
from metadata.records import PartitionRecord, RegisterBrokerRecord, TopicRecord
from metadata.settings import BrokerSettings, topic_settings
from replication.manager.manager import ReplicaManager
from replication.partition.log import EpochEnd
from replication.producers.origin import Origin
from replication.producers.state import Producer
from replication.requests import OffsetAnswer, ProduceOptions, ProduceOutcome

TOPIC = "flights"
NONCE = 2**127 + 1
CONFIG = r.InstanceConfig(timeout_ms=86_400_000)
"""None goes while the others are made."""
SHAPES = ((1, 1), (10, 1), (10, 10))
"""Partitions of the topic, consumers in a group."""


class _EmptyLogs:
    """Stands for a `ReplicaManager`: accepts each append at once, and has no records."""

    def __init__(self) -> None:
        self.produce = self.fetch = self.offsets = self.producers = self

    async def outcomes(
        self, batches: Mapping[TopicIdPartition, Buffer], _options: ProduceOptions, *, origin: Origin
    ) -> Mapping[TopicIdPartition, ProduceOutcome]:
        assert origin.is_coordinator, origin
        return {partition: ProduceOutcome() for partition in batches}

    async def list_offset(self, _partition: TopicIdPartition, _timestamp: int) -> OffsetAnswer:
        return OffsetAnswer(offset=0, timestamp=-1, leader_epoch=0)

    def offset_for_leader_epoch(self, _partition: TopicIdPartition, _epoch: int) -> EpochEnd | None:
        return None

    def get(self, _partition: TopicIdPartition, _producer_id: int) -> Producer | None:
        return None

    def check_appendable(self, _partition: TopicIdPartition) -> None:
        pass


def _image(partitions: int) -> MetadataImage:
    topic_id = UUID(int=1)
    broker = RegisterBrokerRecord(broker_id=1, incarnation_id=UUID(int=2), rest="", kafka="")
    made = [
        PartitionRecord(topic_id=topic_id, partition=number, replicas=(1,), isr=(1,), leader=1)
        for number in range(partitions)
    ]
    return MetadataImage().apply([broker, TopicRecord(name=TOPIC, topic_id=topic_id), *made])


def _unreadable(offset: int, reason: str) -> None:
    raise AssertionError(f"an empty partition has no record at {offset}: {reason}")


async def _consume(consumers: Consumers, group: str, name: str) -> None:
    """The requests of a client: create, subscribe, read once."""
    created = r.CreateInstance(group=group, instance=name, nonce=f"{NONCE:032x}", config=CONFIG)
    await consumers.handle(created)
    await consumers.handle(r.Subscribe(group=group, instance=name, topics=(TOPIC,)))
    plan = await consumers.handle(r.BeginPoll(group=group, instance=name, wait_ms=0))
    assert isinstance(plan, a.PollPlan), plan
    ranges = tuple((topic, partition, 0, 10) for topic, partition, _, _ in plan.ranges)
    read = r.EndPoll(group=group, instance=name, number=plan.number, generation=plan.generation, ranges=ranges)
    await consumers.handle(read)


async def measure(environment: Environment, count: int, partitions: int, at_once: int) -> tuple[float, GroupShard]:
    """Bytes per consumer; and the shard, which holds them."""
    settings, image = BrokerSettings(group_initial_rebalance_delay_ms=0), _image(partitions)
    context = CoordinatorContext(
        node_id=1,
        environment=environment,
        replicas=cast(ReplicaManager, _EmptyLogs()),
        settings=lambda: settings,
        topic_settings=lambda _: topic_settings(settings, offsets_topic_configs(settings)),
        image=lambda: image,
        has_session=lambda: True,
    )
    shard = GroupShard(TopicIdPartition(UUID(int=9), 0), 0, context, on_failed=lambda _: None)
    await shard.load(_unreadable)
    consumers = Consumers(shard, lambda: 0)  # without the limit of a node
    gc.collect()
    before = process_resident_bytes(os.getpid())
    for number in range(count):
        await _consume(consumers, f"group-{number // at_once}", f"kraft-client-{number:016x}")
    await shard.settle()
    gc.collect()
    after = process_resident_bytes(os.getpid())
    assert sum(len(entry.instances) for entry in shard.entries.values()) == count
    return (after - before) / count, shard


async def run(count: int) -> None:
    environment = system_environment(threads=1)
    kept: list[GroupShard] = []  # so that no shape is measured in the memory of the one before
    try:
        for partitions, at_once in SHAPES:
            size, shard = await measure(environment, count, partitions, at_once)
            kept.append(shard)
            share = partitions / at_once
            shape = f"{count} consumers, {at_once} to a group, {share:g} partitions to a consumer"
            print(f"{shape}: {size:,.0f} bytes each", flush=True)
    finally:
        for shard in kept:
            shard.end(NotCoordinator("measured"))
        close_environment(environment)


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
