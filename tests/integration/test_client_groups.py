"""Group consumers of the client on real nodes: a member that was away too long, partitions that come later."""

from __future__ import annotations

import asyncio

import pytest

from kraft.client import AsyncClient, AsyncConsumer
from tests.integration.support.cluster import Cluster

pytestmark = pytest.mark.slow

AWAY_MS = 1_500
FOLLOWS_S = 30


@pytest.fixture(scope="module")
def cluster(fragile_cluster: Cluster) -> Cluster:
    return fragile_cluster


async def write(client: AsyncClient, topic: str, numbers: range, *, partition: int | None = None) -> None:
    async with client.producer() as producer:
        for number in numbers:
            await producer.send(topic, str(number), partition=partition)


async def read(member: AsyncConsumer, count: int, *, seen: list[str]) -> None:
    wanted = len(seen) + count
    async for record in member:
        seen.append(record.text() or "")
        if len(seen) >= wanted:
            return


@pytest.mark.parametrize("commits_itself", [True, False])
def test_a_member_whose_instance_expired_joins_again_and_misses_nothing(cluster: Cluster, commits_itself: bool) -> None:
    topic = group = f"client-away-{commits_itself}".lower()
    cluster.create_topic(topic)

    async def story() -> tuple[list[str], int, int]:
        seen: list[str] = []
        async with AsyncClient(cluster.nodes[0].rest) as client:
            await write(client, topic, range(10))
            options = {"consumer_instance_timeout_ms": AWAY_MS, "enable_auto_commit": commits_itself}
            async with client.consumer(topic, group=group, auto_offset_reset="earliest", **options) as member:
                await read(member, 10, seen=seen)
                if not commits_itself:
                    await member.commit()
                await wait_until_gone(client, group)
                await write(client, topic, range(10, 20))
                await read(member, 20 if commits_itself else 10, seen=seen)
                joins = member.joins
                if not commits_itself:
                    await member.commit()
            return seen, joins, (await client.admin.describe_group(group)).total_lag

    seen, joins, lag = asyncio.run(asyncio.wait_for(story(), 150))
    assert joins == 2
    # What was served last and not acknowledged comes again; what was committed does not.
    first = [str(number) for number in range(10)]
    assert seen == first + (first if commits_itself else []) + [str(number) for number in range(10, 20)]
    assert lag == 0


async def wait_until_gone(client: AsyncClient, group: str) -> None:
    async with asyncio.timeout(FOLLOWS_S):
        while (await client.admin.describe_group(group)).members:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("is_pattern", [False, True])
def test_partitions_and_topics_that_come_later_are_read(cluster: Cluster, is_pattern: bool) -> None:
    topic = f"client-grows-{is_pattern}".lower()
    cluster.create_topic(topic)

    async def story() -> list[str]:
        seen: list[str] = []
        async with AsyncClient(cluster.nodes[0].rest) as client:
            await write(client, topic, range(5))
            names = [] if is_pattern else [topic]
            pattern = f"{topic}.*" if is_pattern else None
            member = client.consumer(*names, topic_pattern=pattern, group=topic, auto_offset_reset="earliest")
            async with member:
                await read(member, 5, seen=seen)
                await client.admin.create_partitions(topic, 3)
                await write(client, topic, range(5, 10), partition=2)
                await read(member, 5, seen=seen)
                assert {each.partition for each in await member.assignment()} == {0, 1, 2}
                if is_pattern:
                    await client.admin.create_topic(f"{topic}-new", partitions=1)
                    await write(client, f"{topic}-new", range(10, 15))
                    await read(member, 5, seen=seen)
        return seen

    seen = asyncio.run(asyncio.wait_for(story(), 150))
    assert seen == [str(number) for number in range(15 if is_pattern else 10)]
