"""The transaction coordinator of one broker: a shard for each partition of `__transaction_state` that it leads.

What is decided about an id is in its shard. Here are the clients' requests, the markers of what is decided, and the
clocks: transactions that are open for too long are aborted, ids that nobody uses are forgotten.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from kraft.broker.txn_markers import WriteMarkers
from kraft.coordinators.shard import CoordinatorContext
from kraft.coordinators.shards import CoordinatorShards, Periodic
from kraft.coordinators.transactions.decide import (
    AddPartitions,
    EndTransaction,
    Event,
    InitProducer,
    Reply,
    VerifyPartitions,
)
from kraft.coordinators.transactions.list_filters import Listed, ListFilters, listed
from kraft.coordinators.transactions.markers import MarkerWriter
from kraft.coordinators.transactions.shard import TransactionShard
from kraft.coordinators.transactions.state import Phase, Transaction
from kraft.protocol.errors import ConcurrentTransactions, InvalidRequest, KafkaError, TransactionalIdNotFound
from kraft.protocol.primitives import TopicPartition
from kraft.protocol.transactions import Producer
from metadata.events import Events
from metadata.image import MetadataImage, TopicIdPartition

COMPLETION_WAIT_MS = 100
"""How long a request waits for the transaction before it to be complete, until it is answered 51. Markers take a few
milliseconds; a client that gets 51 tries again after 20 at the earliest, or after 100."""


class TransactionCoordinator:
    def __init__(
        self,
        context: CoordinatorContext,
        events: Events,
        *,
        new_producer_id: Callable[[], Awaitable[int]],
        write: WriteMarkers,
    ) -> None:
        """`write` takes markers to a node."""
        self._context = context
        self._events = events
        self._new_producer_id = new_producer_id
        self._clock = context.environment.clock
        self._markers = MarkerWriter(self._clock, image=context.image, write=write)
        timeouts: Periodic[TransactionShard] = Periodic(
            lambda settings: settings.transaction_abort_timed_out_transaction_cleanup_interval_ms,
            work=lambda shard: self.shards.tasks.run(shard.abort_timed_out()),
        )
        expiry: Periodic[TransactionShard] = Periodic(
            lambda settings: settings.transaction_remove_expired_transaction_cleanup_interval_ms,
            work=TransactionShard.forget_unused,
        )
        self.shards = CoordinatorShards(
            TransactionShard.names, context, events, new=self._new_shard, periodic=(timeouts, expiry)
        )

    # --- requests ---------------------------------------------------------------------------------------------
    # Each raises NotCoordinator 16, CoordinatorLoadInProgress 14, CoordinatorNotAvailable 15, or its refusal.

    async def init(
        self,
        transactional_id: str,
        *,
        timeout_ms: int,
        expected: Producer | None = None,
        key: bytes = b"",
        owner: str = "",
    ) -> Producer:
        """The producer of the id, with the next epoch: older instances are fenced, and what they left open is aborted.
        With the `key` of the one before it, this is the same request again, and has the same answer. The id belongs to
        `owner` from then on, empty: to nobody.

        Raises ConcurrentTransactions 51 while that is done, ProducerFenced 90, InvalidTransactionTimeout 50, and
        InvalidRequest 42 for another request with that key."""
        timeout_ms_max = self._context.settings().transaction_max_timeout_ms
        event = InitProducer(
            timeout_ms=timeout_ms, timeout_ms_max=timeout_ms_max, expected=expected, key=key, owner=owner
        )
        reply = await self._ask(transactional_id, event)
        assert isinstance(reply, Producer), reply
        return reply

    async def add_partitions(
        self, transactional_id: str, producer: Producer, partitions: frozenset[TopicPartition], *, client_version: int
    ) -> None:
        """Raises InvalidProducerIdMapping 49, ProducerFenced 90, ConcurrentTransactions 51."""
        event = AddPartitions(producer=producer, partitions=partitions, client_version=client_version)
        await self._ask(transactional_id, event)

    async def verify_partitions(
        self, transactional_id: str, producer: Producer, partitions: frozenset[TopicPartition]
    ) -> Mapping[TopicPartition, KafkaError | None]:
        """TransactionAbortable 120 for each that is not in its open transaction. Raises as `add_partitions`."""
        reply = await self._ask(transactional_id, VerifyPartitions(producer=producer, partitions=partitions))
        assert isinstance(reply, Mapping), reply
        return reply

    async def end(self, transactional_id: str, producer: Producer, *, is_commit: bool, client_version: int) -> Producer:
        """The producer of the next transaction, once the decision is replicated; markers follow.

        Raises InvalidProducerIdMapping 49, ProducerFenced 90, InvalidTxnState 48, ConcurrentTransactions 51."""
        event = EndTransaction(producer=producer, is_commit=is_commit, client_version=client_version)
        reply = await self._ask(transactional_id, event)
        assert isinstance(reply, Producer), reply
        return reply

    async def describe(self, transactional_id: str) -> Transaction:
        """A transaction, once all of it is replicated; one that is being ended with the partitions that have no marker
        yet. Raises TransactionalIdNotFound 105, InvalidRequest 42 for an empty id."""
        if not transactional_id:
            raise InvalidRequest("transactional.id is empty, and no transaction has an empty one")
        shard = await self.shards.leading(transactional_id)
        found = shard.transactions.get(transactional_id)
        if found is None:
            raise TransactionalIdNotFound(f"transactional id {transactional_id!r} is not known")
        await shard.settle()
        left = shard.without_marker.get(transactional_id) if found.phase.is_preparing else None
        return found if left is None else replace(found, partitions=left)

    async def list(self, filters: ListFilters) -> Sequence[Listed]:
        """The transactions that this broker coordinates, by id. Raises CoordinatorLoadInProgress 14 and NotCoordinator
        16, because a part is no list, and InvalidRegularExpression 128."""
        shards = self.shards.all_or_raise()
        transactions = (each for shard in shards for each in shard.transactions.values())
        return listed(transactions, filters, now_ms=self._clock.wall_ms())

    async def _ask(self, transactional_id: str, event: Event) -> Reply:
        if not transactional_id:
            raise InvalidRequest("transactional.id is empty; leave it out for a producer without transactions")
        shard = await self.shards.leading(transactional_id)
        try:
            return await shard.ask(transactional_id, event)
        except ConcurrentTransactions:
            if not await shard.wait_complete(transactional_id, wait_ms=COMPLETION_WAIT_MS):
                raise
        shard.check()
        return await shard.ask(transactional_id, event)

    def gauges(self) -> Mapping[str, float]:
        """Numbers of the ids that this broker coordinates, for /metrics."""
        known = [each for shard in self.shards.loaded() for each in shard.transactions.values()]
        begun = [each.started_ms for each in known if each.phase is Phase.ONGOING]
        return {
            "transactional_ids": len(known),
            "transactions_ongoing": len(begun),
            "transactions_being_ended": sum(each.phase.is_preparing for each in known),
            "transactions_ongoing_ms_max": max((self._clock.wall_ms() - each for each in begun), default=0),
        }

    # --- metadata ---------------------------------------------------------------------------------------------

    def on_metadata(self, image: MetadataImage) -> None:
        self.shards.on_metadata(image)

    def _new_shard(self, partition: TopicIdPartition, leader_epoch: int) -> TransactionShard:
        return TransactionShard(
            partition,
            leader_epoch,
            self._context,
            ids_of_node=self._count_ids,
            new_producer_id=self._new_producer_id,
            on_prepared=self._prepared,
            on_failed=self.shards.failed,
        )

    def _count_ids(self) -> int:
        return sum(len(shard.transactions) for shard in self.shards.loaded())

    # --- markers ----------------------------------------------------------------------------------------------

    def _prepared(self, shard: TransactionShard, transaction: Transaction) -> None:
        self.shards.tasks.run(self._complete(shard, transaction))

    async def _complete(self, shard: TransactionShard, transaction: Transaction) -> None:
        name = transaction.transactional_id
        await self._markers.write(
            transaction,
            coordinator_epoch=shard.leader_epoch,
            is_over=lambda: shard.has_ended,
            on_left=lambda left: shard.without_marker.update({name: left}),
        )
        shard.without_marker.pop(name, None)
        if shard.has_ended:
            return
        try:
            await shard.markers_written(transaction)
        except KafkaError as error:  # the shard has ended: its next coordinator writes the markers again
            self._events.emit("transaction_not_completed", transactional_id=name, error=error.message)

    def stop(self) -> None:
        self.shards.stop()
