"""Fetch (1) between replicas and for forwarded consumers: `FetchRequest`/`FetchResponse` <-> Kafka's messages.

Fetch also carries the controller's question before an unclean election (L8). It has to reach a replica that does not
lead, and one answer has to hold last epoch, log end and high watermark. Only Fetch has room for all three: a
request with replica id -2 (Kafka's debugging replica, which any replica answers) and an epoch above all epochs is
answered with `diverging_epoch` = (last epoch, log end offset), as KIP-595 has it, beside the high watermark.
OffsetForLeaderEpoch knows no high watermark, DescribeLogDirs no epochs, and ListOffsets answers for leaders.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from kraft.protocol import apis
from kraft.protocol.messages import fetch_request, fetch_response
from kraft.protocol.messages.fetch_request import FetchRequestData, FetchTopic, ForgottenTopic, ReplicaState
from kraft.protocol.messages.fetch_response import (
    NO_EPOCH_END_OFFSET,
    NO_LEADER_ID_AND_EPOCH,
    EpochEndOffset,
    FetchableTopicResponse,
    FetchResponseData,
    LeaderIdAndEpoch,
    PartitionData,
)
from kraft.protocol.primitives import INT32_MAX, INT64_MAX
from kraft.values import new
from kraft.wire.messages.common import READ_COMMITTED, READ_UNCOMMITTED, ServedRpc, by_topic
from metadata.controller.requests import ReplicaLogEnd
from metadata.image import TopicIdPartition
from replication.partition.log import AbortedTransaction, EpochEnd
from replication.requests import FetchedPartition, FetchPartition, FetchRequest, FetchResponse

DEBUGGING_REPLICA = -2


def _fetch_request(request: FetchRequest, timeout_ms: int) -> FetchRequestData:
    return FetchRequestData.make(
        replica_state=ReplicaState.make(replica_id=request.replica_id, replica_epoch=request.replica_epoch),
        max_wait_ms=request.wait_ms_max,
        min_bytes=request.bytes_min,
        max_bytes=request.bytes_max,
        isolation_level=READ_COMMITTED if request.is_read_committed else READ_UNCOMMITTED,
        session_id=request.session_id,
        session_epoch=request.session_epoch,
        topics=[
            FetchTopic.make(topic_id=topic_id, partitions=[_fetch_partition(item) for item in items])
            for topic_id, items in by_topic(request.partitions)
        ],
        forgotten_topics_data=[
            ForgottenTopic.make(topic_id=topic_id, partitions=[item.partition for item in items])
            for topic_id, items in by_topic([key for key in request.forgotten if isinstance(key, TopicIdPartition)])
        ],
    )


def _fetch_partition(item: FetchPartition) -> fetch_request.FetchPartition:
    return fetch_request.FetchPartition.make(
        partition=item.partition,
        current_leader_epoch=item.current_leader_epoch,
        fetch_offset=item.fetch_offset,
        last_fetched_epoch=item.last_fetched_epoch,
        log_start_offset=item.log_start_offset,
        partition_max_bytes=item.bytes_max,
    )


def _fetch(message: FetchRequestData) -> FetchRequest:
    topics, forgotten = message.topics, message.forgotten_topics_data
    made = new(FetchRequest)
    FetchRequest.__init__(
        made,
        replica_id=message.replica_state.replica_id,
        replica_epoch=message.replica_state.replica_epoch,
        wait_ms_max=message.max_wait_ms,
        bytes_min=message.min_bytes,
        bytes_max=message.max_bytes,
        session_id=message.session_id,
        session_epoch=message.session_epoch,
        partitions=tuple([_asked_partition(topic.topic_id, item) for topic in topics for item in topic.partitions]),
        forgotten=tuple(
            [TopicIdPartition(topic.topic_id, number) for topic in forgotten for number in topic.partitions]
        ),
        is_read_committed=message.isolation_level == READ_COMMITTED,
    )
    return made


def _asked_partition(topic_id: UUID, item: fetch_request.FetchPartition) -> FetchPartition:
    made = new(FetchPartition)
    FetchPartition.__init__(
        made,
        topic_id=topic_id,
        partition=item.partition,
        current_leader_epoch=item.current_leader_epoch,
        fetch_offset=item.fetch_offset,
        last_fetched_epoch=item.last_fetched_epoch,
        log_start_offset=item.log_start_offset,
        bytes_max=item.partition_max_bytes,
    )
    return made


def _fetch_reply(request: FetchRequest, reply: FetchResponse) -> FetchResponseData:
    return FetchResponseData.make(
        error_code=reply.error_code,
        session_id=reply.session_id,
        responses=[
            FetchableTopicResponse.make(topic_id=topic_id, partitions=[_partition_data(item) for item in items])
            for topic_id, items in by_topic(reply.partitions)
        ],
    )


def _partition_data(item: FetchedPartition) -> PartitionData:
    diverging_epoch = NO_EPOCH_END_OFFSET
    if item.diverging_epoch is not None:
        end = item.diverging_epoch
        diverging_epoch = EpochEndOffset.make(epoch=end.epoch, end_offset=end.end_offset)
    current_leader = NO_LEADER_ID_AND_EPOCH
    if item.current_leader is not None:
        leader_id, leader_epoch = item.current_leader
        current_leader = LeaderIdAndEpoch.make(leader_id=leader_id, leader_epoch=leader_epoch)
    return PartitionData.make(
        partition_index=item.partition,
        error_code=item.error_code,
        high_watermark=item.high_watermark,
        last_stable_offset=item.last_stable_offset,
        log_start_offset=item.log_start_offset,
        diverging_epoch=diverging_epoch,
        current_leader=current_leader,
        aborted_transactions=[
            fetch_response.AbortedTransaction.make(producer_id=each.producer_id, first_offset=each.first_offset)
            for each in item.aborted
        ]
        if item.aborted
        else None,
        records=item.records,
    )


def _fetched(request: FetchRequest, message: FetchResponseData) -> FetchResponse:
    topics = message.responses
    made = new(FetchResponse)
    FetchResponse.__init__(
        made,
        error_code=message.error_code,
        session_id=message.session_id,
        partitions=tuple([_fetched_partition(topic.topic_id, item) for topic in topics for item in topic.partitions]),
    )
    return made


def _fetched_partition(topic_id: UUID, item: PartitionData) -> FetchedPartition:
    diverging, leader = item.diverging_epoch, item.current_leader
    made = new(FetchedPartition)
    FetchedPartition.__init__(
        made,
        topic_id=topic_id,
        partition=item.partition_index,
        error_code=item.error_code,
        high_watermark=item.high_watermark,
        last_stable_offset=item.last_stable_offset,
        log_start_offset=item.log_start_offset,
        aborted=tuple([AbortedTransaction(each.producer_id, each.first_offset) for each in item.aborted_transactions])
        if item.aborted_transactions
        else (),
        diverging_epoch=EpochEnd(diverging.epoch, diverging.end_offset) if diverging.end_offset >= 0 else None,
        current_leader=(leader.leader_id, leader.leader_epoch) if leader.leader_epoch >= 0 else None,
        records=item.records or b"",
    )
    return made


def _fetch_refused(message: FetchRequestData, code: int) -> FetchResponseData:
    return FetchResponseData.make(error_code=code, session_id=0, responses=())


FETCH: ServedRpc[FetchRequest, FetchResponse, FetchRequestData, FetchResponseData] = ServedRpc(
    api=apis.FETCH,
    response=FetchResponseData,
    to_request=_fetch_request,
    from_request=_fetch,
    to_reply=_fetch_reply,
    from_reply=_fetched,
    refuse=_fetch_refused,
    has_error_in_reply=True,
)


# --- the question for log ends --------------------------------------------------------------------------------------


def log_ends_request(partitions: Sequence[TopicIdPartition]) -> FetchRequest:
    """The Fetch that asks any replica where its logs end (see above)."""
    return FetchRequest(
        replica_id=DEBUGGING_REPLICA,
        replica_epoch=-1,
        wait_ms_max=0,
        bytes_min=0,
        bytes_max=0,
        partitions=tuple(
            FetchPartition(
                topic_id=item.topic_id,
                partition=item.partition,
                current_leader_epoch=-1,
                fetch_offset=INT64_MAX,
                last_fetched_epoch=INT32_MAX,
                log_start_offset=-1,
                bytes_max=0,
            )
            for item in partitions
        ),
    )


def log_ends_response(ends: Sequence[ReplicaLogEnd]) -> FetchResponse:
    """The answer to it."""
    return FetchResponse(
        partitions=tuple(
            FetchedPartition(
                topic_id=end.topic_id,
                partition=end.partition,
                error_code=end.error_code,
                high_watermark=end.high_watermark,
                diverging_epoch=EpochEnd(end.last_epoch, end.log_end_offset),
            )
            for end in ends
        )
    )


def log_ends_of(response: FetchResponse) -> tuple[ReplicaLogEnd, ...]:
    """What that answer says of each partition."""
    nothing = EpochEnd(-1, -1)
    return tuple(
        ReplicaLogEnd(
            topic_id=item.topic_id,
            partition=item.partition,
            last_epoch=(item.diverging_epoch or nothing).epoch,
            log_end_offset=(item.diverging_epoch or nothing).end_offset,
            high_watermark=item.high_watermark,
            error_code=item.error_code,
        )
        for item in response.partitions
    )
