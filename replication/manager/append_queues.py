"""Appends in the order in which their requests arrived, where one of them has to wait: for a worker thread, by
partition, or for a transaction coordinator, by producer id and partition.

A request takes its places in all lines at once, so of two requests the same one is first at every partition that both
write to, and no two requests wait for each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class AppendQueues(Generic[Key]):
    def __init__(self) -> None:
        self._last: dict[Key, Place] = {}

    def __len__(self) -> int:
        """Number of keys at which a request is in line."""
        return len(self._last)

    def has_waiting(self, key: Key) -> bool:
        """A request is in line there, and its records are to be appended before later ones."""
        return key in self._last

    def join(self, keys: Iterable[Key]) -> dict[Key, Place]:
        return {key: self._join(key) for key in keys}

    def _join(self, key: Key) -> Place:
        place = Place(self._last.get(key))
        self._last[key] = place
        place.over.add_done_callback(lambda _: self._forget(key, place))
        return place

    def _forget(self, key: Key, place: Place) -> None:
        if self._last.get(key) is place:
            del self._last[key]


class Place:
    def __init__(self, before: Place | None) -> None:
        self._before = before
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when this request and all before it are done: a cancelled one does not let later ones pass those before
        it."""

    async def wait(self) -> None:
        if self._before is not None:
            await asyncio.wait((self._before.over,))
            self._before = None

    def end(self) -> None:
        if self._before is None or self._before.over.done():
            self._end()
        else:
            self._before.over.add_done_callback(lambda _: self._end())

    def _end(self) -> None:
        self._before = None
        if not self.over.done():
            self.over.set_result(None)
