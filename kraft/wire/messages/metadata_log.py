"""The metadata log for brokers that are no voters: Fetch (1) of `__cluster_metadata`-0 and FetchSnapshot (59).

One metadata record is one record of a RecordBatch v2, so offsets count the same on both sides. The high watermark is
the end of the committed log, `current_leader` the active controller as the asked voter knows it, and `snapshot_id`
says that the asked offset is older than the log (KIP-595, KIP-630).
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from kraft.protocol import apis
from kraft.protocol.batches.header import computed_crc, whole_batches
from kraft.protocol.batches.records import NewRecord, build_batch, read_batches
from kraft.protocol.errors import CorruptMessage, InvalidRequest
from kraft.protocol.messages import fetch_response, fetch_snapshot_request, fetch_snapshot_response
from kraft.protocol.messages.fetch_request import FetchPartition, FetchRequestData, FetchTopic, ReplicaState
from kraft.protocol.messages.fetch_response import (
    NO_SNAPSHOT_ID,
    FetchableTopicResponse,
    FetchResponseData,
    PartitionData,
)
from kraft.protocol.messages.fetch_snapshot_request import FetchSnapshotRequestData
from kraft.protocol.messages.fetch_snapshot_response import FetchSnapshotResponseData
from kraft.wire.messages.common import ServedRpc
from metadata.quorum.log import MetadataSlice, SnapshotNeeded

TOPIC = "__cluster_metadata"
TOPIC_ID = UUID(int=1)
"""Kafka's Uuid.METADATA_TOPIC_ID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataFetch:
    """What an observer asks for: committed records from an offset on."""

    cluster_id: str
    replica_id: int
    offset: int
    wait_ms_max: int
    bytes_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataFetched:
    """The answer: records, or the snapshot to load first where the log begins later than the offset."""

    result: MetadataSlice | SnapshotNeeded
    leader_id: int
    """-1: the asked voter knows of no leader."""
    leader_epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotFetch:
    """What an observer asks for: a piece of a snapshot, from a byte position on."""

    cluster_id: str
    replica_id: int
    end_offset: int
    epoch: int
    position: int
    bytes_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotPiece:
    """A piece of a snapshot, and the size of all of it in bytes."""

    data: bytes
    position: int
    size: int
    """Of the whole snapshot."""


# --- Fetch --------------------------------------------------------------------------------------------------------


def is_metadata_fetch(message: FetchRequestData) -> bool:
    """Whether a Fetch asks for the metadata log, and not for partitions of topics."""
    return len(message.topics) == 1 and message.topics[0].topic_id == TOPIC_ID


def _fetch_request(request: MetadataFetch, timeout_ms: int) -> FetchRequestData:
    partition = FetchPartition.make(partition=0, fetch_offset=request.offset, partition_max_bytes=request.bytes_max)
    return FetchRequestData.make(
        cluster_id=request.cluster_id,
        replica_state=ReplicaState.make(replica_id=request.replica_id),
        max_wait_ms=request.wait_ms_max,
        min_bytes=1,
        max_bytes=request.bytes_max,
        topics=(FetchTopic.make(topic_id=TOPIC_ID, partitions=(partition,)),),
        forgotten_topics_data=(),
    )


def _from_fetch_request(message: FetchRequestData) -> MetadataFetch:
    partitions = message.topics[0].partitions
    if len(partitions) != 1 or partitions[0].partition != 0:
        raise InvalidRequest("the metadata log has one partition, 0, and is fetched alone")
    return MetadataFetch(
        cluster_id=message.cluster_id or "",
        replica_id=message.replica_state.replica_id,
        offset=partitions[0].fetch_offset,
        wait_ms_max=message.max_wait_ms,
        bytes_max=partitions[0].partition_max_bytes,
    )


def _fetch_reply(request: MetadataFetch, reply: MetadataFetched) -> FetchResponseData:
    snapshot, records = NO_SNAPSHOT_ID, None
    if isinstance(reply.result, SnapshotNeeded):
        snapshot = fetch_response.SnapshotId.make(end_offset=reply.result.end_offset, epoch=reply.result.epoch)
    else:
        records = _pack(reply.result)
    partition = PartitionData.make(
        partition_index=0,
        error_code=0,
        current_leader=fetch_response.LeaderIdAndEpoch.make(leader_id=reply.leader_id, leader_epoch=reply.leader_epoch),
        aborted_transactions=None,
        high_watermark=reply.result.end_offset,
        snapshot_id=snapshot,
        records=records,
    )
    return FetchResponseData.make(
        error_code=0,
        responses=(FetchableTopicResponse.make(topic_id=TOPIC_ID, partitions=(partition,)),),
    )


def _pack(piece: MetadataSlice) -> bytes:
    if not piece.records:
        return b""
    records = [NewRecord(None, value, [], 0) for value in piece.records]
    return build_batch(records, base_offset=piece.base_offset, leader_epoch=piece.controller_epoch)


def _from_fetch_reply(request: MetadataFetch, message: FetchResponseData) -> MetadataFetched:
    partition = message.responses[0].partitions[0]
    leader, snapshot = partition.current_leader, partition.snapshot_id
    result: MetadataSlice | SnapshotNeeded
    if snapshot.end_offset >= 0:
        result = SnapshotNeeded(end_offset=snapshot.end_offset, epoch=snapshot.epoch)
    else:
        result = _unpack(request.offset, bytes(partition.records or b""), leader.leader_epoch, partition.high_watermark)
    return MetadataFetched(result=result, leader_id=leader.leader_id, leader_epoch=leader.leader_epoch)


def _unpack(offset: int, data: bytes, controller_epoch: int, end_offset: int) -> MetadataSlice:
    for position, header in whole_batches(data):
        controller_epoch = header.leader_epoch
        if computed_crc(data, position, header.size) != header.crc:
            raise CorruptMessage(f"metadata batch at offset {header.base_offset}: the CRC does not fit")
    records = list(read_batches(data))
    if [record.offset for record in records] != list(range(offset, offset + len(records))):
        raise CorruptMessage(f"metadata records do not follow offset {offset} one by one")
    return MetadataSlice(
        base_offset=offset,
        records=tuple(record.value or b"" for record in records),
        controller_epoch=controller_epoch,
        end_offset=end_offset,
    )


METADATA_FETCH: ServedRpc[MetadataFetch, MetadataFetched, FetchRequestData, FetchResponseData] = ServedRpc(
    api=apis.FETCH,
    response=FetchResponseData,
    to_request=_fetch_request,
    from_request=_from_fetch_request,
    to_reply=_fetch_reply,
    from_reply=_from_fetch_reply,
    refuse=lambda message, code: FetchResponseData.make(error_code=code, responses=()),
)


# --- FetchSnapshot ------------------------------------------------------------------------------------------------


def _snapshot_request(request: SnapshotFetch, timeout_ms: int) -> FetchSnapshotRequestData:
    partition = fetch_snapshot_request.PartitionSnapshot.make(
        partition=0,
        current_leader_epoch=-1,
        snapshot_id=fetch_snapshot_request.SnapshotId.make(end_offset=request.end_offset, epoch=request.epoch),
        position=request.position,
    )
    return FetchSnapshotRequestData.make(
        cluster_id=request.cluster_id,
        replica_id=request.replica_id,
        max_bytes=request.bytes_max,
        topics=(fetch_snapshot_request.TopicSnapshot.make(name=TOPIC, partitions=(partition,)),),
    )


def _from_snapshot_request(message: FetchSnapshotRequestData) -> SnapshotFetch:
    partitions = [(topic.name, item) for topic in message.topics for item in topic.partitions]
    if len(partitions) != 1 or partitions[0][0] != TOPIC or partitions[0][1].partition != 0:
        raise InvalidRequest(f"snapshots exist of {TOPIC}-0 only")
    item = partitions[0][1]
    return SnapshotFetch(
        cluster_id=message.cluster_id or "",
        replica_id=message.replica_id,
        end_offset=item.snapshot_id.end_offset,
        epoch=item.snapshot_id.epoch,
        position=item.position,
        bytes_max=message.max_bytes,
    )


def _snapshot_reply(request: SnapshotFetch, reply: SnapshotPiece) -> FetchSnapshotResponseData:
    partition = fetch_snapshot_response.PartitionSnapshot.make(
        index=0,
        error_code=0,
        snapshot_id=fetch_snapshot_response.SnapshotId.make(end_offset=request.end_offset, epoch=request.epoch),
        current_leader=fetch_snapshot_response.LeaderIdAndEpoch.make(leader_id=-1, leader_epoch=-1),
        size=reply.size,
        position=reply.position,
        unaligned_records=reply.data,
    )
    return FetchSnapshotResponseData.make(
        error_code=0,
        topics=(fetch_snapshot_response.TopicSnapshot.make(name=TOPIC, partitions=(partition,)),),
    )


def _from_snapshot_reply(request: SnapshotFetch, message: FetchSnapshotResponseData) -> SnapshotPiece:
    item = message.topics[0].partitions[0]
    return SnapshotPiece(data=bytes(item.unaligned_records), position=item.position, size=item.size)


FETCH_SNAPSHOT: ServedRpc[
    SnapshotFetch,
    SnapshotPiece,
    FetchSnapshotRequestData,
    FetchSnapshotResponseData,
] = ServedRpc(
    api=apis.FETCH_SNAPSHOT,
    response=FetchSnapshotResponseData,
    to_request=_snapshot_request,
    from_request=_from_snapshot_request,
    to_reply=_snapshot_reply,
    from_reply=_from_snapshot_reply,
    refuse=lambda message, code: FetchSnapshotResponseData.make(error_code=code, topics=()),
)
