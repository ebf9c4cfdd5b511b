"""Offsets of one group that were committed in transactions that are still open (KIP-98, KIP-447). Pure.

A transaction's offsets count when its marker commits it, and stand then where their own records stand in the log: a
commit that was recorded later, of any producer, is the newer one, whichever marker comes last. For that is all that a
compaction leaves of two records with one key. Until the marker the partition is unstable, also where another commit
has overtaken what is pending. Source: OffsetMetadataManager.
"""

from __future__ import annotations

from collections.abc import Iterator

from kraft.coordinators.groups.records import CommittedOffset
from kraft.protocol.primitives import TopicPartition


class PendingOffsets:
    def __init__(self) -> None:
        self._of: dict[TopicPartition, dict[int, CommittedOffset | None]] = {}
        """Offsets of each producer, in the order of their records; None for one that a later record has overtaken."""
        self._by_producer: dict[int, dict[TopicPartition, None]] = {}

    def __len__(self) -> int:
        """Partitions with pending offsets."""
        return len(self._of)

    def __contains__(self, partition: object) -> bool:
        return partition in self._of

    def __iter__(self) -> Iterator[TopicPartition]:
        return iter(self._of)

    def put(self, producer_id: int, partition: TopicPartition, offset: CommittedOffset) -> None:
        rows = self._of.setdefault(partition, {})
        rows.pop(producer_id, None)
        rows[producer_id] = offset
        self._by_producer.setdefault(producer_id, {})[partition] = None

    def overtake(self, partition: TopicPartition) -> None:
        """A commit outside of transactions stands behind them now."""
        rows = self._of.get(partition)
        if rows is not None:
            self._of[partition] = dict.fromkeys(rows)

    def remove(self, partition: TopicPartition) -> None:
        """The offset was deleted, with what is pending."""
        for producer_id in self._of.pop(partition, ()):
            left = self._by_producer[producer_id]
            del left[partition]
            if not left:
                del self._by_producer[producer_id]

    def end(self, producer_id: int, *, is_commit: bool) -> dict[TopicPartition, CommittedOffset]:
        """A marker: what counts from now on."""
        committed = {}
        for partition in self._by_producer.pop(producer_id, ()):
            rows = self._of[partition]
            offset = rows[producer_id]
            if is_commit and offset is not None:
                committed[partition] = offset
                for before in rows:
                    if before == producer_id:
                        break
                    rows[before] = None
            del rows[producer_id]
            if not rows:
                del self._of[partition]
        return committed
