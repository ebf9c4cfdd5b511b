"""What nodes ask a share coordinator about one share partition: Initialize-, Read-, Write-, DeleteShareGroupState and
ReadShareGroupStateSummary (83 to 87). A request of ours has one topic and one partition.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from kraft.coordinators.shares.decide import Write
from kraft.coordinators.shares.state import UNKNOWN, ShareKey, Snapshot
from kraft.protocol import apis
from kraft.protocol.codec import Malformed
from kraft.protocol.errors import for_code
from kraft.protocol.messages import delete_share_group_state_request as deletion
from kraft.protocol.messages import initialize_share_group_state_request as initialization
from kraft.protocol.messages import read_share_group_state_request as reading
from kraft.protocol.messages import read_share_group_state_summary_request as summary
from kraft.protocol.messages import write_share_group_state_request as writing
from kraft.protocol.messages.delete_share_group_state_response import DeleteShareGroupStateResponseData
from kraft.protocol.messages.initialize_share_group_state_response import InitializeShareGroupStateResponseData
from kraft.protocol.messages.read_share_group_state_response import ReadShareGroupStateResponseData
from kraft.protocol.messages.read_share_group_state_summary_response import ReadShareGroupStateSummaryResponseData
from kraft.protocol.messages.write_share_group_state_response import WriteShareGroupStateResponseData
from kraft.wire.peers import Peers
from kraft.wire.rpc import REPLICA_TIMEOUT_MS, ReplyT, RequestData, RequestT, ResponseData, Rpc
from replication.shares.states import StateBatch


class InitializeState(NamedTuple):
    """A share partition begins at an offset, under a state epoch."""

    key: ShareKey
    state_epoch: int
    start_offset: int


class ReadState(NamedTuple):
    """The leader of an epoch wants the state, and fences those before it."""

    key: ShareKey
    leader_epoch: int


class WriteState(NamedTuple):
    """What a leader has to write."""

    key: ShareKey
    write: Write


class _Results(Protocol):
    @property
    def results(self) -> Any: ...


def _result(response: _Results) -> Any:
    """The only result. Raises Malformed when it is not the only one, and the KafkaError that it has."""
    found = [partition for topic in response.results for partition in topic.partitions]
    if len(found) != 1:
        raise Malformed(f"{len(found)} results for one share partition")
    if found[0].error_code:
        raise for_code(found[0].error_code, found[0].error_message or "")
    return found[0]


def _done(request: object, response: _Results) -> None:
    _result(response)


def _initialize(request: InitializeState, timeout_ms: int) -> initialization.InitializeShareGroupStateRequestData:
    group, topic_id, number = request.key
    partition = initialization.PartitionData.make(
        partition=number, state_epoch=request.state_epoch, start_offset=request.start_offset
    )
    topic = initialization.InitializeStateData.make(topic_id=topic_id, partitions=[partition])
    return initialization.InitializeShareGroupStateRequestData.make(group_id=group, topics=[topic])


def _read(request: ReadState, timeout_ms: int) -> reading.ReadShareGroupStateRequestData:
    group, topic_id, number = request.key
    partition = reading.PartitionData.make(partition=number, leader_epoch=request.leader_epoch)
    topic = reading.ReadStateData.make(topic_id=topic_id, partitions=[partition])
    return reading.ReadShareGroupStateRequestData.make(group_id=group, topics=[topic])


def _read_reply(request: ReadState, response: ReadShareGroupStateResponseData) -> Snapshot:
    found = _result(response)
    return Snapshot(
        snapshot_epoch=UNKNOWN.snapshot_epoch,
        state_epoch=found.state_epoch,
        leader_epoch=request.leader_epoch,
        start_offset=found.start_offset,
        delivery_complete_count=UNKNOWN.delivery_complete_count,
        created_ms=0,
        written_ms=0,
        batches=[
            StateBatch(
                batch.first_offset,
                batch.last_offset,
                batch.delivery_state,
                batch.delivery_count,
                batch.not_before_ms,
            )
            for batch in found.state_batches
        ],
    )


def _write(request: WriteState, timeout_ms: int) -> writing.WriteShareGroupStateRequestData:
    (group, topic_id, number), write = request
    partition = writing.PartitionData.make(
        partition=number,
        state_epoch=write.state_epoch,
        leader_epoch=write.leader_epoch,
        start_offset=write.start_offset,
        delivery_complete_count=write.delivery_complete_count,
        state_batches=[
            writing.StateBatch.make(
                first_offset=first,
                last_offset=last,
                delivery_state=state,
                delivery_count=delivery_count,
                not_before_ms=not_before_ms,
            )
            for first, last, state, delivery_count, not_before_ms in write.batches
        ],
    )
    topic = writing.WriteStateData.make(topic_id=topic_id, partitions=[partition])
    return writing.WriteShareGroupStateRequestData.make(group_id=group, topics=[topic])


def _delete(key: ShareKey, timeout_ms: int) -> deletion.DeleteShareGroupStateRequestData:
    partition = deletion.PartitionData.make(partition=key.partition)
    topic = deletion.DeleteStateData.make(topic_id=key.topic_id, partitions=[partition])
    return deletion.DeleteShareGroupStateRequestData.make(group_id=key.group, topics=[topic])


def _summary(key: ShareKey, timeout_ms: int) -> summary.ReadShareGroupStateSummaryRequestData:
    partition = summary.PartitionData.make(partition=key.partition, leader_epoch=-1)
    topic = summary.ReadStateSummaryData.make(topic_id=key.topic_id, partitions=[partition])
    return summary.ReadShareGroupStateSummaryRequestData.make(group_id=key.group, topics=[topic])


def _summary_reply(key: ShareKey, response: ReadShareGroupStateSummaryResponseData) -> Snapshot:
    found = _result(response)
    return Snapshot(
        snapshot_epoch=UNKNOWN.snapshot_epoch,
        state_epoch=found.state_epoch,
        leader_epoch=found.leader_epoch,
        start_offset=found.start_offset,
        delivery_complete_count=found.delivery_complete_count,
        created_ms=0,
        written_ms=0,
        batches=(),
    )


INITIALIZE_STATE: Rpc[
    InitializeState,
    None,
    initialization.InitializeShareGroupStateRequestData,
    InitializeShareGroupStateResponseData,
] = Rpc(
    api=apis.INITIALIZE_SHARE_GROUP_STATE,
    response=InitializeShareGroupStateResponseData,
    to_request=_initialize,
    from_reply=_done,
)
READ_STATE: Rpc[ReadState, Snapshot, reading.ReadShareGroupStateRequestData, ReadShareGroupStateResponseData] = Rpc(
    api=apis.READ_SHARE_GROUP_STATE,
    response=ReadShareGroupStateResponseData,
    to_request=_read,
    from_reply=_read_reply,
)
WRITE_STATE: Rpc[WriteState, None, writing.WriteShareGroupStateRequestData, WriteShareGroupStateResponseData] = Rpc(
    api=apis.WRITE_SHARE_GROUP_STATE,
    response=WriteShareGroupStateResponseData,
    to_request=_write,
    from_reply=_done,
)
DELETE_STATE: Rpc[ShareKey, None, deletion.DeleteShareGroupStateRequestData, DeleteShareGroupStateResponseData] = Rpc(
    api=apis.DELETE_SHARE_GROUP_STATE,
    response=DeleteShareGroupStateResponseData,
    to_request=_delete,
    from_reply=_done,
)
STATE_SUMMARY: Rpc[
    ShareKey, Snapshot, summary.ReadShareGroupStateSummaryRequestData, ReadShareGroupStateSummaryResponseData
] = Rpc(
    api=apis.READ_SHARE_GROUP_STATE_SUMMARY,
    response=ReadShareGroupStateSummaryResponseData,
    to_request=_summary,
    from_reply=_summary_reply,
)


class ShareStateChannel:
    """Requests to the share coordinator of one node.

    Each raises ConnectionRefusedError, NotConnected, ConnectionClosed or TimeoutError, or what the peer refused.
    """

    def __init__(self, peers: Peers, node_id: int) -> None:
        self._peers = peers
        self._node_id = node_id

    async def initialize(self, key: ShareKey, *, state_epoch: int, start_offset: int) -> None:
        """The share partition begins at the offset, under the state epoch."""
        await self._call(INITIALIZE_STATE, InitializeState(key, state_epoch, start_offset))

    async def read(self, key: ShareKey, *, leader_epoch: int) -> Snapshot:
        """State epoch, start offset and batches; leaders of earlier epochs are fenced."""
        return await self._call(READ_STATE, ReadState(key, leader_epoch))

    async def write(self, key: ShareKey, request: Write) -> None:
        """What the leader of the partition has to write."""
        await self._call(WRITE_STATE, WriteState(key, request))

    async def delete(self, key: ShareKey) -> None:
        """The share partition has no state any more."""
        await self._call(DELETE_STATE, key)

    async def summary(self, key: ShareKey) -> Snapshot:
        """Epochs, start offset and delivery complete count."""
        return await self._call(STATE_SUMMARY, key)

    async def _call(self, rpc: Rpc[RequestT, ReplyT, RequestData, ResponseData], request: RequestT) -> ReplyT:
        return await self._peers.call(
            self._node_id, "forward", rpc, request, timeout_ms=REPLICA_TIMEOUT_MS, lane="shares"
        )
