"""ListOffsets (2), DeleteRecords (21) and OffsetForLeaderEpoch (23).

These APIs still name topics where all newer ones have ids. A name may by now mean another topic, created after the
deletion of the one that the sender means; so between brokers the name is `id:` and the topic id. No topic can be called
that (a colon is not legal in a name).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from kraft.wire import apis, schemas
from kraft.wire.messages.common import Rpc, group
from metadata.errors import UnknownTopicOrPartition
from metadata.image import TopicIdPartition
from replication.partition.log import EpochEnd
from replication.requests import CONSUMER, OffsetAnswer

ID_PREFIX = "id:"
UNDEFINED = EpochEnd(-1, -1)


def name_of(topic_id: UUID) -> str:
    return ID_PREFIX + topic_id.hex


def id_of(name: str) -> UUID:
    """Raises UnknownTopicOrPartition for anything that `name_of` did not make."""
    try:
        if not name.startswith(ID_PREFIX):
            raise ValueError(name)
        return UUID(hex=name.removeprefix(ID_PREFIX))
    except ValueError:
        raise UnknownTopicOrPartition(f"topic {name[:60]!r}: brokers name topics by 'id:' and the topic id") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOffset:
    partition: TopicIdPartition
    timestamp: int
    timeout_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteRecords:
    offsets: Mapping[TopicIdPartition, int]
    timeout_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochQuestion:
    replica_id: int
    partition: TopicIdPartition
    current_leader_epoch: int
    epoch: int


# --- ListOffsets, one partition at a time ---------------------------------------------------------------------------


def _list_request(request: ListOffset, timeout_ms: int) -> Any:
    types = schemas.requests_of(apis.LIST_OFFSETS, apis.LIST_OFFSETS.version)
    question = types.ListOffsetsPartition(partition_index=request.partition.partition, timestamp=request.timestamp)
    return types.ListOffsetsRequest(
        replica_id=CONSUMER,
        isolation_level=0,
        topics=(types.ListOffsetsTopic(name=name_of(request.partition.topic_id), partitions=(question,)),),
        timeout=request.timeout_ms,
    )


def _list_from_request(message: Any) -> ListOffset:
    topic, item = _only(message.topics)
    return ListOffset(
        partition=TopicIdPartition(id_of(topic.name), item.partition_index),
        timestamp=item.timestamp,
        timeout_ms=message.timeout,
    )


def _only(topics: Any) -> tuple[Any, Any]:
    pairs = [(topic, item) for topic in topics for item in topic.partitions]
    if len(pairs) != 1:
        raise UnknownTopicOrPartition(f"{len(pairs)} partitions asked for; brokers ask for one at a time")
    return pairs[0]


def _list_response(names: list[tuple[str, int]], code: int, answer: OffsetAnswer) -> Any:
    types = schemas.responses_of(apis.LIST_OFFSETS, apis.LIST_OFFSETS.version)
    return types.ListOffsetsResponse(
        throttle_time=schemas.NO_THROTTLE,
        topics=tuple(
            types.ListOffsetsTopicResponse(
                name=name,
                partitions=tuple(
                    types.ListOffsetsPartitionResponse(
                        partition_index=partition,
                        error_code=code,
                        timestamp=answer.timestamp,
                        offset=answer.offset,
                        leader_epoch=answer.leader_epoch,
                    )
                    for _, partition in items
                ),
            )
            for name, items in group(names, lambda item: item[0]).items()
        ),
    )


def _list_from_reply(request: ListOffset, message: Any) -> OffsetAnswer:
    _, item = _only(message.topics)
    return OffsetAnswer(offset=item.offset, timestamp=item.timestamp, leader_epoch=item.leader_epoch)


LIST_OFFSETS: Rpc[ListOffset, OffsetAnswer] = Rpc(
    api=apis.LIST_OFFSETS,
    to_request=_list_request,
    from_request=_list_from_request,
    to_reply=lambda request, reply: _list_response(
        [(name_of(request.partition.topic_id), request.partition.partition)], 0, reply
    ),
    from_reply=_list_from_reply,
    refuse=lambda message, code: _list_response(
        [(topic.name, item.partition_index) for topic in message.topics for item in topic.partitions],
        code,
        OffsetAnswer(offset=-1),
    ),
)


# --- DeleteRecords, one partition at a time ---------------------------------------------------------------------------


def _delete_request(request: DeleteRecords, timeout_ms: int) -> Any:
    types = schemas.requests_of(apis.DELETE_RECORDS, apis.DELETE_RECORDS.version)
    return types.DeleteRecordsRequest(
        topics=tuple(
            types.DeleteRecordsTopic(
                name=name_of(topic_id),
                partitions=tuple(
                    types.DeleteRecordsPartition(partition_index=key.partition, offset=request.offsets[key])
                    for key in keys
                ),
            )
            for topic_id, keys in group(request.offsets, lambda key: key.topic_id).items()
        ),
        timeout=request.timeout_ms,
    )


def _delete_from_request(message: Any) -> DeleteRecords:
    return DeleteRecords(
        offsets={
            TopicIdPartition(id_of(topic.name), item.partition_index): item.offset
            for topic in message.topics
            for item in topic.partitions
        },
        timeout_ms=message.timeout,
    )


def _delete_response(results: Mapping[tuple[str, int], tuple[int, int]]) -> Any:
    """(name, partition) -> (low watermark, error code)."""
    types = schemas.responses_of(apis.DELETE_RECORDS, apis.DELETE_RECORDS.version)
    return types.DeleteRecordsResponse(
        throttle_time=schemas.NO_THROTTLE,
        topics=tuple(
            types.DeleteRecordsTopicResult(
                name=name,
                partitions=tuple(
                    types.DeleteRecordsPartitionResult(
                        partition_index=key[1],
                        low_watermark=results[key][0],
                        error_code=results[key][1],
                    )
                    for key in keys
                ),
            )
            for name, keys in group(results, lambda key: key[0]).items()
        ),
    )


LowWatermarks = Mapping[TopicIdPartition, tuple[int, int]]
"""Low watermark and error code of each partition."""

DELETE_RECORDS: Rpc[DeleteRecords, LowWatermarks] = Rpc(
    api=apis.DELETE_RECORDS,
    to_request=_delete_request,
    from_request=_delete_from_request,
    to_reply=lambda request, reply: _delete_response(
        {(name_of(key.topic_id), key.partition): result for key, result in reply.items()}
    ),
    from_reply=lambda request, message: {
        TopicIdPartition(id_of(topic.name), item.partition_index): (item.low_watermark, item.error_code)
        for topic in message.topics
        for item in topic.partitions
    },
    refuse=lambda message, code: _delete_response(
        {(topic.name, item.partition_index): (-1, code) for topic in message.topics for item in topic.partitions}
    ),
)


# --- OffsetForLeaderEpoch, one partition at a time --------------------------------------------------------------------


def _epoch_request(request: EpochQuestion, timeout_ms: int) -> Any:
    types = schemas.requests_of(apis.OFFSET_FOR_LEADER_EPOCH, apis.OFFSET_FOR_LEADER_EPOCH.version)
    question = types.OffsetForLeaderPartition(
        partition=request.partition.partition,
        current_leader_epoch=request.current_leader_epoch,
        leader_epoch=request.epoch,
    )
    topic = types.OffsetForLeaderTopic(topic=name_of(request.partition.topic_id), partitions=(question,))
    return types.OffsetForLeaderEpochRequest(replica_id=request.replica_id, topics=(topic,))


def _epoch_from_request(message: Any) -> EpochQuestion:
    topic, item = _only(message.topics)
    return EpochQuestion(
        replica_id=message.replica_id,
        partition=TopicIdPartition(id_of(topic.topic), item.partition),
        current_leader_epoch=item.current_leader_epoch,
        epoch=item.leader_epoch,
    )


def _epoch_response(names: list[tuple[str, int]], code: int, end: EpochEnd) -> Any:
    types = schemas.responses_of(apis.OFFSET_FOR_LEADER_EPOCH, apis.OFFSET_FOR_LEADER_EPOCH.version)
    return types.OffsetForLeaderEpochResponse(
        throttle_time=schemas.NO_THROTTLE,
        topics=tuple(
            types.OffsetForLeaderTopicResult(
                topic=name,
                partitions=tuple(
                    types.EpochEndOffset(
                        error_code=code,
                        partition=partition,
                        leader_epoch=end.epoch,
                        end_offset=end.end_offset,
                    )
                    for _, partition in items
                ),
            )
            for name, items in group(names, lambda item: item[0]).items()
        ),
    )


def _epoch_from_reply(request: EpochQuestion, message: Any) -> EpochEnd | None:
    _, item = _only(message.topics)
    return None if item.end_offset < 0 else EpochEnd(item.leader_epoch, item.end_offset)


OFFSET_FOR_LEADER_EPOCH: Rpc[EpochQuestion, EpochEnd | None] = Rpc(
    api=apis.OFFSET_FOR_LEADER_EPOCH,
    to_request=_epoch_request,
    from_request=_epoch_from_request,
    to_reply=lambda request, reply: _epoch_response(
        [(name_of(request.partition.topic_id), request.partition.partition)], 0, reply or UNDEFINED
    ),
    from_reply=_epoch_from_reply,
    refuse=lambda message, code: _epoch_response(
        [(topic.topic, item.partition) for topic in message.topics for item in topic.partitions], code, UNDEFINED
    ),
)
