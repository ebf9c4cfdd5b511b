"""ListOffsets (2), DeleteRecords (21) and OffsetForLeaderEpoch (23).

These APIs still name topics where all newer ones have ids. A name may by now mean another topic, created after the
deletion of the one that the sender means; so between brokers the name is `id:` and the topic id. No topic can be called
that (a colon is not legal in a name).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

from kraft.protocol import apis
from kraft.protocol.errors import UnknownTopicOrPartition
from kraft.protocol.messages.delete_records_request import (
    DeleteRecordsPartition,
    DeleteRecordsRequestData,
    DeleteRecordsTopic,
)
from kraft.protocol.messages.delete_records_response import (
    DeleteRecordsPartitionResult,
    DeleteRecordsResponseData,
    DeleteRecordsTopicResult,
)
from kraft.protocol.messages.list_offsets_request import ListOffsetsPartition, ListOffsetsRequestData, ListOffsetsTopic
from kraft.protocol.messages.list_offsets_response import (
    ListOffsetsPartitionResponse,
    ListOffsetsResponseData,
    ListOffsetsTopicResponse,
)
from kraft.protocol.messages.offset_for_leader_epoch_request import (
    OffsetForLeaderEpochRequestData,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)
from kraft.protocol.messages.offset_for_leader_epoch_response import (
    EpochEndOffset,
    OffsetForLeaderEpochResponseData,
    OffsetForLeaderTopicResult,
)
from kraft.wire.messages.common import READ_COMMITTED, READ_UNCOMMITTED, ServedRpc, group
from metadata.image import TopicIdPartition
from replication.partition.log import EpochEnd
from replication.requests import CONSUMER, OffsetAnswer

Pair = TypeVar("Pair", bound=tuple[object, object])

ID_PREFIX = "id:"
UNDEFINED = EpochEnd(-1, -1)


def name_of(topic_id: UUID) -> str:
    """The name by which these APIs carry a topic id between nodes."""
    return ID_PREFIX + topic_id.hex


def id_of(name: str) -> UUID:
    """The topic id in such a name. Raises UnknownTopicOrPartition 3 for anything that `name_of` did not make."""
    try:
        if not name.startswith(ID_PREFIX):
            raise ValueError(name)
        return UUID(hex=name.removeprefix(ID_PREFIX))
    except ValueError:
        raise UnknownTopicOrPartition(f"topic {name[:60]!r}: brokers name topics by 'id:' and the topic id") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOffset:
    """A question for the offset of a timestamp in one partition."""

    partition: TopicIdPartition
    timestamp: int
    timeout_ms: int
    is_read_committed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteRecords:
    """A request to move the log start of one partition."""

    offsets: Mapping[TopicIdPartition, int]
    timeout_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochQuestion:
    """A question where an epoch ends in one partition (KIP-320)."""

    replica_id: int
    partition: TopicIdPartition
    current_leader_epoch: int
    epoch: int


# --- ListOffsets, one partition at a time ---------------------------------------------------------------------------


def _list_request(request: ListOffset, timeout_ms: int) -> ListOffsetsRequestData:
    question = ListOffsetsPartition.make(partition_index=request.partition.partition, timestamp=request.timestamp)
    return ListOffsetsRequestData.make(
        replica_id=CONSUMER,
        isolation_level=READ_COMMITTED if request.is_read_committed else READ_UNCOMMITTED,
        topics=(ListOffsetsTopic.make(name=name_of(request.partition.topic_id), partitions=(question,)),),
        timeout_ms=request.timeout_ms,
    )


def _list_from_request(message: ListOffsetsRequestData) -> ListOffset:
    topic, item = _only([(topic, item) for topic in message.topics for item in topic.partitions])
    return ListOffset(
        partition=TopicIdPartition(id_of(topic.name), item.partition_index),
        timestamp=item.timestamp,
        timeout_ms=message.timeout_ms,
        is_read_committed=message.isolation_level == READ_COMMITTED,
    )


def _only(pairs: Sequence[Pair]) -> Pair:
    if len(pairs) != 1:
        raise UnknownTopicOrPartition(f"{len(pairs)} partitions asked for; brokers ask for one at a time")
    return pairs[0]


def _list_response(names: list[tuple[str, int]], code: int, answer: OffsetAnswer) -> ListOffsetsResponseData:
    return ListOffsetsResponseData.make(
        topics=tuple(
            ListOffsetsTopicResponse.make(
                name=name,
                partitions=tuple(
                    ListOffsetsPartitionResponse.make(
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


def _list_from_reply(request: ListOffset, message: ListOffsetsResponseData) -> OffsetAnswer:
    _, item = _only([(topic, item) for topic in message.topics for item in topic.partitions])
    return OffsetAnswer(offset=item.offset, timestamp=item.timestamp, leader_epoch=item.leader_epoch)


LIST_OFFSETS: ServedRpc[ListOffset, OffsetAnswer, ListOffsetsRequestData, ListOffsetsResponseData] = ServedRpc(
    api=apis.LIST_OFFSETS,
    response=ListOffsetsResponseData,
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


def _delete_request(request: DeleteRecords, timeout_ms: int) -> DeleteRecordsRequestData:
    return DeleteRecordsRequestData.make(
        topics=tuple(
            DeleteRecordsTopic.make(
                name=name_of(topic_id),
                partitions=tuple(
                    DeleteRecordsPartition.make(partition_index=key.partition, offset=request.offsets[key])
                    for key in keys
                ),
            )
            for topic_id, keys in group(request.offsets, lambda key: key.topic_id).items()
        ),
        timeout_ms=request.timeout_ms,
    )


def _delete_from_request(message: DeleteRecordsRequestData) -> DeleteRecords:
    return DeleteRecords(
        offsets={
            TopicIdPartition(id_of(topic.name), item.partition_index): item.offset
            for topic in message.topics
            for item in topic.partitions
        },
        timeout_ms=message.timeout_ms,
    )


def _delete_response(
    results: Mapping[tuple[str, int], tuple[int, int]],
) -> DeleteRecordsResponseData:
    """(name, partition) -> (low watermark, error code)."""
    return DeleteRecordsResponseData.make(
        topics=tuple(
            DeleteRecordsTopicResult.make(
                name=name,
                partitions=tuple(
                    DeleteRecordsPartitionResult.make(
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

DELETE_RECORDS: ServedRpc[
    DeleteRecords,
    LowWatermarks,
    DeleteRecordsRequestData,
    DeleteRecordsResponseData,
] = ServedRpc(
    api=apis.DELETE_RECORDS,
    response=DeleteRecordsResponseData,
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


def _epoch_request(request: EpochQuestion, timeout_ms: int) -> OffsetForLeaderEpochRequestData:
    question = OffsetForLeaderPartition.make(
        partition=request.partition.partition,
        current_leader_epoch=request.current_leader_epoch,
        leader_epoch=request.epoch,
    )
    topic = OffsetForLeaderTopic.make(topic=name_of(request.partition.topic_id), partitions=(question,))
    return OffsetForLeaderEpochRequestData.make(replica_id=request.replica_id, topics=(topic,))


def _epoch_from_request(message: OffsetForLeaderEpochRequestData) -> EpochQuestion:
    topic, item = _only([(topic, item) for topic in message.topics for item in topic.partitions])
    return EpochQuestion(
        replica_id=message.replica_id,
        partition=TopicIdPartition(id_of(topic.topic), item.partition),
        current_leader_epoch=item.current_leader_epoch,
        epoch=item.leader_epoch,
    )


def _epoch_response(names: list[tuple[str, int]], code: int, end: EpochEnd) -> OffsetForLeaderEpochResponseData:
    return OffsetForLeaderEpochResponseData.make(
        topics=tuple(
            OffsetForLeaderTopicResult.make(
                topic=name,
                partitions=tuple(
                    EpochEndOffset.make(
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


def _epoch_from_reply(request: EpochQuestion, message: OffsetForLeaderEpochResponseData) -> EpochEnd | None:
    _, item = _only([(topic, item) for topic in message.topics for item in topic.partitions])
    return None if item.end_offset < 0 else EpochEnd(item.leader_epoch, item.end_offset)


OFFSET_FOR_LEADER_EPOCH: ServedRpc[
    EpochQuestion,
    EpochEnd | None,
    OffsetForLeaderEpochRequestData,
    OffsetForLeaderEpochResponseData,
] = ServedRpc(
    api=apis.OFFSET_FOR_LEADER_EPOCH,
    response=OffsetForLeaderEpochResponseData,
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
