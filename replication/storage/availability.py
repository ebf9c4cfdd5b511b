"""Whether a log is usable, and the conversion of its errors. A full disk, or a lack of descriptors, fails one call; any
other error takes the log offline, until the log manager loads it again.

Invariant: an offline log raises KafkaStorageError from every later call; only this log stops, never the node.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from kraft.protocol.errors import CorruptMessage, KafkaError, KafkaStorageError, OutOfDescriptors
from replication.storage.header_scan import DamagedLog

Log = TypeVar("Log")

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})
"""Limits of the process or of the system: nothing is wrong with the log, and the next call may succeed."""
DESCRIPTOR_RETRY_MS = 1_000
"""Wait before a log, a replica or a copy that found no descriptor, or whose log is offline, is tried again."""


class _Guard:
    """A context manager; one made from a generator costs more than the guarded code here."""

    __slots__ = ("_availability", "_changes_nothing", "_doing")

    def __init__(self, availability: Availability[Any], doing: str, *, changes_nothing: bool) -> None:
        self._availability = availability
        self._doing = doing
        self._changes_nothing = changes_nothing

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (OSError, DamagedLog)):
            raise self._availability.failed(error, self._doing, changes_nothing=self._changes_nothing) from error


class Availability(Generic[Log]):
    """The state of a log; `Log` is the whole log, which `on_failure` gets, offline or only full."""

    def __init__(
        self, log: Log, on_failure: Callable[[Log, OSError | None], None], on_damage: Callable[[Log, str], None]
    ) -> None:
        self._log = log
        self._on_failure, self._on_damage = on_failure, on_damage
        self.reason: str | None = None
        """Reason why it is offline; None while it is not."""
        self.is_damaged = False
        """Some content of its files has changed since it was written: the whole log has to be scanned."""
        self.is_retired = False

    def check(self) -> None:
        if self.reason is not None:
            raise KafkaStorageError(f"{self._log} is offline: {self.reason}")

    def take_offline(self, reason: str) -> None:
        if self.reason is None:
            self.reason = reason
            self._on_failure(self._log, None)

    def retire(self, reason: str) -> None:
        """The partition is being deleted: late callers get an error, and no failure is reported."""
        self.reason = reason
        self.is_retired = True

    def guard(self, doing: str, *, changes_nothing: bool = False) -> _Guard:
        """Errors of the disk in this block are failures of this log."""
        return _Guard(self, doing, changes_nothing=changes_nothing)

    def damaged(self, error: DamagedLog) -> KafkaError:
        """Damaged bytes are never returned (Kafka: CORRUPT_MESSAGE). The log manager decides about the rest: the log
        goes offline and is repaired from another replica when there is one."""
        self.met_damage(str(error))
        return CorruptMessage(f"{self._log} is damaged: {error}")

    def met_damage(self, reason: str) -> None:
        if self.reason is None:
            self._on_damage(self._log, reason)
            self.is_damaged = True

    def failed(self, error: OSError | DamagedLog, doing: str, *, changes_nothing: bool = False) -> KafkaError:
        """`changes_nothing`: the failed call has left the log unchanged, so a lack of descriptors is no reason to
        stop."""
        message = f"{self._log}: {doing} failed: {error}"
        if changes_nothing and isinstance(error, OSError) and error.errno in OUT_OF_DESCRIPTORS:
            return OutOfDescriptors(message)
        is_full = isinstance(error, OSError) and error.errno in _DISK_FULL
        self.is_damaged |= isinstance(error, DamagedLog)
        if self.reason is None:
            self.reason = None if is_full else message
            self._on_failure(self._log, error if isinstance(error, OSError) else None)
        return KafkaStorageError(message)
