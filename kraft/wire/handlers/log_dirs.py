"""DescribeLogDirs (35) and AlterReplicaLogDirs (34, KIP-113): this broker's own directories and the logs in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kraft.protocol.errors import (
    KafkaError,
    KafkaStorageError,
    NotLeaderOrFollower,
    ReplicaNotAvailable,
    UnknownTopicOrPartition,
    for_code,
)
from kraft.protocol.messages.alter_replica_log_dirs_request import AlterReplicaLogDirsRequestData
from kraft.protocol.messages.alter_replica_log_dirs_response import (
    AlterReplicaLogDirPartitionResult,
    AlterReplicaLogDirsResponseData,
    AlterReplicaLogDirTopicResult,
)
from kraft.protocol.messages.describe_log_dirs_request import DescribeLogDirsRequestData
from kraft.protocol.messages.describe_log_dirs_response import (
    DescribeLogDirsPartition,
    DescribeLogDirsResponseData,
    DescribeLogDirsResult,
    DescribeLogDirsTopic,
)
from kraft.wire.api_handler import ApiHandler, Call
from kraft.wire.grouping import group
from kraft.wire.node_parts import NodeParts
from metadata.environment import DiskSpace
from metadata.image import TopicIdPartition
from replication.storage.log_manager import DescribedDirectory, DescribedLog

UNKNOWN_LAG = -1
"""The lag of a log whose replica is offline, or not in the metadata any more."""


def apis(broker: NodeParts) -> Sequence[ApiHandler]:
    handlers = _LogDirs(broker)
    return (
        ApiHandler(
            request=DescribeLogDirsRequestData,
            response=DescribeLogDirsResponseData,
            handle=handlers.describe,
            refuse=lambda message, version, error: DescribeLogDirsResponseData.make(error_code=error.code),
        ),
        ApiHandler(
            request=AlterReplicaLogDirsRequestData,
            response=AlterReplicaLogDirsResponseData,
            handle=handlers.alter,
            refuse=_refuse_moves,
        ),
    )


class _LogDirs:
    def __init__(self, broker: NodeParts) -> None:
        self._broker = broker

    async def describe(self, call: Call[DescribeLogDirsRequestData]) -> DescribeLogDirsResponseData:
        """Null asks for all topics. Each directory is there, also when none of the logs in it was asked for."""
        broker, asked = self._broker.broker_or(NotLeaderOrFollower), call.message.topics
        wanted = None if asked is None else {(topic.topic, index) for topic in asked for index in topic.partitions}
        directories = broker.logs.described()
        spaces = await self._broker.environment.workers.run(self._spaces, [directory.path for directory in directories])
        high_watermarks = broker.replicas.high_watermarks()
        return DescribeLogDirsResponseData.make(
            results=[
                _described(directory, spaces[directory.path], wanted=wanted, high_watermarks=high_watermarks)
                for directory in directories
            ]
        )

    def _spaces(self, paths: Sequence[str]) -> dict[str, DiskSpace | OSError]:
        spaces: dict[str, DiskSpace | OSError] = {}
        for path in paths:
            try:
                spaces[path] = self._broker.environment.files.space(path)
            except OSError as error:
                spaces[path] = error
        return spaces

    def alter(self, call: Call[AlterReplicaLogDirsRequestData]) -> AlterReplicaLogDirsResponseData:
        codes: dict[tuple[str, int], int] = {}
        for directory in call.message.dirs:
            for topic in directory.topics:
                for partition in topic.partitions:
                    codes[topic.name, partition] = self._move(topic.name, partition, path=directory.path)
        names = [f"{topic}-{partition}" for topic, partition in codes]
        errors = [for_code(code).name for code in codes.values() if code]
        self._broker.gateway.note_change(call.principal, "AlterReplicaLogDirs", names, errors)
        return _moved(codes)

    def _move(self, topic: str, partition: int, *, path: str) -> int:
        try:
            self._broker.broker_or(NotLeaderOrFollower).logs.place(topic, partition, path=path)
        except ReplicaNotAvailable as error:
            known = self._broker.gateway.image.topic(topic)
            is_known = known is not None and partition in known.partitions
            return error.code if is_known else UnknownTopicOrPartition.code
        except KafkaError as error:
            return error.code
        return 0


def _described(
    directory: DescribedDirectory,
    space: DiskSpace | OSError,
    *,
    wanted: set[tuple[str, int]] | None,
    high_watermarks: Mapping[TopicIdPartition, int],
) -> DescribeLogDirsResult:
    if directory.offline_reason is not None or isinstance(space, OSError):
        return DescribeLogDirsResult.make(error_code=KafkaStorageError.code, log_dir=directory.path)
    logs = [log for log in directory.logs if wanted is None or (log.topic, log.key.partition) in wanted]
    return DescribeLogDirsResult.make(
        log_dir=directory.path,
        topics=[
            DescribeLogDirsTopic.make(name=name, partitions=[_partition(log, high_watermarks) for log in found])
            for name, found in group(logs, lambda log: log.topic).items()
        ],
        total_bytes=space.total_bytes,
        usable_bytes=space.usable_bytes,
    )


def _partition(log: DescribedLog, high_watermarks: Mapping[TopicIdPartition, int]) -> DescribeLogDirsPartition:
    return DescribeLogDirsPartition.make(
        partition_index=log.key.partition,
        partition_size=log.size_bytes,
        offset_lag=_lag(log, high_watermarks),
        is_future_key=log.copied_of is not None,
    )


def _lag(log: DescribedLog, high_watermarks: Mapping[TopicIdPartition, int]) -> int:
    """The lag by `LogManager.getLogEndOffsetLag`: a copy is behind the log, a log behind the high watermark."""
    if log.copied_of is not None:
        return max(log.copied_of - log.log_end_offset, 0)
    high_watermark = high_watermarks.get(log.key)
    return UNKNOWN_LAG if high_watermark is None else max(high_watermark - log.log_end_offset, 0)


def _moved(codes: Mapping[tuple[str, int], int]) -> AlterReplicaLogDirsResponseData:
    return AlterReplicaLogDirsResponseData.make(
        results=[
            AlterReplicaLogDirTopicResult.make(
                topic_name=name,
                partitions=[
                    AlterReplicaLogDirPartitionResult.make(partition_index=key[1], error_code=codes[key])
                    for key in keys
                ],
            )
            for name, keys in group(codes, lambda key: key[0]).items()
        ]
    )


def _refuse_moves(
    message: AlterReplicaLogDirsRequestData, version: int, error: KafkaError
) -> AlterReplicaLogDirsResponseData:
    return _moved(
        {
            (topic.name, partition): error.code
            for directory in message.dirs
            for topic in directory.topics
            for partition in topic.partitions
        }
    )
