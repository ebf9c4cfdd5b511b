"""A share partition with one entry for each record: slow, obvious, and the oracle of the real one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kraft.protocol.errors import InvalidRecordState, InvalidRequest
from replication.shares.acknowledgements import DELAY_MS_MAX, Part
from replication.shares.partition import Fetched, ShareLimits
from replication.shares.states import AcknowledgeType, DeliveryState, StateBatch

AVAILABLE, ACQUIRED, ACKNOWLEDGED, ARCHIVING, ARCHIVED = DeliveryState


@dataclass(kw_only=True)
class Entry:
    state: DeliveryState
    count: int
    batch_size: int
    """Of the acquisition by which it came in."""
    member: str = ""
    until_ms: int = 0
    target: DeliveryState | None = None
    not_before_ms: int = 0

    @property
    def is_handed_out(self) -> bool:
        return self.state is AVAILABLE and not self.not_before_ms

    @property
    def is_done(self) -> bool:
        return self.state in (ACKNOWLEDGED, ARCHIVED)


class SlowPartition:
    def __init__(
        self, start: int, batches: Iterable[StateBatch], limits: ShareLimits, *, now_ms: int = 0, wall_ms: int = 0
    ) -> None:
        self.limits = limits
        self.start = start
        self.entries: dict[int, Entry] = {}
        self.waiting: list[set[int]] = []
        """The offsets of each acknowledgement that is in no write yet."""
        self.lost = 0
        batches = [batch for batch in batches if batch.last_offset >= start]
        for offset in range(start, max((batch.last_offset + 1 for batch in batches), default=start)):
            self.entries[offset] = Entry(state=AVAILABLE, count=0, batch_size=0)
        for batch in batches:
            for offset in range(max(batch.first_offset, start), batch.last_offset + 1):
                entry = self.entries[offset]
                entry.state, entry.count = DeliveryState(batch.state), batch.delivery_count
                if batch.not_before_ms > wall_ms:
                    entry.not_before_ms = now_ms + min(batch.not_before_ms - wall_ms, DELAY_MS_MAX)
        self.advance()

    @property
    def end(self) -> int:
        return max(self.entries, default=self.start - 1) if self._has_entries() else self.start - 1

    def _has_entries(self) -> bool:
        return any(offset >= self.start for offset in self.entries)

    @property
    def in_flight(self) -> int:
        return sum(not entry.is_done for offset, entry in self.entries.items() if offset >= self.start)

    def next_fetch_offset(self) -> int:
        available = [o for o, entry in self.entries.items() if o >= self.start and entry.is_handed_out]
        return min(available, default=self.end + 1)

    def deadline_ms(self) -> int | None:
        locked = [each.until_ms for each in self.entries.values() if each.state is ACQUIRED and each.target is None]
        delayed = [each.not_before_ms for each in self.entries.values() if each.state is AVAILABLE]
        return min([*locked, *(each for each in delayed if each)], default=None)

    # --- acquire ------------------------------------------------------------------------------------------------

    def acquired(
        self,
        member: str,
        fetched: Fetched,
        got: Sequence[int],
        gaps: Iterable[int],
        *,
        max_records: int,
        is_strict: bool,
        now_ms: int,
    ) -> None:
        """These offsets were handed out, and those archived because the log has no records for them: is that right?"""
        in_log = {o for base, last in fetched.batches for o in range(base, last + 1)}
        window = range(fetched.first_offset, fetched.end_offset)
        old = [o for o in window if o in self.entries and self.entries[o].is_handed_out and o in in_log]
        fresh = [o for o in window if o > self.end and o in in_log]
        assert list(got) == [*old, *fresh][: len(got)], "in order, and none left out"
        self._check_number(old, fresh, fetched, got, max_records=max_records, is_strict=is_strict)
        for offset in gaps:
            assert offset in window
            assert offset not in in_log
            assert offset > self.end or self.entries[offset].is_handed_out
        if len(got) == len(old) + len(fresh):
            open_gaps = {o for o in window if o not in in_log and o in self.entries}
            assert not [o for o in open_gaps - set(gaps) if self.entries[o].is_handed_out]
        ends = [o for o in got if o > self.end]
        for offset in (*gaps, *got):
            if offset > self.end or offset not in self.entries:
                self.entries.setdefault(offset, Entry(state=AVAILABLE, count=0, batch_size=len(ends)))
        for offset in gaps:
            self.entries[offset].state = ARCHIVED
        for offset in got:
            entry = self.entries[offset]
            entry.count += 1
            self.lock(entry, member, now_ms)
        self.advance()

    def _check_number(
        self,
        old: Sequence[int],
        fresh: Sequence[int],
        fetched: Fetched,
        got: Sequence[int],
        *,
        max_records: int,
        is_strict: bool,
    ) -> None:
        isolated = [o for o in old if self._part(self.entries[o]) is not None]
        if isolated and isolated[0] == old[0]:
            part = self._part(self.entries[old[0]])
            assert part is not None
            assert 1 <= len(got) <= part
            return
        if isolated:
            assert not set(isolated) & set(got), "alone, or not at all"
            old, fresh = old[: old.index(isolated[0])], []
        number_of_old = min(len(got), len(old))
        assert number_of_old >= min(max_records, len(old))
        if is_strict:
            assert len(got) <= max_records
        beyond = got[max_records:number_of_old]
        for offset in beyond:
            assert self.entries[offset].count == self.entries[offset - 1].count, "the rest of a run alone"
        room = max(0, min(max_records - len(old), self.limits.record_locks - self.in_flight))
        due = min(room, len(fresh))
        number_of_fresh = len(got) - number_of_old
        if is_strict or not due:
            assert number_of_fresh == due
        else:
            ends = [last for _, last in fetched.batches if last >= fresh[due - 1]]
            assert got[-1] == min(ends), "up to the end of the batch in which the limit is reached"

    def _part(self, entry: Entry) -> int | None:
        """How many records of its acquisition are handed out with it; None: all of them."""
        limit = self.limits.delivery_count
        if limit > 2 and entry.count >= limit - 1:
            return 1
        if entry.count >= self.limits.isolation_from:
            return max(1, entry.batch_size >> (entry.count - self.limits.isolation_from + 1))
        return None

    def lock(self, entry: Entry, member: str, now_ms: int) -> None:
        entry.state, entry.member, entry.until_ms = ACQUIRED, member, now_ms + self.limits.lock_duration_ms

    # --- acknowledge --------------------------------------------------------------------------------------------

    def acknowledge(self, member: str, parts: Sequence[Part], now_ms: int) -> None:
        those: list[tuple[int, Part]] = []
        for part in parts:
            if part.last > self.end:
                raise InvalidRequest
            for offset in range(part.first, part.last + 1):
                entry = self.entries.get(offset)
                if entry is not None and entry.state is ACQUIRED and entry.target is None and entry.member == member:
                    those.append((offset, part))
                elif offset >= self.start:
                    raise InvalidRecordState
        pending = set()
        for offset, part in those:
            entry = self.entries[offset]
            if part.type is AcknowledgeType.RENEW:
                self.lock(entry, member, now_ms)
            else:
                entry.target = self._target(entry, part.type)
                if entry.target is AVAILABLE:
                    self.delay(entry, part.delay_ms, now_ms)
                pending.add(offset)
        if pending:
            self.waiting.append(pending)

    def _target(self, entry: Entry, kind: AcknowledgeType) -> DeliveryState:
        if kind is AcknowledgeType.ACCEPT:
            return ACKNOWLEDGED
        if kind is AcknowledgeType.GAP:
            return ARCHIVED
        if kind is AcknowledgeType.RELEASE and entry.count < self.limits.delivery_count:
            return AVAILABLE
        return ARCHIVING if self.limits.has_dead_letters else ARCHIVED

    # --- everything else ----------------------------------------------------------------------------------------

    def delay(self, entry: Entry, delay_ms: int, now_ms: int) -> None:
        if delay_ms < 0:
            delay_ms = self.limits.retry_backoff_ms
            for _ in range(entry.count - 1):
                delay_ms *= 2
            delay_ms = min(delay_ms, self.limits.retry_backoff_max_ms)
        entry.not_before_ms = now_ms + delay_ms if delay_ms else 0

    def end_lock(self, offset: int, timed_out_ms: int | None = None) -> None:
        entry = self.entries[offset]
        entry.member, entry.target = "", None
        if entry.count < self.limits.delivery_count:
            if timed_out_ms is not None:
                self.delay(entry, -1, timed_out_ms)
            self.change(offset, AVAILABLE)
        else:
            self.change(offset, ARCHIVING if self.limits.has_dead_letters else ARCHIVED)

    def change(self, offset: int, state: DeliveryState) -> None:
        entry = self.entries[offset]
        entry.state, entry.target = state, None
        if state is not AVAILABLE:
            entry.not_before_ms = 0
        if offset < self.start:
            self.lost += state is not ACKNOWLEDGED
            del self.entries[offset]

    def expire(self, now_ms: int) -> None:
        for offset, entry in list(self.entries.items()):
            if entry.state is ACQUIRED and entry.target is None and entry.until_ms <= now_ms:
                self.end_lock(offset, now_ms)
            elif entry.state is AVAILABLE and entry.not_before_ms <= now_ms:
                entry.not_before_ms = 0
        self.advance()

    def release(self, member: str) -> None:
        for offset, entry in list(self.entries.items()):
            if entry.state is ACQUIRED and entry.target is None and entry.member == member:
                self.end_lock(offset)
        self.advance()

    def log_started(self, start: int) -> None:
        if start <= self.start:
            return
        self.lost += max(0, start - self.end - 1)
        for offset in [o for o in self.entries if o < start]:
            entry = self.entries[offset]
            if entry.state is not ACQUIRED:
                self.lost += not entry.is_done
                del self.entries[offset]
        self.start = start
        self.advance()

    def written(self, those: Iterable[set[int]], *, has_failed: bool, now_ms: int) -> None:
        """The acknowledgements of these offsets have taken effect, or they have not."""
        for offset in (offset for each in those for offset in each):
            entry = self.entries[offset]
            assert entry.target is not None
            if not has_failed:
                entry.member = ""
                self.change(offset, entry.target)
            else:
                entry.target, entry.not_before_ms = None, 0
                if entry.until_ms <= now_ms:
                    self.end_lock(offset, now_ms)
        self.advance()

    def dead_lettered(self, first: int, last: int) -> None:
        for offset in range(first, last + 1):
            if offset in self.entries and self.entries[offset].state is ARCHIVING:
                self.change(offset, ARCHIVED)
        self.advance()

    def advance(self) -> None:
        while self.start in self.entries and self.entries[self.start].is_done:
            del self.entries[self.start]
            self.start += 1
