"""Readers waiting at one position share a fetch; each learns what it must; none waits for a leader of the past."""

from __future__ import annotations

import asyncio

import pytest

from kraft.broker import tail_waits
from kraft.broker.tail_waits import FETCH_WAIT_MS, Tails
from kraft.chaos.worlds.simulated.clock import SimulatedClock
from kraft.protocol.errors import ThrottlingQuotaExceeded
from metadata.image import TopicIdPartition
from metadata.retries import ELECTION_RETRY_MS
from replication.requests import FetchedPartition, FetchRequest, FetchResponse, ReadOptions
from tests.unit.broker.support import (
    P0,
    P1,
    TOPIC,
    HandLog,
    ScriptedLeader,
    finder_on,
    move_leader,
    publisher_on,
    run,
    two_partitions,
)


class WaitingLeader(ScriptedLeader):
    """Answers when told to, or with nothing when the wait of the request is over."""

    def __init__(self, clock: SimulatedClock) -> None:
        super().__init__()
        self._clock = clock
        self.asked: list[tuple[int, int]] = []
        self._answers: dict[tuple[int, int], asyncio.Future[FetchResponse]] = {}

    async def fetch(self, request: FetchRequest) -> FetchResponse:
        at = (request.partitions[0].partition, request.partitions[0].fetch_offset)
        self.asked.append(at)
        answer = self._answers[at] = asyncio.get_running_loop().create_future()
        try:
            async with self._clock.timeout(request.wait_ms_max):
                response: FetchResponse = await answer
                return response
        except TimeoutError:
            return _response(at[0], b"")

    def answer(self, partition: int, offset: int, records: bytes = b"news", *, error_code: int = 0) -> None:
        self._answers[partition, offset].set_result(_response(partition, records, error_code=error_code))


def _response(partition: int, records: bytes, *, error_code: int = 0) -> FetchResponse:
    fetched = FetchedPartition(topic_id=TOPIC, partition=partition, records=records, error_code=error_code)
    return FetchResponse(partitions=(fetched,))


def _world(clock: SimulatedClock, *, leaders: tuple[int, int] = (1, 2)) -> tuple[HandLog, WaitingLeader, Tails]:
    log, leader = HandLog(), WaitingLeader(clock)
    publisher = publisher_on(clock, log)
    tails = Tails(clock=clock, finder=finder_on(publisher, {1: leader, 2: leader}))
    publisher.subscribe(tails.on_metadata)
    two_partitions(log, leaders=leaders)
    return log, leader, tails


def test_a_thousand_waiters_at_one_position_are_one_fetch_with_the_same_bytes() -> None:
    async def main(clock: SimulatedClock) -> None:
        _, leader, tails = _world(clock)
        options = ReadOptions(bytes_max=10, wait_ms_max=60_000)
        waits = [asyncio.ensure_future(tails.wait({P0: 5}, options)) for _ in range(1_000)]
        await clock.sleep(FETCH_WAIT_MS + 1_000)
        assert leader.asked == [(0, 5), (0, 5)], "the second when the first ended without news"
        leader.answer(0, 5)
        found = {id(records.data) for wait in waits if (records := (await wait)[P0]) is not None}
        assert len(found) == 1
        assert len(tails) == 0

    run(main)


def test_what_came_first_ends_the_wait_for_several_partitions() -> None:
    async def main(clock: SimulatedClock) -> None:
        _, leader, tails = _world(clock)
        wait = asyncio.ensure_future(tails.wait({P0: 5, P1: 7}, ReadOptions(bytes_max=10, wait_ms_max=60_000)))
        await clock.sleep(1)
        leader.answer(1, 7)
        assert set(await wait) == {P1}
        assert await tails.wait({P0: 5}, ReadOptions(bytes_max=10, wait_ms_max=50)) == {}
        assert leader.asked == [(0, 5), (1, 7)], "the next waiter shares the fetch that is under way"

    run(main)


def test_where_nothing_can_be_waited_for_the_answer_takes_a_while_all_the_same() -> None:
    """Who asks again at once, as a poll for `fetch.min.bytes` does, would keep everybody else from running."""

    async def main(clock: SimulatedClock) -> None:
        _, leader, tails = _world(clock)
        nowhere = TopicIdPartition(TOPIC, 99)
        begun_ms = clock.monotonic_ms()
        assert await tails.wait({nowhere: 0, P0: 5}, ReadOptions(bytes_max=10, wait_ms_max=60_000)) == {nowhere: None}
        assert clock.monotonic_ms() - begun_ms == ELECTION_RETRY_MS
        assert await tails.wait({nowhere: 0}, ReadOptions(bytes_max=10, wait_ms_max=5)) == {nowhere: None}
        assert clock.monotonic_ms() - begun_ms == ELECTION_RETRY_MS + 5, "no longer than it may"
        assert leader.asked == [(0, 5)]

    run(main)


def test_an_error_is_reported_as_something_that_a_read_will_say() -> None:
    async def main(clock: SimulatedClock) -> None:
        _, leader, tails = _world(clock)
        wait = asyncio.ensure_future(tails.wait({P0: 5}, ReadOptions(bytes_max=10, wait_ms_max=60_000)))
        await clock.sleep(1)
        leader.answer(0, 5, b"", error_code=1)
        assert await wait == {P0: None}

    run(main)


@pytest.mark.parametrize("first", [1, -1])
def test_waiters_are_woken_when_their_partition_gets_another_leader(first: int) -> None:
    async def main(clock: SimulatedClock) -> None:
        log, _, tails = _world(clock, leaders=(first, 2))
        wait = asyncio.ensure_future(tails.wait({P0: 5}, ReadOptions(bytes_max=10, wait_ms_max=60_000)))
        await clock.sleep(1)
        move_leader(log, partition=1, leader=1)
        await clock.sleep(1)
        assert not wait.done(), "that was another partition"
        move_leader(log, partition=0, leader=2)
        assert await wait == {P0: None}
        assert clock.monotonic_ms() < 1_000

    run(main)


def test_one_position_more_than_may_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_waits, "POSITIONS_MAX", 1)

    async def main(clock: SimulatedClock) -> None:
        _, _, tails = _world(clock)
        first = asyncio.ensure_future(tails.wait({P0: 5}, ReadOptions(bytes_max=10, wait_ms_max=100)))
        await clock.sleep(1)
        with pytest.raises(ThrottlingQuotaExceeded, match="1 different positions"):
            await tails.wait({P0: 6}, ReadOptions(bytes_max=10, wait_ms_max=100))
        assert await first == {}
        tails.close()

    run(main)
