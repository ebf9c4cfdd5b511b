"""The shard of one partition of `__transaction_state`: it owns the transactional ids of the partition.

A transaction whose end is decided has its markers written by `on_prepared`, once that decision is replicated; when all
are written it is complete. A completion that is refused while too few replicas are in sync is tried again, without its
markers (TransactionMarkerChannelManager.tryAppendToLog).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from kraft.coordinators.shard import CoordinatorContext, CoordinatorShard, ShardNames, refusal_of
from kraft.coordinators.transactions.decide import (
    EndTransaction,
    Event,
    InitProducer,
    MarkersWritten,
    Reply,
    TimeIsOver,
    decide,
)
from kraft.coordinators.transactions.records import TransactionRecord, decode_record, encode_batch
from kraft.coordinators.transactions.state import Phase, Transaction
from kraft.protocol.errors import (
    CoordinatorLoadInProgress,
    CoordinatorNotAvailable,
    KafkaError,
    NotEnoughReplicasAfterAppend,
    RequestTimedOut,
)
from kraft.protocol.primitives import TopicPartition
from metadata.image import TopicIdPartition
from metadata.internal_topics import TRANSACTIONS_TOPIC
from metadata.retries import RETRY_BACKOFF_MS

NOTHING: TransactionRecord = ("", None)
"""Deletes what never was: no transactional id is empty."""
EXPIRE_AT_ONCE = 1_000
NOT_REPLICATED = (NotEnoughReplicasAfterAppend.code, RequestTimedOut.code)
"""The record is in the log of this leader, and stays there while it leads."""
GROWTH_BYTES_MAX = 64
"""What the record of an open transaction may grow by until it is complete: its next producer id."""


class TransactionShard(CoordinatorShard[TransactionRecord]):
    names = ShardNames(TRANSACTIONS_TOPIC, "transactions", "transactions_loaded", "transaction_record_skipped")
    nothing = NOTHING
    decode_record = staticmethod(decode_record)

    def __init__(
        self,
        partition: TopicIdPartition,
        leader_epoch: int,
        context: CoordinatorContext,
        *,
        ids_of_node: Callable[[], int],
        new_producer_id: Callable[[], Awaitable[int]],
        on_prepared: Callable[[TransactionShard, Transaction], None],
        on_failed: Callable[[CoordinatorShard[Any]], None],
    ) -> None:
        """`ids_of_node`: how many transactional ids this broker coordinates, in all its partitions."""
        super().__init__(partition, leader_epoch, context, on_failed=on_failed)
        self.transactions: dict[str, Transaction] = {}
        self._ids_of_node = ids_of_node
        self._new_producer_id = new_producer_id
        self._on_prepared = on_prepared
        self.without_marker: dict[str, frozenset[TopicPartition]] = {}
        """Id -> the partitions of a transaction that is being ended which were tried and have no marker yet."""
        self._completions: dict[str, asyncio.Event] = {}
        """Id -> set when its transaction is complete, while somebody waits for that."""

    # --- life -------------------------------------------------------------------------------------------------

    def apply(self, record: TransactionRecord, *, is_replay: bool) -> None:
        name, transaction = record
        if transaction is None or transaction.phase is Phase.DEAD:
            self.transactions.pop(name, None)
        else:
            self.transactions[name] = transaction
        if transaction is None or not transaction.phase.is_preparing:
            completion = self._completions.pop(name, None)
            if completion is not None:
                completion.set()

    def after_load(self) -> None:
        for transaction in list(self.transactions.values()):
            if transaction.phase.is_preparing:
                self._on_prepared(self, transaction)

    @property
    def append_timeout_ms(self) -> int:
        return self.context.settings().request_timeout_ms

    # --- deciding ---------------------------------------------------------------------------------------------

    async def ask(self, name: str, event: Event) -> Reply:
        """What is answered is replicated, and so is all before it. Raises the KafkaError of a refusal."""
        if isinstance(event, InitProducer):
            self._check_room(name)
        decision = decide(name, self.transactions.get(name), event, now_ms=self.wall_ms)
        while decision.needs_producer_id:
            assert isinstance(event, InitProducer | EndTransaction), event
            event = event.with_producer_id(await self._new_producer_id())
            self.check()
            self._check_room(name)  # others may have come meanwhile
            decision = decide(name, self.transactions.get(name), event, now_ms=self.wall_ms)
        assert decision.transaction is not None, (name, event)
        if isinstance(event, MarkersWritten):
            await asyncio.shield(self._write_complete(decision.transaction))
        elif decision.transaction is not self.transactions.get(name):
            await asyncio.shield(self._write(decision.transaction))
        else:
            await self.settle()
        if isinstance(decision.reply, KafkaError):
            raise decision.reply
        return decision.reply

    def _check_room(self, name: str) -> None:
        """For an id that is not there yet. Raises CoordinatorLoadInProgress 14, which producers try again, until ids
        that nobody uses have expired."""
        if name in self.transactions:
            return
        known, limit = self._ids_of_node(), self.context.settings().transactional_id_max_per_node
        if known >= limit:
            raise CoordinatorLoadInProgress(
                f"this broker coordinates {known} transactional ids; transactional.id.max.per.node allows {limit}"
            )

    def encode(self, records: Sequence[TransactionRecord]) -> bytes:
        """Raises KafkaError (-1, as Kafka does) for a transaction of more partitions than the log takes in one
        record."""
        batch = encode_batch(records, timestamp_ms=self.wall_ms)
        for name, transaction in records:
            if transaction is None or transaction.phase is not Phase.ONGOING:
                continue
            if len(batch) > self.batch_bytes_max - GROWTH_BYTES_MAX:
                raise KafkaError(
                    f"the transaction of {name!r} would have {len(transaction.partitions)} partitions, which is more "
                    f"than one record of {TRANSACTIONS_TOPIC} takes; commit before"
                )
        return batch

    def _write(self, transaction: Transaction) -> asyncio.Task[None]:
        """Raises KafkaError, with nothing changed, for a transaction that is too large, or as `append` does."""
        task = self.append([(transaction.transactional_id, transaction)])
        if transaction.phase.is_preparing:
            task.add_done_callback(lambda task: self._prepared(transaction, task))
        return task

    def _write_complete(self, transaction: Transaction) -> asyncio.Task[None]:
        """All markers stand, so nothing is lost with this record: the next coordinator would write the markers and the
        record again. If this log has it and too few replicas do, this coordinator goes on."""
        self.check_replicas()
        record = (transaction.transactional_id, transaction)
        batch = self.encode([record])
        self.apply(record, is_replay=False)
        return self.begin_append(self._write_completion(batch))

    async def _write_completion(self, batch: bytes) -> None:
        try:
            outcome = await self.outcome_of(batch)
            if outcome.error_code and not (outcome.is_appended and outcome.error_code in NOT_REPLICATED):
                raise refusal_of(outcome)
        except KafkaError as error:
            self.end(error)
            raise

    def _prepared(self, transaction: Transaction, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is None and not self.has_ended:
            self._on_prepared(self, transaction)

    async def wait_complete(self, name: str, *, wait_ms: int) -> bool:
        """Until the transaction that is being ended is complete; False when it is not in time."""
        clock = self.context.environment.clock
        completion = self._completions.setdefault(name, asyncio.Event())
        try:
            async with clock.timeout(wait_ms):
                await completion.wait()
        except TimeoutError:
            return False
        return True

    async def markers_written(self, transaction: Transaction) -> None:
        """Nothing, if it has been ended otherwise meanwhile. Waits for enough replicas in sync. Raises the KafkaError
        with which the shard has ended."""
        name = transaction.transactional_id
        while self.transactions.get(name) is transaction:
            self.check()
            try:
                await self.ask(name, MarkersWritten())
            except CoordinatorNotAvailable:
                if self.has_ended:
                    raise
                await self.context.environment.clock.sleep(RETRY_BACKOFF_MS)

    # --- time -------------------------------------------------------------------------------------------------

    async def abort_timed_out(self) -> None:
        """Transactions that have been open for longer than their timeout. One that needs a producer id, and gets none
        now, is aborted the next time; so is one for which too few replicas are in sync."""
        for name in [name for name, known in self.transactions.items() if known.phase is Phase.ONGOING]:
            with suppress(CoordinatorLoadInProgress, CoordinatorNotAvailable):
                await self._abort_if_over(name)

    async def _abort_if_over(self, name: str) -> None:
        event = TimeIsOver()
        while (known := self.transactions.get(name)) is not None and not self.has_ended:
            decision = decide(name, known, event, now_ms=self.wall_ms)
            if not decision.needs_producer_id:
                if decision.transaction is not None and decision.transaction is not known:
                    self._write(decision.transaction)
                return
            event = event.with_producer_id(await self._new_producer_id())

    def forget_unused(self) -> int:
        """Forgets ids without a transaction that were not used for transactional.id.expiration.ms. Returns how many:
        none while too few replicas are in sync."""
        oldest_ms = self.wall_ms - self.context.settings().transactional_id_expiration_ms
        unused = [
            name
            for name, known in self.transactions.items()
            if known.updated_ms <= oldest_ms and (known.phase is Phase.EMPTY or known.phase.is_complete)
        ][:EXPIRE_AT_ONCE]
        forgotten = 0
        with suppress(CoordinatorNotAvailable):
            for name in unused:
                self.append([(name, None)])
                forgotten += 1
        return forgotten
