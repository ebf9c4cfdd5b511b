"""What this node does as a leader for requests that come over REST, here or at another node (`PartitionClient`).

Batches of a transaction are appended once the coordinator has added the partition to it (KIP-890), as those of a Kafka
client of transaction version 2 are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from kraft.broker.transaction_verification import Support
from kraft.broker.transactional_produce import TransactionalProduce, transactional_headers
from kraft.protocol.batches.header import HEADER_BYTES, NO_PRODUCER_ID
from kraft.protocol.errors import InvalidRecord
from kraft.protocol.primitives import Buffer
from metadata.image import TopicIdPartition
from replication.manager.manager import ReplicaManager
from replication.requests import (
    ActiveProducer,
    FetchRequest,
    FetchResponse,
    OffsetAnswer,
    ProduceOptions,
    ProduceOutcome,
)


class LocalPartitionClient:
    def __init__(self, replicas: ReplicaManager, transactional: TransactionalProduce) -> None:
        self._replicas = replicas
        self._transactional = transactional

    async def produce(
        self, batches: Mapping[TopicIdPartition, Buffer], options: ProduceOptions
    ) -> Mapping[TopicIdPartition, ProduceOutcome]:
        """With a transactional id each batch belongs to its transaction. Raises InvalidRequiredAcks 21, InvalidRecord
        87, InvalidProducerIdMapping 49, ThrottlingQuotaExceeded 89; all else is an outcome of its partition."""
        if options.transactional_id is None:
            return await self._replicas.produce.outcomes(batches, options)
        if any(len(data) < HEADER_BYTES for data in batches.values()):
            raise InvalidRecord("a batch of a transaction has no whole header")
        headers = transactional_headers(batches)
        if len(headers) < len(batches):
            raise InvalidRecord("a request with a transactional id has a batch that is not transactional")
        begun = self._transactional.begin(
            batches, headers, options, support=Support.ADDS_PARTITIONS, compares_records=True
        )
        return await begun if isinstance(begun, asyncio.Future) else begun

    async def fetch(self, request: FetchRequest) -> FetchResponse:
        return await self._replicas.fetch.response(request)

    async def list_offset(
        self, partition: TopicIdPartition, timestamp: int, *, is_read_committed: bool = False
    ) -> OffsetAnswer:
        return await self._replicas.offsets.list_offset(partition, timestamp, is_read_committed=is_read_committed)

    async def producers(self, partition: TopicIdPartition) -> Sequence[ActiveProducer]:
        """Raises NotLeaderOrFollower 6 and what else a partition that is not led here is refused with."""
        self._replicas.producers.get(partition, NO_PRODUCER_ID)  # only a leader knows them all
        return [
            ActiveProducer(
                producer_id=producer_id,
                producer_epoch=each.epoch,
                last_sequence=each.last_sequence,
                last_timestamp_ms=each.timestamp,
                coordinator_epoch=each.coordinator_epoch,
                transaction_start_offset=each.current_txn_first_offset,
            )
            for producer_id, each in self._replicas.producers.all_of(partition)
        ]

    async def delete_records(self, partition: TopicIdPartition, *, offset: int, timeout_ms: int) -> int:
        return await self._replicas.offsets.delete_records(partition, offset=offset, timeout_ms=timeout_ms)
