"""Any node takes any request: the one implementation of `Gateway`, made of the routers and the controller door."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

from kraft.broker.control import ControllerDoor
from kraft.broker.gateway import NodeInfo, Records
from kraft.broker.leaders import LeaderFinder
from kraft.broker.metadata_publisher import MetadataPublisher
from kraft.broker.produce_routing import ProduceRouter
from kraft.broker.read_routing import ReadRouter
from kraft.broker.tail_waits import Tails
from kraft.broker.visibility import is_visible
from kraft.protocol.errors import LeaderNotAvailable, TopicAlreadyExists, UnknownTopicOrPartition
from kraft.protocol.primitives import Buffer
from metadata.controller.requests import CreateTopics, ErrorDetail, NewTopic, Request
from metadata.environment import Clock
from metadata.image import MetadataImage, TopicIdPartition
from metadata.settings import BrokerSettings, TopicSettings
from replication.requests import ActiveProducer, OffsetAnswer, ProduceOutcome

Reply = TypeVar("Reply")

CREATE_TIMEOUT_MS = 5_000
METADATA_WAIT_MS = 2_000
"""How long a node waits to see what the controller has just done."""


class Router:
    """Implements `kraft.broker.gateway.Gateway`."""

    def __init__(
        self,
        *,
        node_id: int,
        cluster_id: str,
        nodes: Mapping[int, NodeInfo],
        described_settings: Mapping[str, str],
        clock: Clock,
        publisher: MetadataPublisher,
        door: ControllerDoor,
        finder: LeaderFinder,
        tails: Tails,
    ) -> None:
        self._node_id = node_id
        self._cluster_id = cluster_id
        self._nodes = nodes
        self._described_settings = described_settings
        self._publisher = publisher
        self._door = door
        self._produces = ProduceRouter(clock=clock, publisher=publisher, finder=finder)
        self._reads = ReadRouter(clock=clock, publisher=publisher, finder=finder, tails=tails)

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

    @property
    def described_settings(self) -> Mapping[str, str]:
        return self._described_settings

    def topic_settings(self, topic: str) -> TopicSettings:
        return self._publisher.topic_settings(topic)

    # --- administrative requests ----------------------------------------------------------------------------

    async def control(self, request: Request[Reply], *, timeout_ms: int) -> Reply:
        """Answers when this node, too, has seen what was done: who asks it next reads what he wrote."""
        reply = await self._door.control(request, timeout_ms=timeout_ms)
        await self._publisher.wait_for(lambda image: is_visible(image, request, reply), timeout_ms=METADATA_WAIT_MS)
        return reply

    async def topic_id_or_create(self, name: str) -> UUID:
        topic = self.image.topic(name)
        if topic is not None:
            return topic.topic_id
        if not self.settings.auto_create_topics_enable:
            raise UnknownTopicOrPartition(
                f"topic {name!r} does not exist; create it first (auto.create.topics.enable is false)"
            )
        created = await self.ensure_topic(NewTopic(name=name))
        if isinstance(created, ErrorDetail):
            raise created.exception()
        return created

    async def ensure_topic(self, new: NewTopic) -> UUID | ErrorDetail:
        topic = self.image.topic(new.name)
        if topic is not None:
            return topic.topic_id
        reply = await self.control(CreateTopics(topics=(new,)), timeout_ms=CREATE_TIMEOUT_MS)
        result = reply[new.name]
        if isinstance(result, ErrorDetail) and result.error is not TopicAlreadyExists:
            return result
        await self._publisher.wait_for(lambda image: image.topic(new.name) is not None, timeout_ms=CREATE_TIMEOUT_MS)
        created = self.image.topic(new.name)
        if created is None:
            raise LeaderNotAvailable(f"topic {new.name!r} was created, but this node does not know it yet; try again")
        return created.topic_id

    # --- data -----------------------------------------------------------------------------------------------

    def produce(
        self,
        batches: Mapping[TopicIdPartition, Buffer],
        *,
        acks: int,
        timeout_ms: int,
        transactional_id: str | None = None,
    ) -> Coroutine[Any, Any, Mapping[TopicIdPartition, ProduceOutcome]]:
        return self._produces.produce(batches, acks=acks, timeout_ms=timeout_ms, transactional_id=transactional_id)

    async def read(
        self,
        partition: TopicIdPartition,
        *,
        offset: int,
        bytes_max: int,
        bytes_min: int,
        wait_ms_max: int,
        is_read_committed: bool = False,
    ) -> Records:
        return await self._reads.read(
            partition,
            offset=offset,
            bytes_max=bytes_max,
            bytes_min=bytes_min,
            wait_ms_max=wait_ms_max,
            is_read_committed=is_read_committed,
        )

    async def tail(
        self,
        positions: Mapping[TopicIdPartition, int],
        *,
        bytes_max: int,
        wait_ms: int,
        is_read_committed: bool = False,
    ) -> Mapping[TopicIdPartition, Records | None]:
        return await self._reads.tail(
            positions, bytes_max=bytes_max, wait_ms=wait_ms, is_read_committed=is_read_committed
        )

    async def wait_readable(
        self, positions: Mapping[TopicIdPartition, int], *, wait_ms: int, is_read_committed: bool = False
    ) -> None:
        await self._reads.wait_readable(positions, wait_ms=wait_ms, is_read_committed=is_read_committed)

    async def list_offset(
        self, partition: TopicIdPartition, timestamp: int, *, is_read_committed: bool = False
    ) -> OffsetAnswer:
        return await self._reads.list_offset(partition, timestamp, is_read_committed=is_read_committed)

    async def producers(self, partition: TopicIdPartition) -> Sequence[ActiveProducer]:
        return await self._reads.producers(partition)

    async def delete_records(self, partition: TopicIdPartition, *, offset: int, timeout_ms: int) -> int:
        return await self._reads.delete_records(partition, offset=offset, timeout_ms=timeout_ms)
