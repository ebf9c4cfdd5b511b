"""What a partition's log will know of producers once the appends under way are in it.

The log refuses what an older epoch or an older coordinator sends. A shard applies what it appends before it is in the
log, so it asks first: a refused append would make it load its partition again. It also is the guard between the
transaction coordinator's yes and the append that asked: a marker meanwhile makes that yes void (KIP-890).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from kraft.protocol.batches.markers import Marker
from kraft.protocol.errors import CoordinatorNotAvailable, InvalidProducerEpoch, InvalidTxnState
from replication.producers.state import NO_COORDINATOR_EPOCH, NO_OFFSET, Producer, check_marker

AHEAD_OFFSET = 0
"""Stands for the first offset of a transaction that is not known yet."""


@dataclass(slots=True, eq=False)
class Asking:
    """The coordinator is being asked about a producer's transaction."""

    producer_id: int
    is_void: bool = False


class TransactionalProducers:
    def __init__(self, in_log: Callable[[int], Producer | None]) -> None:
        """`in_log` returns the producer in the log. Raises KafkaError where this broker does not lead the partition."""
        self._in_log = in_log
        self._ahead: dict[int, tuple[Producer, int]] = {}
        """What each will be, and how many appends are under way."""
        self._asking: dict[int, set[Asking]] = {}

    def get(self, producer_id: int) -> Producer | None:
        ahead = self._ahead.get(producer_id)
        return self._in_log(producer_id) if ahead is None else ahead[0]

    # --- verification -------------------------------------------------------------------------------------------

    def is_open(self, producer_id: int, epoch: int) -> bool:
        """Its transaction is open in the partition: nobody has to be asked."""
        known = self.get(producer_id)
        return known is not None and known.has_open_transaction and known.epoch == epoch

    def ask_again(self, producer_id: int, before: Asking | None) -> Asking:
        """To be given back with `asked`, or here; None when nobody has been asked yet."""
        if before is not None:
            self.asked(before)
        asking = Asking(producer_id)
        self._asking.setdefault(producer_id, set()).add(asking)
        return asking

    def asked(self, asking: Asking) -> None:
        waiting = self._asking.get(asking.producer_id)
        if waiting is not None:
            waiting.discard(asking)
            if not waiting:
                del self._asking[asking.producer_id]

    # --- appends ------------------------------------------------------------------------------------------------

    def check_commit(self, producer_id: int, epoch: int, asking: Asking | None, *, open_max: int, opened: int) -> None:
        """Whether its offsets may be appended. `opened`: transactions that are open in the partition.

        Raises CoordinatorNotAvailable 15, InvalidProducerEpoch 47, InvalidTxnState 48."""
        known = self.get(producer_id)
        if known is not None and epoch < known.epoch:
            raise InvalidProducerEpoch(f"producer {producer_id} has epoch {known.epoch} here; epoch {epoch} is fenced")
        if self.is_open(producer_id, epoch):
            return
        if asking is None or asking.is_void:
            raise InvalidTxnState(f"the transaction of producer {producer_id} has been ended meanwhile")
        if opened >= open_max:
            raise CoordinatorNotAvailable(
                f"{opened} transactions have offsets in this partition; producer.id.max.per.partition allows {open_max}"
            )

    def commit(self, producer_id: int, epoch: int, append: Callable[[], asyncio.Task[None]]) -> asyncio.Task[None]:
        known = self.get(producer_id)
        after = Producer(
            epoch=epoch,
            batches=(),
            timestamp=-1,
            seen_ms=-1,
            coordinator_epoch=NO_COORDINATOR_EPOCH if known is None else known.coordinator_epoch,
            current_txn_first_offset=AHEAD_OFFSET,
        )
        return self._appending(producer_id, after, append())

    def check_marker(self, producer_id: int, epoch: int, marker: Marker, *, transaction_version: int) -> None:
        """Raises InvalidProducerEpoch 47, TransactionCoordinatorFenced 52."""
        known = self.get(producer_id)
        check_marker(producer_id, known, epoch=epoch, marker=marker, transaction_version=transaction_version)

    def end(
        self, producer_id: int, epoch: int, marker: Marker, append: Callable[[], asyncio.Task[None]]
    ) -> asyncio.Task[None]:
        for asking in self._asking.pop(producer_id, ()):
            asking.is_void = True
        after = Producer(
            epoch=epoch,
            batches=(),
            timestamp=-1,
            seen_ms=-1,
            coordinator_epoch=marker.coordinator_epoch,
            current_txn_first_offset=NO_OFFSET,
        )
        return self._appending(producer_id, after, append())

    def _appending(self, producer_id: int, after: Producer, task: asyncio.Task[None]) -> asyncio.Task[None]:
        under_way = self._ahead[producer_id][1] if producer_id in self._ahead else 0
        self._ahead[producer_id] = after, under_way + 1
        task.add_done_callback(lambda _: self._appended(producer_id))
        return task

    def _appended(self, producer_id: int) -> None:
        after, under_way = self._ahead.pop(producer_id)
        if under_way > 1:
            self._ahead[producer_id] = after, under_way - 1
