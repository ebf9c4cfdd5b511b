"""`<data>/events.jsonl`: the events of this node, one JSON object per line.

Each line has `at_ms` (wall clock), `monotonic_us`, `node_id`, `sequence` and `event`, then the event's own fields.
A file that would exceed its limit is first renamed to `events.jsonl.1`, which replaces the previous one: two files at
most. Events are for people; a full disk loses them and nothing else, and the sequence shows the gap.

`EventRing` keeps the newest lines of all logs of a process in memory too, so that a node answers what has happened
without reading its disk, also when that is full. A restart empties it; the files stay.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from metadata.environment import Environment, File
from metadata.watchdog import Lock, NoLock

EVENTS_FILE: Final = "events.jsonl"
ROTATED_FILE: Final = f"{EVENTS_FILE}.1"
EVENTS_BYTES_MAX: Final = 16 * 1024 * 1024
"""Size of one file; two are kept."""
EVENT_BYTES_MAX: Final = 64 * 1024
"""A longer event is replaced by a note with its name and length."""

_ENCODER: Final = json.JSONEncoder(default=str, allow_nan=False)
"""`default=str`: an unexpected value is still readable."""

OVERHEAD_BYTES: Final = 200
"""What Python needs for an event in memory beside its line."""


class KeptEvent(NamedTuple):
    """An event in memory, with what readers choose by."""

    position: int
    event: str
    topic: str
    partition: int
    """-1: of no partition."""
    line: bytes
    """The same as in the file, with the end of the line."""

    def fields(self) -> dict[str, Any]:
        """The line decoded, with text that is no Unicode made so."""
        found: dict[str, Any] = json.loads(self.line)
        if b"\\ud" in self.line:  # perhaps half of a surrogate pair: of the name of a file that is no UTF-8
            found = json.loads(json.dumps(found, ensure_ascii=False).encode(errors="replace"))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    """A part of a ring, in the order in which the events happened."""

    events: Sequence[KeptEvent]
    next: int
    """The position from which the next read has to go on."""
    forgotten: int
    """Events between the wanted position and the first that the ring still has, whatever they were about."""


class EventRing:
    """The newest events of one process: together at most `bytes_max` bytes, the oldest go first. `bytes_max` 0 keeps
    none. Positions count from 0 and belong to this ring alone: another process begins again. A caller that adds
    holds the lock."""

    def __init__(self, bytes_max: Callable[[], int], *, lock: Lock | None = None) -> None:
        self.lock: Lock = lock or NoLock()
        self._bytes_max = bytes_max
        self._kept: deque[KeptEvent] = deque()
        self._next = 0
        self.bytes = 0

    def add(self, event: str, fields: Mapping[str, object], line: bytes) -> None:
        topic, partition = subject_of(fields)
        self._kept.append(KeptEvent(self._next, event, topic, partition, line))
        self._next += 1
        self.bytes += len(line) + OVERHEAD_BYTES
        bytes_max = self._bytes_max()
        while self._kept and self.bytes > bytes_max:
            self.bytes -= len(self._kept.popleft().line) + OVERHEAD_BYTES

    def read(
        self,
        *,
        since: int | None = None,
        limit: int,
        topic: str | None = None,
        partition: int | None = None,
        events: Collection[str] = (),
    ) -> EventPage:
        """The first `limit` events from position `since` on; without `since` the newest ones. A position that this
        ring has not reached is one of another process, and is read from the beginning. `topic`, `partition` and
        `events` choose; empty or None is everything."""
        self.lock.acquire()
        try:
            kept, end = list(self._kept), self._next
        finally:
            self.lock.release()
        first = kept[0].position if kept else end
        start = 0 if since is None or since > end else since
        found = [
            each
            for each in kept[max(0, start - first) :]
            if (topic is None or each.topic == topic)
            and (partition is None or each.partition == partition)
            and (not events or each.event in events)
        ]
        if since is None:
            return EventPage(events=found[max(0, len(found) - limit) :], next=end, forgotten=first)
        is_cut = len(found) > limit
        chosen = found[:limit]
        following = (chosen[-1].position + 1 if chosen else start) if is_cut else end
        return EventPage(events=chosen, next=following, forgotten=max(0, first - start))


def subject_of(fields: Mapping[str, object]) -> tuple[str, int]:
    """Topic and partition that an event is about. Some name both in one field: `partition="flights-0"`."""
    topic, partition = fields.get("topic"), fields.get("partition")
    if isinstance(partition, str) and topic is None:
        topic, _, partition = partition.rpartition("-")
        partition = int(partition) if partition.isdecimal() else -1
    return (
        topic if isinstance(topic, str) else "",
        partition if isinstance(partition, int) and not isinstance(partition, bool) else -1,
    )


class EventLog:
    """Implements `metadata.events.Events`. One owner: the node's event loop; except for `emit_beside`."""

    def __init__(
        self,
        environment: Environment,
        *,
        data: str,
        node_id: int,
        ring: EventRing | None = None,
        bytes_max: int = EVENTS_BYTES_MAX,
        name: str = EVENTS_FILE,
    ) -> None:
        """`ring` keeps the events in memory too; several logs may share it, and its lock."""
        self._environment = environment
        self.ring = ring or EventRing(lambda: 0)
        self._lock = self.ring.lock
        self._path = f"{data}/{name}"
        self._rotated_path = f"{data}/{name}.1"
        self._data = data
        self._node_id = node_id
        self._bytes_max = bytes_max
        self._sequence = 0
        self._file: File | None = None
        self.lost = 0
        """Number of events that could not be written."""

    def emit(self, event: str, /, **fields: object) -> None:
        """Write an event. Never raises."""
        self._lock.acquire()
        try:
            self._emit(event, fields)
        finally:
            self._lock.release()

    def emit_beside(self, event: str, fields: dict[str, object]) -> bool:
        """Write an event from another thread, which never waits for the owner: False, with nothing done, while that
        writes."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            self._emit(event, fields)
        finally:
            self._lock.release()
        return True

    def _emit(self, event: str, fields: dict[str, object]) -> None:
        line = self._line(event, fields)
        self._sequence += 1
        self.ring.add(event, fields, line)
        try:
            self._open_for(len(line)).append([line])
        except OSError:
            self.lost += 1
            self._drop_file()

    def close(self) -> None:
        self._drop_file()

    def _line(self, event: str, fields: dict[str, object]) -> bytes:
        clock = self._environment.clock
        head = {
            "at_ms": clock.wall_ms(),
            "monotonic_us": clock.monotonic_us(),
            "node_id": self._node_id,
            "sequence": self._sequence,
            "event": event,
        }
        # The head wins: a field may not replace the event's name.
        try:
            line = _ENCODER.encode(fields | head).encode() + b"\n"
        except (TypeError, ValueError) as error:
            return json.dumps(head | {"unreadable": str(error)}).encode() + b"\n"
        if len(line) > EVENT_BYTES_MAX:
            return json.dumps(head | {"bytes": len(line)}).encode() + b"\n"
        return line

    def _open_for(self, line_bytes: int) -> File:
        files = self._environment.files
        if self._file is not None and self._file.size + line_bytes > self._bytes_max:
            self._drop_file()
            files.rename(self._path, self._rotated_path)
        if self._file is None:
            files.make_directories(self._data)
            self._file = files.open(self._path, create=True)
        return self._file

    def _drop_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
