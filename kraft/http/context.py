"""What every handler shares, and the few questions that all of them ask of the cluster's image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

from aiohttp import web

from kraft.broker.answer_budget import AnswerBudget
from kraft.broker.gateway import Gateway
from kraft.http.authentication import HttpAuthentication
from kraft.http.connection import Connection
from kraft.http.dialects import DIALECTS, Dialect
from kraft.http.errors import PARTITION_NOT_FOUND, HttpError, overloaded
from kraft.http.host_origin_check import Origins
from kraft.http.limits import BodyBudget, Connections, Limits, Slots
from kraft.http.metrics import Metrics
from kraft.http.partitioner import Partitioner
from kraft.http.readiness import Awaiting
from kraft.http.revocations import Revocations
from kraft.http.slow_clients import SlowClients
from kraft.http.streaming.streams import Streams
from kraft.http.visible_image import Views
from kraft.protocol.errors import InvalidTopicException, LeaderNotAvailable, RequestTimedOut, UnknownTopicOrPartition
from metadata.controller.requests import Request
from metadata.environment import Clock
from metadata.image import PartitionImage, TopicIdPartition, TopicImage
from metadata.internal_topics import INTERNAL_TOPICS, internal_refusal
from replication.record_workers import RecordWorkers

Reply = TypeVar("Reply")


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What all handlers share: the node, its limits and its clock."""

    gateway: Gateway
    clock: Clock
    limits: Limits
    bodies: BodyBudget
    answers: AnswerBudget
    """The budget that all ports of this node share."""
    connections: Connections
    long_polls: Slots
    streams: Streams
    produce_streams: Slots
    partitioner: Partitioner
    metrics: Metrics
    patience: SlowClients
    awaiting: Awaiting
    record_workers: RecordWorkers
    """For bodies and answers of many records."""
    kafka_clients: Callable[[], Mapping[tuple[str, str, str], int]] = dict
    """Connections at the Kafka port, by listener, library and its version."""
    started_ms: int = 0
    """On the monotonic clock."""
    origins: Origins
    revocations: Revocations
    views: Views = field(default_factory=Views)
    authentication: HttpAuthentication | None = None
    """None where clients do not log in."""
    is_strict: bool = False
    """The strict profile, see `kraft.http.strict_profile`."""

    @property
    def dialect(self) -> Dialect:
        """The dialect of v2 that `rest.dialect` chooses."""
        return DIALECTS[self.gateway.settings.rest_dialect]

    async def room(self, bytes_max: int) -> int:
        """The bytes that a read may take now, `bytes_max` at most; waits while there is no room. Raises HttpError
        503 when there is none in time."""
        answers = self.answers
        if not answers.has_room():
            await answers.wait(self.clock, ms_max=self.limits.room_wait_ms)
            answers.admit()
        room = answers.room()
        if not room and bytes_max:
            raise overloaded(
                f"this node holds {answers.held} bytes of answers that clients have not taken, and reads no more "
                f"(queued.max.response.bytes is {answers.limit}); try again"
            )
        return min(bytes_max, room)

    def hold(self, request: web.BaseRequest, size: int) -> None:
        """Counts so many bytes for the request's answer, until its client has taken it."""
        connection = request.protocol
        if isinstance(connection, Connection):
            connection.hold(self.answers, size)

    def topic_or_raise(self, name: str) -> TopicImage:
        """The topic of this name. Raises UnknownTopicOrPartition 3."""
        topic = self.gateway.image.topic(name)
        if topic is None:
            raise UnknownTopicOrPartition(f"topic {name!r} does not exist")
        return topic

    def partition_or_raise(self, topic: TopicImage, partition: int) -> PartitionImage:
        """The partition of this number. Raises HttpError 40402 with the number of partitions."""
        image = topic.partitions.get(partition)
        if image is None:
            raise HttpError(
                PARTITION_NOT_FOUND,
                f"Partition not found. Topic {topic.name!r} has no {partition}; it has {len(topic.partitions)}, from 0",
                extra={"kafka_code": UnknownTopicOrPartition.code},
            )
        return image

    def find_partition(self, topic: str, partition: int) -> tuple[TopicIdPartition, PartitionImage]:
        """Key and image of a partition, by topic and number. Raises what the two methods above raise."""
        image = self.topic_or_raise(topic)
        return TopicIdPartition(image.topic_id, partition), self.partition_or_raise(image, partition)

    async def topic_or_create(self, name: str) -> TopicImage:
        """The topic to produce to; created when auto.create.topics.enable. Raises InvalidTopicException 17, as Kafka
        does for a client that writes to an internal topic."""
        if name in INTERNAL_TOPICS:
            raise InvalidTopicException(internal_refusal(name, "write to it"))
        topic = self.gateway.image.topic(name)
        if topic is not None:
            return topic
        topic_id: UUID = await self.gateway.topic_id_or_create(name)
        created = self.gateway.image.topics.get(topic_id)
        if created is None:
            raise LeaderNotAvailable(f"topic {name!r} was just created and is not known to this node yet")
        return created

    async def control(self, request: Request[Reply]) -> Reply:
        """Asks the active controller. Raises KafkaError; the message of an unknown outcome names what to do."""
        try:
            return await self.gateway.control(request, timeout_ms=self.limits.control_timeout_ms)
        except RequestTimedOut as late:
            message = f"{late.message}. The change may have been made or still be made: look before asking for it again"
            raise RequestTimedOut(message) from late
