"""Produce (0).

A client's batch is looked at as far as Kafka's `ProduceRequest.validateRecords` does; the log validates the rest. A
partition that this broker does not lead is NOT_LEADER_OR_FOLLOWER 6, with the leader beside it (KIP-951). With acks=0
nothing is answered: an error closes the connection.

A node sends what its own clients sent it: topics by id, one or several batches for a partition, and with a
transactional id batches whose partitions are added to the transaction here. It gets each outcome as it is.
"""

from __future__ import annotations

import logging
from asyncio import Future
from collections.abc import Mapping, Sequence
from uuid import UUID

from kraft.broker.transaction_verification import Support
from kraft.broker.transactional_produce import transactional_headers
from kraft.protocol.acks import ACKS_NONE
from kraft.protocol.batches.header import (
    CODEC_MASK,
    CONTROL,
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
from kraft.protocol.messages.produce_request import ProduceRequestData, TopicProduceData
from kraft.protocol.messages.produce_response import (
    NO_LEADER_ID_AND_EPOCH,
    BatchIndexAndErrorMessage,
    LeaderIdAndEpoch,
    NodeEndpoint,
    PartitionProduceResponse,
    ProduceResponseData,
    TopicProduceResponse,
)
from kraft.protocol.primitives import Buffer
from kraft.wire.api_handler import Answer, ApiHandler, Call, CloseConnection, Later
from kraft.wire.grouping import by_topic
from kraft.wire.handlers.endpoints import node_endpoints
from kraft.wire.handlers.leaders import UNKNOWN, Leaders
from kraft.wire.node_parts import NodeParts
from metadata.image import TopicIdPartition
from replication.manager.manager import ReplicaManager
from replication.requests import ProduceOptions, ProduceOutcome

LOG = logging.getLogger(__name__)

ATTRIBUTES_AT = CRC_START + 1
"""The low byte of the attributes."""
ZSTD = 4
FIRST_WITH_ZSTD = 7
FIRST_WITH_LEADERS = 10
FIRST_WITH_TOPIC_IDS = 13
FIRST_WITH_ABORTABLE = 11
FIRST_THAT_ADDS_PARTITIONS = 12
"""First of the versions that producers of transaction version 2 use (KIP-890)."""

Outcomes = Mapping[TopicIdPartition, ProduceOutcome]


def apis(parts: NodeParts) -> Sequence[ApiHandler]:
    produce = _Produce(parts)
    return [
        ApiHandler(
            request=ProduceRequestData, response=ProduceResponseData, handle=produce.handle, refuse=_refuse_produce
        ),
    ]


class _Produce:
    def __init__(self, parts: NodeParts) -> None:
        self._parts = parts
        self._leaders = Leaders(parts.gateway)

    @property
    def _replicas(self) -> ReplicaManager:
        return self._parts.broker_or(NotLeaderOrFollower).replicas

    def handle(self, call: Call[ProduceRequestData]) -> Answer:
        if call.is_from_node:
            return self._handle_for_node(call.message)
        message = call.message
        has_transaction = False
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
                error = _refusal(records, version=call.version, is_repeated=key in batches or key in refused)
                if error is None:
                    batches[key] = records
                    has_transaction |= records[ATTRIBUTES_AT] & (TRANSACTIONAL | CONTROL) == TRANSACTIONAL
                else:
                    batches.pop(key, None)
                    refused[key] = ProduceOutcome(error_code=error.code, message=error.message)
        outcomes = self._begun_in_transaction(call, batches) if has_transaction else self._begun(call, batches)
        if isinstance(outcomes, Future):
            return Later(outcomes, lambda known: self._answer(call, ids, {**known, **refused} if refused else known))
        return self._answer(call, ids, {**outcomes, **refused} if refused else outcomes)

    def _handle_for_node(self, message: ProduceRequestData) -> Answer:
        """Raises the KafkaError of a request that is refused as a whole."""
        batches = {
            TopicIdPartition(topic.topic_id, item.index): item.records or b""
            for topic in message.topic_data
            for item in topic.partition_data
        }
        if message.transactional_id is not None:
            return self._in_transaction_of_node(message, batches)
        begun = self._replicas.produce.begin(batches, _options(message))
        render = _close_for_errors if message.acks == ACKS_NONE else _answer_for_node
        return Later(begun, render) if isinstance(begun, Future) else render(begun)

    async def _in_transaction_of_node(
        self, message: ProduceRequestData, batches: Mapping[TopicIdPartition, Buffer]
    ) -> ProduceResponseData:
        if message.acks == ACKS_NONE:
            raise CloseConnection("acks=0 with a transactional id: nobody would know what was written")
        return _answer_for_node(
            await self._parts.broker_or(NotLeaderOrFollower).client.produce(batches, _options(message))
        )

    def _begun(
        self, call: Call[ProduceRequestData], batches: Mapping[TopicIdPartition, Buffer]
    ) -> Outcomes | Future[dict[TopicIdPartition, ProduceOutcome]]:
        try:
            return self._replicas.produce.begin(batches, _options(call.message))
        except KafkaError as error:
            return dict.fromkeys(batches, ProduceOutcome(error_code=error.code, message=error.message))

    def _begun_in_transaction(
        self, call: Call[ProduceRequestData], batches: Mapping[TopicIdPartition, Buffer]
    ) -> Outcomes | Future[dict[TopicIdPartition, ProduceOutcome]]:
        """Raises InvalidProducerIdMapping 49, TransactionalIdAuthorizationFailed 53 for the request as a whole."""
        message = call.message
        if message.transactional_id is None:
            raise TransactionalIdAuthorizationFailed("a transactional batch needs the transactional.id of its producer")
        transactional = transactional_headers(batches)
        if not transactional:  # what was, was refused: its partition is there twice
            return self._begun(call, batches)
        return self._parts.broker_or(NotLeaderOrFollower).transactional_produce.begin(
            batches,
            transactional,
            _options(message),
            support=_support(call.version),
        )

    def _answer(
        self, call: Call[ProduceRequestData], ids: Sequence[UUID | None], outcomes: Outcomes
    ) -> ProduceResponseData | None:
        if call.message.acks == ACKS_NONE:
            if None in ids:
                raise CloseConnection("acks=0: a topic is not known here")
            _close_for_errors(outcomes)
            return None
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
        if not leader_ids:
            return ProduceResponseData.make(responses=responses)
        endpoints = node_endpoints(self._parts, leader_ids, call.connection)
        return ProduceResponseData.make(
            responses=responses, node_endpoints=[NodeEndpoint.make(**each._asdict()) for each in endpoints]
        )

    def _partition(
        self, key: TopicIdPartition, outcomes: Outcomes, version: int, leader_ids: list[int]
    ) -> PartitionProduceResponse:
        outcome = outcomes[key]
        if not outcome.error_code:
            return PartitionProduceResponse.make(
                index=key.partition,
                error_code=0,
                base_offset=outcome.base_offset,
                log_append_time_ms=outcome.log_append_time_ms,
                log_start_offset=outcome.log_start_offset,
            )
        leader = NO_LEADER_ID_AND_EPOCH
        if outcome.error_code == NotLeaderOrFollower.code and version >= FIRST_WITH_LEADERS:
            current = self._leaders.current(key)
            if current != UNKNOWN:
                leader = LeaderIdAndEpoch.make(leader_id=current[0], leader_epoch=current[1])
                leader_ids.append(current[0])
        return PartitionProduceResponse.make(
            index=key.partition,
            error_code=_code(outcome, version),
            base_offset=-1,
            log_start_offset=outcome.log_start_offset,
            record_errors=_record_errors(outcome),
            error_message=outcome.message or None,
            current_leader=leader,
        )


def _options(message: ProduceRequestData) -> ProduceOptions:
    return ProduceOptions(message.acks, message.timeout_ms, message.transactional_id)


def _answer_for_node(outcomes: Outcomes) -> ProduceResponseData:
    return ProduceResponseData.make(
        responses=[
            TopicProduceResponse.make(
                topic_id=topic_id, partition_responses=[_as_it_is(key.partition, outcomes[key]) for key in keys]
            )
            for topic_id, keys in by_topic(tuple(outcomes))
        ]
    )


def _as_it_is(partition: int, outcome: ProduceOutcome) -> PartitionProduceResponse:
    """For a node: with what Kafka's response has no field for."""
    return PartitionProduceResponse.make(
        index=partition,
        error_code=outcome.error_code,
        base_offset=outcome.base_offset,
        log_append_time_ms=outcome.log_append_time_ms,
        log_start_offset=outcome.log_start_offset,
        record_errors=_record_errors(outcome),
        error_message=outcome.message or None,
        current_leader=LeaderIdAndEpoch.make(leader_id=outcome.leader_id, leader_epoch=outcome.leader_epoch),
        last_offset=outcome.last_offset,
        is_appended=outcome.is_appended,
        isr=outcome.isr,
        min_isr=outcome.min_isr,
    )


def _record_errors(outcome: ProduceOutcome) -> list[BatchIndexAndErrorMessage]:
    return [
        BatchIndexAndErrorMessage.make(batch_index=each.place, batch_index_error_message=each.message)
        for each in outcome.record_errors
    ]


def _code(outcome: ProduceOutcome, version: int) -> int:
    """The error code that a producer of this version knows: UNKNOWN_TOPIC_ID becomes UNKNOWN_TOPIC_OR_PARTITION for one
    that names topics, and 89 becomes 19: nothing was appended, and all producers send again."""
    if outcome.error_code == UnknownTopicId.code and version < FIRST_WITH_TOPIC_IDS:
        return UnknownTopicOrPartition.code
    return NotEnoughReplicas.code if outcome.error_code == ThrottlingQuotaExceeded.code else outcome.error_code


def _refusal(records: Buffer, *, version: int, is_repeated: bool) -> KafkaError | None:
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
    if size < len(records) or is_repeated:
        return InvalidRecord("a produce request has exactly one record batch for each partition; here are more")
    if records[ATTRIBUTES_AT] & CODEC_MASK == ZSTD and version < FIRST_WITH_ZSTD:
        return UnsupportedCompressionType(f"zstd needs produce requests of version {FIRST_WITH_ZSTD} or later")
    return None


def _support(version: int) -> Support:
    if version >= FIRST_THAT_ADDS_PARTITIONS:
        return Support.ADDS_PARTITIONS
    return Support.KNOWS_ABORTABLE if version >= FIRST_WITH_ABORTABLE else Support.OLD


def _close_for_errors(outcomes: Outcomes) -> None:
    """The answer to acks=0. Raises CloseConnection when something failed (P8)."""
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
    if message.acks == ACKS_NONE:
        raise CloseConnection(f"acks=0: {error}")
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
