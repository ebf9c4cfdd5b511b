"""Many decisions in few appends: each decision is made on the image that the earlier ones will produce. Pure.

A refused request adds nothing. Appends are bounded in bytes, and made one after the other, each on the image after the
previous one: so a later decision is never committed without the earlier ones that it depends on. A decision that fits
into one append is in one. A larger one is split between records: an atomic one is put between the Begin and the End of
a transaction (KIP-868), and of any other each prefix is a valid state of the cluster.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from kraft.protocol.errors import KafkaError, PolicyViolation, RequestTimedOut
from kraft.values import value
from metadata.controller.decide import Decision, ExpiredHeartbeat, Input, Liveness, decide
from metadata.controller.effective import EffectiveSettings
from metadata.controller.inbox import Item
from metadata.controller.requests import BrokerHeartbeat
from metadata.image import MetadataImage
from metadata.records import BeginTransactionRecord, EndTransactionRecord, Record, encode_record

APPEND_BYTES_MAX = 128 * 1024
"""Bytes of records in one append, and hence of one record: a quarter of the size limit of a quorum command."""

DECISION_BYTES_MAX = 16 * 1024 * 1024
"""Bytes of an atomic decision: every node keeps it in memory until its last record is committed. 10,000 partitions have
3 MB."""

LATE_MS = 1_000
"""A heartbeat that waited for longer in the queue only renews its session (B5)."""


@value(kw_only=True)
class Step:
    """The outcome of one event, sent to its waiter after its records and all that it was decided on are committed."""

    item: Item
    outcome: Decision | KafkaError
    before: MetadataImage
    first_append: int
    """Index of the append in which its records begin."""
    appends_needed: int
    """Number of appends of the batch that must be committed first."""
    is_whole: bool = True
    """All of its records happen or none. False: the first may have happened when the last are not committed."""


@dataclass(slots=True, kw_only=True)
class EventBatch:
    """Decisions in the making."""

    image: MetadataImage
    liveness: Liveness
    settings: EffectiveSettings
    rng: random.Random
    cluster_id: str
    appends: list[list[Record]] = field(default_factory=list)
    """Appends to make in this order, each at the offset after the previous one."""
    steps: list[Step] = field(default_factory=list)
    _bytes_left: int = 0
    """Bytes left in the last append."""

    def add_all(self, items: Sequence[Item], *, now_ms: int) -> list[Item]:
        """Decide the items in order; return the items for which the first append had no room left."""
        for index, item in enumerate(items):
            if len(self.appends) > 1:
                return list(items[index:])
            self.steps.append(self._decided(item, now_ms=now_ms))
        return []

    def _decided(self, item: Item, *, now_ms: int) -> Step:
        before, first_append, is_whole = self.image, len(self.appends), True
        outcome: Decision | KafkaError
        try:
            if isinstance(item.request, BrokerHeartbeat) and (item.is_abandoned or now_ms - item.enqueued_ms > LATE_MS):
                heartbeat = item.request
                expired = ExpiredHeartbeat(broker_id=heartbeat.broker_id, broker_epoch=heartbeat.broker_epoch)
                self._take(self._decide(expired, now_ms=now_ms), name="")
                outcome = RequestTimedOut("the controller was late; this heartbeat only renewed the session")
            elif item.is_abandoned:
                outcome = RequestTimedOut("the deadline passed before the request was looked at: nothing was changed")
            else:
                outcome = self._decide(item.request, now_ms=now_ms)
                first_append, is_whole = self._take(outcome, name=type(item.request).__name__)
        except KafkaError as error:
            outcome = error
        return Step(
            item=item,
            outcome=outcome,
            before=before,
            first_append=first_append,
            appends_needed=len(self.appends),
            is_whole=is_whole,
        )

    def _decide(self, request: Input, *, now_ms: int) -> Decision:
        return decide(
            self.image,
            self.liveness,
            request,
            now_ms=now_ms,
            settings=self.settings.of(self.image),
            rng=self.rng,
            cluster_id=self.cluster_id,
        )

    def _take(self, decision: Decision, *, name: str) -> tuple[int, bool]:
        """Add the records; return the index of their first append, and whether they happen as a whole. Raises
        PolicyViolation 44."""
        records = decision.records
        sizes = [len(encode_record(record)) for record in records]
        size = sum(sizes)
        _check_sizes(decision, sizes)
        self.liveness = decision.liveness
        if not records:
            return len(self.appends), True
        if size <= APPEND_BYTES_MAX:
            units = [(size, records)]
        else:
            if decision.is_atomic:
                begin, end = BeginTransactionRecord(name=name), EndTransactionRecord()
                records = (begin, *records, end)
                sizes = [len(encode_record(begin)), *sizes, len(encode_record(end))]
            units = [(size, (record,)) for size, record in zip(sizes, records, strict=True)]
        self.image = self.image.apply(records)
        self._append(*units[0])
        first_append = len(self.appends) - 1
        for unit in units[1:]:
            self._append(*unit)
        return first_append, len(units) == 1 or decision.is_atomic

    def _append(self, size: int, records: Sequence[Record]) -> None:
        if self._bytes_left < size:
            self.appends.append([])
            self._bytes_left = APPEND_BYTES_MAX
        self.appends[-1].extend(records)
        self._bytes_left -= size


def _check_sizes(decision: Decision, sizes: Sequence[int]) -> None:
    """Refuse what cannot be written before it is tried: a failed append ends the controller term. Raises
    PolicyViolation 44."""
    largest = max(sizes, default=0)
    if largest > APPEND_BYTES_MAX:
        raise PolicyViolation(
            f"the request needs a record of {largest} bytes, the metadata log takes {APPEND_BYTES_MAX}: nothing was "
            "changed"
        )
    if decision.is_atomic and sum(sizes) > DECISION_BYTES_MAX:
        raise PolicyViolation(
            f"the request needs {sum(sizes)} bytes of records, one request may need {DECISION_BYTES_MAX}: nothing was "
            "changed, split it"
        )
