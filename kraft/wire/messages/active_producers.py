"""DescribeProducers (61) between nodes: what the leader of a partition knows of its producers (KIP-664).

As in `kraft.wire.messages.offsets`, the topic is named by its id; one partition at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

from kraft.protocol import apis
from kraft.protocol.errors import UnknownTopicOrPartition, for_code
from kraft.protocol.messages.describe_producers_request import DescribeProducersRequestData, TopicRequest
from kraft.protocol.messages.describe_producers_response import (
    DescribeProducersResponseData,
    PartitionResponse,
    ProducerState,
    TopicResponse,
)
from kraft.wire.messages.common import ServedRpc
from kraft.wire.messages.offsets import id_of, name_of
from metadata.image import TopicIdPartition
from replication.requests import ActiveProducer


def _request(request: TopicIdPartition, timeout_ms: int) -> DescribeProducersRequestData:
    topic = TopicRequest.make(name=name_of(request.topic_id), partition_indexes=(request.partition,))
    return DescribeProducersRequestData.make(topics=(topic,))


def _from_request(message: DescribeProducersRequestData) -> TopicIdPartition:
    named = [(topic.name, number) for topic in message.topics for number in topic.partition_indexes]
    if len(named) != 1:
        raise UnknownTopicOrPartition(f"{len(named)} partitions asked for; brokers ask for one at a time")
    ((name, number),) = named
    return TopicIdPartition(id_of(name), number)


def _reply(request: TopicIdPartition, producers: Sequence[ActiveProducer]) -> DescribeProducersResponseData:
    states = [
        ProducerState.make(
            producer_id=each.producer_id,
            producer_epoch=each.producer_epoch,
            last_sequence=each.last_sequence,
            last_timestamp=each.last_timestamp_ms,
            coordinator_epoch=each.coordinator_epoch,
            current_txn_start_offset=each.transaction_start_offset,
        )
        for each in producers
    ]
    return _response(name_of(request.topic_id), PartitionResponse.make(
        partition_index=request.partition, active_producers=states
    ))  # fmt: skip


def _response(name: str, partition: PartitionResponse) -> DescribeProducersResponseData:
    return DescribeProducersResponseData.make(topics=(TopicResponse.make(name=name, partitions=(partition,)),))


def _from_reply(request: TopicIdPartition, message: DescribeProducersResponseData) -> Sequence[ActiveProducer]:
    ((partition,),) = [topic.partitions for topic in message.topics]
    if partition.error_code:
        raise for_code(partition.error_code, partition.error_message or "")
    return tuple(
        ActiveProducer(
            producer_id=each.producer_id,
            producer_epoch=each.producer_epoch,
            last_sequence=each.last_sequence,
            last_timestamp_ms=each.last_timestamp,
            coordinator_epoch=each.coordinator_epoch,
            transaction_start_offset=each.current_txn_start_offset,
        )
        for each in partition.active_producers
    )


def _refused(message: DescribeProducersRequestData, code: int) -> DescribeProducersResponseData:
    return DescribeProducersResponseData.make(
        topics=[
            TopicResponse.make(
                name=topic.name,
                partitions=[
                    PartitionResponse.make(partition_index=number, error_code=code, error_message=None)
                    for number in topic.partition_indexes
                ],
            )
            for topic in message.topics
        ]
    )


DESCRIBE_PRODUCERS: ServedRpc[
    TopicIdPartition, Sequence[ActiveProducer], DescribeProducersRequestData, DescribeProducersResponseData
] = ServedRpc(
    api=apis.DESCRIBE_PRODUCERS,
    response=DescribeProducersResponseData,
    to_request=_request,
    from_request=_from_request,
    to_reply=_reply,
    from_reply=_from_reply,
    refuse=_refused,
)
