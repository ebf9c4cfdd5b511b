"""What a broker that is no voter asks of any voter: the metadata log (Fetch, 1) and its snapshots (FetchSnapshot, 59).

`kraft.wire.handlers.metadata_log` explains what the fields of these messages mean here.
"""

from __future__ import annotations

from kraft.protocol import apis
from kraft.protocol.batches.header import computed_crc, whole_batches
from kraft.protocol.batches.records import read_batches
from kraft.protocol.errors import CorruptMessage
from kraft.protocol.messages import fetch_snapshot_request
from kraft.protocol.messages.fetch_request import FetchPartition, FetchRequestData, FetchTopic, ReplicaState
from kraft.protocol.messages.fetch_response import FetchResponseData
from kraft.protocol.messages.fetch_snapshot_request import FetchSnapshotRequestData
from kraft.protocol.messages.fetch_snapshot_response import FetchSnapshotResponseData
from kraft.wire.metadata_fetches import MetadataFetch, MetadataFetched, SnapshotFetch, SnapshotPiece
from kraft.wire.peers import Peers
from kraft.wire.rpc import ANSWER_SLACK_MS, REPLICA_TIMEOUT_MS, Rpc
from kraft.wire.terms import METADATA_TOPIC_ID
from metadata.internal_topics import METADATA_TOPIC
from metadata.quorum.log import MetadataSlice, SnapshotNeeded

# --- Fetch --------------------------------------------------------------------------------------------------------


def _fetch_request(request: MetadataFetch, timeout_ms: int) -> FetchRequestData:
    partition = FetchPartition.make(partition=0, fetch_offset=request.offset, partition_max_bytes=request.bytes_max)
    return FetchRequestData.make(
        cluster_id=request.cluster_id,
        replica_state=ReplicaState.make(replica_id=request.replica_id),
        max_wait_ms=request.wait_ms_max,
        min_bytes=1,
        max_bytes=request.bytes_max,
        topics=(FetchTopic.make(topic_id=METADATA_TOPIC_ID, partitions=(partition,)),),
        forgotten_topics_data=(),
    )


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


METADATA_FETCH: Rpc[MetadataFetch, MetadataFetched, FetchRequestData, FetchResponseData] = Rpc(
    api=apis.FETCH,
    response=FetchResponseData,
    to_request=_fetch_request,
    from_reply=_from_fetch_reply,
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
        topics=(fetch_snapshot_request.TopicSnapshot.make(name=METADATA_TOPIC, partitions=(partition,)),),
    )


def _from_snapshot_reply(request: SnapshotFetch, message: FetchSnapshotResponseData) -> SnapshotPiece:
    item = message.topics[0].partitions[0]
    return SnapshotPiece(data=bytes(item.unaligned_records), position=item.position, size=item.size)


FETCH_SNAPSHOT: Rpc[
    SnapshotFetch,
    SnapshotPiece,
    FetchSnapshotRequestData,
    FetchSnapshotResponseData,
] = Rpc(
    api=apis.FETCH_SNAPSHOT,
    response=FetchSnapshotResponseData,
    to_request=_snapshot_request,
    from_reply=_from_snapshot_reply,
)


class MetadataSourceChannel:
    """What an observer asks any voter for: its copy of the metadata log. Each call raises what `Peers.call` raises."""

    def __init__(self, peers: Peers, *, cluster_id: str) -> None:
        self._peers = peers
        self._cluster_id = cluster_id

    async def fetch(self, voter_id: int, *, offset: int, wait_ms_max: int, bytes_max: int) -> MetadataFetched:
        """Committed records from `offset` on, at most `bytes_max` bytes of them; with none to give the voter waits for
        `wait_ms_max`.
        """
        request = MetadataFetch(
            cluster_id=self._cluster_id,
            replica_id=self._peers.node_id,
            offset=offset,
            wait_ms_max=wait_ms_max,
            bytes_max=bytes_max,
        )
        timeout_ms = wait_ms_max + ANSWER_SLACK_MS
        return await self._peers.call(voter_id, "fetch", METADATA_FETCH, request, timeout_ms=timeout_ms)

    async def fetch_snapshot(
        self, voter_id: int, *, end_offset: int, epoch: int, position: int, bytes_max: int
    ) -> SnapshotPiece:
        """At most `bytes_max` bytes of the snapshot (`end_offset`, `epoch`), from byte `position` on (KIP-630). Also
        raises SnapshotNotFound 98 and PositionOutOfRange 99.
        """
        request = SnapshotFetch(
            cluster_id=self._cluster_id,
            replica_id=self._peers.node_id,
            end_offset=end_offset,
            epoch=epoch,
            position=position,
            bytes_max=bytes_max,
        )
        return await self._peers.call(voter_id, "fetch", FETCH_SNAPSHOT, request, timeout_ms=REPLICA_TIMEOUT_MS)
