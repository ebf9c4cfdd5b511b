"""Metadata (3), DescribeCluster (60) and DescribeTopicPartitions (75): what the cluster consists of, for a client.

Sources: `handleTopicMetadataRequest`, `KRaftMetadataCache`, `AuthHelper.computeDescribeClusterResponse` and
`DescribeTopicPartitionsRequestHandler` of Kafka 4.1. A topic that may be created is answered as unknown first, and
created behind that answer: clients ask again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from uuid import UUID

from kraft.coordinators.coordinator_client import new_coordinators_topic
from kraft.protocol import codec
from kraft.protocol.encoding import ZERO_UUID, TopLevel, Written
from kraft.protocol.errors import (
    InvalidRequest,
    InvalidTopicException,
    KafkaError,
    LeaderNotAvailable,
    ListenerNotFound,
    MismatchedEndpointType,
    ReplicaNotAvailable,
    UnknownTopicId,
    UnknownTopicOrPartition,
    UnsupportedEndpointType,
)
from kraft.protocol.messages.describe_cluster_request import DescribeClusterRequestData
from kraft.protocol.messages.describe_cluster_response import DescribeClusterBroker, DescribeClusterResponseData
from kraft.protocol.messages.describe_topic_partitions_request import DescribeTopicPartitionsRequestData
from kraft.protocol.messages.describe_topic_partitions_response import (
    Cursor,
    DescribeTopicPartitionsResponseData,
    DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
)
from kraft.protocol.messages.metadata_request import MetadataRequestData
from kraft.protocol.messages.metadata_response import (
    MetadataResponseBroker,
    MetadataResponseData,
    MetadataResponsePartition,
    MetadataResponseTopic,
)
from kraft.wire.api_handler import Answer, ApiHandler, Call, ClientConnection
from kraft.wire.handlers import operations
from kraft.wire.handlers.endpoints import Endpoint, address_of, controller_of, live_endpoints, node_endpoints
from kraft.wire.large_requests import written
from kraft.wire.lazy import Lazy
from kraft.wire.node_parts import NodeParts
from metadata.controller.decide.topics import check_topic_name
from metadata.controller.requests import NewTopic, OfflineReplicas
from metadata.image import MetadataImage, PartitionImage, TopicIdPartition, TopicImage
from metadata.internal_topics import INTERNAL_TOPICS, SHARE_STATE_TOPIC
from metadata.records import NO_LEADER

CREATED_AT_ONCE_MAX = 100
"""Topics that clients' questions are creating at the same time; of more a client has to ask again."""
ANSWERS_KEPT_MAX = 64
"""Answers to Metadata that are kept until the metadata changes: all clients of an application ask the same."""
TOPICS_KEPT_MAX = 32
BROKER_ENDPOINTS = 1
CONTROLLER_ENDPOINTS = 2
"""Endpoint types of DescribeCluster (KIP-919): this is a listener of brokers."""


def apis(broker: NodeParts) -> Sequence[ApiHandler]:
    cluster = _Cluster(broker)
    return [
        ApiHandler(
            request=MetadataRequestData,
            response=MetadataResponseData,
            handle=cluster.metadata,
            refuse=_refuse_metadata,
        ),
        ApiHandler(
            request=DescribeClusterRequestData,
            response=DescribeClusterResponseData,
            handle=cluster.describe,
            refuse=_refuse_describe,
        ),
        ApiHandler(
            request=DescribeTopicPartitionsRequestData,
            response=DescribeTopicPartitionsResponseData,
            handle=cluster.partitions,
            refuse=_refuse_partitions,
        ),
    ]


class _Cluster:
    def __init__(self, broker: NodeParts) -> None:
        self._broker = broker
        self._gateway = broker.gateway
        self._created = _TopicsCreated(broker)
        self._image: MetadataImage | None = None
        self._offline: OfflineReplicas = {}
        self._answers: dict[tuple[object, ...], Written] = {}
        """To what was asked about `_image` and `_offline`."""

    # --- Metadata -------------------------------------------------------------------------------------------

    def metadata(self, call: Call[MetadataRequestData]) -> Answer:
        """Raises InvalidRequest 42."""
        leaders = self._other_leaders(call.message)
        if leaders or self._broker.lost.are_awaited():
            return self._of_living(call, leaders)
        return self._current(call)

    async def _of_living(self, call: Call[MetadataRequestData], leaders: Collection[int]) -> TopLevel:
        """When the leaders have shown that they live, or an election is over."""
        await self._broker.lost.seen(leaders)
        if self._broker.lost.are_awaited():
            await self._broker.lost.fenced()
        return self._current(call)

    def _other_leaders(self, message: MetadataRequestData) -> set[int]:
        """Leaders of the topics that a request names, as of a client that has lost a leader; none for too many."""
        image, own = self._gateway.image, self._gateway.node_id
        if message.topics is None or len(message.topics) > TOPICS_KEPT_MAX:
            return set()
        named = (image.topic(each.name) if each.name else image.topics.get(each.topic_id) for each in message.topics)
        topics = [topic for topic in named if topic is not None]
        return {partition.leader for topic in topics for partition in topic.partitions.values()} - {own, NO_LEADER}

    def _current(self, call: Call[MetadataRequestData]) -> TopLevel:
        asked = _asked(call)
        if asked is None:
            return self._metadata(call)
        image, offline = self._gateway.image, self._broker.offline_replicas
        if self._image is not image or self._offline is not offline or len(self._answers) >= ANSWERS_KEPT_MAX:
            self._image, self._offline = image, offline
            self._answers.clear()
        asked = (*asked, controller_of(self._broker, call.connection), self._broker.lost.lately_fenced())
        kept = self._answers.get(asked)
        if kept is None:
            response = self._metadata(call)
            kept = Written.make([b"".join(codec.encode_body(response, call.version))])
            if all(topic.error_code == 0 for topic in response.topics):
                self._answers[asked] = kept
        return kept

    def _metadata(self, call: Call[MetadataRequestData]) -> MetadataResponseData:
        message, version, connection = call.message, call.version, call.connection
        asks_cluster = message.include_cluster_authorized_operations and 8 <= version <= 10
        return MetadataResponseData.make(
            brokers=[
                MetadataResponseBroker.make(node_id=each.node_id, host=each.host, port=each.port, rack=each.rack)
                for each in self._named(connection)
            ],
            cluster_id=self._gateway.cluster_id,
            controller_id=controller_of(self._broker, connection),
            topics=list(self._topics(message, version, connection)),
            cluster_authorized_operations=operations.CLUSTER if asks_cluster else operations.NOT_ASKED,
        )

    def _named(self, connection: ClientConnection) -> Sequence[Endpoint]:
        """The brokers that are not fenced, and those that were not a moment ago: see `LostBrokers`."""
        lost = node_endpoints(self._broker, self._broker.lost.lately_fenced(), connection)
        live = live_endpoints(self._broker, connection)
        return sorted((*live, *lost)) if lost else live

    def _topics(
        self, message: MetadataRequestData, version: int, connection: ClientConnection
    ) -> Iterator[MetadataResponseTopic]:
        asked, image = message.topics, self._gateway.image
        described = _Described(image, self._broker, connection, version, message.include_topic_authorized_operations)
        if asked is None or (not asked and version == 0):
            yield from (described.topic(topic) for topic in image.topics_by_name.values())
            return
        ids = list(dict.fromkeys(each.topic_id for each in asked if each.topic_id != ZERO_UUID))
        names = list(dict.fromkeys(each.name for each in asked))
        if version < 12 and (ids or None in names):
            raise InvalidRequest(f"Metadata version {version} takes names of topics only, and no null")
        if ids:
            yield from (described.by_id(topic_id) for topic_id in ids)
            return
        for name in names:
            topic = None if name is None else image.topic(name)
            yield described.missing(name or "") if topic is None else described.topic(topic)
            if topic is None and name is not None and message.allow_auto_topic_creation:
                self._created.begin(name)

    # --- DescribeCluster ------------------------------------------------------------------------------------

    def describe(self, call: Call[DescribeClusterRequestData]) -> DescribeClusterResponseData:
        """Raises UnsupportedEndpointType 115, MismatchedEndpointType 114 or, in version 0, InvalidRequest 42."""
        message = call.message
        _check_endpoint_type(message.endpoint_type, call.version)
        registered = self._gateway.image.brokers
        found = [address_of(self._broker, broker_id, call.connection) for broker_id in sorted(registered)]
        return DescribeClusterResponseData.make(
            endpoint_type=BROKER_ENDPOINTS,
            cluster_id=self._gateway.cluster_id,
            controller_id=controller_of(self._broker, call.connection),
            brokers=[
                DescribeClusterBroker.make(
                    broker_id=each.node_id,
                    host=each.host,
                    port=each.port,
                    rack=each.rack,
                    is_fenced=registered[each.node_id].fenced,
                )
                for each in found
                if each is not None and (message.include_fenced_brokers or not registered[each.node_id].fenced)
            ],
            cluster_authorized_operations=(
                operations.CLUSTER if message.include_cluster_authorized_operations else operations.NOT_ASKED
            ),
        )

    # --- DescribeTopicPartitions ----------------------------------------------------------------------------

    def partitions(self, call: Call[DescribeTopicPartitionsRequestData]) -> TopLevel:
        """One page, in the order of the topics' names. Raises InvalidRequest 42."""
        message, image = call.message, self._gateway.image
        names = _names_from_cursor(message, image)
        first = {} if message.cursor is None else {message.cursor.topic_name: message.cursor.partition_index}
        room = max(min(self._gateway.settings.max_request_partition_size_limit, message.response_partition_limit), 1)
        page: list[tuple[TopicImage, range] | str] = []
        cursor: Cursor | None = None
        for name in names:
            if not room:
                cursor = Cursor.make(topic_name=name, partition_index=0)
                break
            topic, begin = image.topic(name), first.get(name, 0)
            if topic is None:
                if message.topics:
                    page.append(name)
                continue
            numbers = range(begin, min(len(topic.partitions), begin + room))
            page.append((topic, numbers))
            if numbers.stop < len(topic.partitions):
                cursor = Cursor.make(topic_name=name, partition_index=numbers.stop)
                break
            room -= len(numbers)
        topics = Lazy(len(page), lambda: (self._of_page(each, call.connection) for each in page))
        return written(DescribeTopicPartitionsResponseData.make(topics=topics, next_cursor=cursor), call.version)

    def _of_page(
        self, item: tuple[TopicImage, range] | str, connection: ClientConnection
    ) -> DescribeTopicPartitionsResponseTopic:
        if isinstance(item, str):
            return _missing_partitions(item)
        topic, numbers = item
        return _partitions_of(topic, numbers, self._broker, connection)


def _asked(call: Call[MetadataRequestData]) -> tuple[object, ...] | None:
    """Two requests of which this is equal are answered the same, for as long as the metadata is. None for a request
    that hardly comes twice."""
    message = call.message
    topics = message.topics
    if topics is not None and len(topics) > TOPICS_KEPT_MAX:
        return None
    return (
        call.version,
        call.connection.listener,
        message.include_cluster_authorized_operations,
        message.include_topic_authorized_operations,
        None if topics is None else tuple((topic.name, topic.topic_id) for topic in topics),
    )


class _Described:
    """Topics in the form that one Metadata request asks for."""

    def __init__(
        self,
        image: MetadataImage,
        broker: NodeParts,
        connection: ClientConnection,
        version: int,
        asks_operations: bool,
    ) -> None:
        self._image = image
        self._version = version
        self._operations = operations.TOPIC if asks_operations and version >= 8 else operations.NOT_ASKED
        self._listener = connection.listener
        self._live = {endpoint.node_id for endpoint in live_endpoints(broker, connection)}
        self._offline = broker.offline_replicas
        registered = image.brokers.values()
        self._reachable = {each.broker_id for each in registered if each.address(self._listener) is not None}

    def by_id(self, topic_id: UUID) -> MetadataResponseTopic:
        topic = self._image.topics.get(topic_id)
        if topic is not None:
            return self.topic(topic)
        return MetadataResponseTopic.make(error_code=UnknownTopicId.code, name=None, topic_id=topic_id)

    def topic(self, topic: TopicImage) -> MetadataResponseTopic:
        return MetadataResponseTopic.make(
            name=topic.name,
            topic_id=topic.topic_id,
            is_internal=topic.name in INTERNAL_TOPICS,
            partitions=[self._partition(partition) for partition in topic.partitions.values()],
            topic_authorized_operations=self._operations,
        )

    def missing(self, name: str) -> MetadataResponseTopic:
        return MetadataResponseTopic.make(
            error_code=_why_missing(name).code,
            name=name,
            is_internal=name in INTERNAL_TOPICS,
            topic_authorized_operations=self._operations,
        )

    def _partition(self, partition: PartitionImage) -> MetadataResponsePartition:
        has_leader = partition.leader in self._reachable
        return MetadataResponsePartition.make(
            error_code=self._error(partition),
            partition_index=partition.partition,
            leader_id=partition.leader if has_leader else -1,
            leader_epoch=partition.leader_epoch,
            replica_nodes=self._shown(partition.replicas),
            isr_nodes=self._shown(partition.isr),
            offline_replicas=offline_replicas(partition, live=self._live, offline=self._offline),
        )

    def _shown(self, replicas: Sequence[int]) -> Sequence[int]:
        """Version 0 leaves out replicas that cannot be reached; an error of the partition shows it."""
        return [replica for replica in replicas if replica in self._live] if self._version == 0 else replicas

    def _error(self, partition: PartitionImage) -> int:
        if partition.leader not in self._reachable:
            is_registered = partition.leader in self._image.brokers
            return ListenerNotFound.code if is_registered and self._version >= 6 else LeaderNotAvailable.code
        if self._version == 0 and not self._live.issuperset(partition.replicas):
            return ReplicaNotAvailable.code
        return 0


def offline_replicas(partition: PartitionImage, *, live: Collection[int], offline: OfflineReplicas) -> Sequence[int]:
    """Those of brokers that cannot be reached, and those whose log has failed (KIP-112)."""
    key = TopicIdPartition(partition.topic_id, partition.partition)
    return [each for each in partition.replicas if each not in live or key in offline.get(each, ())]


class _TopicsCreated:
    """The topics that are created because a client asked for their metadata (auto.create.topics.enable)."""

    def __init__(self, broker: NodeParts) -> None:
        self._gateway = broker.gateway
        self._under_way: dict[str, asyncio.Task[None]] = {}

    def begin(self, name: str) -> None:
        if not self._gateway.settings.auto_create_topics_enable or _why_missing(name) is InvalidTopicException:
            return
        if name in self._under_way or len(self._under_way) >= CREATED_AT_ONCE_MAX:
            return
        if name == SHARE_STATE_TOPIC:
            return
        task = asyncio.get_running_loop().create_task(self._create(name))
        self._under_way[name] = task
        task.add_done_callback(lambda _: self._under_way.pop(name))

    async def _create(self, name: str) -> None:
        new = new_coordinators_topic(name, self._gateway) if name in INTERNAL_TOPICS else NewTopic(name=name)
        try:
            await self._gateway.ensure_topic(new)
        except KafkaError:
            return  # it is unknown still when the client asks again, and tried again then


def _why_missing(name: str) -> type[KafkaError]:
    try:
        check_topic_name(name)
    except InvalidTopicException:
        return InvalidTopicException
    return UnknownTopicOrPartition


def _check_endpoint_type(asked: int, version: int) -> None:
    if asked == BROKER_ENDPOINTS:
        return
    if asked == CONTROLLER_ENDPOINTS:
        text = "this is a listener of brokers; it does not tell the endpoints of controllers"
        raise InvalidRequest(text) if version == 0 else MismatchedEndpointType(text)
    text = f"endpoint type {asked}; there are 1 (brokers) and 2 (controllers)"
    raise InvalidRequest(text) if version == 0 else UnsupportedEndpointType(text)


def _names_from_cursor(message: DescribeTopicPartitionsRequestData, image: MetadataImage) -> Sequence[str]:
    asked = {each.name for each in message.topics} if message.topics else set(image.topic_ids)
    cursor = message.cursor
    if cursor is None:
        return sorted(asked)
    if message.topics and cursor.topic_name not in asked:
        raise InvalidRequest(f"the topics asked for lack that of the cursor, {cursor.topic_name!r}")
    if cursor.partition_index < 0:
        raise InvalidRequest(f"partition {cursor.partition_index} in the cursor; the first is 0")
    return sorted(name for name in asked if name >= cursor.topic_name)


def _partitions_of(
    topic: TopicImage, numbers: range, broker: NodeParts, connection: ClientConnection
) -> DescribeTopicPartitionsResponseTopic:
    live = {endpoint.node_id for endpoint in live_endpoints(broker, connection)}
    return DescribeTopicPartitionsResponseTopic.make(
        name=topic.name,
        topic_id=topic.topic_id,
        is_internal=topic.name in INTERNAL_TOPICS,
        partitions=[
            DescribeTopicPartitionsResponsePartition.make(
                partition_index=partition.partition,
                leader_id=-1 if address_of(broker, partition.leader, connection) is None else partition.leader,
                leader_epoch=partition.leader_epoch,
                replica_nodes=partition.replicas,
                isr_nodes=partition.isr,
                eligible_leader_replicas=(),
                last_known_elr=(),
                offline_replicas=offline_replicas(partition, live=live, offline=broker.offline_replicas),
            )
            for partition in map(topic.partitions.__getitem__, numbers)
        ],
        topic_authorized_operations=operations.TOPIC,
    )


def _missing_partitions(name: str) -> DescribeTopicPartitionsResponseTopic:
    return DescribeTopicPartitionsResponseTopic.make(
        error_code=_why_missing(name).code,
        name=name,
        is_internal=name in INTERNAL_TOPICS,
        topic_authorized_operations=operations.TOPIC,
    )


# --- refused as a whole: `getErrorResponse` of Kafka's request classes ---------------------------------------------


def _refuse_metadata(message: MetadataRequestData, version: int, error: KafkaError) -> MetadataResponseData:
    topics = [
        MetadataResponseTopic.make(
            error_code=error.code,
            name=each.name if each.topic_id != ZERO_UUID else each.name or "",
            topic_id=each.topic_id,
        )
        for each in message.topics or ()
    ]
    return MetadataResponseData.make(topics=topics, error_code=error.code)


def _refuse_describe(
    message: DescribeClusterRequestData, version: int, error: KafkaError
) -> DescribeClusterResponseData:
    return DescribeClusterResponseData.make(error_code=error.code, error_message=error.message)


def _refuse_partitions(
    message: DescribeTopicPartitionsRequestData, version: int, error: KafkaError
) -> DescribeTopicPartitionsResponseData:
    topics = [
        DescribeTopicPartitionsResponseTopic.make(error_code=error.code, name=each.name) for each in message.topics
    ]
    return DescribeTopicPartitionsResponseData.make(topics=topics)
