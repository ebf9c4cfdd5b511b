"""Fetch (1) for clients: record batches as they are in the log, up to the high watermark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from kraft.protocol.errors import (
    ClusterAuthorizationFailed,
    FencedLeaderEpoch,
    KafkaError,
    NotLeaderOrFollower,
    UnknownTopicId,
    UnknownTopicOrPartition,
)
from kraft.wire.clients.endpoints import node_endpoints
from kraft.wire.clients.leaders import UNKNOWN, Leaders
from kraft.wire.clients.served import ClientApi, ClientBroker, ClientCall
from kraft.wire.generated.fetch_request import FetchRequestData
from kraft.wire.generated.fetch_response import (
    NO_EPOCH_END_OFFSET,
    NO_LEADER_ID_AND_EPOCH,
    EpochEndOffset,
    FetchableTopicResponse,
    FetchResponseData,
    LeaderIdAndEpoch,
    NodeEndpoint,
    PartitionData,
)
from metadata.image import TopicIdPartition
from replication.requests import CONSUMER, FetchedPartition, FetchPartition, FetchRequest

FIRST_WITH_TOPIC_IDS = 13
MOVED = (NotLeaderOrFollower.code, FencedLeaderEpoch.code)
"""Errors that come with the leader (KIP-951)."""


def apis(broker: ClientBroker) -> Sequence[ClientApi]:
    fetch = _Fetch(broker)
    return [ClientApi(request=FetchRequestData, response=FetchResponseData, handle=fetch.handle, refuse=_refuse)]


class _Fetch:
    def __init__(self, broker: ClientBroker) -> None:
        self._broker = broker
        self._replicas = broker.replicas
        self._leaders = Leaders(broker.gateway)

    async def handle(self, call: ClientCall[FetchRequestData]) -> FetchResponseData:
        message = call.message
        _check_is_consumer(message)
        asked: list[FetchPartition] = []
        ids: list[UUID | None] = []
        for topic in message.topics:
            topic_id = topic.topic_id if call.version >= FIRST_WITH_TOPIC_IDS else self._leaders.id_of(topic.topic)
            ids.append(topic_id)
            if topic_id is None:
                continue
            for item in topic.partitions:
                asked.append(
                    FetchPartition(
                        topic_id=topic_id,
                        partition=item.partition,
                        current_leader_epoch=item.current_leader_epoch,
                        fetch_offset=item.fetch_offset,
                        last_fetched_epoch=item.last_fetched_epoch,
                        log_start_offset=-1,
                        bytes_max=item.partition_max_bytes,
                    )
                )
        request = FetchRequest(
            replica_id=CONSUMER,
            replica_epoch=-1,
            wait_ms_max=message.max_wait_ms,
            bytes_min=message.min_bytes,
            bytes_max=message.max_bytes,
            partitions=tuple(asked),
        )
        reply = await self._replicas.fetch(request)
        answers = {TopicIdPartition(each.topic_id, each.partition): each for each in reply.partitions}
        return self._response(call, ids, answers)

    def _response(
        self,
        call: ClientCall[FetchRequestData],
        ids: Sequence[UUID | None],
        answers: Mapping[TopicIdPartition, FetchedPartition],
    ) -> FetchResponseData:
        leader_ids: list[int] = []
        responses = []
        for topic, topic_id in zip(call.message.topics, ids, strict=True):
            partitions = [
                _unknown_topic(item.partition)
                if topic_id is None
                else self._partition(answers[TopicIdPartition(topic_id, item.partition)], call.version, leader_ids)
                for item in topic.partitions
            ]
            responses.append(
                FetchableTopicResponse.make(topic=topic.topic, topic_id=topic.topic_id, partitions=partitions)
            )
        endpoints = node_endpoints(self._broker, leader_ids, call.connection) if leader_ids else ()
        return FetchResponseData.make(
            responses=responses, node_endpoints=[NodeEndpoint.make(**each._asdict()) for each in endpoints]
        )

    def _partition(self, answer: FetchedPartition, version: int, leader_ids: list[int]) -> PartitionData:
        code = answer.error_code
        leader, diverging = NO_LEADER_ID_AND_EPOCH, NO_EPOCH_END_OFFSET
        if code in MOVED:
            current = self._leaders.current(TopicIdPartition(answer.topic_id, answer.partition))
            if current != UNKNOWN:
                leader = LeaderIdAndEpoch.make(leader_id=current[0], leader_epoch=current[1])
                leader_ids.append(current[0])
        if code == UnknownTopicId.code and version < FIRST_WITH_TOPIC_IDS:
            code = UnknownTopicOrPartition.code
        if answer.diverging_epoch is not None:
            end = answer.diverging_epoch
            diverging = EpochEndOffset.make(epoch=end.epoch, end_offset=end.end_offset)
        return PartitionData.make(
            partition_index=answer.partition,
            error_code=code,
            high_watermark=answer.high_watermark,
            last_stable_offset=answer.last_stable_offset,
            log_start_offset=answer.log_start_offset,
            diverging_epoch=diverging,
            current_leader=leader,
            aborted_transactions=None,
            records=answer.records,
        )


def _check_is_consumer(message: FetchRequestData) -> None:
    """Replicas authenticate as nodes and fetch there; nobody else moves a high watermark or reads beyond it."""
    if message.replica_id >= 0 or message.replica_state.replica_id >= 0:
        raise ClusterAuthorizationFailed("only nodes of the cluster fetch as replicas; leave the replica id at -1")


def _unknown_topic(partition: int) -> PartitionData:
    return PartitionData.make(
        partition_index=partition,
        error_code=UnknownTopicOrPartition.code,
        high_watermark=-1,
        aborted_transactions=None,
    )


def _refuse(message: FetchRequestData, version: int, error: KafkaError) -> FetchResponseData:
    return FetchResponseData.make(error_code=error.code, session_id=0, responses=())
