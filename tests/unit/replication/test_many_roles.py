"""Much that changes at once takes several turns of the loop, and the last of them ends where one would have ended."""

from __future__ import annotations

import asyncio
from uuid import UUID

from metadata.records import PartitionChangeRecord, Reason
from replication.manager.roles import ROLES_PER_TURN
from tests.unit.replication.harness.cluster import TOPIC_ID, Cluster
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
            told = [fields for fields in cluster.nodes[1].events.named("became_leader") if fields["partition"] == last]
            assert told == [], "it was relieved before it had taken on the role"
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
