"""How far an application has come with what it was handed: the one record of the consumer's state that it moves. Pure.

Counting is by index into the batch at hand, so that a record costs no look-up; positions are worked out when asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kraft.client.positions import TopicPartition
from kraft.client.records import Record


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
