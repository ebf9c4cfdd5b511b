"""`<data>/events.jsonl`: the events of this node, one JSON object per line.

Each line has `at_ms` (wall clock), `monotonic_us`, `node_id`, `sequence` and `event`, then the event's own fields.
A file that would exceed its limit is first renamed to `events.jsonl.1`, which replaces the previous one: two files at
most. Events are for people; a full disk loses them and nothing else, and the sequence shows the gap.
"""

from __future__ import annotations

import json
from typing import Final

from metadata.environment import Environment, File
from metadata.watchdog import Lock, NoLock

EVENTS_FILE: Final = "events.jsonl"
ROTATED_FILE: Final = f"{EVENTS_FILE}.1"
EVENTS_BYTES_MAX: Final = 16 * 1024 * 1024
"""Size of one file; two are kept."""
EVENT_BYTES_MAX: Final = 64 * 1024
"""A longer event is replaced by a note with its name and length."""

_ENCODER: Final = json.JSONEncoder(default=str)
"""`default=str`: an unexpected value is still readable."""


class EventLog:
    """Implements `metadata.events.Events`. One owner: the node's event loop; except for `emit_beside`."""

    def __init__(
        self,
        environment: Environment,
        *,
        data: str,
        node_id: int,
        lock: Lock | None = None,
        bytes_max: int = EVENTS_BYTES_MAX,
        name: str = EVENTS_FILE,
    ) -> None:
        self._environment = environment
        self._lock = lock or NoLock()
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
