"""Which records of one delay partition are due, and which were forwarded. Pure.

The progress is three numbers, whatever the order in which records are due. All records below `next_offset` were looked
at; of them those are done that come, by (time, offset), up to (`due_ms`, `offset`). A record further back that is due
by then was late when it came, and is forwarded at once. So nothing is forwarded twice or forgotten by a leader that
has only these numbers and the log.

The index has the first records to become due, up to a number; what is due later than the last of them stands only in
the log, which is read again when the time comes near.
"""

from __future__ import annotations

import re
from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from kraft.protocol.batches.records import ReadRecord
from kraft.protocol.errors import InvalidRequest
from replication.record_times import CANCEL_HEADER, DELIVER_HEADER, ID_HEADER, time_of

KEPT_MAX: Final = 50_000
"""Records that the index of one partition has."""
_NOTED: Final = re.compile(r"([0-9]{1,18}):([0-9]{1,18})")


class Delayed(NamedTuple):
    """A record that waits; in the order in which they are due."""

    due_ms: int
    offset: int
    id: bytes = b""


@dataclass(frozen=True, slots=True)
class Progress:
    """What is done of one delay partition."""

    next_offset: int = 0
    due_ms: int = 0
    offset: int = 0

    def has(self, record: Delayed) -> bool:
        """Whether the time of the record is not behind what was forwarded."""
        return record[:2] <= (self.due_ms, self.offset)

    @property
    def noted(self) -> tuple[int, str]:
        """How it stands in a commit."""
        return self.next_offset, f"{self.due_ms}:{self.offset}"


def progress_of(offset: int, metadata: str) -> Progress:
    """What was committed. Raises InvalidRequest 42 for what no forwarder has written."""
    found = _NOTED.fullmatch(metadata)
    if found is None:
        raise InvalidRequest(f"{metadata[:100]!r} is no progress of delayed records: something else has committed it")
    return Progress(offset, int(found[1]), int(found[2]))


def delayed_of(record: ReadRecord) -> tuple[Delayed, bytes | None]:
    """The record's time, and the id that it cancels, if it does."""
    due_ms, known, cancels = 0, b"", None
    for name, text in record.headers:
        if name == DELIVER_HEADER:
            due_ms = time_of(text) or 0
        elif name == ID_HEADER and text:
            known = text
        elif name == CANCEL_HEADER and text:
            cancels = text
    return Delayed(due_ms, record.offset, known), cancels


class DueIndex:
    """The records of one delay partition that come next."""

    def __init__(
        self, progress: Progress, *, kept_max: int = KEPT_MAX, cancelled: Mapping[bytes, int] | None = None
    ) -> None:
        """`cancelled`: what the index before has found."""
        self.progress = progress
        self.cancelled = dict(cancelled or {})
        """Offset of the cancel, by id, of records that had a place here and were cancelled: else they would fill the
        index each time that the log is read again."""
        self.blocked_until_ms = 0
        """When the record at `next_offset` may be looked at: the clock has stepped back behind what was forwarded."""
        self._kept_max = kept_max
        self._kept: list[Delayed] = []
        self._by_id: dict[bytes, list[Delayed]] = {}
        self._beyond: Delayed | None = None
        """From this one on they stand only in the log."""
        self._beyond_offset: int | None = None
        """The lowest offset of those, or one below it."""

    @property
    def needs_reading(self) -> bool:
        """Whether the log has to be read again from its beginning for what comes next."""
        return not self._kept and self._beyond is not None

    def next_due_ms(self) -> int | None:
        """When the next record is due; None: none waits."""
        if self._kept:
            return self._kept[0].due_ms
        return None if self._beyond is None else self._beyond.due_ms

    def lowest_waiting(self) -> int:
        """No record below this offset waits. It may be lower than it could be while records stand only in the log."""
        lowest = min((each.offset for each in self._kept), default=self.progress.next_offset)
        return lowest if self._beyond_offset is None else min(lowest, self._beyond_offset)

    def read_again(self, record: ReadRecord) -> bool:
        """A record below `next_offset`, in the order of the log. Whether it was forwarded."""
        delayed, cancels = delayed_of(record)
        if cancels is not None:
            self._cancel(cancels, record.offset)
        elif self.progress.has(delayed):
            return True
        else:
            self._keep(delayed)
        return False

    def arrived(self, record: ReadRecord, now_ms: int) -> Delayed | bool | None:
        """The record at `next_offset`: returned when it is to be forwarded at once, None when it waits or is none to be
        forwarded, False when it cannot be looked at yet."""
        delayed, cancels = delayed_of(record)
        late = None
        if cancels is not None:
            self._cancel(cancels, record.offset)
        elif not self.progress.has(delayed):
            self._keep(delayed)
        elif delayed.due_ms > now_ms:
            self.blocked_until_ms = delayed.due_ms
            return False
        else:
            late = delayed
        self.passed(record.offset + 1)
        return late

    def passed(self, next_offset: int) -> None:
        """There is nothing more to be looked at below the offset."""
        self.progress = Progress(next_offset, self.progress.due_ms, self.progress.offset)

    def take(self, now_ms: int, count: int) -> Sequence[Delayed]:
        """The first ones that are due; with them the progress goes on."""
        end = min(bisect_left(self._kept, (now_ms + 1,)), count)
        taken, self._kept = self._kept[:end], self._kept[end:]
        for each in taken:
            self._forget_id(each)
        if taken:
            self.cancelled.clear()
            self.progress = Progress(self.progress.next_offset, taken[-1].due_ms, taken[-1].offset)
        return taken

    def _keep(self, delayed: Delayed) -> None:
        if self._beyond is not None and delayed >= self._beyond:
            self._leave_in_log(delayed)
            return
        if delayed.id and delayed.offset < self.cancelled.get(delayed.id, -1):
            return
        insort(self._kept, delayed)
        if delayed.id:
            self._by_id.setdefault(delayed.id, []).append(delayed)
        if len(self._kept) > self._kept_max:
            self._beyond = self._kept.pop()
            self._leave_in_log(self._beyond)
            self._forget_id(self._beyond)

    def _leave_in_log(self, delayed: Delayed) -> None:
        if self._beyond_offset is None or delayed.offset < self._beyond_offset:
            self._beyond_offset = delayed.offset

    def _cancel(self, known: bytes, offset: int) -> None:
        if known in self._by_id:
            self.cancelled[known] = offset
        for each in self._by_id.pop(known, ()):
            del self._kept[bisect_left(self._kept, each)]

    def _forget_id(self, delayed: Delayed) -> None:
        if delayed.id:
            left = self._by_id[delayed.id]
            left.remove(delayed)
            if not left:
                del self._by_id[delayed.id]
