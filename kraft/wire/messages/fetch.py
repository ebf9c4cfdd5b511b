"""Fetch (1) between replicas and for forwarded consumers: `FetchRequest`/`FetchResponse` <-> Kafka's messages.

Fetch also carries the controller's question before an unclean election (L8). It has to reach a replica that does not
lead, and one answer has to hold last epoch, log end and high watermark. Only Fetch has room for all three: a
request with replica id -2 (Kafka's debugging replica, which any replica answers) and an epoch above all epochs is
answered with `diverging_epoch` = (last epoch, log end offset), as KIP-595 has it, beside the high watermark.
OffsetForLeaderEpoch knows no high watermark, DescribeLogDirs no epochs, and ListOffsets answers for leaders.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from kraft.wire import apis, schemas
from kraft.wire.messages.common import Rpc, by_topic
from metadata.controller.events import ReplicaLogEnd
from metadata.image import TopicIdPartition
from metadata.settings import INT32_MAX, INT64_MAX
from metadata.values import maker
from replication.partition.log import EpochEnd
from replication.requests import FetchedPartition, FetchPartition, FetchRequest, FetchResponse

DEBUGGING_REPLICA = -2
NIL = UUID(int=0)
_TYPES = (apis.FETCH, apis.FETCH.version)
_new_request, _new_partition = maker(FetchRequest), maker(FetchPartition)
_new_response, _new_fetched = maker(FetchResponse), maker(FetchedPartition)


def _fetch_request(request: FetchRequest, timeout_ms: int) -> Any:
    types = schemas.requests_of(*_TYPES)
    return types.FetchRequest(
        replica_state=types.ReplicaState(replica_id=request.replica_id, replica_epoch=request.replica_epoch),
        max_wait=request.wait_ms_max,
        min_bytes=request.bytes_min,
        max_bytes=request.bytes_max,
        session_id=request.session_id,
        session_epoch=request.session_epoch,
        topics=[
            types.FetchTopic(topic_id=topic_id, partitions=[_fetch_partition(types, item) for item in items])
            for topic_id, items in by_topic(request.partitions)
        ],
        forgotten_topics_data=[
            types.ForgottenTopic(topic_id=topic_id, partitions=[item.partition for item in items])
            for topic_id, items in by_topic(request.forgotten)
        ],
    )


def _fetch_partition(types: Any, item: FetchPartition) -> Any:
    return types.FetchPartition(
        partition=item.partition,
        current_leader_epoch=item.current_leader_epoch,
        fetch_offset=item.fetch_offset,
        last_fetched_epoch=item.last_fetched_epoch,
        log_start_offset=item.log_start_offset,
        partition_max_bytes=item.bytes_max,
    )


def _fetch(message: Any) -> FetchRequest:
    topics, forgotten = message.topics, message.forgotten_topics_data
    return _new_request(
        replica_id=message.replica_state.replica_id,
        replica_epoch=message.replica_state.replica_epoch,
        wait_ms_max=message.max_wait,
        bytes_min=message.min_bytes,
        bytes_max=message.max_bytes,
        session_id=message.session_id,
        session_epoch=message.session_epoch,
        partitions=tuple([_asked_partition(topic.topic_id, item) for topic in topics for item in topic.partitions]),
        forgotten=tuple(
            [TopicIdPartition(topic.topic_id or NIL, number) for topic in forgotten for number in topic.partitions]
        ),
    )


def _asked_partition(topic_id: UUID | None, item: Any) -> FetchPartition:
    return _new_partition(
        topic_id=topic_id or NIL,
        partition=item.partition,
        current_leader_epoch=item.current_leader_epoch,
        fetch_offset=item.fetch_offset,
        last_fetched_epoch=item.last_fetched_epoch,
        log_start_offset=item.log_start_offset,
        bytes_max=item.partition_max_bytes,
    )


def _fetch_reply(request: FetchRequest, reply: FetchResponse) -> Any:
    types = schemas.responses_of(*_TYPES)
    return types.FetchResponse(
        throttle_time=schemas.NO_THROTTLE,
        error_code=reply.error_code,
        session_id=reply.session_id,
        responses=[
            types.FetchableTopicResponse(topic_id=topic_id, partitions=[_partition_data(types, item) for item in items])
            for topic_id, items in by_topic(reply.partitions)
        ],
    )


def _partition_data(types: Any, item: FetchedPartition) -> Any:
    tagged: dict[str, Any] = {}
    if item.diverging_epoch is not None:
        end = item.diverging_epoch
        tagged["diverging_epoch"] = types.EpochEndOffset(epoch=end.epoch, end_offset=end.end_offset)
    if item.current_leader is not None:
        leader_id, leader_epoch = item.current_leader
        tagged["current_leader"] = types.LeaderIdAndEpoch(leader_id=leader_id, leader_epoch=leader_epoch)
    return types.PartitionData(
        partition_index=item.partition,
        error_code=item.error_code,
        high_watermark=item.high_watermark,
        last_stable_offset=item.last_stable_offset,
        log_start_offset=item.log_start_offset,
        aborted_transactions=None,
        records=item.records,
        **tagged,
    )


def _fetched(request: FetchRequest, message: Any) -> FetchResponse:
    topics = message.responses
    return _new_response(
        error_code=message.error_code,
        session_id=message.session_id,
        partitions=tuple([_fetched_partition(topic.topic_id, item) for topic in topics for item in topic.partitions]),
    )


def _fetched_partition(topic_id: UUID | None, item: Any) -> FetchedPartition:
    diverging, leader = item.diverging_epoch, item.current_leader
    return _new_fetched(
        topic_id=topic_id or NIL,
        partition=item.partition_index,
        error_code=item.error_code,
        high_watermark=item.high_watermark,
        last_stable_offset=item.last_stable_offset,
        log_start_offset=item.log_start_offset,
        diverging_epoch=EpochEnd(diverging.epoch, diverging.end_offset) if diverging.end_offset >= 0 else None,
        current_leader=(leader.leader_id, leader.leader_epoch) if leader.leader_epoch >= 0 else None,
        records=item.records or b"",
    )


def _fetch_refused(message: Any, code: int) -> Any:
    types = schemas.responses_of(*_TYPES)
    return types.FetchResponse(throttle_time=schemas.NO_THROTTLE, error_code=code, session_id=0, responses=())


FETCH: Rpc[FetchRequest, FetchResponse] = Rpc(
    api=apis.FETCH,
    to_request=_fetch_request,
    from_request=_fetch,
    to_reply=_fetch_reply,
    from_reply=_fetched,
    refuse=_fetch_refused,
    has_error_in_reply=True,
)


# --- the question for log ends --------------------------------------------------------------------------------------


def log_ends_request(partitions: Sequence[TopicIdPartition]) -> FetchRequest:
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
