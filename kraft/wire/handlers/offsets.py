"""ListOffsets (2), OffsetForLeaderEpoch (23) and DeleteRecords (21).

A client gets an error code for each partition. A node asks about one partition, and gets its error with the message, as
that of the request.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from uuid import UUID

from kraft.protocol.errors import (
    InvalidRequest,
    KafkaError,
    LeaderNotAvailable,
    NotLeaderOrFollower,
    OffsetNotAvailable,
    UnknownTopicId,
    UnknownTopicOrPartition,
    UnsupportedVersion,
    for_code,
)
from kraft.protocol.messages.delete_records_request import DeleteRecordsRequestData
from kraft.protocol.messages.delete_records_response import (
    DeleteRecordsPartitionResult,
    DeleteRecordsResponseData,
    DeleteRecordsTopicResult,
)
from kraft.protocol.messages.list_offsets_request import ListOffsetsPartition, ListOffsetsRequestData
from kraft.protocol.messages.list_offsets_response import (
    ListOffsetsPartitionResponse,
    ListOffsetsResponseData,
    ListOffsetsTopicResponse,
)
from kraft.protocol.messages.offset_for_leader_epoch_request import (
    OffsetForLeaderEpochRequestData,
    OffsetForLeaderPartition,
)
from kraft.protocol.messages.offset_for_leader_epoch_response import (
    EpochEndOffset,
    OffsetForLeaderEpochResponseData,
    OffsetForLeaderTopicResult,
)
from kraft.wire.api_handler import ApiHandler, Call
from kraft.wire.handlers.leaders import Leaders
from kraft.wire.node_parts import NodeParts
from kraft.wire.terms import READ_COMMITTED
from metadata.image import TopicIdPartition
from replication.manager.manager import ReplicaManager
from replication.requests import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP, MAX_TIMESTAMP, OffsetAnswer

EARLIEST_LOCAL_TIMESTAMP = -4
"""Where the log on local disks begins (KIP-405): all of a log is there."""
LATEST_TIERED_TIMESTAMP = -5
EARLIEST_PENDING_UPLOAD_TIMESTAMP = -6
REMOTE_TIMESTAMPS = (LATEST_TIERED_TIMESTAMP, EARLIEST_PENDING_UPLOAD_TIMESTAMP)
"""Both are about remote storage (KIP-1005, KIP-1023), which holds nothing here."""
SPECIAL_SINCE = {
    LATEST_TIMESTAMP: 1,
    EARLIEST_TIMESTAMP: 1,
    MAX_TIMESTAMP: 7,
    EARLIEST_LOCAL_TIMESTAMP: 8,
    LATEST_TIERED_TIMESTAMP: 9,
    EARLIEST_PENDING_UPLOAD_TIMESTAMP: 11,
}
"""Special timestamp -> the first version of ListOffsets that knows it."""
FIRST_WITH_OFFSET_NOT_AVAILABLE = 5


LOOKS_PER_TURN = 64
"""Partitions that ListOffsets looks at in one turn of the loop: each may read headers from a file."""


def apis(parts: NodeParts) -> Sequence[ApiHandler]:
    offsets = _Offsets(parts)
    return [
        ApiHandler(
            request=ListOffsetsRequestData,
            response=ListOffsetsResponseData,
            handle=offsets.list_offsets,
            refuse=_refuse_list,
        ),
        ApiHandler(
            request=OffsetForLeaderEpochRequestData,
            response=OffsetForLeaderEpochResponseData,
            handle=offsets.leader_epochs,
            refuse=_refuse_epochs,
        ),
        ApiHandler(
            request=DeleteRecordsRequestData,
            response=DeleteRecordsResponseData,
            handle=offsets.delete_records,
            refuse=_refuse_delete,
        ),
    ]


class _Offsets:
    def __init__(self, parts: NodeParts) -> None:
        self._parts = parts
        self._leaders = Leaders(parts.gateway)
        self._gateway = parts.gateway

    @property
    def _replicas(self) -> ReplicaManager:
        return self._parts.broker_or(NotLeaderOrFollower).replicas

    def _key(self, topic_id: UUID | None, name: str, partition: int) -> TopicIdPartition:
        if topic_id is None:
            raise UnknownTopicOrPartition(f"there is no topic {name!r}")
        return TopicIdPartition(topic_id, partition)

    # --- ListOffsets ----------------------------------------------------------------------------------------

    async def list_offsets(self, call: Call[ListOffsetsRequestData]) -> ListOffsetsResponseData:
        """A partition that is named twice is refused, as Kafka does."""
        asked = [(topic.name, item.partition_index) for topic in call.message.topics for item in topic.partitions]
        repeated = {place for place, times in Counter(asked).items() if times > 1}
        topics, looked = [], 0
        for topic in call.message.topics:
            topic_id = self._leaders.asked_id(call, topic.name)
            answers = []
            for item in topic.partitions:
                is_repeated = (topic.name, item.partition_index) in repeated
                answers.append(await self._listed(topic_id, topic.name, item, call, is_repeated=is_repeated))
                looked += 1
                if not looked % LOOKS_PER_TURN:
                    await self._parts.environment.clock.sleep(0)
            topics.append(ListOffsetsTopicResponse.make(name=topic.name, partitions=answers))
        return ListOffsetsResponseData.make(topics=topics)

    async def _listed(
        self,
        topic_id: UUID | None,
        name: str,
        item: ListOffsetsPartition,
        call: Call[ListOffsetsRequestData],
        *,
        is_repeated: bool,
    ) -> ListOffsetsPartitionResponse:
        version = call.version
        try:
            if is_repeated:
                raise InvalidRequest(f"partition {item.partition_index} of {name!r} is asked about twice")
            key = self._key(topic_id, name, item.partition_index)
            _check_timestamp(item.timestamp, version)
            if item.timestamp in REMOTE_TIMESTAMPS:
                found = await self._in_remote_storage(key, item.current_leader_epoch)
            else:
                timestamp = EARLIEST_TIMESTAMP if item.timestamp == EARLIEST_LOCAL_TIMESTAMP else item.timestamp
                found = await self._replicas.offsets.list_offset(
                    key,
                    timestamp,
                    is_read_committed=call.message.isolation_level == READ_COMMITTED,
                    leader_epoch=item.current_leader_epoch,
                )
        except KafkaError as error:
            if call.is_from_node:
                raise
            return ListOffsetsPartitionResponse.make(
                partition_index=item.partition_index, error_code=_list_code(error, version)
            )
        return ListOffsetsPartitionResponse.make(
            partition_index=item.partition_index,
            error_code=0,
            timestamp=found.timestamp,
            offset=found.offset,
            leader_epoch=found.leader_epoch,
        )

    async def _in_remote_storage(self, key: TopicIdPartition, leader_epoch: int) -> OffsetAnswer:
        """No offset, as there is no remote storage. Raises NotLeaderOrFollower where this node does not lead."""
        await self._replicas.offsets.list_offset(key, EARLIEST_TIMESTAMP, leader_epoch=leader_epoch)
        return OffsetAnswer(offset=-1)

    # --- OffsetForLeaderEpoch ----------------------------------------------------------------------------------

    def leader_epochs(self, call: Call[OffsetForLeaderEpochRequestData]) -> OffsetForLeaderEpochResponseData:
        topics = []
        for topic in call.message.topics:
            topic_id = self._leaders.asked_id(call, topic.topic)
            answers = [self._epoch_end(call, topic_id, topic.topic, item) for item in topic.partitions]
            topics.append(OffsetForLeaderTopicResult.make(topic=topic.topic, partitions=answers))
        return OffsetForLeaderEpochResponseData.make(topics=topics)

    def _epoch_end(
        self,
        call: Call[OffsetForLeaderEpochRequestData],
        topic_id: UUID | None,
        name: str,
        item: OffsetForLeaderPartition,
    ) -> EpochEndOffset:
        try:
            end = self._replicas.offsets.offset_for_leader_epoch(
                self._key(topic_id, name, item.partition),
                item.leader_epoch,
                current_leader_epoch=item.current_leader_epoch,
            )
        except KafkaError as error:
            if call.is_from_node:
                raise
            return EpochEndOffset.make(partition=item.partition, error_code=_code(error))
        if end is None:
            return EpochEndOffset.make(partition=item.partition, error_code=0)
        return EpochEndOffset.make(
            partition=item.partition, error_code=0, leader_epoch=end.epoch, end_offset=end.end_offset
        )

    # --- DeleteRecords ---------------------------------------------------------------------------------------

    async def delete_records(self, call: Call[DeleteRecordsRequestData]) -> DeleteRecordsResponseData:
        """DeleteRecords. When a partition is named more than once, its last offset counts, as in Kafka."""
        targets: dict[str, dict[int, int]] = {}
        for topic in call.message.topics:
            offsets = {item.partition_index: item.offset for item in topic.partitions}
            targets.setdefault(topic.name, {}).update(offsets)
        topics = await asyncio.gather(*(self._deleted(call, name, offsets) for name, offsets in targets.items()))
        if not call.is_from_node:
            results = [(topic.name, each) for topic in topics for each in topic.partitions]
            names = [f"{name}-{each.partition_index}" for name, each in results]
            errors = [for_code(each.error_code).name for _, each in results if each.error_code]
            self._gateway.note_change(call.principal, "DeleteRecords", names, errors)
        return DeleteRecordsResponseData.make(topics=topics)

    async def _deleted(
        self, call: Call[DeleteRecordsRequestData], name: str, offsets: Mapping[int, int]
    ) -> DeleteRecordsTopicResult:
        topic_id = self._leaders.asked_id(call, name)
        partitions = [self._deleted_partition(call, topic_id, name, *each) for each in offsets.items()]
        return DeleteRecordsTopicResult.make(name=name, partitions=await asyncio.gather(*partitions))

    async def _deleted_partition(
        self, call: Call[DeleteRecordsRequestData], topic_id: UUID | None, name: str, partition: int, offset: int
    ) -> DeleteRecordsPartitionResult:
        try:
            key = self._key(topic_id, name, partition)
            if not call.is_from_node and self._gateway.image.partition(key.topic_id, partition) is None:
                raise UnknownTopicOrPartition(f"topic {name!r} has no partition {partition}")
            timeout_ms = call.message.timeout_ms
            low_watermark = await self._replicas.offsets.delete_records(key, offset=offset, timeout_ms=timeout_ms)
        except KafkaError as error:
            if call.is_from_node:
                raise
            return DeleteRecordsPartitionResult.make(
                partition_index=partition, low_watermark=-1, error_code=_code(error)
            )
        return DeleteRecordsPartitionResult.make(partition_index=partition, low_watermark=low_watermark, error_code=0)


def _check_timestamp(timestamp: int, version: int) -> None:
    """Raises UnsupportedVersion 35 for a special one that came with a later version."""
    if timestamp < 0 and version < SPECIAL_SINCE.get(timestamp, version + 1):
        raise UnsupportedVersion(f"timestamp {timestamp} is not known in version {version} of ListOffsets")


def _code(error: KafkaError) -> int:
    """These requests name topics: an id that is gone is a topic that is gone."""
    return UnknownTopicOrPartition.code if isinstance(error, UnknownTopicId) else error.code


def _list_code(error: KafkaError, version: int) -> int:
    """Clients of old know no OFFSET_NOT_AVAILABLE 78 (KIP-207)."""
    if isinstance(error, OffsetNotAvailable) and version < FIRST_WITH_OFFSET_NOT_AVAILABLE:
        return LeaderNotAvailable.code
    return _code(error)


def _refuse_list(message: ListOffsetsRequestData, version: int, error: KafkaError) -> ListOffsetsResponseData:
    return ListOffsetsResponseData.make(
        topics=[
            ListOffsetsTopicResponse.make(
                name=topic.name,
                partitions=[
                    ListOffsetsPartitionResponse.make(partition_index=item.partition_index, error_code=error.code)
                    for item in topic.partitions
                ],
            )
            for topic in message.topics
        ]
    )


def _refuse_epochs(
    message: OffsetForLeaderEpochRequestData, version: int, error: KafkaError
) -> OffsetForLeaderEpochResponseData:
    return OffsetForLeaderEpochResponseData.make(
        topics=[
            OffsetForLeaderTopicResult.make(
                topic=topic.topic,
                partitions=[
                    EpochEndOffset.make(partition=item.partition, error_code=error.code) for item in topic.partitions
                ],
            )
            for topic in message.topics
        ]
    )


def _refuse_delete(message: DeleteRecordsRequestData, version: int, error: KafkaError) -> DeleteRecordsResponseData:
    return DeleteRecordsResponseData.make(
        topics=[
            DeleteRecordsTopicResult.make(
                name=topic.name,
                partitions=[
                    DeleteRecordsPartitionResult.make(
                        partition_index=item.partition_index, low_watermark=-1, error_code=error.code
                    )
                    for item in topic.partitions
                ],
            )
            for topic in message.topics
        ]
    )
