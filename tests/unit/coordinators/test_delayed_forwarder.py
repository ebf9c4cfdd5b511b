"""Delayed records reach their target when they are due, each once, while leaders die."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from kraft.chaos.worlds.simulated.cluster import SimulatedCluster, SimulatedNode
from kraft.coordinators.copies import Copies
from kraft.coordinators.delayed.forwarder import FROM_HEADER, TRIM_MS
from kraft.coordinators.shares.redrive import with_gaps
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.errors import KafkaError
from metadata.controller.requests import DeleteTopics
from metadata.image import TopicIdPartition
from replication.record_times import CANCEL_HEADER, DELIVER_HEADER, ID_HEADER
from replication.requests import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP, ProduceOptions, ReadOptions
from tests.unit.coordinators.test_share_coordinator import at
from tests.unit.coordinators.test_transaction_cluster import create, play, until

MIN_ISR = {"min.insync.replicas": "1"}


async def topics(cluster: SimulatedCluster) -> tuple[TopicIdPartition, TopicIdPartition]:
    target = await create(cluster, "t", on=(1, 2, 3), configs=MIN_ISR)
    return target, await create(cluster, "later", on=(1, 2, 3), configs=MIN_ISR | {"delivery.target.topic": "t"})


def now_ms(node: SimulatedNode) -> int:
    return node.machine.environment.clock.wall_ms()


async def delay(
    cluster: SimulatedCluster,
    where: TopicIdPartition,
    after_ms: Sequence[int | None],
    *,
    cancels: bytes = b"",
    has_keys: bool = False,
) -> None:
    """Records named by their numbers, whose ids are their names."""
    node = cluster.alive[-1]
    assert node.node is not None
    records = []
    for number, after in enumerate(after_ms):
        headers: list[tuple[str, bytes | None]] = [(ID_HEADER, b"%d" % number), ("h", b"x")]
        if after is not None:
            headers.append((DELIVER_HEADER, b"%d" % (now_ms(node) + after)))
        records.append(NewRecord(b"%d" % number if has_keys else b"k", b"%d" % number, headers, 1_000))
    if cancels:
        records.append(NewRecord(b"k", None, [(CANCEL_HEADER, cancels)], 1_000))
    outcomes = await at(node, node.node.gateway.produce({where: build_batch(records)}, ProduceOptions(-1, 10_000)))
    assert outcomes[where].error_code == 0, outcomes


async def forwarded(cluster: SimulatedCluster, where: TopicIdPartition) -> list[tuple[bytes | None, int]]:
    """Value and timestamp of each record of the target, as all readers see them."""
    node = cluster.alive[-1]
    assert node.node is not None
    found: list[tuple[bytes | None, int]] = []
    offset = 0
    while True:
        options = ReadOptions(bytes_max=10**6)
        try:
            read = await at(node, node.node.gateway.read(where, offset, options))
        except KafkaError:
            await asyncio.sleep(1)
            continue
        if not read.data:
            return found
        for next_offset, record in with_gaps(read, offset):
            offset = next_offset
            if record is not None:
                assert [name for name, _ in record.headers] == [ID_HEADER, "h", FROM_HEADER]
                found.append((record.value, record.timestamp))


async def come(cluster: SimulatedCluster, where: TopicIdPartition, count: int) -> list[tuple[bytes | None, int]]:
    async def there() -> bool:
        return len(await forwarded(cluster, where)) >= count

    await until(there)
    return await forwarded(cluster, where)


def test_records_come_when_they_are_due_and_not_before():
    async def story(cluster: SimulatedCluster) -> None:
        target, later = await topics(cluster)
        begin = now_ms(cluster.alive[0])
        await delay(cluster, later, [20_000, 5_000, None, 90_000, 5_000, -7], cancels=b"3")
        await asyncio.sleep(2)
        assert [value for value, _ in await forwarded(cluster, target)] == [b"2", b"5"], "due at once"
        found = await come(cluster, target, 5)
        assert [value for value, _ in found] == [b"2", b"5", b"1", b"4", b"0"]
        waits = [came - begin for _, came in found[2:]]
        assert all(0 <= wait - due < 500 for wait, due in zip(waits, (5_000, 5_000, 20_000), strict=True)), waits
        await asyncio.sleep(120)
        assert len(await forwarded(cluster, target)) == 5, "3 is cancelled"

    play(story)


def test_leaders_that_die_forget_nothing_and_forward_nothing_twice():
    async def story(cluster: SimulatedCluster) -> None:
        target, later = await topics(cluster)
        await delay(cluster, later, [2_000 + 300 * number for number in range(40)])
        await come(cluster, target, 5)
        cluster.nodes[1].kill()
        found = await come(cluster, target, 40)
        assert sorted(int(value or b"") for value, _ in found) == list(range(40))
        await asyncio.sleep(30)
        assert len(await forwarded(cluster, target)) == 40

    play(story)


def test_what_waits_for_a_target_that_is_gone_waits_on():
    async def story(cluster: SimulatedCluster) -> None:
        _, later = await topics(cluster)
        await delay(cluster, later, [2_000, 3_000])
        node = cluster.alive[-1]
        assert node.node is not None
        await at(node, node.node.gateway.control(DeleteTopics(topics=("t",)), timeout_ms=5_000))
        await asyncio.sleep(1)
        with pytest.raises(AssertionError, match="error_code=40, m"):
            await delay(cluster, later, [1])
        await asyncio.sleep(5)
        target = await create(cluster, "t", on=(1, 2, 3), configs=MIN_ISR)
        assert [value for value, _ in await come(cluster, target, 2)] == [b"0", b"1"]

    play(story)


@pytest.mark.parametrize("place", ["before the copies", "between two partitions", "after the copies"])
def test_a_node_that_dies_between_its_writes(monkeypatch: pytest.MonkeyPatch, place: str):
    """Readers of uncommitted records, too, see each record once."""

    async def story(cluster: SimulatedCluster) -> None:
        target = await create(cluster, "t", on=(2, 3), partitions=3, configs=MIN_ISR)
        later = await create(cluster, "later", on=(1, 2, 3), configs=MIN_ISR | {"delivery.target.topic": "t"})
        send, has_died = Copies._send, False

        async def dies(self: Copies, batches: Mapping[TopicIdPartition, bytes]) -> None:
            nonlocal has_died
            if has_died or len(batches) < 2:
                return await send(self, batches)
            has_died = True
            if place != "before the copies":
                first = next(iter(batches))
                await send(self, batches if place == "after the copies" else {first: batches[first]})
            asyncio.get_running_loop().call_soon(cluster.nodes[1].kill)
            return await asyncio.sleep(3_600)

        monkeypatch.setattr(Copies, "_send", dies)
        await delay(cluster, later, [2_000 + number // 20 for number in range(60)], has_keys=True)
        wheres = [TopicIdPartition(target.topic_id, number) for number in range(3)]

        async def all_there() -> list[tuple[bytes | None, int]]:
            return [each for where in wheres for each in await forwarded(cluster, where)]

        async def enough() -> bool:
            return len(await all_there()) >= 60

        await until(enough)
        await asyncio.sleep(20)
        assert sorted(int(value or b"") for value, _ in await all_there()) == list(range(60))
        assert has_died

    play(story)


def test_a_copy_is_one_replicated_write_after_the_record_is_due(monkeypatch: pytest.MonkeyPatch):
    """Turns that follow each other closely have one note; nothing waits for a tick."""

    async def story(cluster: SimulatedCluster) -> None:
        target, later = await topics(cluster)
        node, note, notes = cluster.alive[-1], Copies._note, 0
        assert node.node is not None

        async def noting(self: Copies, *arguments: Any, **named: Any) -> None:
            nonlocal notes
            notes += bool(named["positions"])
            await note(self, *arguments, **named)

        monkeypatch.setattr(Copies, "_note", noting)
        begin = now_ms(node) + 2_000
        await delay(cluster, later, [2_000 + 20 * number for number in range(20)])
        await asyncio.sleep((begin - now_ms(node) - 50) / 1_000)  # the coordinators are there by then
        late: list[int] = []
        while len(late) < 20:
            end = (await at(node, node.node.gateway.list_offset(target, LATEST_TIMESTAMP))).offset
            late += [now_ms(node) - begin - 20 * number for number in range(len(late), end)]
            await asyncio.sleep(0.001)
        assert min(late) >= 0
        assert max(late) <= 5, late
        assert notes <= 4, "each for 200 ms"

    play(story)


def test_what_was_forwarded_is_deleted_and_a_new_leader_does_not_read_it():
    async def story(cluster: SimulatedCluster) -> None:
        target, later = await topics(cluster)
        await delay(cluster, later, [100, 200, 50_000, 300, 400])
        await come(cluster, target, 4)
        await asyncio.sleep(TRIM_MS / 1_000 + 2)

        async def start() -> int:
            node = cluster.alive[-1]
            assert node.node is not None
            try:
                return (await at(node, node.node.gateway.list_offset(later, EARLIEST_TIMESTAMP))).offset
            except KafkaError:
                return -1

        assert await start() == 2, "the third record waits"
        cluster.nodes[1].kill()
        assert [value for value, _ in (await come(cluster, target, 5))[4:]] == [b"2"]
        await asyncio.sleep(2 * TRIM_MS / 1_000)
        assert await start() == 5
        assert len(await forwarded(cluster, target)) == 5

    play(story)


HOUR_MS = 3_600_000


def test_a_clock_an_hour_ahead_forwards_early_each_once():
    """The leader's clock decides. The time of what was forwarded is half an hour ahead for the next leader."""

    async def story(cluster: SimulatedCluster) -> None:
        target, later = await topics(cluster)
        await delay(cluster, later, [5_000, HOUR_MS // 2, 3 * HOUR_MS])
        await asyncio.sleep(1)
        assert not await forwarded(cluster, target)
        cluster.nodes[1].machine.clock.jump(HOUR_MS - 60_000)  # message.timestamp.after.max.ms is an hour
        assert [value for value, _ in await come(cluster, target, 2)] == [b"0", b"1"]
        cluster.nodes[1].kill()
        await asyncio.sleep(5)
        begin = now_ms(cluster.alive[0])
        await delay(cluster, later, [3_000, None])
        found = await come(cluster, target, 4)
        assert sorted(value or b"" for value, _ in found[2:]) == [b"0", b"1"]
        assert all(came - begin < 10_000 for _, came in found[2:]), "an hour behind, and nothing waits for an hour"
        await asyncio.sleep(10)
        assert len(await forwarded(cluster, target)) == 4

    play(story)


def test_a_clock_an_hour_behind_holds_up_what_waits():
    async def story(cluster: SimulatedCluster) -> None:
        target, later = await topics(cluster)
        await delay(cluster, later, [100, 6_000])
        await come(cluster, target, 1)
        clock = cluster.nodes[1].machine.clock
        clock.jump(-HOUR_MS)
        await asyncio.sleep(15)
        assert len(await forwarded(cluster, target)) == 1, "by the leader's clock it is not due for an hour"
        clock.jump(HOUR_MS)
        assert [value for value, _ in await come(cluster, target, 2)] == [b"0", b"1"]
        clock.jump(-HOUR_MS)
        cluster.nodes[1].kill()
        await asyncio.sleep(5)
        await delay(cluster, later, [1_000])
        await come(cluster, target, 3)
        await asyncio.sleep(10)
        assert len(await forwarded(cluster, target)) == 3

    play(story)
