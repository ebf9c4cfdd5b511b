"""Appends to a partition in the order in which they came, where one of them has to wait for a worker.

A request takes its turns at all of its partitions at once, so of two requests one comes first at every partition that
both write to: nobody waits for one who waits for him.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from metadata.image import TopicIdPartition


class Turns:
    def __init__(self) -> None:
        self._last: dict[TopicIdPartition, Turn] = {}

    def is_taken(self, key: TopicIdPartition) -> bool:
        """Somebody's records are to be appended there before those that come now."""
        return key in self._last

    def take(self, keys: Iterable[TopicIdPartition]) -> dict[TopicIdPartition, Turn]:
        return {key: self._take(key) for key in keys}

    def _take(self, key: TopicIdPartition) -> Turn:
        turn = Turn(self._last.get(key))
        self._last[key] = turn
        turn.over.add_done_callback(lambda _: self._forget(key, turn))
        return turn

    def _forget(self, key: TopicIdPartition, turn: Turn) -> None:
        if self._last.get(key) is turn:
            del self._last[key]


class Turn:
    def __init__(self, before: Turn | None) -> None:
        self._before = before
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """This turn and all before it: one that is given up lets nobody pass those before it."""

    async def comes(self) -> None:
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
