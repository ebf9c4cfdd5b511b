"""Iteration over what a consumer is handed, one record or one list at a time.

Iteration is no generator: it can be left and begun again, or cancelled while it waits, and goes on where it was.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence

from kraft.client.progress import Progress
from kraft.client.records import Record


class AsyncIterated(ABC):
    def __init__(self) -> None:
        self.progress = Progress()

    @abstractmethod
    async def poll(self) -> Sequence[Record] | None:
        """The next list, not empty; None at the end, or once it is closed. What came before is done with by this."""

    def __aiter__(self) -> AsyncIterator[Record]:
        return self

    async def __anext__(self) -> Record:
        while (record := self.progress.next()) is None:
            self.progress.begin(await self.poll_or_stop())
        return record

    def batches(self) -> AsyncIterator[Sequence[Record]]:
        """The same in lists, as the answers brought them: none empty."""
        return _Batches(self)

    async def poll_or_stop(self) -> Sequence[Record]:
        """Raises StopAsyncIteration at the end."""
        records = await self.poll()
        if records is None:
            raise StopAsyncIteration
        return records


class _Batches:
    def __init__(self, source: AsyncIterated) -> None:
        self._source = source

    def __aiter__(self) -> AsyncIterator[Sequence[Record]]:
        return self

    async def __anext__(self) -> Sequence[Record]:
        progress = self._source.progress
        while not (rest := progress.rest()):
            progress.begin(await self._source.poll_or_stop())
        return rest
