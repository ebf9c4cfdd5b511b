"""DescribeProducers (61): what a replica here knows of the producers of a partition, and their open transactions.

Any replica answers a client, as Kafka's do; a client that looks for hanging transactions asks the leader. Only the
leader answers a node, which asks for one partition and gets its error with the message, as that of the request.
Source: KIP-664; KafkaApis.handleDescribeProducersRequest.
"""

from __future__ import annotations

from collections.abc import Sequence

from kraft.protocol.batches.header import NO_PRODUCER_ID
from kraft.protocol.errors import KafkaError, NotLeaderOrFollower, UnknownTopicOrPartition
from kraft.protocol.messages.describe_producers_request import DescribeProducersRequestData
from kraft.protocol.messages.describe_producers_response import (
    DescribeProducersResponseData,
    PartitionResponse,
    ProducerState,
    TopicResponse,
)
from kraft.wire.api_handler import ApiHandler, Call
from kraft.wire.handlers.leaders import Leaders
from kraft.wire.node_parts import NodeParts
from kraft.wire.terms import id_of
from metadata.image import TopicIdPartition
from replication.manager.manager import ReplicaManager
from replication.producers.state import Producer


def apis(parts: NodeParts) -> Sequence[ApiHandler]:
    producers = _ActiveProducers(parts)
    return [
        ApiHandler(
            request=DescribeProducersRequestData,
            response=DescribeProducersResponseData,
            handle=producers.describe,
            refuse=_refuse,
        )
    ]


class _ActiveProducers:
    def __init__(self, parts: NodeParts) -> None:
        self._parts = parts
        self._gateway = parts.gateway
        self._leaders = Leaders(parts.gateway)

    @property
    def _replicas(self) -> ReplicaManager:
        return self._parts.broker_or(NotLeaderOrFollower).replicas

    def describe(self, call: Call[DescribeProducersRequestData]) -> DescribeProducersResponseData:
        return DescribeProducersResponseData.make(
            topics=[
                TopicResponse.make(
                    name=topic.name,
                    partitions=[self._partition(call, topic.name, number) for number in topic.partition_indexes],
                )
                for topic in call.message.topics
            ]
        )

    def _partition(self, call: Call[DescribeProducersRequestData], topic: str, number: int) -> PartitionResponse:
        try:
            key = self._key_for_node(topic, number) if call.is_from_node else self._key(topic, number)
            producers = self._replicas.producers.all_of(key)
        except KafkaError as error:
            if call.is_from_node:
                raise
            return _refused(number, error)
        return PartitionResponse.make(
            partition_index=number,
            error_message=None,
            active_producers=[_state(producer_id, producer) for producer_id, producer in producers],
        )

    def _key_for_node(self, topic: str, number: int) -> TopicIdPartition:
        """Raises NotLeaderOrFollower 6, and what else a partition that is not led here is refused with."""
        key = TopicIdPartition(id_of(topic), number)
        self._replicas.producers.get(key, NO_PRODUCER_ID)
        return key

    def _key(self, topic: str, number: int) -> TopicIdPartition:
        """Raises UnknownTopicOrPartition 3, NotLeaderOrFollower 6."""
        topic_id = self._leaders.id_of(topic)
        image = self._gateway.image
        partition = None if topic_id is None else image.partition(topic_id, number)
        if topic_id is None or partition is None:
            raise UnknownTopicOrPartition(f"there is no partition {number} of topic {topic!r}")
        if self._gateway.node_id not in partition.replicas:
            raise NotLeaderOrFollower(f"this broker has no replica of {topic}-{number}")
        return TopicIdPartition(topic_id, number)


def _state(producer_id: int, producer: Producer) -> ProducerState:
    return ProducerState.make(
        producer_id=producer_id,
        producer_epoch=producer.epoch,
        last_sequence=producer.last_sequence,
        last_timestamp=producer.timestamp,
        coordinator_epoch=producer.coordinator_epoch,
        current_txn_start_offset=producer.current_txn_first_offset,
    )


def _refused(number: int, error: KafkaError) -> PartitionResponse:
    return PartitionResponse.make(partition_index=number, error_code=error.code, error_message=error.message or None)


def _refuse(message: DescribeProducersRequestData, version: int, error: KafkaError) -> DescribeProducersResponseData:
    return DescribeProducersResponseData.make(
        topics=[
            TopicResponse.make(
                name=topic.name, partitions=[_refused(number, error) for number in topic.partition_indexes]
            )
            for topic in message.topics
        ]
    )
