"""A transaction coordinator in memory: the real decisions, and markers that are written at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count

from kraft.coordinators.transactions.decide import (
    AddPartitions,
    EndTransaction,
    Event,
    InitProducer,
    MarkersWritten,
    Reply,
    decide,
)
from kraft.coordinators.transactions.list_filters import Listed, ListFilters, listed
from kraft.coordinators.transactions.state import Transaction
from kraft.protocol.batches.header import header_at
from kraft.protocol.batches.markers import Marker, build_marker
from kraft.protocol.errors import (
    ConcurrentTransactions,
    InvalidProducerEpoch,
    KafkaError,
    ProducerFenced,
    TransactionalIdNotFound,
)
from kraft.protocol.primitives import Buffer, TopicPartition
from kraft.protocol.transactions import Producer
from metadata.image import TopicIdPartition
from tests.support.fake_gateway import FakeGateway

TIMEOUT_MS_MAX = 900_000


class FakeTransactions:
    def __init__(self, gateway: FakeGateway) -> None:
        self._gateway = gateway
        self._ids = count(1_000)
        self.known: dict[str, Transaction] = {}
        self.now_ms = 1_000
        gateway.verify = self.verify

    async def init(
        self,
        transactional_id: str,
        *,
        timeout_ms: int,
        expected: Producer | None = None,
        key: bytes = b"",
        owner: str = "",
    ) -> Producer:
        event = InitProducer(
            timeout_ms=timeout_ms, timeout_ms_max=TIMEOUT_MS_MAX, expected=expected, key=key, owner=owner
        )
        while True:
            try:
                reply = self._ask(transactional_id, event)
            except ConcurrentTransactions:
                continue
            assert isinstance(reply, Producer)
            return reply

    async def add_partitions(
        self, transactional_id: str, producer: Producer, partitions: frozenset[TopicPartition]
    ) -> Mapping[TopicPartition, KafkaError | None]:
        self._ask(transactional_id, AddPartitions(producer=producer, partitions=partitions, client_version=2))
        return dict.fromkeys(partitions)

    async def end(self, transactional_id: str, producer: Producer, *, is_commit: bool) -> Producer:
        reply = self._ask(transactional_id, EndTransaction(producer=producer, is_commit=is_commit, client_version=2))
        assert isinstance(reply, Producer)
        return reply

    async def describe(self, transactional_id: str) -> Transaction:
        if transactional_id not in self.known:
            raise TransactionalIdNotFound(f"transactional id {transactional_id!r} is not known")
        return self.known[transactional_id]

    async def coordinator_of(self, transactional_id: str) -> int:
        return self._gateway.node_id

    async def list_all(self, filters: ListFilters) -> Mapping[int, Sequence[Listed]]:
        return {self._gateway.node_id: listed(self.known.values(), filters, now_ms=self.now_ms)}

    async def verify(self, transactional_id: str, which: TopicIdPartition, data: Buffer) -> None:
        header = header_at(data)
        assert header.is_transactional
        topic = self._gateway.image.topics[which.topic_id].name
        producer = Producer(header.producer_id, header.producer_epoch)
        try:
            await self.add_partitions(transactional_id, producer, frozenset({(topic, which.partition)}))
        except ProducerFenced as fenced:
            raise InvalidProducerEpoch(fenced.message) from fenced

    def ask(self, transactional_id: str, event: Event) -> Reply:
        return self._ask(transactional_id, event)

    def _ask(self, transactional_id: str, event: Event) -> Reply:
        known = self.known.get(transactional_id)
        decision = decide(transactional_id, known, event, now_ms=self.now_ms)
        while decision.needs_producer_id:
            assert isinstance(event, InitProducer | EndTransaction)
            event = event.with_producer_id(next(self._ids))
            decision = decide(transactional_id, known, event, now_ms=self.now_ms)
        after = decision.transaction
        assert after is not None
        if after is not known and after.phase.is_preparing:
            after = self._written(transactional_id, after)
        self.known[transactional_id] = after
        if isinstance(decision.reply, KafkaError):
            raise decision.reply
        return decision.reply

    def _written(self, transactional_id: str, decided: Transaction) -> Transaction:
        marker = Marker(is_commit="COMMIT" in decided.phase.name, coordinator_epoch=0)
        batch = build_marker(
            marker, producer_id=decided.producer_id, producer_epoch=decided.epoch, timestamp_ms=self.now_ms
        )
        for topic, partition in decided.partitions:
            if self._gateway.image.topic(topic) is not None:
                self._gateway.log(topic, partition).append(batch)
        done = decide(transactional_id, decided, MarkersWritten(), now_ms=self.now_ms).transaction
        assert done is not None
        return done
