"""A partition's state of each producer: its epoch, its last batches (D1 to D5), its open transaction. Pure.

A leader calls `check` before it appends; leader, follower and replay call `update` after an append, which never
refuses. So the state is a function of the log below its end, and survives a failover (D6). Invariant: producers are in
the order of their last batches in the log; no more than the limits allow are kept, and the one that was silent for
longest is removed first, but none with an open transaction. Allocated and reserved ids have separate limits.

A transaction is open from its first batch to its marker, and unstable until its marker is below the high watermark
(T7): the first offset of the oldest unstable one is the limit of read_committed consumers. Before a client's first
batch the coordinator is asked whether the partition is in its transaction (T10); the pending queries are soft state of
the leader, as in Kafka.
Source: org.apache.kafka.storage.internals.log.ProducerStateManager, ProducerAppendInfo.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain

from kraft.protocol.batches.header import NO_SEQUENCE, TRANSACTIONAL, BatchHeader
from kraft.protocol.batches.markers import Marker
from kraft.protocol.errors import (
    InvalidProducerEpoch,
    InvalidTxnState,
    OutOfOrderSequenceNumber,
    PolicyViolation,
    ThrottlingQuotaExceeded,
    TransactionCoordinatorFenced,
)
from kraft.values import value
from metadata.producer_ids import is_reserved
from metadata.settings import BrokerSettings
from replication.producers.origin import CLIENT, MARKER_ABOVE_EPOCH, Origin, Verification

BATCHES_KEPT = 5
"""D2: ProducerStateEntry.NUM_BATCHES_TO_RETAIN, the most that a producer has in flight."""
SEQUENCE_MAX = 2**31 - 1
NO_OFFSET = -1
NO_COORDINATOR_EPOCH = -1


@value()
class ProducerBatch:
    """One batch, with the fields of its producer. The timestamp is the batch's largest, in ms."""

    last_sequence: int
    last_offset: int
    offset_delta: int
    timestamp: int

    @property
    def first_sequence(self) -> int:
        if self.last_sequence < self.offset_delta:
            return SEQUENCE_MAX - (self.offset_delta - self.last_sequence) + 1
        return self.last_sequence - self.offset_delta

    @property
    def first_offset(self) -> int:
        return self.last_offset - self.offset_delta


@value()
class Producer:
    """Kafka's ProducerStateEntry, replaced as a whole at each change."""

    epoch: int
    batches: tuple[ProducerBatch, ...]
    """The last `BATCHES_KEPT` of this epoch, oldest first; empty after a control batch of a new epoch."""
    timestamp: int
    """Timestamp of the last batch, from its producer: a snapshot keeps it."""
    seen_ms: int
    """Time at which this replica appended it; -1 after a replay. A producer of old records is not a silent producer."""
    coordinator_epoch: int = NO_COORDINATOR_EPOCH
    """Coordinator epoch of the last marker."""
    current_txn_first_offset: int = NO_OFFSET
    """First offset of the open transaction; -1 for none."""

    @property
    def has_open_transaction(self) -> bool:
        return self.current_txn_first_offset >= 0

    @property
    def last_sequence(self) -> int:
        return self.batches[-1].last_sequence if self.batches else NO_SEQUENCE

    @property
    def last_offset(self) -> int:
        return self.batches[-1].last_offset if self.batches else NO_OFFSET


@dataclass(frozen=True, slots=True)
class EndedTransaction:
    """A transaction with records in this partition, whose marker has been appended."""

    producer_id: int
    first_offset: int
    last_offset: int
    """Offset of the marker."""
    is_aborted: bool
    last_stable_offset: int
    """Everything below it was decided when the marker was appended: no transaction that ends later begins there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerLimits:
    expiration_ms: int
    """producer.id.expiration.ms"""
    allocated_max: int
    """producer.id.max.per.partition: also the most transactions that may be open in one partition."""
    reserved_max: int
    """rest.idempotency.max.keys.per.partition"""
    aborted_max: int
    """transaction.aborted.max.per.partition"""

    @classmethod
    def of(cls, settings: BrokerSettings) -> ProducerLimits:
        return cls(
            expiration_ms=settings.producer_id_expiration_ms,
            allocated_max=settings.producer_id_max_per_partition,
            reserved_max=settings.rest_idempotency_max_keys_per_partition,
            aborted_max=settings.transaction_aborted_max_per_partition,
        )


class ProducerStates:
    def __init__(self) -> None:
        self._allocated: dict[int, Producer] = {}
        self._reserved: dict[int, Producer] = {}
        self._open: dict[int, int] = {}
        """First offset of each open transaction, ascending -> its start time: the time of this replica's append, or the
        batch's timestamp after a replay."""
        self._ended: deque[tuple[int, int]] = deque()
        """Marker and first offset of transactions whose marker may be above the high watermark. Both ascend: a later
        marker with an earlier first offset holds back the last stable offset for longer, and makes older entries
        superfluous."""
        self._verifications: dict[int, Verification] = {}
        """Verifications of producers that may begin a transaction here, in the order of their requests."""
        self._changed_at = NO_OFFSET
        """The last offset of the newest batch or marker that changed any producer."""

    def __len__(self) -> int:
        return len(self._allocated) + len(self._reserved)

    def get(self, producer_id: int) -> Producer | None:
        return self._of(producer_id).get(producer_id)

    def items(self) -> list[tuple[int, Producer]]:
        """All producers, each kind in the order of its last batches; `put` in this order restores the same state."""
        return list(chain(self._allocated.items(), self._reserved.items()))

    @property
    def last_offset(self) -> int:
        """Offset of the newest batch or marker that any producer here has written; -1 for none."""
        return self._changed_at

    @property
    def open_transactions(self) -> int:
        return len(self._open)

    @property
    def has_unstable(self) -> bool:
        """Whether a transaction is unstable: a cheap check, which may be true for a moment too long."""
        return bool(self._open or self._ended)

    @property
    def open_since_ms(self) -> int | None:
        """Start time of the oldest open transaction; None for none."""
        return next(iter(self._open.values()), None)

    def first_unstable_offset(self, high_watermark: int) -> int | None:
        """First offset of the oldest transaction that is open, or whose marker is not below the high watermark; None
        for none."""
        ended = self._ended
        while ended and ended[0][0] < high_watermark:
            ended.popleft()
        oldest = next(iter(self._open), None)
        if ended and (oldest is None or ended[0][1] < oldest):
            return ended[0][1]
        return oldest

    def last_offsets(self) -> frozenset[int]:
        """Last offset of the last batch of every producer that may still return: a compaction keeps these (D9)."""
        return frozenset(
            each.batches[-1].last_offset
            for each in chain(self._allocated.values(), self._reserved.values())
            if each.batches
        )

    def last_epochs(self) -> frozenset[tuple[int, int]]:
        """Id and epoch of the producers whose last batch is a marker: a compaction keeps that marker."""
        return frozenset(
            (producer_id, each.epoch)
            for producer_id, each in chain(self._allocated.items(), self._reserved.items())
            if not each.batches
        )

    # --- checks of a leader -----------------------------------------------------------------------------------------

    def check(self, producer_id: int, header: BatchHeader, origin: Origin = CLIENT) -> ProducerBatch | None:
        """The batch that was appended before with the same sequence numbers (D2); None: append it. A coordinator's
        batch has no sequence, and only its epoch is checked.

        Raises OutOfOrderSequenceNumber 45 (D1, D3, D4), InvalidProducerEpoch 47 (D4), InvalidTxnState 48 (T9, T10).
        """
        known = self._of(producer_id).get(producer_id)
        is_to_verify = header.attributes & TRANSACTIONAL and not origin.is_coordinator
        if known is None:
            if is_to_verify:
                self._check_verified(known, header, origin)
            return None  # D5
        _check_epoch(producer_id, known, header.producer_epoch)
        if header.base_sequence != NO_SEQUENCE:
            duplicate = _find_duplicate(known, header) if header.producer_epoch == known.epoch else None
            if duplicate is not None:
                if is_to_verify:
                    self._check_not_of_ended(known, header, origin)
                return duplicate
            if is_to_verify:
                self._check_verified(known, header, origin)
            if header.producer_epoch > known.epoch:
                _check_new_epoch(producer_id, known, header)
            else:
                _check_sequence(producer_id, known, header)
        if known.current_txn_first_offset >= 0 and not header.attributes & TRANSACTIONAL:
            raise InvalidTxnState(
                f"producer {producer_id} has an open transaction here, since offset "
                f"{known.current_txn_first_offset}; a batch outside of it waits until it has ended"
            )
        return None

    def has_open_transaction(self, producer_id: int) -> bool:
        known = self._of(producer_id).get(producer_id)
        return known is not None and known.has_open_transaction

    def check_room(self, limits: ProducerLimits, *, aborted: int | None) -> None:
        """Check the limits before the first batch of a transaction. `aborted`: number of aborted transactions that the
        log keeps, to which the open ones may be added; None where they do not count.

        Raises PolicyViolation 44 when the log keeps as many aborted ones as it may, and ThrottlingQuotaExceeded 89 when
        it would if the open ones were aborted, or when as many are open as may be."""
        opened = len(self._open)
        if aborted is not None and aborted >= limits.aborted_max:
            raise PolicyViolation(
                f"this partition keeps {aborted} aborted transactions; transaction.aborted.max.per.partition allows "
                f"{limits.aborted_max}: let retention or DeleteRecords remove whole segments, or raise it"
            )
        if aborted is not None and aborted + opened >= limits.aborted_max:
            raise ThrottlingQuotaExceeded(
                f"this partition keeps {aborted} aborted transactions and {opened} are open; "
                f"transaction.aborted.max.per.partition allows {limits.aborted_max}"
            )
        if opened >= limits.allocated_max:
            raise ThrottlingQuotaExceeded(
                f"{opened} transactions are open in this partition; "
                f"producer.id.max.per.partition allows {limits.allocated_max}"
            )

    def check_marker(self, header: BatchHeader, marker: Marker, *, transaction_version: int = 0) -> None:
        """Check a marker. Raises InvalidProducerEpoch 47 and TransactionCoordinatorFenced 52 (T6)."""
        check_marker(
            header.producer_id,
            self.get(header.producer_id),
            epoch=header.producer_epoch,
            marker=marker,
            transaction_version=transaction_version,
        )

    # --- before the first batch of a transaction (KIP-890) ----------------------------------------------------------

    def begin_verification(
        self,
        producer_id: int,
        *,
        epoch: int,
        sequence: int,
        raises_epoch: bool,
        limits: ProducerLimits,
        now_ms: int,
    ) -> Verification | None:
        """The guard of the next append, for use after the coordinator has confirmed; None where the transaction is
        already open. When there are as many guards as transactions may be open, the oldest is removed: its append is
        refused. Raises InvalidProducerEpoch 47."""
        if self.is_open(producer_id, epoch=epoch):
            return None
        found = self._verifications.get(producer_id)
        if found is not None:
            found.asked_again(epoch=epoch, sequence=sequence)
            return found
        while len(self._verifications) >= limits.allocated_max:
            del self._verifications[next(iter(self._verifications))]
        found = Verification(epoch=epoch, lowest_sequence=sequence, raises_epoch=raises_epoch, begun_ms=now_ms)
        self._verifications[producer_id] = found
        return found

    def is_open(self, producer_id: int, *, epoch: int) -> bool:
        """Whether a transaction of this epoch is open here. Raises InvalidProducerEpoch 47."""
        known = self._of(producer_id).get(producer_id)
        if known is None:
            return False
        _check_epoch(producer_id, known, epoch)
        return known.has_open_transaction and known.epoch == epoch

    def verification(self, producer_id: int) -> Verification | None:
        return self._verifications.get(producer_id)

    @property
    def verifications(self) -> int:
        return len(self._verifications)

    def _check_verified(self, known: Producer | None, header: BatchHeader, origin: Origin) -> None:
        """Check the guard of a batch. Raises InvalidTxnState 48, OutOfOrderSequenceNumber 45."""
        producer_id = header.producer_id
        if known is not None and known.has_open_transaction and known.epoch == header.producer_epoch:
            return
        asked = self._verifications.get(producer_id)
        if asked is None or asked is not origin.verification:
            raise InvalidTxnState(f"a batch of producer {producer_id} is not part of an ongoing transaction")
        sequence = header.base_sequence
        if asked.raises_epoch and known is None and sequence != 0:
            raise OutOfOrderSequenceNumber(
                f"producer {producer_id} is not known here and begins at sequence {sequence}; an epoch begins at 0"
            )
        if header.producer_epoch == asked.epoch and sequence > asked.lowest_sequence:
            raise OutOfOrderSequenceNumber(
                f"producer {producer_id} sent sequence {sequence}; {asked.lowest_sequence} must be first and is not "
                "in the log"
            )

    def _check_not_of_ended(self, known: Producer, header: BatchHeader, origin: Origin) -> None:
        """Check a repeated batch that would begin a transaction. Its original belongs to one that has ended, so an
        answer of success would lose it. librdkafka sends such after it has given up records on an abort that it had
        sent. Kafka answers with the original. Raises InvalidTxnState 48."""
        guard = origin.verification
        if known.has_open_transaction or guard is None or self._verifications.get(header.producer_id) is not guard:
            return
        raise InvalidTxnState(
            f"sequences {header.base_sequence} to {last_sequence_of(header)} of producer {header.producer_id} are of "
            "a transaction that has ended: begin an epoch (InitProducerId) after an abort of records that were sent"
        )

    # --- updates from the log ---------------------------------------------------------------------------------------

    def update(self, header: BatchHeader, limits: ProducerLimits, *, seen_ms: int = -1) -> None:
        """Record that a data batch with a producer id is in the log. Its base offset and timestamps are those of the
        log."""
        producer_id = header.producer_id
        producers = self._of(producer_id)
        known = producers.pop(producer_id, None)
        kept = known.batches if known is not None and known.epoch == header.producer_epoch else ()
        first_offset = NO_OFFSET if known is None else known.current_txn_first_offset
        if header.attributes & TRANSACTIONAL:
            if first_offset < 0:
                first_offset = header.base_offset
                self._open[first_offset] = seen_ms if seen_ms >= 0 else header.max_timestamp
            self._verifications.pop(producer_id, None)
        batch = _batch_of(header)
        producers[producer_id] = Producer(
            header.producer_epoch,
            (*kept[-(BATCHES_KEPT - 1) :], batch),
            header.max_timestamp,
            seen_ms,
            NO_COORDINATOR_EPOCH if known is None else known.coordinator_epoch,
            first_offset,
        )
        self._changed_at = batch.last_offset
        if known is None:
            self._bound(producers, limits)

    def end_transaction(
        self,
        header: BatchHeader,
        marker: Marker,
        limits: ProducerLimits,
        *,
        high_watermark: int = NO_OFFSET,
        seen_ms: int = -1,
    ) -> EndedTransaction | None:
        """Record that a marker is in the log. None when the producer had no open transaction here."""
        producer_id = header.producer_id
        producers = self._of(producer_id)
        known = producers.pop(producer_id, None)
        producers[producer_id] = Producer(
            epoch=header.producer_epoch,
            batches=known.batches if known is not None and known.epoch == header.producer_epoch else (),
            timestamp=header.max_timestamp,
            seen_ms=seen_ms,
            coordinator_epoch=marker.coordinator_epoch,
        )
        self._changed_at = header.last_offset
        self._verifications.pop(producer_id, None)
        if known is None:
            self._bound(producers, limits)
        if known is None or not known.has_open_transaction:
            return None
        first_offset, last_offset = known.current_txn_first_offset, header.last_offset
        del self._open[first_offset]
        self.first_unstable_offset(high_watermark)
        while self._ended and self._ended[-1][1] >= first_offset:
            self._ended.pop()
        self._ended.append((last_offset, first_offset))
        return EndedTransaction(
            producer_id=producer_id,
            first_offset=first_offset,
            last_offset=last_offset,
            is_aborted=not marker.is_commit,
            last_stable_offset=next(iter(self._open), last_offset + 1),
        )

    def put(self, producers: Iterable[tuple[int, Producer]], *, end_offset: int) -> None:
        """Restore the state of a snapshot of the log below `end_offset`."""
        first_offsets: list[tuple[int, int]] = []
        for producer_id, producer in producers:
            self._of(producer_id)[producer_id] = producer
            if producer.has_open_transaction:
                first_offsets.append((producer.current_txn_first_offset, producer.timestamp))
            has_marker = producer.coordinator_epoch != NO_COORDINATOR_EPOCH  # a snapshot does not have its offset
            self._changed_at = max(self._changed_at, end_offset - 1 if has_marker else producer.last_offset)
        self._open = dict(sorted(first_offsets))

    def remember_seen(self, before: ProducerStates) -> None:
        """Keep the times at which these producers were seen: a replay does not know when batches arrived."""
        for producers in (self._allocated, self._reserved):
            for producer_id, producer in producers.items():
                known = before.get(producer_id)
                if known is not None:
                    producers[producer_id] = replace(producer, seen_ms=known.seen_ms)
        for first_offset in self._open:
            self._open[first_offset] = before._open.get(first_offset, self._open[first_offset])

    def clear(self) -> None:
        self._allocated.clear()
        self._reserved.clear()
        self._open.clear()
        self._ended.clear()
        self._verifications.clear()
        self._changed_at = NO_OFFSET

    # --- removal --------------------------------------------------------------------------------------------------

    def remove_expired(self, limits: ProducerLimits, *, now_ms: int) -> int:
        """Remove producers that were silent for producer.id.expiration.ms, or exceed the limits; return their
        number."""
        before = len(self)
        oldest_ms = now_ms - limits.expiration_ms
        for producer_id in [key for key, each in self._verifications.items() if each.begun_ms <= oldest_ms]:
            del self._verifications[producer_id]
        for producers in (self._allocated, self._reserved):
            for producer_id in [
                key
                for key, each in producers.items()
                if max(each.timestamp, each.seen_ms) <= oldest_ms and not each.has_open_transaction
            ]:
                del producers[producer_id]
            self._bound(producers, limits)
        return before - len(self)

    def _bound(self, producers: dict[int, Producer], limits: ProducerLimits) -> None:
        maximum = limits.reserved_max if producers is self._reserved else limits.allocated_max
        while len(producers) > maximum:
            silent = next((key for key, each in producers.items() if not each.has_open_transaction), None)
            if silent is None:
                return  # a leader opens no more transactions than that; a follower keeps those of its leader
            del producers[silent]

    def _of(self, producer_id: int) -> dict[int, Producer]:
        return self._reserved if is_reserved(producer_id) else self._allocated


def check_marker(
    producer_id: int, known: Producer | None, *, epoch: int, marker: Marker, transaction_version: int
) -> None:
    """Check whether a marker may end its producer's open transaction. Under transaction version 2 its epoch is above
    that of the transaction's batches, so that a late one ends no other transaction; a marker with the same epoch and
    nothing open is a repetition (KAFKA-19999).

    Raises InvalidProducerEpoch 47 and TransactionCoordinatorFenced 52 (T6)."""
    if known is None:
        return
    _check_epoch(producer_id, known, epoch)
    if transaction_version >= MARKER_ABOVE_EPOCH and epoch == known.epoch and known.has_open_transaction:
        raise InvalidProducerEpoch(
            f"producer {producer_id} has a transaction open in epoch {epoch} here; its marker has a later epoch"
        )
    if marker.coordinator_epoch < known.coordinator_epoch:
        raise TransactionCoordinatorFenced(
            f"producer {producer_id} has a marker of coordinator epoch {known.coordinator_epoch} here; "
            f"{marker.coordinator_epoch} is fenced"
        )


def last_sequence_of(header: BatchHeader) -> int:
    """The batch's last sequence. After the largest int follows 0 (D1). A coordinator's batch has none."""
    if header.base_sequence == NO_SEQUENCE:
        return NO_SEQUENCE
    if header.base_sequence > SEQUENCE_MAX - header.last_offset_delta:
        return header.last_offset_delta - (SEQUENCE_MAX - header.base_sequence) - 1
    return header.base_sequence + header.last_offset_delta


def _batch_of(header: BatchHeader) -> ProducerBatch:
    delta = header.last_offset_delta
    return ProducerBatch(last_sequence_of(header), header.base_offset + delta, delta, header.max_timestamp)


def _find_duplicate(known: Producer, header: BatchHeader) -> ProducerBatch | None:
    last_sequence = last_sequence_of(header)
    for batch in known.batches:
        if batch.last_sequence == last_sequence and batch.first_sequence == header.base_sequence:
            return batch
    return None


def _check_epoch(producer_id: int, known: Producer, epoch: int) -> None:
    if epoch < known.epoch:
        raise InvalidProducerEpoch(f"producer {producer_id} has epoch {known.epoch} here; epoch {epoch} is fenced")


def _check_new_epoch(producer_id: int, known: Producer, header: BatchHeader) -> None:
    if header.base_sequence != 0:
        raise OutOfOrderSequenceNumber(
            f"producer {producer_id} begins epoch {header.producer_epoch} (it had {known.epoch}) at sequence "
            f"{header.base_sequence}; a new epoch begins at 0"
        )


def _check_sequence(producer_id: int, known: Producer, header: BatchHeader) -> None:
    last = known.last_sequence
    is_next = header.base_sequence == last + 1 or (last == SEQUENCE_MAX and header.base_sequence == 0)
    if not is_next:
        raise OutOfOrderSequenceNumber(
            f"producer {producer_id} sent sequences {header.base_sequence} to {last_sequence_of(header)}; the last "
            f"one here is {last}"
        )
