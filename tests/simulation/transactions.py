"""The judge of metadata transactions (KIP-868): it walks the records itself, and looks that no image shows half of one.

What stands between a Begin and its End is in no image before the End, and in none ever after an Abort. A controller
that finds one open aborts it first of all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from metadata.image import MetadataImage
from metadata.records import (
    AbortTransactionRecord,
    BeginTransactionRecord,
    ControllerEpochRecord,
    EndTransactionRecord,
    PartitionRecord,
    Record,
    TopicRecord,
)


@dataclass
class Transactions:
    """The committed history, record by record."""

    fail: Callable[[str], None]
    _open: dict[UUID, int] | None = None
    """Topic -> how many partitions it will have, of the transaction that is open."""
    _is_orphaned: bool = False
    """Another controller has begun since."""
    _void: set[UUID] = field(default_factory=set)
    """Topics of aborted transactions."""

    def take(self, records: Sequence[Record]) -> None:
        for record in records:
            self._take(record)

    def _take(self, record: Record) -> None:
        match record:
            case BeginTransactionRecord():
                if self._open is not None:
                    self.fail(f"{record} within a transaction")
                self._open, self._is_orphaned = {}, False
            case AbortTransactionRecord():
                self._void.update(self._open or ())
                self._open, self._is_orphaned = None, False
            case ControllerEpochRecord():
                self._is_orphaned = self._open is not None
            case _ if self._is_orphaned:
                self.fail(f"{record} was written into the transaction of a controller that is no more")
            case EndTransactionRecord():
                self._open = None
            case TopicRecord() if self._open is not None:
                self._open[record.topic_id] = 0
            case PartitionRecord() if self._open is not None:
                self._open[record.topic_id] = self._open.get(record.topic_id, 0) + 1

    def check(self, image: MetadataImage) -> None:
        """The topics of the newest image; images of other nodes are compared with it."""
        if (image.transaction is not None) != (self._open is not None):
            self.fail(
                f"the transaction of the image at {image.offset} is {image.transaction}, the history has another one"
            )
        shown = [topic_id for topic_id in (self._open or ()) if topic_id in image.topics]
        if shown:
            self.fail(f"the image at {image.offset} shows half of a transaction: {image.topics[shown[0]]}")
        if self._void & image.topics.keys():
            self.fail(f"the image at {image.offset} shows what was aborted: {self._void & image.topics.keys()}")
