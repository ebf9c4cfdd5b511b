"""What a replica asks of another one: a follower of its leader (Fetch, 1; OffsetForLeaderEpoch, 23), and the active
controller of any replica before an unclean election (Fetch).

The controller's question is explained in `kraft.wire.handlers.fetch`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from kraft.protocol import apis
from kraft.protocol.errors import for_code
from kraft.protocol.messages import fetch_request
from kraft.protocol.messages.fetch_request import FetchRequestData, FetchTopic, ForgottenTopic, ReplicaState
from kraft.protocol.messages.fetch_response import (
    FetchResponseData,
    PartitionData,
)
from kraft.protocol.messages.offset_for_leader_epoch_request import (
    OffsetForLeaderEpochRequestData,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)
from kraft.protocol.messages.offset_for_leader_epoch_response import OffsetForLeaderEpochResponseData
from kraft.protocol.primitives import INT32_MAX, INT64_MAX
from kraft.values import new
from kraft.wire.grouping import by_topic
from kraft.wire.peers import Peers
from kraft.wire.rpc import REPLICA_TIMEOUT_MS, Rpc
from kraft.wire.terms import DEBUGGING_REPLICA, READ_COMMITTED, READ_UNCOMMITTED, name_of
from metadata.controller.requests import ReplicaLogEnd
from metadata.image import TopicIdPartition
from replication.partition.log import AbortedTransaction, EpochEnd
from replication.requests import FetchedPartition, FetchPartition, FetchRequest, FetchResponse


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


FETCH: Rpc[FetchRequest, FetchResponse, FetchRequestData, FetchResponseData] = Rpc(
    api=apis.FETCH,
    response=FetchResponseData,
    to_request=_fetch_request,
    from_reply=_fetched,
    has_error_in_reply=True,
)


# --- OffsetForLeaderEpoch, one partition at a time --------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochQuestion:
    """A question where an epoch ends in one partition (KIP-320)."""

    replica_id: int
    partition: TopicIdPartition
    current_leader_epoch: int
    epoch: int


def _epoch_request(request: EpochQuestion, timeout_ms: int) -> OffsetForLeaderEpochRequestData:
    question = OffsetForLeaderPartition.make(
        partition=request.partition.partition,
        current_leader_epoch=request.current_leader_epoch,
        leader_epoch=request.epoch,
    )
    topic = OffsetForLeaderTopic.make(topic=name_of(request.partition.topic_id), partitions=(question,))
    return OffsetForLeaderEpochRequestData.make(replica_id=request.replica_id, topics=(topic,))


def _epoch_from_reply(request: EpochQuestion, message: OffsetForLeaderEpochResponseData) -> EpochEnd | None:
    ((item,),) = [topic.partitions for topic in message.topics]
    if item.error_code:
        raise for_code(item.error_code)
    return None if item.end_offset < 0 else EpochEnd(item.leader_epoch, item.end_offset)


OFFSET_FOR_LEADER_EPOCH: Rpc[
    EpochQuestion,
    EpochEnd | None,
    OffsetForLeaderEpochRequestData,
    OffsetForLeaderEpochResponseData,
] = Rpc(
    api=apis.OFFSET_FOR_LEADER_EPOCH,
    response=OffsetForLeaderEpochResponseData,
    to_request=_epoch_request,
    from_reply=_epoch_from_reply,
)


class WireLeaderChannel:
    """A follower's fetches from one leader, on the `fetch` connection; it implements
    `replication.requests.LeaderChannel`. Each call raises what `Peers.call` raises.
    """

    def __init__(self, peers: Peers, leader_id: int) -> None:
        self._peers = peers
        self._leader_id = leader_id

    async def fetch(self, request: FetchRequest, *, timeout_ms: int) -> FetchResponse:
        """One Fetch; `timeout_ms` bounds all of it, the wait for bytes that the request asks for as well."""
        return await self._peers.call(self._leader_id, "fetch", FETCH, request, timeout_ms=timeout_ms)

    async def offset_for_leader_epoch(self, question: EpochQuestion) -> EpochEnd | None:
        """Where the leader's log ends in the epoch asked for; None when the leader knows nothing of it (KIP-320)."""
        return await self._peers.call(
            self._leader_id, "fetch", OFFSET_FOR_LEADER_EPOCH, question, timeout_ms=REPLICA_TIMEOUT_MS
        )

    async def close(self) -> None:
        """The connection belongs to `Peers`, which closes it with the node."""


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


def log_ends_of(response: FetchResponse) -> tuple[ReplicaLogEnd, ...]:
    """The log end of each partition in an answer of `log_ends`."""
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


class WireReplicaQuery:
    """`metadata.controller.requests.ReplicaQuery`: log ends of replicas that need not lead (see `messages.fetch`)."""

    def __init__(self, peers: Peers, *, timeout_ms: int) -> None:
        self._peers = peers
        self._timeout_ms = timeout_ms

    async def log_ends(self, broker_id: int, partitions: Sequence[TopicIdPartition]) -> Sequence[ReplicaLogEnd]:
        """Log end offset, last epoch and high watermark of those of the partitions that the broker has a replica of,
        leading or not.
        """
        request = log_ends_request(partitions)
        response = await self._peers.call(broker_id, "controller", FETCH, request, timeout_ms=self._timeout_ms)
        if response.error_code:
            raise for_code(response.error_code)
        return log_ends_of(response)
