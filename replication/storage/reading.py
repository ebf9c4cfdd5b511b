"""How a partition's log is read: from the tail in memory, by one read of the file, or by a search.

Invariant: bytes that come from a file are handed out only when they are what was appended (CRC, magic, offsets that
follow each other, the leader epochs of the log). Damage that is met is told to the availability of the log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from kraft.protocol.batches.looking import Looking
from kraft.protocol.errors import KafkaError
from replication.partition.log import AbortedTransaction, LogRead, TimestampedOffset
from replication.storage import lookups
from replication.storage.availability import Availability
from replication.storage.epochs import LeaderEpochCache
from replication.storage.indexes import CorruptIndex
from replication.storage.scanning import DamagedLog
from replication.storage.segments import Segments
from replication.storage.tail import Tail

T = TypeVar("T")


class LogReader:
    def __init__(
        self, segments: Segments, tail: Tail, epochs: LeaderEpochCache, availability: Availability[Any]
    ) -> None:
        self._segments = segments
        self._tail = tail
        self._epochs = epochs
        self._availability = availability

    def read(self, offset: int, *, bytes_max: int, upper_bound: int, log_end: int, at_least_one_batch: bool) -> LogRead:
        """From memory, by one read of the file, or by a search; the caller has asked whether the log can be used.
        Raises CorruptMessage or KafkaStorageError."""
        found = self._tail.read(offset, bytes_max=bytes_max, bound=upper_bound)
        if found is not None:
            return found
        try:
            start, size = self._tail.extent(offset, upper_bound)
            if start is not None and 0 < size <= bytes_max:
                return self._read_piece(start, size, offset=offset, upper_bound=upper_bound, log_end=log_end)
            wanted = lookups.Wanted(
                offset=offset,
                bytes_max=bytes_max,
                upper_bound=upper_bound,
                log_end=log_end,
                at_least_one_batch=at_least_one_batch,
                epoch_of=self._epochs.epoch_of,
                on_bad_index=self._availability.met_damage,
            )
            return lookups.read(self._segments.from_offset(offset), wanted, start=start)
        except (DamagedLog, OSError) as error:
            raise self._met(error, "reading") from error

    def _read_piece(self, start: int, size: int, *, offset: int, upper_bound: int, log_end: int) -> LogRead:
        """Whole batches of the active segment, whose place there is known."""
        active = self._segments.active
        data = active.log.pread(start, size)
        lookups.check(active, data, position=start, expected=offset, limit=log_end, epoch_of=self._epochs.epoch_of)
        return LogRead(data=data, next_offset=upper_bound)

    def offset_for_timestamp(self, timestamp_ms: int, bounds: range, looking: Looking) -> TimestampedOffset | None:
        return self._try(
            lambda: lookups.offset_for_timestamp(self._segments, timestamp_ms, bounds, looking),
            "looking up a timestamp",
        )

    def max_timestamp(self, bounds: range, looking: Looking) -> TimestampedOffset | None:
        return self._try(lambda: lookups.max_timestamp(self._segments, bounds, looking), "looking up a timestamp")

    def aborted_transactions(self, start: int, stop: int) -> list[AbortedTransaction]:
        """Those with offsets in the range, ascending by their first one."""

        def search() -> list[AbortedTransaction]:
            try:
                found = [
                    each
                    for segment in self._segments.from_offset(start)
                    for each in segment.transactions.overlapping(start, stop)
                ]
            except CorruptIndex as error:
                raise DamagedLog(str(error)) from error
            return sorted(found, key=lambda each: each.first_offset)

        return self._try(search, "looking for aborted transactions")

    def _try(self, search: Callable[[], T], doing: str) -> T:
        self._availability.check()
        try:
            return search()
        except (DamagedLog, OSError) as error:
            raise self._met(error, doing) from error

    def _met(self, error: DamagedLog | OSError, doing: str) -> KafkaError:
        if isinstance(error, DamagedLog):
            return self._availability.damaged(error)
        return self._availability.failed(error, doing, changes_nothing=True)
