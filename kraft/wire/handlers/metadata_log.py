"""The metadata log for brokers that are no voters: Fetch (1) of `__cluster_metadata`-0 and FetchSnapshot (59).

One metadata record is one record of a RecordBatch v2, so offsets count the same on both sides. The high watermark is
the end of the committed log, `current_leader` the active controller as the asked voter knows it, and `snapshot_id` is
there when the asked offset is older than the log (KIP-595, KIP-630).
"""

from __future__ import annotations

from collections.abc import Sequence

from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.errors import InvalidRequest, NotLeaderOrFollower, SnapshotNotFound
from kraft.protocol.messages import fetch_response, fetch_snapshot_response
from kraft.protocol.messages.fetch_request import FetchRequestData
from kraft.protocol.messages.fetch_response import (
    NO_SNAPSHOT_ID,
    FetchableTopicResponse,
    FetchResponseData,
    PartitionData,
)
from kraft.protocol.messages.fetch_snapshot_request import FetchSnapshotRequestData
from kraft.protocol.messages.fetch_snapshot_response import FetchSnapshotResponseData
from kraft.wire.api_handler import ApiHandler, Call
from kraft.wire.metadata_fetches import MetadataFetch, MetadataFetches, SnapshotFetch
from kraft.wire.node_parts import NodeParts
from kraft.wire.terms import METADATA_TOPIC_ID
from metadata.internal_topics import METADATA_TOPIC
from metadata.quorum.log import MetadataSlice, SnapshotNeeded


def apis(parts: NodeParts) -> Sequence[ApiHandler]:
    return (
        ApiHandler(
            request=FetchSnapshotRequestData,
            response=FetchSnapshotResponseData,
            handle=_Snapshots(parts.metadata_fetches).fetch,
            refuse=lambda message, version, error: FetchSnapshotResponseData.make(error_code=error.code),
        ),
    )


class _Snapshots:
    def __init__(self, fetches: MetadataFetches | None) -> None:
        self._fetches = fetches

    def fetch(self, call: Call[FetchSnapshotRequestData]) -> FetchSnapshotResponseData:
        if self._fetches is None:
            raise SnapshotNotFound("this node is no voter of the metadata quorum")
        request = _snapshot_asked(call.message)
        piece = self._fetches.fetch_snapshot(request)
        partition = fetch_snapshot_response.PartitionSnapshot.make(
            index=0,
            error_code=0,
            snapshot_id=fetch_snapshot_response.SnapshotId.make(end_offset=request.end_offset, epoch=request.epoch),
            current_leader=fetch_snapshot_response.LeaderIdAndEpoch.make(leader_id=-1, leader_epoch=-1),
            size=piece.size,
            position=piece.position,
            unaligned_records=piece.data,
        )
        topic = fetch_snapshot_response.TopicSnapshot.make(name=METADATA_TOPIC, partitions=(partition,))
        return FetchSnapshotResponseData.make(error_code=0, topics=(topic,))


def _snapshot_asked(message: FetchSnapshotRequestData) -> SnapshotFetch:
    partitions = [(topic.name, item) for topic in message.topics for item in topic.partitions]
    if len(partitions) != 1 or partitions[0][0] != METADATA_TOPIC or partitions[0][1].partition != 0:
        raise InvalidRequest(f"snapshots exist of {METADATA_TOPIC}-0 only")
    item = partitions[0][1]
    return SnapshotFetch(
        cluster_id=message.cluster_id or "",
        replica_id=message.replica_id,
        end_offset=item.snapshot_id.end_offset,
        epoch=item.snapshot_id.epoch,
        position=item.position,
        bytes_max=message.max_bytes,
    )


# --- Fetch ----------------------------------------------------------------------------------------------------------


def is_metadata_fetch(message: FetchRequestData) -> bool:
    """Whether a Fetch asks for the metadata log, and not for partitions of topics."""
    return len(message.topics) == 1 and message.topics[0].topic_id == METADATA_TOPIC_ID


async def fetch_metadata(fetches: MetadataFetches | None, message: FetchRequestData) -> FetchResponseData:
    """The answer to a Fetch of the metadata log. Raises NotLeaderOrFollower 6 on a node that is no voter."""
    if fetches is None:
        raise NotLeaderOrFollower("this node is no voter of the metadata quorum")
    fetched = await fetches.fetch(_asked(message))
    snapshot, records = NO_SNAPSHOT_ID, None
    if isinstance(fetched.result, SnapshotNeeded):
        snapshot = fetch_response.SnapshotId.make(end_offset=fetched.result.end_offset, epoch=fetched.result.epoch)
    else:
        records = _packed(fetched.result)
    leader = fetch_response.LeaderIdAndEpoch.make(leader_id=fetched.leader_id, leader_epoch=fetched.leader_epoch)
    partition = PartitionData.make(
        partition_index=0,
        error_code=0,
        current_leader=leader,
        aborted_transactions=None,
        high_watermark=fetched.result.end_offset,
        snapshot_id=snapshot,
        records=records,
    )
    topic = FetchableTopicResponse.make(topic_id=METADATA_TOPIC_ID, partitions=(partition,))
    return FetchResponseData.make(error_code=0, responses=(topic,))


def _asked(message: FetchRequestData) -> MetadataFetch:
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


def _packed(piece: MetadataSlice) -> bytes:
    if not piece.records:
        return b""
    records = [NewRecord(None, value, [], 0) for value in piece.records]
    return build_batch(records, base_offset=piece.base_offset, leader_epoch=piece.controller_epoch)
