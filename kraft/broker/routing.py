"""Any node takes any request: the one implementation of `Gateway`.

A data request goes to the partition's leader: in process when it is here, else one hop over the `forward` connection.
A produce that was surely not appended (no leader known, connection refused, NOT_LEADER before the append) waits for new
metadata and is routed again within LEADER_WAIT_MS; one whose outcome is unknown is never sent again. Reads are safe and
are routed again until their deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar
from uuid import UUID

from kraft.broker.control import ControllerDoor
from kraft.broker.gateway import NodeInfo, Records
from kraft.broker.publishing import MetadataPublisher
from metadata.controller.events import CreateTopics, ErrorDetail, NewTopic, Request
from metadata.environment import Buffer, Clock, ConnectionClosed
from metadata.errors import (
    InvalidRequiredAcks,
    KafkaError,
    LeaderNotAvailable,
    NotLeaderOrFollower,
    ReplicaNotAvailable,
    RequestTimedOut,
    TopicAlreadyExists,
    UnknownTopicId,
    UnknownTopicOrPartition,
    for_code,
)
from metadata.image import MetadataImage, PartitionImage, TopicIdPartition
from metadata.settings import BrokerSettings, TopicSettings
from replication.requests import (
    CONSUMER,
    FetchedPartition,
    FetchPartition,
    FetchRequest,
    FetchResponse,
    OffsetAnswer,
    ProduceOutcome,
)

Reply = TypeVar("Reply")
Answer = TypeVar("Answer")

LEADER_WAIT_MS = 1_000
"""How long a request waits for a partition to get a leader that takes it."""
FORWARD_MARGIN_MS = 1_000
"""A forwarded request's own timeout, beyond what the leader was asked to wait."""
READ_RETRY_MS = 20
"""Wait after a failed read before it is routed again."""
AUTO_CREATE_TIMEOUT_MS = 5_000
METADATA_WAIT_MS = 2_000
"""How long a node waits to see a topic that the controller has just created."""

MOVED = (NotLeaderOrFollower, LeaderNotAvailable, ReplicaNotAvailable, UnknownTopicId)
"""Errors that new metadata may cure."""


class Leaders(Protocol):
    """A leader's data requests; the local replica manager and the forward channel to a peer both have them."""

    async def produce(
        self, batches: Mapping[TopicIdPartition, Buffer], *, acks: int, timeout_ms: int
    ) -> Mapping[TopicIdPartition, ProduceOutcome]: ...

    async def fetch(self, request: FetchRequest) -> FetchResponse: ...

    async def list_offset(self, partition: TopicIdPartition, timestamp: int) -> OffsetAnswer: ...

    async def delete_records(self, partition: TopicIdPartition, *, offset: int, timeout_ms: int) -> int: ...


class Router:
    """Implements `kraft.broker.gateway.Gateway`."""

    def __init__(
        self,
        *,
        node_id: int,
        cluster_id: str,
        nodes: Mapping[int, NodeInfo],
        clock: Clock,
        publisher: MetadataPublisher,
        door: ControllerDoor,
        local: Leaders | None,
        peer: Callable[[int], Leaders],
    ) -> None:
        self._node_id = node_id
        self._cluster_id = cluster_id
        self._nodes = nodes
        self._clock = clock
        self._publisher = publisher
        self._door = door
        self._local = local
        self._peer = peer

    # --- what the doors ask about ---------------------------------------------------------------------------

    @property
    def node_id(self) -> int:
        return self._node_id

    @property
    def cluster_id(self) -> str:
        return self._cluster_id

    @property
    def image(self) -> MetadataImage:
        return self._publisher.image

    @property
    def controller_id(self) -> int:
        return self._publisher.leadership.leader_id

    @property
    def nodes(self) -> Mapping[int, NodeInfo]:
        return self._nodes

    @property
    def settings(self) -> BrokerSettings:
        return self._publisher.settings

    def topic_settings(self, topic: str) -> TopicSettings:
        return self._publisher.topic_settings(topic)

    # --- administrative requests ----------------------------------------------------------------------------

    async def control(self, request: Request[Reply], *, timeout_ms: int) -> Reply:
        return await self._door.control(request, timeout_ms=timeout_ms)

    async def topic_id_or_create(self, name: str) -> UUID:
        topic = self.image.topic(name)
        if topic is not None:
            return topic.topic_id
        if not self.settings.auto_create_topics_enable:
            raise UnknownTopicOrPartition(
                f"topic {name!r} does not exist; create it first (auto.create.topics.enable is false)"
            )
        reply = await self.control(CreateTopics(topics=(NewTopic(name=name),)), timeout_ms=AUTO_CREATE_TIMEOUT_MS)
        result = reply[name]
        if isinstance(result, ErrorDetail) and result.error is not TopicAlreadyExists:
            raise result.exception()
        await self._publisher.wait_for(lambda image: image.topic(name) is not None, timeout_ms=METADATA_WAIT_MS)
        created = self.image.topic(name)
        if created is None:
            raise LeaderNotAvailable(f"topic {name!r} was created, but this node does not know it yet; try again")
        return created.topic_id

    # --- produce --------------------------------------------------------------------------------------------

    async def produce(
        self, batches: Mapping[TopicIdPartition, Buffer], *, acks: int, timeout_ms: int
    ) -> Mapping[TopicIdPartition, ProduceOutcome]:
        if acks not in (-1, 0, 1):
            raise InvalidRequiredAcks(f"acks was {acks}; it must be 0, 1 or -1 (all)")
        deadline_ms = self._clock.monotonic_ms() + min(LEADER_WAIT_MS, timeout_ms)
        outcomes: dict[TopicIdPartition, ProduceOutcome] = {}
        pending = dict(batches)
        while True:
            epoch_seen = self._publisher.version
            outcomes.update(await self._produce_once(pending, acks=acks, timeout_ms=timeout_ms))
            pending = {p: batches[p] for p in pending if _is_worth_routing_again(outcomes[p])}
            if not pending or not await self._publisher.wait_newer(epoch_seen, deadline_ms=deadline_ms):
                return outcomes

    async def _produce_once(
        self, batches: Mapping[TopicIdPartition, Buffer], *, acks: int, timeout_ms: int
    ) -> dict[TopicIdPartition, ProduceOutcome]:
        outcomes: dict[TopicIdPartition, ProduceOutcome] = {}
        by_leader: dict[int, dict[TopicIdPartition, Buffer]] = {}
        for partition, data in batches.items():
            try:
                by_leader.setdefault(self._leader(partition).leader, {})[partition] = data
            except KafkaError as error:
                outcomes[partition] = ProduceOutcome(error_code=error.code, message=error.message)
        if len(by_leader) == 1:
            ((leader, part),) = by_leader.items()
            outcomes.update(await self._produce_at(leader, part, acks=acks, timeout_ms=timeout_ms))
        elif by_leader:
            parts = await asyncio.gather(
                *(self._produce_at(leader, p, acks=acks, timeout_ms=timeout_ms) for leader, p in by_leader.items())
            )
            for part_outcomes in parts:
                outcomes.update(part_outcomes)
        return outcomes

    async def _produce_at(
        self, leader: int, batches: Mapping[TopicIdPartition, Buffer], *, acks: int, timeout_ms: int
    ) -> Mapping[TopicIdPartition, ProduceOutcome]:
        try:
            return await self._leaders(leader).produce(batches, acks=acks, timeout_ms=timeout_ms)
        except ConnectionRefusedError:
            refused = LeaderNotAvailable(
                f"broker {leader} leads the partition and refuses connections; nothing was sent"
            )
            return _all_failed(batches, refused, is_appended=False)
        except (ConnectionClosed, OSError) as lost:
            unknown = RequestTimedOut(
                f"the connection to leader {leader} failed ({type(lost).__name__}); the records may have been written"
            )
            return _all_failed(batches, unknown, is_appended=True)
        except KafkaError as error:
            return _all_failed(batches, error, is_appended=False)

    # --- reads ----------------------------------------------------------------------------------------------

    async def read(
        self, partition: TopicIdPartition, *, offset: int, bytes_max: int, bytes_min: int, wait_ms_max: int
    ) -> Records:
        async def attempt(leaders: Leaders, state: PartitionImage) -> Records:
            request = FetchRequest(
                replica_id=CONSUMER,
                replica_epoch=-1,
                wait_ms_max=wait_ms_max,
                bytes_min=bytes_min,
                bytes_max=bytes_max,
                partitions=(_consumer_fetch(partition, offset=offset, bytes_max=bytes_max),),
            )
            response = await leaders.fetch(request)
            return _records(response, state)

        return await self._at_leader(partition, attempt, wait_ms_max=wait_ms_max)

    async def list_offset(self, partition: TopicIdPartition, timestamp: int) -> OffsetAnswer:
        async def attempt(leaders: Leaders, _state: PartitionImage) -> OffsetAnswer:
            return await leaders.list_offset(partition, timestamp)

        return await self._at_leader(partition, attempt, wait_ms_max=0)

    async def delete_records(self, partition: TopicIdPartition, *, offset: int, timeout_ms: int) -> int:
        async def attempt(leaders: Leaders, _state: PartitionImage) -> int:
            return await leaders.delete_records(partition, offset=offset, timeout_ms=timeout_ms)

        return await self._at_leader(partition, attempt, wait_ms_max=timeout_ms)

    async def _at_leader(
        self,
        partition: TopicIdPartition,
        attempt: Callable[[Leaders, PartitionImage], Awaitable[Answer]],
        *,
        wait_ms_max: int,
    ) -> Answer:
        """Run a request that is safe to repeat, routing again until it is taken or the wait is over."""
        deadline_ms = self._clock.monotonic_ms() + max(LEADER_WAIT_MS, wait_ms_max)
        while True:
            epoch_seen = self._publisher.version
            try:
                state = self._leader(partition)
                return await attempt(self._leaders(state.leader), state)
            except MOVED as error:
                failure: KafkaError = error
            except (ConnectionClosed, OSError) as lost:
                failure = LeaderNotAvailable(f"the leader did not answer: {type(lost).__name__}")
            now_ms = self._clock.monotonic_ms()
            if now_ms >= deadline_ms:
                raise failure
            await self._publisher.wait_newer(epoch_seen, deadline_ms=min(deadline_ms, now_ms + READ_RETRY_MS))

    # --- routing --------------------------------------------------------------------------------------------

    def _leader(self, partition: TopicIdPartition) -> PartitionImage:
        topic = self.image.topics.get(partition.topic_id)
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

    def _leaders(self, leader: int) -> Leaders:
        if leader == self._node_id and self._local is not None:
            return self._local
        return self._peer(leader)


def _is_worth_routing_again(outcome: ProduceOutcome) -> bool:
    return not outcome.is_appended and outcome.error_code in {error.code for error in MOVED}


def _all_failed(
    batches: Mapping[TopicIdPartition, Buffer], error: KafkaError, *, is_appended: bool
) -> dict[TopicIdPartition, ProduceOutcome]:
    outcome = ProduceOutcome(error_code=error.code, message=error.message, is_appended=is_appended)
    return dict.fromkeys(batches, outcome)


def _consumer_fetch(partition: TopicIdPartition, *, offset: int, bytes_max: int) -> FetchPartition:
    return FetchPartition(
        topic_id=partition.topic_id,
        partition=partition.partition,
        current_leader_epoch=-1,
        fetch_offset=offset,
        last_fetched_epoch=-1,
        log_start_offset=-1,
        bytes_max=bytes_max,
    )


def _records(response: FetchResponse, state: PartitionImage) -> Records:
    if response.error_code:
        raise for_code(response.error_code)
    fetched: FetchedPartition = response.partitions[0]
    if fetched.error_code:
        raise for_code(fetched.error_code, _explain(fetched))
    return Records(
        data=fetched.records,
        high_watermark=fetched.high_watermark,
        log_start_offset=fetched.log_start_offset,
        leader_id=state.leader,
        leader_epoch=state.leader_epoch,
    )


def _explain(fetched: FetchedPartition) -> str:
    if fetched.error_code == 1:
        return (
            f"the offset is out of range: the log starts at {fetched.log_start_offset} "
            f"and its high watermark is {fetched.high_watermark}"
        )
    return ""
