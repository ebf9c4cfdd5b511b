"""Operations that wait for an event of a partition: produce requests for replicas, fetches for bytes.

An operation is tried again after each event of one of its keys, and ends at its deadline at the latest.
Invariant: an operation ends exactly once. At most `waiting_max` wait; one more is refused.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, Protocol, TypeVar

from metadata.environment import Clock, TimerHandle

KeyOf = TypeVar("KeyOf", bound=Hashable, contravariant=True)
Key = TypeVar("Key", bound=Hashable)


class Operation(Protocol[KeyOf]):
    def try_complete(self, key: KeyOf, /) -> bool:
        """An event of `key` has happened. True: the operation has ended itself and waits no longer."""
        ...

    def expire(self) -> None:
        """The deadline has passed."""
        ...


class Purgatory(Generic[Key]):
    def __init__(self, clock: Clock, *, waiting_max: int) -> None:
        self._clock = clock
        self._waiting_max = waiting_max
        self._watched: dict[Key, dict[Operation[Key], None]] = {}
        self._of_all: dict[Operation[Key], None] = {}
        """Operations that are tried after each event, whatever its key."""
        self._timers: dict[Operation[Key], tuple[TimerHandle, dict[Key, None]]] = {}

    def __len__(self) -> int:
        return len(self._timers)

    @property
    def is_full(self) -> bool:
        return len(self._timers) >= self._waiting_max

    def watch(self, operation: Operation[Key], keys: Iterable[Key], *, wait_ms: int) -> bool:
        """Wait for events of `keys`. False when too many wait already: the operation is not accepted."""
        if len(self._timers) >= self._waiting_max:
            return False
        watched = dict.fromkeys(keys)
        for key in watched:
            self._watched.setdefault(key, {})[operation] = None
        self._timers[operation] = (self._clock.call_later(wait_ms, self._expire, operation), watched)
        return True

    def watch_all(self, operation: Operation[Key], *, wait_ms: int) -> bool:
        """Wait for events of any key, of which the operation sorts out its own. False as for `watch`."""
        if not self.watch(operation, (), wait_ms=wait_ms):
            return False
        self._of_all[operation] = None
        return True

    def watch_also(self, operation: Operation[Key], key: Key) -> None:
        """Add a key to an operation that waits."""
        waited = self._timers.get(operation)
        if waited is not None:
            waited[1][key] = None
            self._watched.setdefault(key, {})[operation] = None

    def check(self, key: Key) -> None:
        """Try the operations of `key` again after an event."""
        waiting = self._watched.get(key)
        if not waiting and not self._of_all:
            return
        for operation in (*(waiting or ()), *self._of_all):
            if operation in self._timers and operation.try_complete(key):
                self.forget(operation)

    def forget(self, operation: Operation[Key]) -> None:
        """Remove an operation that has ended, or whose client has disconnected."""
        waited = self._timers.pop(operation, None)
        if waited is None:
            return
        timer, keys = waited
        timer.cancel()
        self._of_all.pop(operation, None)
        for key in keys:
            waiting = self._watched[key]
            waiting.pop(operation, None)
            if not waiting:
                del self._watched[key]

    def expire_all(self) -> None:
        """End all operations at shutdown."""
        for operation in tuple(self._timers):
            self._expire(operation)

    def _expire(self, operation: Operation[Key]) -> None:
        if operation in self._timers:
            self.forget(operation)
            operation.expire()
