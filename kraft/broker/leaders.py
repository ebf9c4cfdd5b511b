"""The leader of a partition, and the client of that leader: in process when it is here, else over `forward`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from kraft.broker.metadata_publisher import MetadataPublisher
from kraft.protocol.errors import (
    LeaderNotAvailable,
    NotLeaderOrFollower,
    ReplicaNotAvailable,
    UnknownTopicId,
    UnknownTopicOrPartition,
)
from kraft.protocol.primitives import Buffer
from metadata.image import PartitionImage, TopicIdPartition
from replication.requests import (
    ActiveProducer,
    FetchRequest,
    FetchResponse,
    OffsetAnswer,
    ProduceOptions,
    ProduceOutcome,
)

LEADER_WAIT_MS = 1_000
"""How long a request waits for a partition to get a leader that takes it."""

MOVED = (NotLeaderOrFollower, LeaderNotAvailable, ReplicaNotAvailable, UnknownTopicId)
"""Errors that new metadata may cure."""


class PartitionClient(Protocol):
    """Data requests to one broker about partitions that it leads: to this one in process, or to another one by RPC."""

    async def produce(
        self, batches: Mapping[TopicIdPartition, Buffer], options: ProduceOptions
    ) -> Mapping[TopicIdPartition, ProduceOutcome]: ...

    async def fetch(self, request: FetchRequest) -> FetchResponse: ...

    async def list_offset(
        self, partition: TopicIdPartition, timestamp: int, *, is_read_committed: bool = False
    ) -> OffsetAnswer: ...

    async def producers(self, partition: TopicIdPartition) -> Sequence[ActiveProducer]: ...

    async def delete_records(self, partition: TopicIdPartition, *, offset: int, timeout_ms: int) -> int: ...


class LeaderFinder:
    def __init__(
        self,
        *,
        node_id: int,
        publisher: MetadataPublisher,
        local: PartitionClient | None,
        peer: Callable[[int], PartitionClient],
    ) -> None:
        self._node_id = node_id
        self._publisher = publisher
        self._local = local
        self._peer = peer

    def leader_of(self, partition: TopicIdPartition) -> PartitionImage:
        """Raises UnknownTopicId, UnknownTopicOrPartition or LeaderNotAvailable."""
        topic = self._publisher.image.topics.get(partition.topic_id)
        if topic is None:
            raise UnknownTopicId(f"no topic has the id {partition.topic_id}")
        state = topic.partitions.get(partition.partition)
        if state is None:
            raise UnknownTopicOrPartition(
                f"topic {topic.name!r} has no partition {partition.partition}; it has {len(topic.partitions)}"
            )
        if not state.has_leader:
            raise LeaderNotAvailable(
                f"partition {topic.name}-{partition.partition} has no leader; its ISR is {list(state.isr)}"
            )
        return state

    def stand_in(self, partition: TopicIdPartition) -> int | None:
        """The ISR member that leads when this leader's log has failed (L1, KIP-858); None when there is none."""
        image = self._publisher.image
        state = image.partition(partition.topic_id, partition.partition)
        replicas = () if state is None else (r for r in state.replicas if r in state.isr and r != state.leader)
        return next((replica for replica in replicas if image.is_active_broker(replica)), None)

    def client_of(self, leader: int) -> PartitionClient:
        if leader == self._node_id and self._local is not None:
            return self._local
        return self._peer(leader)
