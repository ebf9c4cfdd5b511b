"""Requests about partitions: decode, ask the replica manager, encode. Payloads pass through as they are."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeAlias

from kraft.protocol.acks import ACKS_NONE
from kraft.protocol.encoding import TopLevel
from kraft.protocol.errors import KafkaError, NotLeaderOrFollower
from kraft.protocol.messages.delete_records_request import DeleteRecordsRequestData
from kraft.protocol.messages.describe_producers_request import DescribeProducersRequestData
from kraft.protocol.messages.fetch_request import FetchRequestData
from kraft.protocol.messages.list_offsets_request import ListOffsetsRequestData
from kraft.protocol.messages.offset_for_leader_epoch_request import OffsetForLeaderEpochRequestData
from kraft.protocol.messages.produce_request import ProduceRequestData
from kraft.protocol.primitives import Buffer
from kraft.wire.api_handler import Answer, ApiHandler, Call, CloseConnection, Later
from kraft.wire.handlers.metadata_log import MetadataFetches
from kraft.wire.messages.active_producers import DESCRIBE_PRODUCERS
from kraft.wire.messages.fetch import DEBUGGING_REPLICA, FETCH, log_ends_response
from kraft.wire.messages.metadata_log import METADATA_FETCH, is_metadata_fetch
from kraft.wire.messages.offsets import DELETE_RECORDS, LIST_OFFSETS, OFFSET_FOR_LEADER_EPOCH, LowWatermarks
from kraft.wire.messages.produce import PRODUCE, ProduceRequest
from metadata.image import TopicIdPartition
from replication.manager.manager import ReplicaManager
from replication.requests import (
    ActiveProducer,
    FetchResponse,
    ProduceOptions,
    ProduceOutcome,
)

Outcomes: TypeAlias = Mapping[TopicIdPartition, ProduceOutcome]


class TransactionalLeader(Protocol):
    async def produce(
        self,
        batches: Mapping[TopicIdPartition, Buffer],
        options: ProduceOptions,
    ) -> Mapping[TopicIdPartition, ProduceOutcome]: ...

    async def producers(self, partition: TopicIdPartition) -> Sequence[ActiveProducer]: ...


def data_handlers(
    replicas: ReplicaManager | None, metadata: MetadataFetches | None, leader: TransactionalLeader | None = None
) -> list[ApiHandler]:
    """The handlers for requests of other nodes about partitions and for fetches of the metadata log. `replicas` is None
    on a node without the broker role, `metadata` on one that is no voter.
    """
    handlers = _DataHandlers(replicas, metadata, leader)
    return [
        PRODUCE.served(handlers.produce),
        FETCH.served(handlers.fetch),
        LIST_OFFSETS.served(handlers.list_offsets),
        DESCRIBE_PRODUCERS.served(handlers.describe_producers),
        DELETE_RECORDS.served(handlers.delete_records),
        OFFSET_FOR_LEADER_EPOCH.served(handlers.offset_for_leader_epoch),
    ]


class _DataHandlers:
    def __init__(
        self, replicas: ReplicaManager | None, metadata: MetadataFetches | None, leader: TransactionalLeader | None
    ) -> None:
        self._optional_replicas = replicas
        self._metadata = metadata
        self._leader = leader

    @property
    def _led(self) -> TransactionalLeader:
        if self._leader is None:
            raise NotLeaderOrFollower("this node has no broker role and so no replicas")
        return self._leader

    @property
    def _replicas(self) -> ReplicaManager:
        if self._optional_replicas is None:
            raise NotLeaderOrFollower("this node has no broker role and so no replicas")
        return self._optional_replicas

    def produce(self, call: Call[ProduceRequestData]) -> Answer:
        request = PRODUCE.requested(call.message)
        if request.options.transactional_id is not None:
            return self._produce_in_transaction(request)
        render: Callable[[Outcomes], TopLevel | None] = (
            _tell_nothing if request.options.acks == ACKS_NONE else partial(PRODUCE.to_reply, request)
        )
        try:
            begun = self._replicas.produce.begin(request.batches, request.options)
        except KafkaError as error:
            if request.options.acks == ACKS_NONE:
                raise CloseConnection(f"acks=0: {error}") from error
            raise
        return Later(begun, render) if isinstance(begun, Future) else render(begun)

    async def _produce_in_transaction(self, request: ProduceRequest) -> TopLevel:
        if request.options.acks == ACKS_NONE:
            raise CloseConnection("acks=0 with a transactional id: nobody would know what was written")
        outcomes = await self._led.produce(request.batches, request.options)
        return PRODUCE.to_reply(request, outcomes)

    def fetch(self, call: Call[FetchRequestData]) -> Answer:
        if is_metadata_fetch(call.message):
            return self._fetch_metadata(call.message)
        request = FETCH.requested(call.message)
        if request.replica_id == DEBUGGING_REPLICA:
            wanted = [TopicIdPartition(item.topic_id, item.partition) for item in request.partitions]
            return FETCH.to_reply(request, log_ends_response(self._replicas.offsets.log_ends(wanted)))
        begun = self._replicas.fetch.begin(request)
        if isinstance(begun, FetchResponse):
            return FETCH.to_reply(request, begun)
        come = begun.answer
        return Later(begun.future, lambda _: FETCH.to_reply(request, come()))

    async def _fetch_metadata(self, message: FetchRequestData) -> TopLevel:
        if self._metadata is None:
            raise NotLeaderOrFollower("this node is no voter of the metadata quorum")
        request = METADATA_FETCH.requested(message)
        return METADATA_FETCH.to_reply(request, await self._metadata.fetch(request))

    async def list_offsets(self, call: Call[ListOffsetsRequestData]) -> TopLevel:
        request = LIST_OFFSETS.requested(call.message)
        answer = await self._replicas.offsets.list_offset(
            request.partition, request.timestamp, is_read_committed=request.is_read_committed
        )
        return LIST_OFFSETS.to_reply(request, answer)

    async def describe_producers(self, call: Call[DescribeProducersRequestData]) -> TopLevel:
        partition = DESCRIBE_PRODUCERS.requested(call.message)
        return DESCRIBE_PRODUCERS.to_reply(partition, await self._led.producers(partition))

    async def delete_records(self, call: Call[DeleteRecordsRequestData]) -> TopLevel:
        request = DELETE_RECORDS.requested(call.message)
        offsets = self._replicas.offsets
        results: dict[TopicIdPartition, tuple[int, int]] = {}
        for partition, offset in request.offsets.items():
            try:
                low = await offsets.delete_records(partition, offset=offset, timeout_ms=request.timeout_ms)
                results[partition] = (low, 0)
            except KafkaError as error:
                if len(request.offsets) == 1:
                    raise
                results[partition] = (-1, error.code)
        reply: LowWatermarks = results
        return DELETE_RECORDS.to_reply(request, reply)

    async def offset_for_leader_epoch(self, call: Call[OffsetForLeaderEpochRequestData]) -> TopLevel:
        request = OFFSET_FOR_LEADER_EPOCH.requested(call.message)
        end = self._replicas.offsets.offset_for_leader_epoch(
            request.partition, request.epoch, current_leader_epoch=request.current_leader_epoch
        )
        return OFFSET_FOR_LEADER_EPOCH.to_reply(request, end)


def _tell_nothing(outcomes: Outcomes) -> None:
    """Raises CloseConnection when something failed (P8)."""
    for outcome in outcomes.values():
        if outcome.error_code:
            raise CloseConnection(f"acks=0: error {outcome.error_code} {outcome.message}")
