"""Produce (0) and InitProducerId (22) for clients.

A batch is looked at as far as Kafka's `ProduceRequest.validateRecords` does; the log validates the rest. A partition
that this broker does not lead is NOT_LEADER_OR_FOLLOWER 6, with the leader beside it (KIP-951). With acks=0 nothing is
answered: an error closes the connection.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from uuid import UUID

from kraft.protocol.batches.header import (
    CODEC_MASK,
    CRC_START,
    HEADER_BYTES,
    MAGIC,
    MAGIC_OFFSET,
    TRANSACTIONAL,
    extent_at,
)
from kraft.protocol.errors import (
    InvalidRecord,
    KafkaError,
    NotEnoughReplicas,
    NotLeaderOrFollower,
    ThrottlingQuotaExceeded,
    TransactionalIdAuthorizationFailed,
    UnknownTopicId,
    UnknownTopicOrPartition,
    UnsupportedCompressionType,
)
from kraft.protocol.primitives import Buffer
from kraft.wire.clients.leaders import UNKNOWN, Leaders
from kraft.wire.clients.served import Answer, ClientApi, ClientBroker, ClientCall
from kraft.wire.generated.init_producer_id_request import InitProducerIdRequestData
from kraft.wire.generated.init_producer_id_response import InitProducerIdResponseData
from kraft.wire.generated.produce_request import ProduceRequestData, TopicProduceData
from kraft.wire.generated.produce_response import (
    NO_LEADER_ID_AND_EPOCH,
    LeaderIdAndEpoch,
    NodeEndpoint,
    PartitionProduceResponse,
    ProduceResponseData,
    TopicProduceResponse,
)
from kraft.wire.handlers.served import CloseConnection
from metadata.image import TopicIdPartition
from replication.requests import ProduceOutcome

LOG = logging.getLogger(__name__)

ACKS_NONE = 0
ATTRIBUTES_AT = CRC_START + 1
"""The low byte of the attributes."""
ZSTD = 4
FIRST_WITH_ZSTD = 7
FIRST_WITH_LEADERS = 10
FIRST_WITH_TOPIC_IDS = 13
FIRST_EPOCH = 0
NO_TRANSACTIONS = "this cluster has no transactions; leave transactional.id out for an idempotent producer"

Outcomes = Mapping[TopicIdPartition, ProduceOutcome]


def apis(broker: ClientBroker) -> Sequence[ClientApi]:
    produce = _Produce(broker)
    producer_ids = _InitProducerId(broker)
    return [
        ClientApi(
            request=ProduceRequestData, response=ProduceResponseData, handle=produce.handle, refuse=_refuse_produce
        ),
        ClientApi(
            request=InitProducerIdRequestData,
            response=InitProducerIdResponseData,
            handle=producer_ids.handle,
            refuse=_refuse_producer_id,
        ),
    ]


class _Produce:
    def __init__(self, broker: ClientBroker) -> None:
        self._replicas = broker.replicas
        self._leaders = Leaders(broker.gateway)

    def handle(self, call: ClientCall[ProduceRequestData]) -> Answer:
        message = call.message
        _check_no_transaction(message)
        batches: dict[TopicIdPartition, Buffer] = {}
        refused: dict[TopicIdPartition, ProduceOutcome] = {}
        ids: list[UUID | None] = []
        for topic in message.topic_data:
            topic_id = topic.topic_id if call.version >= FIRST_WITH_TOPIC_IDS else self._leaders.id_of(topic.name)
            ids.append(topic_id)
            if topic_id is None:
                continue
            for item in topic.partition_data:
                key = TopicIdPartition(topic_id, item.index)
                records = item.records or b""
                error = _refusal(records, version=call.version)
                if error is None:
                    batches[key] = records
                else:
                    refused[key] = ProduceOutcome(error_code=error.code, message=error.message)
        return self._produced(call, ids, batches, refused)

    async def _produced(
        self,
        call: ClientCall[ProduceRequestData],
        ids: Sequence[UUID | None],
        batches: Mapping[TopicIdPartition, Buffer],
        refused: Outcomes,
    ) -> ProduceResponseData | None:
        message = call.message
        outcomes = refused
        try:
            if batches:
                produced = await self._replicas.produce(batches, acks=message.acks, timeout_ms=message.timeout_ms)
                outcomes = {**produced, **refused} if refused else produced
        except ThrottlingQuotaExceeded as error:
            outcomes = _all_failed(batches, NotEnoughReplicas(error.message), refused)
        except KafkaError as error:
            outcomes = _all_failed(batches, error, refused)
        if message.acks == ACKS_NONE:
            _close_for_errors(ids, outcomes)
            return None
        return self._response(call, ids, outcomes)

    def _response(
        self, call: ClientCall[ProduceRequestData], ids: Sequence[UUID | None], outcomes: Outcomes
    ) -> ProduceResponseData:
        leader_ids: list[int] = []
        responses = [
            TopicProduceResponse.make(
                name=topic.name,
                topic_id=topic.topic_id,
                partition_responses=_unknown_topic(topic)
                if topic_id is None
                else [
                    self._partition(TopicIdPartition(topic_id, item.index), outcomes, call.version, leader_ids)
                    for item in topic.partition_data
                ],
            )
            for topic, topic_id in zip(call.message.topic_data, ids, strict=True)
        ]
        endpoints = self._leaders.endpoints(leader_ids) if leader_ids else ()
        return ProduceResponseData.make(
            responses=responses, node_endpoints=[NodeEndpoint.make(**each._asdict()) for each in endpoints]
        )

    def _partition(
        self, key: TopicIdPartition, outcomes: Outcomes, version: int, leader_ids: list[int]
    ) -> PartitionProduceResponse:
        outcome = outcomes[key]
        leader = NO_LEADER_ID_AND_EPOCH
        if outcome.error_code == NotLeaderOrFollower.code and version >= FIRST_WITH_LEADERS:
            current = self._leaders.current(key)
            if current != UNKNOWN:
                leader = LeaderIdAndEpoch.make(leader_id=current[0], leader_epoch=current[1])
                leader_ids.append(current[0])
        code = outcome.error_code
        if code == UnknownTopicId.code and version < FIRST_WITH_TOPIC_IDS:
            code = UnknownTopicOrPartition.code
        return PartitionProduceResponse.make(
            index=key.partition,
            error_code=code,
            base_offset=outcome.base_offset if not code else -1,
            log_append_time_ms=outcome.log_append_time_ms if not code else -1,
            log_start_offset=outcome.log_start_offset,
            error_message=outcome.message or None,
            current_leader=leader,
        )


def _check_no_transaction(message: ProduceRequestData) -> None:
    """Kafka's answer to a transactional producer that may not write: fatal to it, so it is told at once."""
    has_transactional_batch = message.transactional_id is not None or any(
        _is_transactional(item.records or b"") for topic in message.topic_data for item in topic.partition_data
    )
    if has_transactional_batch:
        raise TransactionalIdAuthorizationFailed(NO_TRANSACTIONS)


def _is_transactional(records: Buffer) -> bool:
    return len(records) > ATTRIBUTES_AT and bool(records[ATTRIBUTES_AT] & TRANSACTIONAL)


def _refusal(records: Buffer, *, version: int) -> KafkaError | None:
    """ProduceRequest.validateRecords: one batch of format 2, and zstd only where consumers may ask for it (KIP-110)."""
    if len(records) <= MAGIC_OFFSET:
        return InvalidRecord("a produce request has one record batch for each partition; here is none")
    if records[MAGIC_OFFSET] != MAGIC:
        return InvalidRecord(
            f"version {version} of Produce takes record batches of format {MAGIC}, not {records[MAGIC_OFFSET]}"
        )
    if len(records) < HEADER_BYTES:
        return InvalidRecord(f"{len(records)} bytes are no whole record batch")
    _, size = extent_at(records, 0)
    if size < len(records):
        return InvalidRecord("a produce request has exactly one record batch for each partition; here are more")
    if version < FIRST_WITH_ZSTD and records[ATTRIBUTES_AT] & CODEC_MASK == ZSTD:
        return UnsupportedCompressionType(f"zstd needs produce requests of version {FIRST_WITH_ZSTD} or later")
    return None


def _all_failed(batches: Mapping[TopicIdPartition, Buffer], error: KafkaError, refused: Outcomes) -> Outcomes:
    failed = ProduceOutcome(error_code=error.code, message=error.message)
    return {**dict.fromkeys(batches, failed), **refused}


def _close_for_errors(ids: Sequence[UUID | None], outcomes: Outcomes) -> None:
    if None in ids:
        raise CloseConnection("acks=0: a topic is not known here")
    for key, outcome in outcomes.items():
        if outcome.error_code:
            raise CloseConnection(f"acks=0: {key}: error {outcome.error_code} {outcome.message}")


def _unknown_topic(topic: TopicProduceData) -> list[PartitionProduceResponse]:
    return [
        PartitionProduceResponse.make(
            index=item.index, error_code=UnknownTopicOrPartition.code, base_offset=-1, error_message=None
        )
        for item in topic.partition_data
    ]


def _refuse_produce(message: ProduceRequestData, version: int, error: KafkaError) -> ProduceResponseData:
    return ProduceResponseData.make(
        responses=[
            TopicProduceResponse.make(
                name=topic.name,
                topic_id=topic.topic_id,
                partition_responses=[
                    PartitionProduceResponse.make(
                        index=item.index, error_code=error.code, base_offset=-1, error_message=error.message
                    )
                    for item in topic.partition_data
                ],
            )
            for topic in message.topic_data
        ]
    )


class _InitProducerId:
    def __init__(self, broker: ClientBroker) -> None:
        self._producer_ids = broker.producer_ids

    async def handle(self, call: ClientCall[InitProducerIdRequestData]) -> InitProducerIdResponseData:
        """Without a transactional id each request gets a new producer id, also one that names an old one (KIP-360)."""
        transactional_id = call.message.transactional_id
        if transactional_id is not None:
            LOG.warning("transactional.id %r of %s: %s", transactional_id, call.connection.peer, NO_TRANSACTIONS)
            raise TransactionalIdAuthorizationFailed(NO_TRANSACTIONS)
        producer_id = await self._producer_ids.next_id()
        return InitProducerIdResponseData.make(error_code=0, producer_id=producer_id, producer_epoch=FIRST_EPOCH)


def _refuse_producer_id(
    message: InitProducerIdRequestData, version: int, error: KafkaError
) -> InitProducerIdResponseData:
    return InitProducerIdResponseData.make(error_code=error.code, producer_id=-1, producer_epoch=-1)
