"""Produce (0): batches per partition and what became of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kraft.protocol import apis
from kraft.protocol.errors import RecordError
from kraft.protocol.messages.produce_request import PartitionProduceData, ProduceRequestData, TopicProduceData
from kraft.protocol.messages.produce_response import (
    BatchIndexAndErrorMessage,
    LeaderIdAndEpoch,
    PartitionProduceResponse,
    ProduceResponseData,
    TopicProduceResponse,
)
from kraft.protocol.primitives import Buffer
from kraft.values import new
from kraft.wire.messages.common import ServedRpc, by_topic
from metadata.image import TopicIdPartition
from replication.requests import ProduceOptions, ProduceOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class ProduceRequest:
    batches: Mapping[TopicIdPartition, Buffer]
    options: ProduceOptions


Outcomes = Mapping[TopicIdPartition, ProduceOutcome]


def _request(request: ProduceRequest, timeout_ms: int) -> ProduceRequestData:
    return ProduceRequestData.make(
        transactional_id=request.options.transactional_id,
        acks=request.options.acks,
        timeout_ms=request.options.timeout_ms,
        topic_data=[
            TopicProduceData.make(
                topic_id=topic_id,
                partition_data=[
                    PartitionProduceData.make(index=key.partition, records=request.batches[key]) for key in keys
                ],
            )
            for topic_id, keys in by_topic(tuple(request.batches))
        ],
    )


def _from_request(message: ProduceRequestData) -> ProduceRequest:
    return ProduceRequest(
        batches={
            TopicIdPartition(topic.topic_id, item.index): item.records or b""
            for topic in message.topic_data
            for item in topic.partition_data
        },
        options=ProduceOptions(message.acks, message.timeout_ms, message.transactional_id),
    )


def _reply(request: ProduceRequest, outcomes: Outcomes) -> ProduceResponseData:
    return ProduceResponseData.make(
        responses=[
            TopicProduceResponse.make(
                topic_id=topic_id,
                partition_responses=[_produced(key.partition, outcomes[key]) for key in keys],
            )
            for topic_id, keys in by_topic(tuple(outcomes))
        ]
    )


def _produced(partition: int, outcome: ProduceOutcome) -> PartitionProduceResponse:
    return PartitionProduceResponse.make(
        index=partition,
        error_code=outcome.error_code,
        base_offset=outcome.base_offset,
        log_append_time_ms=outcome.log_append_time_ms,
        log_start_offset=outcome.log_start_offset,
        record_errors=[
            BatchIndexAndErrorMessage.make(batch_index=each.place, batch_index_error_message=each.message)
            for each in outcome.record_errors
        ],
        error_message=outcome.message or None,
        current_leader=LeaderIdAndEpoch.make(leader_id=outcome.leader_id, leader_epoch=outcome.leader_epoch),
        last_offset=outcome.last_offset,
        is_appended=outcome.is_appended,
        isr=outcome.isr,
        min_isr=outcome.min_isr,
    )


def _from_reply(request: ProduceRequest, message: ProduceResponseData) -> Outcomes:
    return {
        TopicIdPartition(topic.topic_id, item.index): _outcome(item)
        for topic in message.responses
        for item in topic.partition_responses
    }


def _outcome(item: PartitionProduceResponse) -> ProduceOutcome:
    made = new(ProduceOutcome)
    ProduceOutcome.__init__(
        made,
        error_code=item.error_code,
        message=item.error_message or "",
        base_offset=item.base_offset,
        last_offset=item.last_offset,
        log_append_time_ms=item.log_append_time_ms,
        log_start_offset=item.log_start_offset,
        leader_id=item.current_leader.leader_id,
        leader_epoch=item.current_leader.leader_epoch,
        is_appended=item.is_appended,
        isr=tuple(item.isr),
        min_isr=item.min_isr,
        record_errors=tuple(
            [RecordError(each.batch_index, each.batch_index_error_message or "") for each in item.record_errors]
        ),
    )
    return made


def _refused(message: ProduceRequestData, code: int) -> ProduceResponseData:
    request = _from_request(message)
    return _reply(request, dict.fromkeys(request.batches, ProduceOutcome(error_code=code)))


PRODUCE: ServedRpc[ProduceRequest, Outcomes, ProduceRequestData, ProduceResponseData] = ServedRpc(
    api=apis.PRODUCE,
    response=ProduceResponseData,
    to_request=_request,
    from_request=_from_request,
    to_reply=_reply,
    from_reply=_from_reply,
    refuse=_refused,
)
