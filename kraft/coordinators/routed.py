"""Records of routes that go to several topics: one transaction, so that readers of committed records see all or none.

A node has a small pool of transactional ids, each with at most one transaction at a time. What a node that died has
left open is aborted by its timeout, or when the id is used again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final, TypeAlias

from kraft.broker.gateway import Gateway
from kraft.coordinators.transactions.routing import Transactions
from kraft.protocol.acks import ACKS_ALL
from kraft.protocol.batches.header import header_at, sequenced
from kraft.protocol.errors import CoordinatorNotAvailable, KafkaError, for_code
from kraft.protocol.primitives import Buffer
from kraft.protocol.transactions import Producer
from metadata.image import TopicIdPartition
from replication.requests import ProduceOptions, ProduceOutcome

IDS_MAX: Final = 64
"""Transactions of routes that a node has open at once; one more is refused, and can be sent again."""
TRANSACTION_TIMEOUT_MS: Final = 30_000
PREFIX: Final = "kraft.route."

Batches: TypeAlias = Mapping[TopicIdPartition, Sequence[tuple[int, Buffer]]]
"""For each partition its batches, with the number of records in each."""
Outcomes: TypeAlias = Mapping[TopicIdPartition, Sequence[ProduceOutcome]]


class UnknownEnd(Exception):
    """The answer to the end of a transaction was lost: all of it is committed, or nothing is."""

    def __init__(self, error: KafkaError) -> None:
        super().__init__(error.message)
        self.error = error


class RoutedWrites:
    """The transactions of one node's routes."""

    def __init__(self, node_id: int, transactions: Transactions) -> None:
        self._transactions = transactions
        self._idle = [f"{PREFIX}{node_id}.{number}" for number in reversed(range(IDS_MAX))]
        self._producers: dict[str, Producer] = {}
        """The producers of the next transactions, of ids whose last one has ended."""

    async def write(self, batches: Batches, *, gateway: Gateway, timeout_ms: int) -> Outcomes:
        """All batches in one transaction. `gateway`: the cluster as the principal of the request may write it.

        Raises the KafkaError of the first batch that was not written, and readers of committed records see none of
        them then; UnknownEnd.
        """
        if not self._idle:
            raise CoordinatorNotAvailable(
                f"{IDS_MAX} transactions of routes are open at this node, which is the most; send the same again"
            )
        name = self._idle.pop()
        try:
            producer = self._producers.pop(name, None)
            if producer is None:
                producer = await self._transactions.init(name, timeout_ms=TRANSACTION_TIMEOUT_MS)
            try:
                outcomes = await self._append(name, producer, batches, gateway, timeout_ms)
            except KafkaError:
                with suppress(KafkaError):  # else its timeout ends it
                    await self._transactions.end(name, producer, is_commit=False)
                raise
            try:
                self._producers[name] = await self._transactions.end(name, producer, is_commit=True)
            except KafkaError as error:
                if error.retriable:
                    raise UnknownEnd(error) from error
                raise
            return outcomes
        finally:
            self._idle.append(name)

    async def _append(
        self, name: str, producer: Producer, batches: Batches, gateway: Gateway, timeout_ms: int
    ) -> Outcomes:
        """The next batch of each partition, until all are written."""
        options = ProduceOptions(ACKS_ALL, timeout_ms, name)
        outcomes: dict[TopicIdPartition, list[ProduceOutcome]] = {where: [] for where in batches}
        sequences = dict.fromkeys(batches, 0)
        for number in range(max(map(len, batches.values()))):
            going: dict[TopicIdPartition, Buffer] = {}
            for where, each in batches.items():
                if number < len(each):
                    records, data = each[number]
                    going[where] = sequenced(
                        data,
                        header_at(data),
                        producer_id=producer.producer_id,
                        producer_epoch=producer.epoch,
                        base_sequence=sequences[where],
                        is_transactional=True,
                    )
                    sequences[where] += records
            done = await gateway.produce(going, options)
            for where, outcome in done.items():
                if outcome.error_code:
                    raise for_code(outcome.error_code, _where(gateway, where, outcome))
                outcomes[where].append(outcome)
        return outcomes


def _where(gateway: Gateway, where: TopicIdPartition, outcome: ProduceOutcome) -> str:
    topic = gateway.image.topics.get(where.topic_id)
    why = for_code(outcome.error_code, outcome.message).message
    return f"nothing was committed, for {'?' if topic is None else topic.name}-{where.partition} refused it: {why}"
