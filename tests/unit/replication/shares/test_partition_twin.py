"""A share partition beside its slow twin, under random schedules with failing writes, lost leaders and lost records."""

from __future__ import annotations

import random
from dataclasses import replace

from kraft.protocol.errors import CoordinatorNotAvailable, InvalidRecordState, InvalidRequest, KafkaError
from replication.shares.acknowledgements import GROUP_DELAY, Acknowledgement, Part
from replication.shares.partition import DeadLetters, Fetched, ShareLimits, StateWrite, loaded
from replication.shares.states import AcknowledgeType, DeliveryState, StateBatch, combined
from tests.support.repetitions import few_and_many
from tests.unit.replication.shares.slow_partition import SlowPartition

MEMBERS = ("a", "b", "c")
STEPS = 120


class Log:
    """Batches, of which some are no records for consumers, and some were compacted away."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.start = self.end = rng.choice((0, 0, 7))
        self.batches: list[tuple[int, int, bool]] = []

    def append(self) -> None:
        size = self._rng.choice((1, 1, 2, 5, 12))
        first = self.end + self._rng.choice((0, 0, 0, 0, 2))
        self.end = first + size
        self.batches.append((first, self.end - 1, self._rng.random() < 0.85))

    def read(self, offset: int) -> Fetched:
        count = self._rng.choice((1, 2, 4))
        found = [each for each in self.batches if each[1] >= max(offset, self.start)][:count]
        end = found[-1][1] + 1 if found else offset
        return Fetched(offset, max(end, offset), [(first, last) for first, last, is_seen in found if is_seen])


class Both:
    """The real one and its twin, the share coordinator, and the log."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.log = Log(self.rng)
        self.limits = ShareLimits(
            delivery_count=self.rng.choice((2, 3, 5)),
            record_locks=self.rng.choice((8, 30)),
            lock_duration_ms=self.rng.choice((30, 100)),
            has_dead_letters=self.rng.random() < 0.4,
            retry_backoff_ms=self.rng.choice((0, 0, 20)),
            retry_backoff_max_ms=50,
        )
        self.now_ms = 0
        self.wall_ahead_ms = 1_000
        self.was_answer_lost = False
        """Whether something was written, and its leader believes that it was not."""
        self.saved: list[StateBatch] = []
        self.saved_start = self.log.start
        self.letters: list[DeadLetters] = []
        self.lead()

    def lead(self) -> None:
        """A leader begins with what the coordinator has."""
        self.wall_ahead_ms += self.rng.choice((0, 0, -60, 60))  # its clock is another one
        clocks = {"now_ms": self.now_ms, "wall_ms": self.now_ms + self.wall_ahead_ms}
        self.real = loaded(self.saved_start, self.saved, state_epoch=1, leader_epoch=1, limits=self.limits, **clocks)
        self.slow = SlowPartition(self.saved_start, self.saved, self.limits, **clocks)
        for run in self.real.runs():
            for offset in range(run.first, run.last + 1):
                self.slow.entries[offset].batch_size = run.batch_size
        self.write: tuple[StateWrite, list[set[int]]] | None = None
        self.waiting: list[Acknowledgement] = []
        self.letters = list(self.real.waiting_dead_letters())
        self.was_answer_lost = False
        self.log_started()

    def log_started(self) -> None:
        self.real.log_started(self.log.start)
        self.slow.log_started(self.log.start)

    # --- what may happen ----------------------------------------------------------------------------------------

    def step(self) -> None:
        choices = (
            (self.log.append, 6),
            (self.acquire, 8),
            (self.acknowledge, 8),
            (self.begin_write, 6),
            (self.end_write, 6),
            (self.pass_time, 3),
            (self.release, 1),
            (self.dead_letter, 2),
            (self.retain, 1),
            (self.change_limits, 1),
            (self.fail_over, 0.5),
        )
        action = self.rng.choices([each for each, _ in choices], [weight for _, weight in choices])[0]
        action()
        self.compare()

    def acquire(self) -> None:
        member, real = self.rng.choice(MEMBERS), self.real
        fetched = self.log.read(real.next_fetch_offset())
        max_records, is_strict = self.rng.choice((1, 3, 10)), self.rng.random() < 0.5
        before = states(real)
        got = real.acquire(
            member,
            fetched,
            max_records=max_records,
            batch_size=self.rng.choice((1, 4, 100)),
            is_strict=is_strict,
            now_ms=self.now_ms,
        )
        offsets = [offset for each in got for offset in range(each.first_offset, each.last_offset + 1)]
        after = states(real)
        window = range(fetched.first_offset, fetched.end_offset)
        gaps = [
            offset
            for offset in window
            if offset not in offsets
            and offset <= real.end_offset
            and before.get(offset, DeliveryState.AVAILABLE) is DeliveryState.AVAILABLE
            and after.get(offset) is not DeliveryState.AVAILABLE
        ]
        self.slow.acquired(
            member, fetched, offsets, gaps, max_records=max_records, is_strict=is_strict, now_ms=self.now_ms
        )
        for each in got:
            for offset in range(each.first_offset, each.last_offset + 1):
                assert self.slow.entries[offset].count == each.delivery_count
        for run in real.runs():
            for offset in range(run.first, run.last + 1):
                self.slow.entries[offset].batch_size = run.batch_size

    def acknowledge(self) -> None:
        member = self.rng.choice(MEMBERS)
        parts = []
        at = self.slow.start - self.rng.choice((0, 0, 3))
        if self.slow.entries and self.rng.random() < 0.9:
            mine = [o for o, e in self.slow.entries.items() if e.state is DeliveryState.ACQUIRED and e.target is None]
            if mine:
                at = self.rng.choice(mine)
                member = self.slow.entries[at].member if self.rng.random() < 0.95 else member
        for _ in range(self.rng.choice((1, 1, 2))):
            size = self.rng.choice((1, 1, 2, 6))
            delay_ms = self.rng.choice((GROUP_DELAY, 0, 35))
            if at >= 0:
                parts.append(Part(at, at + size - 1, AcknowledgeType(self.rng.randrange(5)), "", delay_ms))
            at += size + self.rng.choice((0, 1))
        before = states(self.real)
        errors: list[type[KafkaError] | None] = []
        for side in (self.real, self.slow):
            try:
                found = side.acknowledge(member, parts, self.now_ms)
                if isinstance(found, Acknowledgement):
                    self.waiting.append(found)
                errors.append(None)
            except (InvalidRecordState, InvalidRequest) as error:
                errors.append(type(error))
        assert errors[0] == errors[1], (member, parts)
        assert errors[0] is None or before == states(self.real), "all of them, or none"

    def begin_write(self) -> None:
        self.real.wall_ahead_ms = self.wall_ahead_ms
        write = self.real.begin_write()
        if write is not None:
            assert self.write is None, "one after the other"
            self.write = write, self.slow.waiting
            assert list(write.acknowledgements) == self.waiting
            self.slow.waiting, self.waiting = [], []

    def end_write(self) -> None:
        if self.write is None:
            return
        write, those = self.write
        self.write = None
        has_failed = self.rng.random() < 0.3
        if not has_failed or self.rng.random() < 0.3:
            self.was_answer_lost |= has_failed
            self.saved_start = max(self.saved_start, write.start_offset)
            self.saved = combined(self.saved, write.batches, self.saved_start)
        error = CoordinatorNotAvailable("gone") if has_failed else None
        self.letters += self.real.end_write(error, self.now_ms)
        self.slow.written(those, has_failed=has_failed, now_ms=self.now_ms)
        assert all(each.error is error for each in write.acknowledgements)

    def pass_time(self) -> None:
        self.now_ms += self.rng.choice((5, 40))
        self.real.expire(self.now_ms)
        self.slow.expire(self.now_ms)

    def release(self) -> None:
        member = self.rng.choice(MEMBERS)
        self.real.release(member)
        self.slow.release(member)

    def dead_letter(self) -> None:
        if self.letters:
            letters = self.letters.pop(self.rng.randrange(len(self.letters)))
            self.real.dead_lettered(letters)
            self.slow.dead_lettered(letters.first_offset, letters.last_offset)

    def retain(self) -> None:
        self.log.start = min(self.log.end, self.log.start + self.rng.choice((1, 5, 20)))
        self.log_started()

    def change_limits(self) -> None:
        changes = [{"delivery_count": 2}, {"delivery_count": 5}, {"record_locks": 4}, {"lock_duration_ms": 10}]
        self.limits = replace(self.limits, **self.rng.choice(changes))  # type: ignore[arg-type]
        self.real.limits = self.slow.limits = self.limits

    def fail_over(self) -> None:
        if self.write is not None and self.rng.random() < 0.5:
            self.saved_start = max(self.saved_start, self.write[0].start_offset)
            self.saved = combined(self.saved, self.write[0].batches, self.saved_start)
        self.lead()

    # --- what has to be the same --------------------------------------------------------------------------------

    def compare(self) -> None:
        real, slow = self.real, self.slow
        seen = {
            offset: (run.state, run.delivery_count, run.member, run.target, run.not_before_ms)
            for run in real.runs()
            for offset in range(run.first, run.last + 1)
        }
        assert seen == {
            o: (e.state, e.count, e.member, e.target, e.not_before_ms) for o, e in sorted(slow.entries.items())
        }
        assert (real.start_offset, real.end_offset) == (slow.start, slow.end)
        assert real.in_flight == slow.in_flight
        assert real.next_fetch_offset() == slow.next_fetch_offset()
        assert real.deadline_ms() == slow.deadline_ms()
        assert real.counts.lost_by_retention <= slow.lost + real.counts.lost_by_retention
        bounds = [(run.first, run.last) for run in real.runs()]
        assert bounds == sorted(bounds)

    def settle(self) -> None:
        """Writes until nothing is left to write: then the coordinator knows all that the leader does."""
        for _ in range(50):
            if self.write is not None:
                write, those = self.write
                self.write = None
                self.saved_start = max(self.saved_start, write.start_offset)
                self.saved = combined(self.saved, write.batches, self.saved_start)
                self.letters += self.real.end_write(None, self.now_ms)
                self.slow.written(those, has_failed=False, now_ms=self.now_ms)
            elif self.letters:
                self.dead_letter()
            self.begin_write()
        assert self.write is None
        known = {
            offset: (batch.state, batch.delivery_count, batch.not_before_ms)
            for batch in self.saved
            for offset in range(batch.first_offset, batch.last_offset + 1)
        }
        assert self.saved_start == self.real.start_offset or (
            self.was_answer_lost and self.saved_start > self.real.start_offset
        )
        done = [run for run in self.real.runs() if run.is_saved and run.state is not DeliveryState.ACQUIRED]
        for run in done:
            here = run.delivery_count, run.state
            for offset in range(max(run.first, self.saved_start), run.last + 1) if run.delivery_count else ():
                state, count, not_before_ms = known[offset]
                assert (count, state) == here or (self.was_answer_lost and (count, state) > here), offset
                if run.not_before_ms and (count, state) == here:
                    due_ms = run.not_before_ms + self.wall_ahead_ms
                    assert not_before_ms == due_ms or (self.was_answer_lost and not_before_ms > due_ms), offset


def states(partition: object) -> dict[int, DeliveryState]:
    return {
        offset: run.state
        for run in partition.runs()  # type: ignore[attr-defined]
        for offset in range(run.first, run.last + 1)
    }


@few_and_many("seeds", 60, 3_000)
def test_it_does_what_its_twin_does(seeds: int):
    for seed in range(seeds):
        both = Both(seed)
        for step in range(STEPS):
            try:
                both.step()
            except AssertionError as error:
                raise AssertionError(f"seed {seed}, step {step}: {error}") from error
        both.settle()
        both.compare()
