"""The share coordinator on three simulated nodes: what it has answered stays, whoever dies, and old records go."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from typing import Any, TypeVar

import pytest

from kraft.chaos.worlds.simulated.cluster import SimulatedCluster, SimulatedNode
from kraft.coordinators.shares.coordinator import ShareCoordinator
from kraft.coordinators.shares.decide import Write
from kraft.coordinators.shares.routing import SharePersister
from kraft.coordinators.shares.shard import ShareStateShard
from kraft.coordinators.shares.state import UNKNOWN, ShareKey
from kraft.protocol.batches.header import whole_batches
from kraft.protocol.errors import FencedLeaderEpoch, InvalidRequest, UnknownTopicOrPartition
from kraft.protocol.messages.find_coordinator_request import FindCoordinatorRequestData
from metadata.controller.requests import DeleteTopics, ElectLeaders
from metadata.image import TopicIdPartition
from metadata.internal_topics import SHARE_STATE_TOPIC
from replication.requests import ReadOptions
from replication.shares.states import DeliveryState, StateBatch
from tests.support.client_door import ClientDoor
from tests.unit.coordinators.test_transaction_cluster import create, eventually, play

SETTINGS: dict[str, Any] = {"share_coordinator_state_topic_num_partitions": 2}
Answer = TypeVar("Answer")


async def at(node: SimulatedNode, work: Awaitable[Answer]) -> Answer:
    answer: Answer = await node.machine.run(work)  # type: ignore[arg-type]
    return answer


def persister(node: SimulatedNode) -> SharePersister:
    assert node.node is not None
    return node.node.share_persister


def coordinators(cluster: SimulatedCluster) -> dict[int, ShareCoordinator]:
    found = {each.node_id: each.node.broker for each in cluster.alive if each.node is not None}
    return {node_id: each.shares.coordinator for node_id, each in found.items() if each is not None}


def a_write(*, leader: int, start: int, first: int) -> Write:
    batches = [StateBatch(first, first + 4, DeliveryState.ACKNOWLEDGED, 1)]
    return Write(state_epoch=1, leader_epoch=leader, start_offset=start, delivery_complete_count=5, batches=batches)


def test_what_was_written_is_read_at_the_next_coordinator_whatever_node_dies():
    async def story(cluster: SimulatedCluster) -> None:
        key = ShareKey("g", (await create(cluster, "t")).topic_id, 0)
        first = cluster.alive[0]
        assert await at(first, persister(first).summary(key)) == UNKNOWN
        await at(first, persister(first).initialize(key, state_epoch=1, start_offset=0))
        for number, node in enumerate(cluster.alive, start=1):
            state = await at(node, persister(node).read(key, leader_epoch=number))
            assert state.state_epoch == 1
            await at(node, persister(node).write(key, a_write(leader=number, start=0, first=10 * number)))
        await refused(first, persister(first).write(key, a_write(leader=1, start=0, first=50)), FencedLeaderEpoch)
        node_id = await at(first, persister(first).coordinator_of(key.coordinator_key))
        cluster.nodes[node_id].kill()
        other = cluster.alive[0]
        state = await at(other, persister(other).read(key, leader_epoch=4))
        assert [batch.first_offset for batch in state.batches] == [10, 20, 30]
        summary = await at(other, persister(other).summary(key))
        assert (summary.leader_epoch, summary.delivery_complete_count) == (4, 5)

    play(story, **SETTINGS)


async def refused(node: SimulatedNode, work: Awaitable[object], error: type[Exception]) -> None:
    try:
        await at(node, work)
    except error:
        return
    raise AssertionError(f"not refused with {error.__name__}")


def test_share_partitions_go_with_their_topic_and_their_group():
    async def story(cluster: SimulatedCluster) -> None:
        node = cluster.alive[0]
        topic_id = (await create(cluster, "t", partitions=2)).topic_id
        keys = [ShareKey("g", topic_id, number) for number in (0, 1)]
        for key in keys:
            await at(node, persister(node).initialize(key, state_epoch=1, start_offset=3))
        await refused(node, persister(node).read(ShareKey("g", topic_id, 2), leader_epoch=1), UnknownTopicOrPartition)
        await refused(node, persister(node).read(ShareKey("", topic_id, 0), leader_epoch=1), InvalidRequest)
        await at(node, persister(node).delete(keys[0]))
        await at(node, persister(node).delete(keys[0]))
        await refused(node, persister(node).read(keys[0], leader_epoch=1), InvalidRequest)
        assert node.node is not None
        await at(node, node.node.gateway.control(DeleteTopics(topics=(topic_id,)), timeout_ms=10_000))

        def is_forgotten() -> bool:
            shards = [shard for each in coordinators(cluster).values() for shard in each.shards.loaded()]
            return not any(shard.states for shard in shards)

        await eventually(is_forgotten)

    play(story, **SETTINGS)


def test_records_that_nothing_needs_are_deleted_and_the_others_are_read():
    """KAFKA-19695: no snapshot is deleted that something needs; cold share partitions do not hold up the others."""

    async def story(cluster: SimulatedCluster) -> None:
        node = cluster.alive[0]
        topic_id = (await create(cluster, "t", partitions=4)).topic_id
        keys = [ShareKey("g", topic_id, number) for number in range(4)]
        for key in keys:
            await at(node, persister(node).initialize(key, state_epoch=1, start_offset=0))
            await at(node, persister(node).write(key, a_write(leader=1, start=2, first=10)))
        for start in range(30):
            await at(node, persister(node).write(keys[0], a_write(leader=1, start=start, first=100)))

        def log_starts() -> dict[int, int]:
            assert node.node is not None
            assert node.node.broker is not None
            status = node.node.broker.replicas.describe()
            topic = node.node.publisher.image.topic(SHARE_STATE_TOPIC)
            assert topic is not None
            return {
                key.partition: each.log_start_offset for key, each in status.items() if key.topic_id == topic.topic_id
            }

        assert set(log_starts().values()) == {0}
        await eventually(lambda: max(log_starts().values()) > 20)
        for each in list(cluster.alive):
            each.kill()
        await cluster.start()
        node = cluster.alive[0]
        for key in keys:
            state = await at(node, persister(node).read(key, leader_epoch=2))
            assert (state.start_offset, [batch.first_offset for batch in state.batches]) == (
                (29, [100]) if key == keys[0] else (2, [10])
            )

    play(
        story,
        **SETTINGS,
        share_coordinator_snapshot_update_records_per_snapshot=10,
        share_coordinator_state_topic_prune_interval_ms=2_000,
        share_coordinator_cold_partition_snapshot_interval_ms=2_000,
    )


@pytest.mark.long
def test_periodic_work_goes_with_its_partition_and_happens_once(monkeypatch: pytest.MonkeyPatch):
    """KAFKA-20710: a coordinator that has moved, and comes back, leaves no job behind on the node that it was on."""
    worked: list[tuple[int, int]] = []
    original = ShareStateShard.write_cold_snapshots

    def write_cold_snapshots(self: ShareStateShard) -> int:
        worked.append((self.context.node_id, self.partition.partition))
        return original(self)

    monkeypatch.setattr(ShareStateShard, "write_cold_snapshots", write_cold_snapshots)

    async def story(cluster: SimulatedCluster) -> None:
        key = ShareKey("g", (await create(cluster, "t")).topic_id, 0)
        first = cluster.alive[0]
        await at(first, persister(first).initialize(key, state_epoch=1, start_offset=0))
        home = cluster.nodes[await at(first, persister(first).coordinator_of(key.coordinator_key))]

        async def works() -> set[tuple[int, int]]:
            """Node and partition, once each interval."""
            await asyncio.sleep(3)
            leaders = {
                number: node for node, each in coordinators(cluster).items() for number in each.shards.by_partition
            }
            worked.clear()
            await asyncio.sleep(10)
            assert Counter(worked) == {(node, number): 5 for number, node in leaders.items()}
            return set(worked)

        before = await works()
        for _ in range(2):
            await home.stop()
            assert home.node_id not in {node for node, _ in await works()}
            await home.start()
            await cluster.wait_ready()
            await elect_preferred(cluster)
            assert await works() == before

    play(story, **SETTINGS, share_coordinator_cold_partition_snapshot_interval_ms=2_000)


async def elect_preferred(cluster: SimulatedCluster) -> None:
    node = cluster.alive[0]
    assert node.node is not None
    await asyncio.sleep(2)
    await at(node, node.node.gateway.control(ElectLeaders(election="preferred", partitions=None), timeout_ms=10_000))


def test_find_coordinator_names_the_coordinator_of_a_share_partition():
    async def story(cluster: SimulatedCluster) -> None:
        key = ShareKey("g:h", (await create(cluster, "t")).topic_id, 0)
        node = cluster.alive[0]
        asked = [key.coordinator_key, "g:h", "g:AAAA:0"]
        request = FindCoordinatorRequestData.make(key_type=2, coordinator_keys=asked)
        answer = await ClientDoor(node).ask(request, 6)
        assert [each.error_code for each in answer.coordinators] == [0, 42, 42]
        await at(node, persister(node).initialize(key, state_epoch=1, start_offset=0))
        of_node = coordinators(cluster)[answer.coordinators[0].node_id]
        assert any(key in shard.states for shard in of_node.shards.loaded())

    play(story, **SETTINGS)


def test_what_is_written_at_the_same_time_is_one_batch():
    async def story(cluster: SimulatedCluster) -> None:
        node = cluster.alive[0]
        topic_id = (await create(cluster, "t", partitions=1)).topic_id
        keys = [ShareKey(f"g{number}", topic_id, 0) for number in range(40)]
        owner = cluster.nodes[await at(node, persister(node).coordinator_of(keys[0].coordinator_key))]
        coordinator = coordinators(cluster)[owner.node_id]

        async def all_at_once() -> None:
            await asyncio.gather(*(coordinator.initialize(key, state_epoch=1, start_offset=5) for key in keys))

        await at(owner, all_at_once())
        assert node.node is not None
        topic = node.node.publisher.image.topic(SHARE_STATE_TOPIC)
        assert topic is not None
        reading = node.node.gateway.read(TopicIdPartition(topic.topic_id, 0), 0, ReadOptions(bytes_max=10**6))
        found = [header for _, header in whole_batches((await at(node, reading)).data)]
        assert sum(header.last_offset - header.base_offset + 1 for header in found) == 40
        assert len(found) < 5
        owner.kill()
        other = cluster.alive[0]
        for key in keys:
            assert (await at(other, persister(other).read(key, leader_epoch=1))).start_offset == 5

    play(story, share_coordinator_state_topic_num_partitions=1)
