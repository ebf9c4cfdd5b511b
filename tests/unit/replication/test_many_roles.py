"""Much that changes at once takes several turns of the loop, and the last of them ends where one would have ended."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from kraft.protocol.errors import NotLeaderOrFollower
from metadata.image import TopicIdPartition
from metadata.records import PartitionChangeRecord, Reason
from replication.manager.manager import ReplicaManager
from replication.manager.registry import ANY_EPOCH
from replication.manager.roles import ROLES_PER_TURN
from replication.partition.states import FollowerState, LeaderState
from replication.requests import CONSUMER, FetchPartition, FetchRequest, ProduceOptions
from tests.unit.replication.harness.cluster import TOPIC_ID, Cluster
from tests.unit.replication.harness.memory_log import batch
from tests.unit.replication.harness.virtual import run

PARTITIONS = 5 * ROLES_PER_TURN


def test_a_large_topic_is_taken_on_in_turns() -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            cluster.create(partitions=PARTITIONS)
            replicas = cluster.nodes[2].manager._registry.replicas
            assert len(replicas) == ROLES_PER_TURN
            turns = 0
            while len(replicas) < PARTITIONS:
                await asyncio.sleep(0)
                turns += 1
            assert turns >= PARTITIONS // ROLES_PER_TURN - 1
            await cluster.until(lambda: all(_is_fetched(cluster, number) for number in range(PARTITIONS)))

    run(main())


def _is_fetched(cluster: Cluster, number: int) -> bool:
    leader = cluster.nodes[1].manager._registry.replicas
    state = next(replica.state for key, replica in leader.items() if key.partition == number)
    return all(progress.end_offset == 0 for progress in state.followers.values())  # type: ignore[union-attr]


def test_what_changes_again_meanwhile_takes_on_the_newest_role_only() -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            cluster.create(partitions=PARTITIONS)
            last = PARTITIONS - 1
            cluster.commit(
                PartitionChangeRecord(
                    topic_id=TOPIC_ID,
                    partition=last,
                    reason=Reason.PREFERRED_ELECTION,
                    leader=2,
                    leader_epoch=1,
                    partition_epoch=1,
                )
            )
            await cluster.until(lambda: len(cluster.nodes[2].manager._registry.replicas) == PARTITIONS)
            reported = [
                fields for fields in cluster.nodes[1].events.named("became_leader") if fields["partition"] == last
            ]
            assert reported == [], "it was relieved before it had taken on the role"
            (led,) = [f for f in cluster.nodes[2].events.named("became_leader") if f["partition"] == last]
            assert led["leader_epoch"] == 1

    run(main())


def test_what_is_removed_meanwhile_is_not_made() -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            cluster.create(partitions=PARTITIONS)
            cluster.remove_topic()
            cluster.create(topic="other", topic_id=UUID(int=9), partitions=1)
            manager = cluster.nodes[2].manager
            await cluster.until(lambda: not manager._roles.has_due)
            assert {replica.topic for replica in manager._registry.replicas.values()} == {"other"}

    run(main())


def test_who_was_relieved_answers_nobody_before_its_turn_to_follow() -> None:
    """Found by a soak: a broker whose disk had been full heard of a thousand changes at once. The controller confirmed
    that it was in office, for it knew the whole image; partitions whose turn had not come told readers of what their
    successors had written that it is out of range."""

    async def main() -> None:
        async with Cluster() as cluster:
            cluster.create(partitions=PARTITIONS)
            manager = cluster.nodes[1].manager
            await cluster.until(lambda: not manager._roles.has_due)
            last = TopicIdPartition(TOPIC_ID, PARTITIONS - 1)
            await cluster.produce(last, b"a")
            cluster.commit(*(_moved(number) for number in range(PARTITIONS)))
            assert isinstance(manager._registry.replicas[last].state, LeaderState), "its turn comes later"
            assert await _fetched(manager, last, offset=5) == 6, "this was written by the next leader"
            assert await _fetched(manager, last, offset=0) == 6, "where it ends is not for it to say"
            assert await _fetched(manager, last, offset=5, reads_followers=True) == 6
            with pytest.raises(NotLeaderOrFollower):
                await manager.offsets.list_offset(last, -1)
            outcomes = await manager.produce.outcomes({last: batch(b"b")}, ProduceOptions(1, 1_000))
            assert outcomes[last].error_code == 6
            await cluster.until(lambda: not manager._roles.has_due)
            assert isinstance(manager._registry.replicas[last].state, FollowerState)
            assert manager._registry.behind == set()

    run(main())


def test_who_leads_on_answers_before_its_turn() -> None:
    async def main() -> None:
        async with Cluster() as cluster:
            cluster.create(partitions=PARTITIONS)
            manager = cluster.nodes[1].manager
            await cluster.until(lambda: not manager._roles.has_due)
            last = TopicIdPartition(TOPIC_ID, PARTITIONS - 1)
            await cluster.produce(last, b"a")
            cluster.commit(*(_shrunk(number) for number in range(PARTITIONS)))
            assert manager._registry.behind, "its turn comes later"
            assert await _fetched(manager, last, offset=0) == 0
            assert await _fetched(manager, last, offset=5) == 1

    run(main())


def _moved(number: int) -> PartitionChangeRecord:
    return PartitionChangeRecord(
        topic_id=TOPIC_ID,
        partition=number,
        reason=Reason.PREFERRED_ELECTION,
        leader=2,
        leader_epoch=1,
        partition_epoch=1,
    )


def _shrunk(number: int) -> PartitionChangeRecord:
    return PartitionChangeRecord(
        topic_id=TOPIC_ID,
        partition=number,
        reason=Reason.ISR_SHRUNK,
        isr=(1, 2),
        leader_epoch=0,
        partition_epoch=1,
    )


async def _fetched(
    manager: ReplicaManager, key: TopicIdPartition, *, offset: int, reads_followers: bool = False
) -> int:
    """The error code that a consumer without an epoch is told."""
    asked = FetchPartition(
        topic_id=key.topic_id,
        partition=key.partition,
        current_leader_epoch=ANY_EPOCH,
        fetch_offset=offset,
        last_fetched_epoch=-1,
        log_start_offset=0,
        bytes_max=1_000,
    )
    response = await manager.fetch.response(
        FetchRequest(
            replica_id=CONSUMER,
            replica_epoch=-1,
            wait_ms_max=0,
            bytes_min=1,
            bytes_max=1_000,
            session_id=0,
            session_epoch=-1,
            partitions=(asked,),
            reads_followers=reads_followers,
        )
    )
    return response.partitions[0].error_code
