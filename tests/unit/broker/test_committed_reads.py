"""Reads of committed records: what is left out of an answer, how far they go, and how they wait."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import NamedTuple

import pytest

from kraft.broker.consumer_fetch import readable_batches
from kraft.broker.routing import Router
from kraft.broker.tail_waits import FETCH_WAIT_MS
from kraft.chaos.worlds.simulated.clock import SimulatedClock
from kraft.protocol.batches.header import stamp, whole_batches
from replication.partition.log import AbortedTransaction
from replication.requests import FetchedPartition, FetchRequest, FetchResponse, OffsetAnswer, ReadOptions
from tests.support.transactional_batches import ending, in_transaction, plain
from tests.unit.broker.support import P0, TOPIC, HandLog, ScriptedLeader, publisher_on, router_on, run, two_partitions


class Log(NamedTuple):
    """A log that was written at random, with what is known of it because every step was noted."""

    data: bytes
    visible: dict[int, bool]
    """By the base offset of each batch of records."""
    aborted: list[AbortedTransaction]
    end: int


def random_log(rng: random.Random) -> Log:
    data, end = bytearray(), 0
    visible: dict[int, bool] = {}
    aborted: list[AbortedTransaction] = []
    begun: dict[int, list[int]] = {}

    def append(batch: bytes) -> int:
        nonlocal end
        copy, base = bytearray(batch), end
        ((position, header),) = whole_batches(copy)
        stamp(copy, position, base_offset=base, leader_epoch=0)
        data.extend(copy)
        end += header.record_count
        return base

    def decide(producer_id: int, *, commits: bool) -> None:
        at = append(ending(producer_id, commits=commits))
        written = begun.pop(producer_id)
        visible.update(dict.fromkeys(written, commits))
        if not commits:
            aborted.append(AbortedTransaction(producer_id, written[0], at))

    for number in range(rng.randrange(1, 40)):
        producer_id = rng.randrange(4)
        values = [b"%d" % number] * rng.randrange(1, 4)
        if producer_id == 0:
            visible[append(plain(*values))] = True
        elif producer_id in begun and rng.random() < 0.4:
            decide(producer_id, commits=rng.random() < 0.5)
        else:
            begun.setdefault(producer_id, []).append(append(in_transaction(producer_id, *values)))
    for producer_id in sorted(begun):
        decide(producer_id, commits=rng.random() < 0.5)
    return Log(bytes(data), visible, aborted, end)


@pytest.mark.parametrize("seed", range(200))
def test_an_answer_from_any_offset_shows_what_was_committed_and_nothing_else(seed: int) -> None:
    """Against what was noted when it was written. An answer names producer and first offset of what was aborted, no
    more; and those transactions only that end at or behind the asked offset."""
    log = random_log(random.Random(seed))
    for offset in range(log.end):
        start = next(position for position, header in whole_batches(log.data) if header.next_offset > offset)
        reported = [AbortedTransaction(each.producer_id, each.first_offset) for each in log.aborted
                if each.last_offset >= offset]  # fmt: skip
        random.Random(seed).shuffle(reported)
        for _, header, is_readable in readable_batches(log.data[start:], reported):
            assert is_readable == log.visible.get(header.base_offset, False), (offset, header)


def test_all_but_markers_is_readable_where_nothing_was_aborted() -> None:
    data = in_transaction(1, b"a") + ending(1, commits=True)
    assert [is_readable for _, _, is_readable in readable_batches(data)] == [True, False]


class Leader(ScriptedLeader):
    """Has 9 records, of which those from 4 on belong to an open transaction."""

    def __init__(self, clock: SimulatedClock) -> None:
        super().__init__()
        self._clock = clock
        self.asked: list[tuple[int, bool, int]] = []
        self.stable = asyncio.Event()
        self.levels: list[bool] = []

    async def fetch(self, request: FetchRequest) -> FetchResponse:
        offset = request.partitions[0].fetch_offset
        self.asked.append((offset, request.is_read_committed, request.wait_ms_max))
        end = 9 if not request.is_read_committed or self.stable.is_set() else 4
        if offset >= end and request.wait_ms_max:
            try:
                async with self._clock.timeout(request.wait_ms_max):
                    await self.stable.wait()
                    end = 9
            except TimeoutError:
                pass
        fetched = FetchedPartition(
            topic_id=TOPIC,
            partition=0,
            high_watermark=9,
            last_stable_offset=9 if self.stable.is_set() else 4,
            log_start_offset=0,
            records=b"x" * max(end - offset, 0),
            aborted=(AbortedTransaction(7, 5),) if request.is_read_committed and end > 5 else (),
        )
        return FetchResponse(partitions=(fetched,))

    async def list_offset(self, partition: object, timestamp: int, *, is_read_committed: bool = False) -> OffsetAnswer:
        self.levels.append(is_read_committed)
        return OffsetAnswer(offset=4 if is_read_committed else 9)


def _world(clock: SimulatedClock) -> tuple[Leader, Router]:
    log, leader = HandLog(), Leader(clock)
    publisher = publisher_on(clock, log)
    two_partitions(log, leaders=(1, 1))
    return leader, router_on(clock, publisher, {1: leader})


def test_a_read_ends_at_the_last_stable_offset_and_waits_there_for_the_marker() -> None:
    async def main(clock: SimulatedClock) -> None:
        leader, router = _world(clock)

        async def read(offset: int, wait_ms: int) -> tuple[int, int, list[AbortedTransaction]]:
            options = ReadOptions(bytes_max=100, bytes_min=1, wait_ms_max=wait_ms, is_read_committed=True)
            found = await router.read(P0, offset, options)
            assert (found.high_watermark, found.is_read_committed) == (9, True)
            return len(found.data), found.end_offset, list(found.aborted)

        assert await read(0, 0) == (4, 4, [])
        assert await read(4, 0) == (0, 4, [])
        waiting = asyncio.ensure_future(read(4, 60_000))
        await clock.sleep(FETCH_WAIT_MS + 1_000)
        assert not waiting.done()
        assert set(leader.asked) == {(0, True, 0), (4, True, 0), (4, True, FETCH_WAIT_MS)}
        leader.stable.set()
        assert await waiting == (5, 9, [AbortedTransaction(7, 5)])

    run(main)


def test_who_reads_all_does_not_wait_with_who_reads_committed_records() -> None:
    async def main(clock: SimulatedClock) -> None:
        leader, router = _world(clock)
        options = ReadOptions(bytes_max=9, wait_ms_max=60_000)
        committed = asyncio.ensure_future(router.tail({P0: 4}, replace(options, is_read_committed=True)))
        everything = asyncio.ensure_future(router.tail({P0: 4}, options))
        found = (await everything)[P0]
        assert found is not None
        assert (bytes(found.data), found.end_offset, found.aborted) == (b"xxxxx", 9, ())
        assert not committed.done()
        leader.stable.set()
        found = (await committed)[P0]
        assert found is not None
        assert (found.end_offset, found.aborted) == (9, (AbortedTransaction(7, 5),))

    run(main)


def test_the_end_is_asked_for_with_the_isolation_level() -> None:
    async def main(clock: SimulatedClock) -> None:
        leader, router = _world(clock)
        assert (await router.list_offset(P0, -1, is_read_committed=True)).offset == 4
        assert (await router.list_offset(P0, -1, is_read_committed=False)).offset == 9
        assert leader.levels == [True, False]

    run(main)
