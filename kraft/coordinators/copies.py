"""Records that are written to other topics, and how far that came, in one transaction: the redrive of dead letters.
Whatever dies meanwhile, readers of committed records see each copy once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final

from kraft.broker.gateway import Gateway
from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.routing import Groups
from kraft.coordinators.transactions.routing import Transactions
from kraft.protocol.acks import ACKS_ALL
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.errors import InvalidRequest, KafkaError, UnknownTopicId, for_code
from kraft.protocol.transactions import Producer
from metadata.image import TopicIdPartition
from replication.requests import ProduceOptions

TRANSACTION_TIMEOUT_MS: Final = 60_000
RECORD_BYTES: Final = 64
"""At most what a record has beside its key, value and headers, and each header beside its name and value."""


class Copies:
    """The transactions of one id, and the group of the same name that has the progress."""

    def __init__(self, name: str, *, gateway: Gateway, groups: Groups, transactions: Transactions) -> None:
        self.name = name
        self._gateway = gateway
        self._groups = groups
        self._transactions = transactions

    async def begin(self) -> Producer:
        """The producer of the first transaction; who had the id before is fenced."""
        return await self._transactions.init(self.name, timeout_ms=TRANSACTION_TIMEOUT_MS)

    async def commit(
        self,
        producer: Producer,
        copies: Mapping[TopicIdPartition, Sequence[NewRecord]],
        offset: r.OffsetToCommit,
    ) -> Producer:
        """One transaction. Returns the producer of the next one. Raises KafkaError, and nothing was done then for
        readers of committed records, unless the answer of the end was lost."""
        try:
            for where, records in copies.items():
                await self._produce(producer, where, records)
            answer = await self._groups.ask(
                r.CommitInTransaction(
                    group=self.name,
                    transactional_id=self.name,
                    producer_id=producer.producer_id,
                    producer_epoch=producer.epoch,
                    adds_partition=True,
                    offsets=(offset,),
                )
            )
            if isinstance(answer, a.Refused):
                raise InvalidRequest(answer.message)
        except KafkaError:
            with suppress(KafkaError):  # else its timeout ends it
                await self._transactions.end(self.name, producer, is_commit=False)
            raise
        return await self._transactions.end(self.name, producer, is_commit=True)

    async def _produce(self, producer: Producer, where: TopicIdPartition, records: Sequence[NewRecord]) -> None:
        topic = self._gateway.image.topics.get(where.topic_id)
        if topic is None:
            raise UnknownTopicId("the topic of the copies was deleted meanwhile")
        settings = self._gateway.topic_settings(topic.name)
        options = ProduceOptions(ACKS_ALL, self._gateway.settings.request_timeout_ms, transactional_id=self.name)
        sequence = 0
        for part in parts_of(records, bytes_max=min(settings.max_message_bytes, settings.segment_size)):
            batch = build_batch(
                part,
                producer_id=producer.producer_id,
                producer_epoch=producer.epoch,
                base_sequence=sequence,
                is_transactional=True,
            )
            outcome = (await self._gateway.produce({where: batch}, options))[where]
            if outcome.error_code:
                raise for_code(outcome.error_code, outcome.message)
            sequence += len(part)


def parts_of(records: Sequence[NewRecord], *, bytes_max: int) -> Iterator[Sequence[NewRecord]]:
    """Each part fits into one batch; a record that is too large comes alone, and is refused by its leader."""
    part: list[NewRecord] = []
    room = bytes_max
    for record in records:
        size = bytes_at_most(record)
        if part and size > room:
            yield part
            part, room = [], bytes_max
        part.append(record)
        room -= size
    if part:
        yield part


def bytes_at_most(record: NewRecord) -> int:
    """What the record takes of its batch."""
    headers = sum(RECORD_BYTES + len(name) + len(value or b"") for name, value in record.headers)
    return RECORD_BYTES + len(record.key or b"") + len(record.value or b"") + headers
