"""A share partition: one topic partition as one share group sees it, on the partition's leader (KIP-932). Pure: time is
passed in, and what has to be written or sent is returned.

    AVAILABLE -> ACQUIRED -> ACKNOWLEDGED                    accepted
                          -> AVAILABLE                       released, or its lock ran out; perhaps not at once
                          -> ARCHIVED                        a gap; rejected; released or run out at the limit
                          -> ARCHIVING -> ARCHIVED           the same two, where there is a dead letter topic

It knows the offsets from `start_offset` to `end_offset`; those before are done with, those behind were handed out to
nobody yet. Acquired is soft. Each other change becomes a write to the share coordinator, one after the other: what is
acknowledged meanwhile is in the next one. An acknowledgement takes effect, and is answered, when its write has
succeeded; until then nobody else gets its records, and the start offset does not pass them (U3, U4, U5).

What ends a lock without its holder (time, a closed session) takes effect at once. Its write carries the delivery count
to the next leader, and a failure of it costs that count alone.

A record may be released for later. It is available then, and is not handed out before its time. The time runs by the
leader's monotonic clock; it is written by the wall clock, with which the next leader goes on.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from kraft.protocol.errors import InvalidRecordState, InvalidRequest, KafkaError
from replication.shares.acknowledgements import DELAY_MS_MAX, GROUP_DELAY, Acknowledgement, Part
from replication.shares.runs import Run, Runs
from replication.shares.settled import Before, Lease, Settled, was_settled_before
from replication.shares.states import TERMINAL, AcknowledgeType, DeliveryState, StateBatch

RUNS_MAX: Final = 10_000
"""Runs that one share partition may have before it hands out nothing new. Consumers that accept and reject in turns
behind a record that is never acknowledged make one of each offset."""
LOCK_ENTRIES_SPARE: Final = 64
"""Ended locks that may wait for their time beside those that count."""

REJECTED: Final = "rejected"
RELEASED: Final = "released at the delivery count limit"
EXPIRED: Final = "expired"
TIMED_OUT: Final = "lock timed out at the delivery count limit"
BEFORE: Final = "archived before this leader"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareLimits:
    """The limits in the group's configuration; Kafka's defaults."""

    delivery_count: int = 5
    """share.delivery.count.limit"""
    record_locks: int = 2_000
    """share.partition.max.record.locks: offsets that are neither done with nor left in the log (U7)."""
    lock_duration_ms: int = 30_000
    """share.record.lock.duration.ms"""
    has_dead_letters: bool = False
    """Whether rejected and undeliverable records go to a dead letter topic (KIP-1191)."""
    retry_backoff_ms: int = 0
    """share.retry.backoff.ms: after the first delivery; it doubles with each further one."""
    retry_backoff_max_ms: int = 300_000
    """share.retry.backoff.max.ms"""

    @property
    def isolation_from(self) -> int:
        """The delivery count from which an offset is handed out in parts of its batch only (KAFKA-19903)."""
        return max(2, (self.delivery_count + 1) // 2)

    def backoff_ms(self, delivery_count: int) -> int:
        """How long nobody gets a record that was handed out so often and is released without a time."""
        return min(self.retry_backoff_ms << max(0, delivery_count - 1), self.retry_backoff_max_ms)


class Fetched(NamedTuple):
    """What a read of the log has found."""

    first_offset: int
    """Where it began."""
    end_offset: int
    """Behind the last offset of its last batch."""
    batches: Sequence[tuple[int, int]]
    """First and last offset of each batch that consumers may see: neither control batches nor, to a group that reads
    committed records, those of aborted transactions. Offsets in none of them are archived (U9)."""


class Acquired(NamedTuple):
    """Records that a member has got."""

    first_offset: int
    last_offset: int
    delivery_count: int


class DeadLetters(NamedTuple):
    """Records that go to the dead letter topic now; `dead_lettered` is called when they are there."""

    first_offset: int
    last_offset: int
    delivery_count: int
    reason: str


@dataclass(slots=True, eq=False, kw_only=True)
class StateWrite:
    """What the share coordinator has to write."""

    start_offset: int
    delivery_complete_count: int
    batches: Sequence[StateBatch]
    acknowledgements: Sequence[Acknowledgement]
    """Those that it makes durable."""
    changed: Sequence[tuple[int, int]]
    """Offsets whose change needs no answer."""
    start_offset_before: int
    """What the share coordinator knows until it succeeds."""


@dataclass(slots=True, kw_only=True)
class ShareCounts:
    """Records since this leader began."""

    acquired: int = 0
    deliveries: Counter[int] = field(default_factory=Counter)
    """Those acquired, by the delivery count that they had with it."""
    redelivered: int = 0
    accepted: int = 0
    released: int = 0
    rejected: int = 0
    gaps: int = 0
    timed_out: int = 0
    expired: int = 0
    """Too old when they would have been handed out."""
    archived_at_limit: int = 0
    dead_lettered: int = 0
    dead_letters_lost: int = 0
    """Given up without a dead letter, since it could not be written."""
    lost_by_retention: int = 0
    """Deleted from the log before anybody accepted them."""


class SharePartition:
    """One share partition; `loaded` makes it of what the share coordinator has."""

    def __init__(self, start_offset: int, *, state_epoch: int, leader_epoch: int, limits: ShareLimits) -> None:
        self.start_offset = start_offset
        self.end_offset = start_offset - 1
        """The last offset that was handed out."""
        self.state_epoch, self.leader_epoch = state_epoch, leader_epoch
        self.limits = limits
        self.counts = ShareCounts()
        self._runs = Runs()
        self._complete = 0
        """Terminal offsets from the start offset on."""
        self._available_from = start_offset
        """No offset below it is available."""
        self.wall_ahead_ms = 0
        """The wall clock less the monotonic one."""
        self._locks: list[tuple[int, int, int]] = []
        """A heap of (end of the lock or of the delay, first and last offset); entries of what has ended otherwise stay
        until their time."""
        self._waiting: list[Acknowledgement] = []
        self._changed: list[tuple[int, int]] = []
        self._sending: set[int] = set()
        """The offsets whose dead letters are on their way; they are in flight, and so they are bounded."""
        """Ranges that the share coordinator does not know as they are."""
        self._write: StateWrite | None = None
        """The one that is under way."""
        self._written_start = start_offset
        self._needs_write = False
        self._settled = Settled()
        self.remembers_until_ms = 0
        """When all locks of receivers over REST would have ended: until then, acknowledgements may come again."""
        self.before = Before(leader_epoch, start_offset, ())

    # --- what it is ---------------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Offsets that are neither done with nor left in the log."""
        return self.end_offset - self.start_offset + 1 - self._complete

    @property
    def delivery_complete_count(self) -> int:
        return self._complete

    @property
    def has_waiting_acknowledgements(self) -> bool:
        """Whether a member waits for a write that has not begun."""
        return bool(self._waiting)

    @property
    def is_settled(self) -> bool:
        """Whether the share coordinator knows all that there is to know: a partition that is loaded again is the same.
        Nobody has a lock, nothing has to be written, and no dead letter is on its way."""
        is_written = self._write is None and not self._waiting and not self._needs_write
        soft = DeliveryState.ACQUIRED, DeliveryState.ARCHIVING
        return is_written and not any(run.state in soft for run in self._runs)

    def next_fetch_offset(self) -> int:
        """The first offset that is available; the one behind the end offset when none is (KAFKA-19463: records whose
        acknowledgement is not written yet are not available)."""
        found = self.end_offset + 1
        for run in self._runs.since(max(self._available_from, self.start_offset)):
            if run.is_available:
                found = run.first
                break
        self._available_from = found
        return found

    def can_acquire(self) -> bool:
        """Whether a fetch could bring a member anything: what was released, or something new within the limits."""
        return self.next_fetch_offset() <= self.end_offset or self._room() > 0

    def deadline_ms(self) -> int | None:
        """When the next lock or delay runs out; None while nothing is locked or delayed."""
        while self._locks:
            until_ms, first, last = self._locks[0]
            if any(_runs_out(run, until_ms) for run in self._runs.within(first, last)):
                return until_ms
            heapq.heappop(self._locks)
        return None

    def runs(self) -> Iterable[Run]:
        """What is known of each offset, for those who only look."""
        return self._runs

    def _room(self) -> int:
        return 0 if len(self._runs) >= RUNS_MAX else max(0, self.limits.record_locks - self.in_flight)

    # --- acquire ------------------------------------------------------------------------------------------------

    def acquire(
        self,
        member: str,
        fetched: Fetched,
        *,
        max_records: int,
        batch_size: int,
        is_strict: bool,
        now_ms: int,
        lock_ms: int = 0,
    ) -> list[Acquired]:
        """Hands out records to a member, each with one delivery more (U1). `is_strict`: never more than `max_records`
        (record_limit); else batches are handed out whole (batch_optimized). New records come in pieces of at least
        `batch_size`, which end where batches do. `lock_ms`: for how long, to a receiver over REST.
        """
        taking = _Taking(self, member, max_records, is_strict, now_ms, lock_ms)
        taking.available(fetched)
        if not taking.is_over:
            taking.new(fetched, batch_size)
        self._advance_start()
        return taking.acquired

    def expire_records(self, member: str, ranges: Iterable[tuple[int, int]]) -> None:
        """These offsets, which the member has acquired in this moment, are too old: nobody gets them, and they were not
        delivered."""
        for first, last in ranges:
            for run in self._runs.cut(first, last):
                assert run.is_locked_by(member), run
                counts = self.counts
                counts.acquired -= run.size
                counts.deliveries[run.delivery_count] -= run.size
                counts.redelivered -= run.size if run.delivery_count > 1 else 0
                counts.expired += run.size
                run.delivery_count -= 1
                run.reason = EXPIRED
                self._change(run, self._archived, is_saved=False)
                self._needs_write = True
        self._advance_start()

    # --- acknowledge --------------------------------------------------------------------------------------------

    def acknowledge(
        self, member: str, parts: Sequence[Part], now_ms: int, *, lock_ms: int = 0, may_repeat: bool = False
    ) -> Acknowledgement | None:
        """Begins acknowledgements of a member; the answer is due when the write that has it in it ends. None:
        there is nothing to write. Raises InvalidRecordState 121 or InvalidRequest 42, and changes nothing then (U2).
        `may_repeat`: they are remembered when they have taken effect.
        """
        owned = [(part, self._owned(member, part)) for part in parts]
        to_write = []
        for part, ranges in owned:
            for first, last in ranges:
                if part.type is AcknowledgeType.RENEW:
                    for run in self._runs.cut(first, last):
                        self._lock(run, member, now_ms, lock_ms)
                else:
                    self._begin(part, first, last, now_ms)
                    to_write.append(part._replace(first=first, last=last))
        if not to_write:
            return None
        acknowledgement = Acknowledgement(member, to_write, may_repeat=may_repeat)
        self._waiting.append(acknowledgement)
        self._needs_write = True
        return acknowledgement

    def settle(self, lease: Lease, *, now_ms: int, wall_ms: int) -> Acknowledgement | None:
        """An acknowledgement over REST. It may come again: then the first one is returned if its write goes on, and
        None if it has taken effect. Raises InvalidRecordState 121 when the lock has ended otherwise.
        """
        part, member = lease.part, lease.member
        if lease.leader_epoch == self.leader_epoch:
            runs = self._runs.within(part.first, part.last)
            if runs and all(run.is_locked_by(member) for run in runs):
                return self.acknowledge(member, [part], now_ms, lock_ms=lease.lock_ms, may_repeat=True)
            for begun in (*self._waiting, *(() if self._write is None else self._write.acknowledgements)):
                if begun.member == member and any(begun_part.includes(part) for begun_part in begun.parts):
                    return begun
            if self._settled.has(member, part, now_ms):
                return None
        elif was_settled_before(lease, self.before, wall_ms=wall_ms):
            return None
        raise InvalidRecordState(
            f"the lock on offset {part.first} has ended: its time ran out, it was acknowledged otherwise, or its "
            "leader is gone; receive the record again"
        )

    def _owned(self, member: str, part: Part) -> list[tuple[int, int]]:
        """The offsets of the part that the member holds; those below the start offset that it does not are ignored."""
        if part.last > self.end_offset:
            raise InvalidRequest(f"offset {part.last} is behind {self.end_offset}, the last one that was handed out")
        ranges = []
        for run in self._runs.within(part.first, part.last):
            if run.is_locked_by(member):
                ranges.append((max(run.first, part.first), min(run.last, part.last)))
            elif run.last >= self.start_offset:
                raise InvalidRecordState(
                    f"the offsets {run.first} to {run.last} are not acquired by member {member}: "
                    "a lock ends by its time, by an acknowledgement and with its session"
                )
        return ranges

    def _begin(self, part: Part, first: int, last: int, now_ms: int) -> None:
        for run in self._runs.cut(first, last):
            run.target, run.reason = self._target(run, part)
            if run.target is DeliveryState.AVAILABLE:
                self._delay(run, part.delay_ms, now_ms)

    def _delay(self, run: Run, delay_ms: int, now_ms: int) -> None:
        if delay_ms == GROUP_DELAY:
            delay_ms = self.limits.backoff_ms(run.delivery_count)
        run.not_before_ms = now_ms + delay_ms if delay_ms else 0

    def _target(self, run: Run, part: Part) -> tuple[DeliveryState, str]:
        match part.type:
            case AcknowledgeType.ACCEPT:
                return DeliveryState.ACKNOWLEDGED, ""
            case AcknowledgeType.GAP:
                return DeliveryState.ARCHIVED, ""
            case AcknowledgeType.REJECT:
                return self._archived, part.reason or REJECTED
        if run.delivery_count < self.limits.delivery_count:
            return DeliveryState.AVAILABLE, ""
        return self._archived, part.reason or RELEASED

    @property
    def _archived(self) -> DeliveryState:
        return DeliveryState.ARCHIVING if self.limits.has_dead_letters else DeliveryState.ARCHIVED

    # --- locks --------------------------------------------------------------------------------------------------

    def expire(self, now_ms: int) -> bool:
        """Ends the locks and delays whose time has run out; whether there were any."""
        found = False
        while self._locks and self._locks[0][0] <= now_ms:
            _, first, last = heapq.heappop(self._locks)
            for run in self._runs.within(first, last):
                if not _runs_out(run, now_ms):
                    continue
                found = True
                if run.is_delayed:
                    self._end_delay(run)
                else:
                    self._end_lock(run, TIMED_OUT, now_ms)
        if found:
            self._advance_start()
        return found

    def release(self, member: str) -> bool:
        """Ends all locks of a member whose session was closed; whether there were any. The delivery counts stay as
        they are (U14, KAFKA-19972). They are available at once: a worker that goes is no failure of its records."""
        locked = [run for run in self._runs if run.is_locked_by(member)]
        for run in locked:
            self._end_lock(run, RELEASED)
        self._advance_start()
        return bool(locked)

    def _lock(self, run: Run, member: str, now_ms: int, lock_ms: int) -> None:
        until_ms = now_ms + (lock_ms or self.limits.lock_duration_ms)
        if lock_ms:
            self.remembers_until_ms = max(self.remembers_until_ms, until_ms)
        run.state, run.member, run.lock_until_ms = DeliveryState.ACQUIRED, member, until_ms
        self._note_end(run)

    def _note_end(self, run: Run) -> None:
        """Its lock or its delay ends by time."""
        if len(self._locks) > LOCK_ENTRIES_SPARE + 2 * len(self._runs):
            self._locks = [(end, each.first, each.last) for each in self._runs if (end := _end_ms(each)) is not None]
            heapq.heapify(self._locks)
        end_ms = _end_ms(run)
        assert end_ms is not None, run
        heapq.heappush(self._locks, (end_ms, run.first, run.last))

    def _end_delay(self, run: Run) -> None:
        run.not_before_ms = 0
        self._available_from = min(self._available_from, run.first)
        self._runs.join(run.first, run.last)

    def _end_lock(self, run: Run, reason: str, now_ms: int | None = None) -> None:
        """Without its holder: the record is available again, or archived if it was handed out often enough."""
        state, run.reason = DeliveryState.AVAILABLE, ""
        if now_ms is not None:
            self._delay(run, GROUP_DELAY, now_ms)
        if run.delivery_count >= self.limits.delivery_count:
            state, run.reason = self._archived, reason
            self.counts.archived_at_limit += run.size
        if reason == TIMED_OUT:
            self.counts.timed_out += run.size
        else:
            self.counts.released += run.size
        self._change(run, state, is_saved=False)
        self._needs_write = True

    # --- changes ------------------------------------------------------------------------------------------------

    def _append(
        self,
        first: int,
        last: int,
        state: DeliveryState,
        delivery_count: int,
        *,
        is_saved: bool,
        not_before_ms: int = 0,
    ) -> Run:
        """A run behind all others."""
        size = last - first + 1
        run = Run(
            first=first,
            last=last,
            state=state,
            delivery_count=delivery_count,
            batch=first,
            batch_size=size,
            is_saved=is_saved,
            not_before_ms=not_before_ms,
        )
        self._runs.add(run)
        self.end_offset = last
        if state in TERMINAL:
            self._complete += size
        if run.is_delayed:
            self._note_end(run)
        if not is_saved:
            self._changed.append((first, last))
        self._runs.join(first, last)
        return run

    def _change(self, run: Run, state: DeliveryState, *, is_saved: bool) -> None:
        """Gives a run another state: the only place where one stops being locked."""
        run.state, run.target, run.member, run.is_saved = state, None, "", is_saved
        if state is not DeliveryState.ARCHIVING:
            run.reason = ""
        if state is not DeliveryState.AVAILABLE:
            run.not_before_ms = 0
        if run.last < self.start_offset:
            self._end_below_start(run)
            return
        if state in TERMINAL:
            self._complete += run.size
        if run.is_delayed:
            self._note_end(run)
        elif state is DeliveryState.AVAILABLE:
            self._available_from = min(self._available_from, run.first)
        if not is_saved:
            self._changed.append((run.first, run.last))
        self._runs.join(run.first, run.last)

    def _end_below_start(self, run: Run) -> None:
        """The log has lost the record while it was locked: nobody gets it again."""
        if run.state is not DeliveryState.ACKNOWLEDGED:
            self.counts.lost_by_retention += run.size
        self._runs.remove(run)

    def _advance_start(self) -> None:
        """Past all that is done with."""
        count = 0
        for run in self._runs.since(self.start_offset):
            if not run.is_terminal:
                break
            count += 1
        if count:
            for run in self._runs.taken_out(count, self._runs.index(self.start_offset)):
                self._complete -= run.size
                self.start_offset = run.last + 1
        self._needs_write |= self.start_offset > self._written_start

    def log_started(self, offset: int) -> int:
        """The log begins at this offset now (U12). Returns how many records are gone that nobody had acknowledged;
        locked ones are counted when their locks end.
        """
        if offset <= self.start_offset:
            return 0
        lost = max(0, offset - self.end_offset - 1)
        for run in self._runs.cut(self.start_offset, offset - 1):
            if run.is_terminal:
                self._complete -= run.size
            elif run.state is not DeliveryState.ACQUIRED:
                lost += run.size
            if run.state is not DeliveryState.ACQUIRED:
                self._runs.remove(run)
        self.start_offset = offset
        self.end_offset = max(self.end_offset, offset - 1)
        self._available_from = max(self._available_from, offset)
        self.counts.lost_by_retention += lost
        self._advance_start()
        return lost

    # --- writes -------------------------------------------------------------------------------------------------

    def save_start(self) -> None:
        """The start offset is to be written, although nothing was acknowledged."""
        self._needs_write = True

    def begin_write(self) -> StateWrite | None:
        """The next write; None while one is under way, or when there is nothing to write."""
        if self._write is not None or not self._needs_write:
            return None
        acknowledgements, self._waiting = self._waiting, []
        changed, self._changed = self._changed, []
        self._needs_write = False
        start_offset, complete = self._after(acknowledgements)
        before, self._written_start = self._written_start, start_offset
        self._write = StateWrite(
            start_offset=start_offset,
            delivery_complete_count=complete,
            batches=[b for b in sorted(self._batches(acknowledgements, changed)) if b.last_offset >= start_offset],
            acknowledgements=acknowledgements,
            changed=changed,
            start_offset_before=before,
        )
        return self._write

    def _after(self, acknowledgements: Sequence[Acknowledgement]) -> tuple[int, int]:
        """Start offset and delivery complete count when these have taken effect."""
        settled = [
            run
            for each in acknowledgements
            for part in each.parts
            for run in self._runs.within(part.first, part.last)
            if run.target in TERMINAL and run.first >= self.start_offset
        ]
        complete = self._complete + sum(run.size for run in settled)
        start_offset = self.start_offset
        those = set(map(id, settled))
        for run in self._runs.since(start_offset):
            if not (run.is_terminal or id(run) in those):
                break
            start_offset = run.last + 1
            complete -= run.size
        return start_offset, complete

    def _batches(
        self, acknowledgements: Sequence[Acknowledgement], changed: Sequence[tuple[int, int]]
    ) -> Iterable[StateBatch]:
        for each in acknowledgements:
            for part in each.parts:
                for run in self._runs.within(part.first, part.last):
                    if run.target is not None:
                        yield self._batch(run, run.target)
        for first, last in changed:
            for run in self._runs.within(first, last):
                if not run.is_saved and run.state is not DeliveryState.ACQUIRED:
                    run.is_saved = True
                    yield self._batch(run, run.state)

    def _batch(self, run: Run, state: DeliveryState) -> StateBatch:
        not_before_ms = run.not_before_ms + self.wall_ahead_ms if run.not_before_ms else 0
        return StateBatch(run.first, run.last, state, run.delivery_count, not_before_ms)

    def end_write(self, error: KafkaError | None, now_ms: int) -> list[DeadLetters]:
        """The write has succeeded, or failed for good. Its acknowledgements have taken effect, or their records are
        locked as before. Returns what goes to the dead letter topic now.
        """
        write = self._write
        assert write is not None
        self._write = None
        for each in write.acknowledgements:
            each.error = error
            for part in each.parts:
                for run in self._runs.within(part.first, part.last):
                    if run.target is not None and error is None:
                        self._count(run, part)
                        if each.may_repeat:
                            self._remember(run, part, now_ms)
                        self._change(run, run.target, is_saved=True)
                    elif run.target is not None:
                        self._lock_again(run, now_ms)
        if error is not None:
            self._not_written(write)
            return []
        self._advance_start()
        archiving = [batch for batch in write.batches if batch.state == DeliveryState.ARCHIVING]
        return [letters for batch in archiving for letters in self._dead_letters(batch.first_offset, batch.last_offset)]

    def _remember(self, run: Run, part: Part, now_ms: int) -> None:
        self._settled.add(run.member, part, first=run.first, last=run.last, until_ms=run.lock_until_ms, now_ms=now_ms)

    def _count(self, run: Run, part: Part) -> None:
        match part.type:
            case AcknowledgeType.ACCEPT:
                self.counts.accepted += run.size
            case AcknowledgeType.GAP:
                self.counts.gaps += run.size
            case AcknowledgeType.REJECT:
                self.counts.rejected += run.size
            case _:
                self.counts.released += run.size
                if run.target is not DeliveryState.AVAILABLE:
                    self.counts.archived_at_limit += run.size

    def _lock_again(self, run: Run, now_ms: int) -> None:
        """What was acknowledged in vain is locked as before, unless the lock's time has run out meanwhile."""
        run.target, run.reason, run.not_before_ms = None, "", 0
        if run.lock_until_ms <= now_ms:
            self._end_lock(run, TIMED_OUT, now_ms)
        else:
            self._note_end(run)

    def _not_written(self, write: StateWrite) -> None:
        """What needs no answer is written with what comes next; at once if a dead letter waits for it."""
        self._written_start = write.start_offset_before
        for first, last in write.changed:
            for run in self._runs.within(first, last):
                if run.is_saved and run.state is not DeliveryState.ACQUIRED:
                    run.is_saved = False
                    self._changed.append((run.first, run.last))
                    self._needs_write |= run.state is DeliveryState.ARCHIVING
        self._advance_start()

    # --- dead letters -------------------------------------------------------------------------------------------

    def waiting_dead_letters(self) -> list[DeadLetters]:
        """What an earlier leader did not bring to the dead letter topic, as far as anybody knows (KAFKA-20672)."""
        return self._dead_letters(self.start_offset, self.end_offset)

    def _dead_letters(self, first: int, last: int) -> list[DeadLetters]:
        """Without those that are on their way: a write of their neighbours has them in its batch again."""
        found: list[DeadLetters] = []
        for run in self._runs.within(first, last):
            if run.state is not DeliveryState.ARCHIVING or not run.is_saved:
                continue
            for offset in range(run.first, run.last + 1):
                if offset in self._sending:
                    continue
                self._sending.add(offset)
                letter = DeadLetters(offset, offset, run.delivery_count, run.reason or BEFORE)
                if found and (found[-1].last_offset + 1, *found[-1][2:]) == (offset, *letter[2:]):
                    found[-1] = found[-1]._replace(last_offset=offset)
                else:
                    found.append(letter)
        return found

    def dead_lettered(self, letters: DeadLetters, lost: Container[int] = ()) -> None:
        """They stand in the dead letter topic, or could not be written there (`lost`): they are archived in either
        case (U10)."""
        self._sending.difference_update(range(letters.first_offset, letters.last_offset + 1))
        for run in self._runs.cut(letters.first_offset, letters.last_offset):
            if run.state is DeliveryState.ARCHIVING:
                missing = sum(offset in lost for offset in range(run.first, run.last + 1)) if lost else 0
                self.counts.dead_lettered += run.size - missing
                self.counts.dead_letters_lost += missing
                self._change(run, DeliveryState.ARCHIVED, is_saved=False)
                self._needs_write = True
        self._advance_start()


def loaded(
    start_offset: int,
    batches: Iterable[StateBatch],
    *,
    state_epoch: int,
    leader_epoch: int,
    limits: ShareLimits,
    now_ms: int = 0,
    wall_ms: int = 0,
) -> SharePartition:
    """A share partition as the share coordinator knows it. Offsets between its batches were handed out to members that
    acknowledged nothing before the leader changed: they are available, with an unknown delivery count. Delays go on,
    for DELAY_MS_MAX at most, whatever the clocks of this leader and the one before are. Raises ValueError for batches
    that overlap.
    """
    partition = SharePartition(start_offset, state_epoch=state_epoch, leader_epoch=leader_epoch, limits=limits)
    partition.before = Before(leader_epoch, start_offset, sorted(batches))
    partition.wall_ahead_ms = wall_ms - now_ms
    for first, last, number, count, not_before_ms in partition.before.batches:
        if last < start_offset:
            continue
        first = max(first, start_offset)
        if first <= partition.end_offset:
            raise ValueError(f"a state batch begins at {first}, where the one before has not ended")
        if first > partition.end_offset + 1:
            partition._append(partition.end_offset + 1, first - 1, DeliveryState.AVAILABLE, 0, is_saved=True)
        until_ms = now_ms + min(not_before_ms - wall_ms, DELAY_MS_MAX) if not_before_ms > wall_ms else 0
        partition._append(first, last, DeliveryState(number), count, is_saved=True, not_before_ms=until_ms)
    partition._advance_start()
    return partition


def _is_locked(run: Run) -> bool:
    return run.state is DeliveryState.ACQUIRED and run.target is None


def _end_ms(run: Run) -> int | None:
    """When its lock or its delay ends."""
    if run.is_delayed:
        return run.not_before_ms
    return run.lock_until_ms if _is_locked(run) else None


def _runs_out(run: Run, now_ms: int) -> bool:
    end_ms = _end_ms(run)
    return end_ms is not None and end_ms <= now_ms


class _Taking:
    """One member's acquisition while it goes on."""

    def __init__(
        self,
        partition: SharePartition,
        member: str,
        max_records: int,
        is_strict: bool,
        now_ms: int,
        lock_ms: int,
    ) -> None:
        self.acquired: list[Acquired] = []
        self.is_over = max_records <= 0
        self._partition = partition
        self._runs = partition._runs
        self._member = member
        self._left = max_records
        self._is_strict = is_strict
        self._now_ms = now_ms
        self._lock_ms = lock_ms

    def available(self, fetched: Fetched) -> None:
        """What was handed out before, and is available again."""
        last = min(fetched.end_offset - 1, self._partition.end_offset)
        for first, end, has_records in _spans(fetched, fetched.first_offset, last + 1):
            for run in self._runs.within(first, end - 1):
                if self.is_over:
                    return
                if run.is_available and has_records:
                    self._take(run, max(first, run.first), min(end - 1, run.last))
                elif run.is_available:
                    for gap in self._runs.cut(max(first, run.first), min(end - 1, run.last)):
                        self._partition.counts.gaps += gap.size
                        self._partition._change(gap, DeliveryState.ARCHIVED, is_saved=False)

    def _take(self, run: Run, first: int, last: int) -> None:
        """What was delivered often is handed out in ever smaller parts, and alone at last, so that one bad record does
        not take its whole batch to the limit (U8, KAFKA-19903).
        """
        limits, count = self._partition.limits, run.delivery_count
        is_last = limits.delivery_count > 2 and count >= limits.delivery_count - 1
        if is_last or count >= limits.isolation_from:
            self.is_over = True
            if self.acquired:
                return
            part = 1 if is_last else max(1, run.batch_size >> (count - limits.isolation_from + 1))
            last = min(last, first + part - 1)
        if self._is_strict:
            last = min(last, first + self._left - 1)
        for taken in self._runs.cut(first, last):
            taken.delivery_count += 1
            self._partition.counts.redelivered += taken.size
            self._hand_out(taken)

    def _hand_out(self, run: Run) -> None:
        self._partition._lock(run, self._member, self._now_ms, self._lock_ms)
        self._partition.counts.acquired += run.size
        self._partition.counts.deliveries[run.delivery_count] += run.size
        self.acquired.append(Acquired(run.first, run.last, run.delivery_count))
        self._left -= run.size
        self.is_over |= self._left <= 0

    def new(self, fetched: Fetched, batch_size: int) -> None:
        """What nobody had yet. Whole batches, of which the last may go beyond the limits; a strict member gets a part
        of it. What lies between them is archived."""
        partition = self._partition
        at = partition.end_offset + 1
        room = min(self._left, partition._room())
        if room <= 0 or not fetched.first_offset <= at < fetched.end_offset:
            return
        first = at
        for base, last in fetched.batches:
            if last < at:
                continue
            if room <= 0:
                break
            if base > at:
                self._new(first, at - 1)
                self._gap(at, base - 1)
                first = at = base
            end = min(last, at + room - 1) if self._is_strict else last
            room -= end - at + 1
            at = end + 1
            if at - first >= batch_size or end < last:
                self._new(first, at - 1)
                first = at
            if end < last:
                return
        else:
            self._new(first, at - 1)
            self._gap(at, fetched.end_offset - 1)
            return
        self._new(first, at - 1)

    def _new(self, first: int, last: int) -> None:
        if first <= last:
            self._hand_out(self._partition._append(first, last, DeliveryState.ACQUIRED, 1, is_saved=True))

    def _gap(self, first: int, last: int) -> None:
        if first <= last:
            self._partition.counts.gaps += last - first + 1
            self._partition._append(first, last, DeliveryState.ARCHIVED, 0, is_saved=False)


def _spans(fetched: Fetched, first: int, end: int) -> Iterable[tuple[int, int, bool]]:
    """The offsets from `first` up to `end`: beginning, end, and whether there are records for consumers."""
    at = first
    begin = first
    for base, last in fetched.batches:
        if last < at or base >= end:
            continue
        if base > at:
            if begin < at:
                yield begin, at, True
            yield at, base, False
            begin = base
        at = min(last + 1, end)
    if begin < at:
        yield begin, at, True
    if at < end:
        yield at, end, False
