"""Iteration over what a consumer is handed, one record or one list at a time.

Iteration is no generator: it can be left and begun again, or cancelled while it waits, and goes on where it was.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence

from kraft.client.positions import TopicPartition
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


class Progress:
    def __init__(self) -> None:
        self._settled: dict[TopicPartition, int] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._batch: Sequence[Record] = ()
        self.handed = 0
        """Records of the batch that were handed out."""
        self.finished = 0
        """Records of the batch whose processing is over: the next one was asked for."""

    def begin(self, batch: Sequence[Record]) -> None:
        """With a new batch; the application is done with the one before."""
        self._settled = self.positions(with_current=False)
        self._batch, self.handed, self.finished = batch, 0, 0

    def next(self) -> Record | None:
        """The next record of the batch, by which the one before is done with; None when there is no more."""
        self.finished = self.handed
        if self.handed == len(self._batch):
            return None
        self.handed += 1
        return self._batch[self.handed - 1]

    def rest(self) -> Sequence[Record]:
        """All that is left of the batch, in the same way."""
        self.finished = self.handed
        self.handed = len(self._batch)
        return self._batch[self.finished :]

    def positions(self, *, with_current: bool) -> dict[TopicPartition, int]:
        """Behind the last record that is done with, or that was handed out; by partition, where not yet committed."""
        found = dict(self._settled)
        for record in self._batch[: self.handed if with_current else self.finished]:
            found[TopicPartition(record.topic, record.partition)] = record.offset + 1
        return {where: offset for where, offset in found.items() if self._committed.get(where) != offset}

    def committed(self, positions: Mapping[TopicPartition, int]) -> None:
        """These need no commit any more."""
        self._committed.update(positions)

    def left(self, *, with_current: bool) -> dict[TopicPartition, int]:
        """Where to go on in the partitions of the batch at hand, if some of it is left; empty otherwise."""
        count = self.handed if with_current else self.finished
        found: dict[TopicPartition, int] = {}
        if count < len(self._batch):
            for number, record in enumerate(self._batch):
                where = TopicPartition(record.topic, record.partition)
                if number < count:
                    found[where] = record.offset + 1
                else:
                    found.setdefault(where, record.offset)
        return found

    def forget(self) -> None:
        """What was settled is committed, or comes again. Not while a batch is at hand."""
        self._settled = {}
        self._batch, self.handed, self.finished = (), 0, 0
