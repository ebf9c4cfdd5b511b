"""Which delayed records are due: against a list of all that was appended, with lost leaders and clocks that step."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from kraft.coordinators.delayed.index import (
    Delayed,
    DueIndex,
    Progress,
    delayed_of,
)
from kraft.protocol.batches.records import NewRecord, ReadRecord, build_batch, read_batches
from replication.record_times import CANCEL_HEADER, DELIVER_HEADER, ID_HEADER
from tests.support.repetitions import few_and_many


def record(offset: int, due_ms: int | None, *, known: bytes = b"", cancels: bytes = b"") -> ReadRecord:
    headers: list[tuple[str, bytes | None]] = []
    if due_ms is not None:
        headers.append((DELIVER_HEADER, b"%d" % due_ms))
    if known:
        headers.append((ID_HEADER, known))
    if cancels:
        headers.append((CANCEL_HEADER, cancels))
    (made,) = read_batches(build_batch([NewRecord(None, b"v", headers, 1)], base_offset=offset))
    return made


class World:
    """The log, what was committed, and what readers of the target see."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now_ms = 1_000
        self.log: list[ReadRecord] = []
        self.committed = Progress()
        self.forwarded: dict[int, int] = {}
        """Offset -> when."""
        self.start = 0
        self.lead()

    def lead(self) -> None:
        self.index = DueIndex(self.committed, kept_max=4)
        self.read_again()

    def read_again(self) -> None:
        for each in self.log[self.start : self.index.progress.next_offset]:
            self.index.read_again(each)

    def append(self) -> None:
        offset, kind = len(self.log), self.rng.random()
        known = b"%d" % self.rng.randrange(6)
        if kind < 0.2:
            self.log.append(record(offset, None, cancels=known))
            return
        due_ms = None if kind < 0.3 else self.now_ms + self.rng.randrange(-20, 60)
        self.log.append(record(offset, due_ms, known=known if kind > 0.6 else b""))

    def work(self) -> None:
        """What a forwarder does in one turn; it may die before its transaction is committed."""
        late: list[Delayed] = []
        while self.index.progress.next_offset < len(self.log):
            each = self.index.arrived(self.log[self.index.progress.next_offset], self.now_ms)
            if each is False:
                break
            if isinstance(each, Delayed):
                late.append(each)
        if self.index.needs_reading:
            self.index = DueIndex(self.index.progress, kept_max=4, cancelled=self.index.cancelled)
            self.read_again()
        due = [*late, *self.index.take(self.now_ms, self.rng.choice((1, 3, 100)))]
        if not due:
            return
        if self.rng.random() < 0.2:
            self.lead()
            return
        self.committed = self.index.progress
        self.trim()
        for each in due:
            assert each.offset not in self.forwarded, "twice"
            assert each.due_ms <= self.now_ms, "early"
            self.forwarded[each.offset] = self.now_ms

    def trim(self) -> None:
        """The log forgets what nobody waits for; it keeps the numbers here."""
        self.start = max(self.start, self.index.lowest_waiting())

    def step(self) -> None:
        kind = self.rng.random()
        if kind < 0.4:
            self.append()
        elif kind < 0.8:
            self.work()
        elif kind < 0.85:
            self.lead()
        else:
            self.now_ms += self.rng.choice((1, 5, 20, 20, -30))

    def settle(self) -> None:
        for _ in range(200):
            self.now_ms += 20
            self.work()


@few_and_many("seeds", 150, 5_000)
def test_each_record_is_forwarded_once_and_never_early(seeds: int):
    for seed in range(seeds):
        world = World(seed)
        for _ in range(120):
            world.step()
        world.settle()
        missing = cancelled_of(world.log, world.forwarded)
        left = {each.offset for each in world.log if each.offset not in world.forwarded}
        assert left == missing, f"seed {seed}"
        world.trim()
        assert world.start == len(world.log), f"seed {seed}: all is done, and the log keeps it"


def cancelled_of(log: Sequence[ReadRecord], forwarded: dict[int, int]) -> set[int]:
    """Cancels, and what one behind it has cancelled before it was forwarded."""
    gone: set[int] = set()
    for at, each in enumerate(log):
        cancels = delayed_of(each)[1]
        if cancels is not None:
            gone.add(at)
            gone |= {o for o in range(at) if delayed_of(log[o])[0].id == cancels and o not in forwarded}
    return gone


def test_the_index_has_no_more_than_it_may_and_reads_again_for_the_rest():
    index = DueIndex(Progress(), kept_max=2)
    log = [record(offset, 100 - offset) for offset in range(5)]
    for each in log:
        assert index.arrived(each, 0) is None
    assert [each.offset for each in index.take(200, 10)] == [4, 3]
    assert index.needs_reading
    assert index.next_due_ms() == 98
    again = DueIndex(index.progress, kept_max=2)
    for each in log:
        again.read_again(each)
    assert [each.offset for each in again.take(200, 10)] == [2, 1]


def test_a_clock_that_steps_back_holds_up_what_comes_then():
    index = DueIndex(Progress())
    index.arrived(record(0, 5_000), 0)
    assert index.take(5_000, 10)
    assert index.arrived(record(1, 4_000), 1_000) is False, "it is not due, and the time of those done is behind it"
    assert (index.blocked_until_ms, index.progress.next_offset) == (4_000, 1)
    assert index.arrived(record(1, 4_000), 4_000) == Delayed(4_000, 1)


@pytest.mark.parametrize("text", [b"", b"-1", b"1e9", b"9" * 19, b"\xd9\xa1", b" 5"])
def test_what_is_no_time_is_due_at_once(text: bytes):
    batch = build_batch([NewRecord(None, None, [(DELIVER_HEADER, text)], 1)])
    assert delayed_of(next(iter(read_batches(batch))))[0].due_ms == 0
