"""What a partition knows of each idempotent producer: its epoch and its last batches (D1 to D5). Pure.

A leader asks `check` before it appends; whoever appends (leader, follower, replay) tells `update` afterwards, which
never refuses. So the state is a function of the log below its end, and survives a failover (D6).
Invariant: producers are in the order of their last batches in the log; no more than the limits allow are kept, and
the one that was silent for longest goes first. Allocated and reserved ids have a limit each: neither pushes the
other out. Source: org.apache.kafka.storage.internals.log.ProducerStateManager, ProducerAppendInfo.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from kraft.protocol.batches.header import BatchHeader
from kraft.protocol.errors import InvalidProducerEpoch, OutOfOrderSequenceNumber
from metadata.producer_ids import is_reserved
from metadata.settings import BrokerSettings

BATCHES_KEPT = 5
"""D2: ProducerStateEntry.NUM_BATCHES_TO_RETAIN, the most that a producer has in flight."""
SEQUENCE_MAX = 2**31 - 1
NO_SEQUENCE = -1
NO_OFFSET = -1


class ProducerBatch(NamedTuple):
    """One batch as its producer knows it. The timestamp is the batch's largest, in ms."""

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


class Producer(NamedTuple):
    """Kafka's ProducerStateEntry, replaced as a whole at each change."""

    epoch: int
    batches: tuple[ProducerBatch, ...]
    """The last `BATCHES_KEPT` of this epoch, oldest first; empty after a control batch of a new epoch."""
    timestamp: int
    """Of the last batch, as its producer stamped it: what a snapshot keeps."""
    seen_ms: int
    """When this replica appended it; -1 after a replay. A batch of old records is not a silent producer."""
    coordinator_epoch: int = -1
    current_txn_first_offset: int = -1

    @property
    def last_sequence(self) -> int:
        return self.batches[-1].last_sequence if self.batches else NO_SEQUENCE

    @property
    def last_offset(self) -> int:
        return self.batches[-1].last_offset if self.batches else NO_OFFSET


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerLimits:
    expiration_ms: int
    """producer.id.expiration.ms"""
    allocated_max: int
    """producer.id.max.per.partition"""
    reserved_max: int
    """rest.idempotency.max.keys.per.partition"""

    @classmethod
    def of(cls, settings: BrokerSettings) -> ProducerLimits:
        return cls(
            expiration_ms=settings.producer_id_expiration_ms,
            allocated_max=settings.producer_id_max_per_partition,
            reserved_max=settings.rest_idempotency_max_keys_per_partition,
        )


class ProducerStates:
    def __init__(self) -> None:
        self._allocated: dict[int, Producer] = {}
        self._reserved: dict[int, Producer] = {}

    def __len__(self) -> int:
        return len(self._allocated) + len(self._reserved)

    def get(self, producer_id: int) -> Producer | None:
        return self._of(producer_id).get(producer_id)

    def items(self) -> list[tuple[int, Producer]]:
        """Each kind in the order of its last batches; putting them back in this order gives the same state."""
        return list(chain(self._allocated.items(), self._reserved.items()))

    @property
    def last_offset(self) -> int:
        """Of the newest batch that any producer here has written; -1 for none."""
        newest = (next(reversed(each.values()), None) for each in (self._allocated, self._reserved))
        return max((producer.last_offset for producer in newest if producer is not None), default=NO_OFFSET)

    def last_offsets(self) -> frozenset[int]:
        """Of the last batch of every producer that may still come back: a compaction keeps these (D9)."""
        return frozenset(
            each.batches[-1].last_offset
            for each in chain(self._allocated.values(), self._reserved.values())
            if each.batches
        )

    # --- a leader's questions -------------------------------------------------------------------------------------

    def check(self, producer_id: int, header: BatchHeader) -> ProducerBatch | None:
        """The batch that was appended before with the same sequence numbers (D2); None: append it.

        Raises OutOfOrderSequenceNumber 45 (D1, D3, D4), InvalidProducerEpoch 47 (D4).
        """
        known = self._of(producer_id).get(producer_id)
        if known is None:
            return None  # D5
        if header.producer_epoch < known.epoch:
            raise InvalidProducerEpoch(
                f"producer {producer_id} has epoch {known.epoch} here; epoch {header.producer_epoch} is fenced"
            )
        if header.producer_epoch > known.epoch:
            _check_new_epoch(producer_id, known, header)
            return None
        duplicate = _find_duplicate(known, header)
        if duplicate is None:
            _check_sequence(producer_id, known, header)
        return duplicate

    # --- what the log says ----------------------------------------------------------------------------------------

    def update(self, header: BatchHeader, limits: ProducerLimits, *, seen_ms: int = -1) -> None:
        """A batch with a producer id is in the log now. Its base offset and timestamps are those of the log."""
        producer_id = header.producer_id
        producers = self._of(producer_id)
        known = producers.pop(producer_id, None)
        kept = known.batches if known is not None and known.epoch == header.producer_epoch else ()
        if not header.is_control:
            kept = (*kept[-(BATCHES_KEPT - 1) :], _batch_of(header))
        producers[producer_id] = Producer(
            epoch=header.producer_epoch,
            batches=kept,
            timestamp=header.max_timestamp,
            seen_ms=seen_ms,
            coordinator_epoch=-1 if known is None else known.coordinator_epoch,
        )
        if known is None:
            self._bound(producers, limits)

    def put(self, producers: Iterable[tuple[int, Producer]]) -> None:
        """What a snapshot holds."""
        for producer_id, producer in producers:
            self._of(producer_id)[producer_id] = producer

    def remember_seen(self, before: ProducerStates) -> None:
        """A replay does not know when batches came; these producers were here a moment ago."""
        for producers in (self._allocated, self._reserved):
            for producer_id, producer in producers.items():
                known = before.get(producer_id)
                if known is not None:
                    producers[producer_id] = producer._replace(seen_ms=known.seen_ms)

    def clear(self) -> None:
        self._allocated.clear()
        self._reserved.clear()

    # --- forgetting -----------------------------------------------------------------------------------------------

    def remove_expired(self, limits: ProducerLimits, *, now_ms: int) -> int:
        """Silent for producer.id.expiration.ms, or more than may be kept; how many went."""
        before = len(self)
        oldest_ms = now_ms - limits.expiration_ms
        for producers in (self._allocated, self._reserved):
            for producer_id in [key for key, each in producers.items() if max(each[2], each[3]) <= oldest_ms]:
                del producers[producer_id]
            self._bound(producers, limits)
        return before - len(self)

    def _bound(self, producers: dict[int, Producer], limits: ProducerLimits) -> None:
        maximum = limits.reserved_max if producers is self._reserved else limits.allocated_max
        while len(producers) > maximum:
            del producers[next(iter(producers))]

    def _of(self, producer_id: int) -> dict[int, Producer]:
        return self._reserved if is_reserved(producer_id) else self._allocated


def last_sequence_of(header: BatchHeader) -> int:
    """Sequence numbers go from the largest int to 0 (D1)."""
    if header.base_sequence > SEQUENCE_MAX - header.last_offset_delta:
        return header.last_offset_delta - (SEQUENCE_MAX - header.base_sequence) - 1
    return header.base_sequence + header.last_offset_delta


def _batch_of(header: BatchHeader) -> ProducerBatch:
    return ProducerBatch(
        last_sequence=last_sequence_of(header),
        last_offset=header.last_offset,
        offset_delta=header.last_offset_delta,
        timestamp=header.max_timestamp,
    )


def _find_duplicate(known: Producer, header: BatchHeader) -> ProducerBatch | None:
    last_sequence = last_sequence_of(header)
    for batch in known.batches:
        if batch.last_sequence == last_sequence and batch.first_sequence == header.base_sequence:
            return batch
    return None


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
