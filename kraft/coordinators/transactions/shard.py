"""One partition of `__transaction_state` that this broker leads: load, decide, append, answer when replicated.

Owns the transactional ids of the partition. A transaction that is decided has its markers written once that decision
is replicated, by whoever `on_prepared` is; when all are written it is complete.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from kraft.coordinators.leadership_check import LeadershipCheck
from kraft.coordinators.led_partition import LedPartition, Surroundings
from kraft.coordinators.partition_loader import replay
from kraft.coordinators.transactions.decide import (
    EndTransaction,
    Event,
    InitProducer,
    MarkersWritten,
    Reply,
    TimeIsOver,
    decide,
)
from kraft.coordinators.transactions.records import decode_record, encode_batch
from kraft.coordinators.transactions.state import Phase, Transaction
from kraft.protocol.errors import CoordinatorLoadInProgress, KafkaError
from kraft.protocol.primitives import TopicPartition
from metadata.image import TopicIdPartition
from metadata.internal_topics import TRANSACTIONS_TOPIC

NOBODY = ""
"""No transactional id is empty."""
EXPIRE_AT_ONCE = 1_000
GROWTH_BYTES_MAX = 64
"""What the record of an open transaction may grow by until it is complete: its next producer id."""


class TransactionShard(LedPartition):
    def __init__(
        self,
        partition: TopicIdPartition,
        leader_epoch: int,
        around: Surroundings,
        *,
        ids_of_node: Callable[[], int],
        new_producer_id: Callable[[], Awaitable[int]],
        on_prepared: Callable[[TransactionShard, Transaction], None],
        on_failed: Callable[[TransactionShard], None],
    ) -> None:
        """`ids_of_node`: how many transactional ids this broker coordinates, in all its partitions."""
        super().__init__(partition, leader_epoch, around)
        self.transactions: dict[str, Transaction] = {}
        self._ids_of_node = ids_of_node
        self._new_producer_id = new_producer_id
        self._on_prepared = on_prepared
        self._on_failed = on_failed
        self.standing = LeadershipCheck(self)
        self.without_marker: dict[str, frozenset[TopicPartition]] = {}
        """By id, the partitions of a transaction that is being ended which were tried and have no marker yet."""
        self._completions: dict[str, asyncio.Event] = {}
        """By id, while somebody waits for its transaction to be complete."""

    @property
    def shard(self) -> TransactionShard:
        """It serves its requests itself."""
        return self

    # --- life -------------------------------------------------------------------------------------------------

    async def load(self, on_unreadable: Callable[[int, str], None]) -> int:
        count = 0
        reads, clock = self.around.replicas, self.around.environment.clock
        async for piece in replay(reads, self.partition, decode_record, leader_epoch=self.leader_epoch, clock=clock):
            for name, transaction in piece.records:
                self._put(name, transaction)
            for offset, reason in piece.unreadable:
                on_unreadable(offset, reason)
            count += len(piece.records)
        self._is_loaded = True
        for transaction in list(self.transactions.values()):
            if transaction.phase.is_preparing:
                self._on_prepared(self, transaction)
        return count

    def _append_timeout_ms(self) -> int:
        return self.around.settings().request_timeout_ms

    def append_nothing(self) -> asyncio.Task[None]:
        return self.append_batch(encode_batch(NOBODY, None, timestamp_ms=self.wall_ms))

    def _append_failed(self) -> None:
        self._on_failed(self)

    def _put(self, name: str, transaction: Transaction | None) -> None:
        if transaction is None or transaction.phase is Phase.DEAD:
            self.transactions.pop(name, None)
        else:
            self.transactions[name] = transaction
        if transaction is None or not transaction.phase.is_preparing:
            completion = self._completions.pop(name, None)
            if completion is not None:
                completion.set()

    # --- deciding ---------------------------------------------------------------------------------------------

    async def be_certain(self) -> None:
        """That this broker coordinates its ids. Raises NotCoordinator 16, CoordinatorLoadInProgress 14, or 15."""
        self.check()
        if not self.standing.is_certain:
            await self.standing.prove()

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
        if decision.transaction is not self.transactions.get(name):
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
        known, limit = self._ids_of_node(), self.around.settings().transactional_id_max_per_node
        if known >= limit:
            raise CoordinatorLoadInProgress(
                f"this broker coordinates {known} transactional ids; transactional.id.max.per.node allows {limit}"
            )

    def _write(self, transaction: Transaction) -> asyncio.Task[None]:
        """Raises KafkaError (-1, as Kafka does), with nothing changed, for a transaction of more partitions than the
        log takes in one record. The log would refuse it each time; so it must not end the shard, which would load again
        and meet it again."""
        name = transaction.transactional_id
        batch = encode_batch(name, transaction, timestamp_ms=self.wall_ms)
        if transaction.phase is Phase.ONGOING and len(batch) > self._batch_bytes_max() - GROWTH_BYTES_MAX:
            raise KafkaError(
                f"the transaction of {name!r} would have {len(transaction.partitions)} partitions, which is more than "
                f"one record of {TRANSACTIONS_TOPIC} takes; commit before"
            )
        self._put(name, transaction)
        task = self.append_batch(batch)
        if transaction.phase.is_preparing:
            task.add_done_callback(lambda task: self._prepared(transaction, task))
        return task

    def _batch_bytes_max(self) -> int:
        topic = self.around.topic_settings(TRANSACTIONS_TOPIC)
        return min(topic.max_message_bytes, topic.segment_size)

    def _prepared(self, transaction: Transaction, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is None and not self.has_ended:
            self._on_prepared(self, transaction)

    async def wait_complete(self, name: str, *, wait_ms: int) -> bool:
        """Until the transaction that is being ended is complete; False when it is not in time."""
        clock = self.around.environment.clock
        completion = self._completions.setdefault(name, asyncio.Event())
        try:
            async with clock.timeout(wait_ms):
                await completion.wait()
        except TimeoutError:
            return False
        return True

    async def markers_written(self, transaction: Transaction) -> None:
        """Nothing, if it has been ended otherwise meanwhile. Raises KafkaError."""
        name = transaction.transactional_id
        if self.transactions.get(name) is transaction:
            await self.ask(name, MarkersWritten())

    # --- time -------------------------------------------------------------------------------------------------

    async def abort_timed_out(self) -> None:
        """Transactions that have been open for longer than their timeout. One that needs a producer id, and gets none
        now, is aborted the next time."""
        for name in [name for name, known in self.transactions.items() if known.phase is Phase.ONGOING]:
            with suppress(CoordinatorLoadInProgress):
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

    def forget_unused(self, *, expiration_ms: int) -> int:
        """Ids without a transaction that were not used for so long; how many."""
        oldest_ms = self.wall_ms - expiration_ms
        unused = [
            name
            for name, known in self.transactions.items()
            if known.updated_ms <= oldest_ms and (known.phase is Phase.EMPTY or known.phase.is_complete)
        ][:EXPIRE_AT_ONCE]
        for name in unused:
            del self.transactions[name]
            self.append_batch(encode_batch(name, None, timestamp_ms=self.wall_ms))
        return len(unused)
