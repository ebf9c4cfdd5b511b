"""For each API the operation and the resource that Kafka checks: `KafkaApis`, `AclApis` and their helpers, 4.4.

An API without a row is refused. docs/security.md has the table made of these rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from kraft.broker.gateway import Gateway
from kraft.broker.permissions import Permissions
from kraft.protocol import apis
from kraft.protocol.encoding import ZERO_UUID, TopLevel
from kraft.protocol.errors import KafkaError, OperationNotAttempted, TopicAuthorizationFailed
from kraft.protocol.messages import add_partitions_to_txn_response as added
from kraft.protocol.messages.alter_share_group_offsets_response import (
    AlterShareGroupOffsetsResponsePartition,
    AlterShareGroupOffsetsResponseTopic,
)
from kraft.protocol.messages.delete_share_group_offsets_response import DeleteShareGroupOffsetsResponseTopic
from kraft.protocol.messages.describe_topic_partitions_request import TopicRequest
from kraft.protocol.messages.describe_topic_partitions_response import DescribeTopicPartitionsResponseData
from kraft.protocol.messages.metadata_request import MetadataRequestTopic
from kraft.protocol.messages.offset_delete_response import OffsetDeleteResponsePartition, OffsetDeleteResponseTopic
from kraft.wire.access import NOTHING, Access, Each, Need, Subject, changed, cluster
from kraft.wire.api_handler import Call
from kraft.wire.handlers.operations import NOT_ASKED
from metadata.acls import CLUSTER_NAME, AclOperation, AclResource
from metadata.image import MetadataImage

READ, WRITE, CREATE, DELETE = AclOperation.READ, AclOperation.WRITE, AclOperation.CREATE, AclOperation.DELETE
ALTER, DESCRIBE, CLUSTER_ACTION = AclOperation.ALTER, AclOperation.DESCRIBE, AclOperation.CLUSTER_ACTION
DESCRIBE_CONFIGS, ALTER_CONFIGS = AclOperation.DESCRIBE_CONFIGS, AclOperation.ALTER_CONFIGS
TOPIC, GROUP, CLUSTER, TXN = AclResource.TOPIC, AclResource.GROUP, AclResource.CLUSTER, AclResource.TRANSACTIONAL_ID
GROUP_KEY, TRANSACTION_KEY = 0, 1
"""Key types of FindCoordinator; 2 is that of share partitions."""
CONFIG_RESOURCES: Final = {2: TOPIC, 32: GROUP}
"""Kafka's number of a resource with settings -> what is checked; every other one belongs to the cluster."""


# --- subjects -------------------------------------------------------------------------------------------------------


def _of(field: str) -> Callable[[Any, MetadataImage], Iterable[str]]:
    """The name in a field; none for null."""

    def names(message: Any, image: MetadataImage) -> Iterable[str]:
        name = getattr(message, field)
        return () if name is None else (name,)

    return names


def _topic(item: Any, message: Any, image: MetadataImage) -> Subject:
    """A topic by name or by id."""
    topic_id: UUID = getattr(item, "topic_id", ZERO_UUID)
    if topic_id != ZERO_UUID:
        topic = image.topics.get(topic_id)
        return None if topic is None else (TOPIC, topic.name)
    return None if item.name is None else (TOPIC, item.name)


def _named_topic(item: Any, message: Any, image: MetadataImage) -> Subject:
    return TOPIC, item.topic_name


def _plain(resource: AclResource) -> Callable[[Any, Any, MetadataImage], Subject]:
    return lambda item, message, image: (resource, item)


def _config_resource(item: Any, message: Any, image: MetadataImage) -> Subject:
    resource = CONFIG_RESOURCES.get(item.resource_type, CLUSTER)
    return resource, CLUSTER_NAME if resource is CLUSTER else item.resource_name


def _coordinated(key: str, message: Any, image: MetadataImage) -> Subject:
    resource = {GROUP_KEY: GROUP, TRANSACTION_KEY: TXN}.get(message.key_type)
    return None if resource is None else (resource, key)


def _single_key(wanted: int) -> Callable[[Any, MetadataImage], Iterable[str]]:
    def names(message: Any, image: MetadataImage) -> Iterable[str]:
        return (message.key,) if not message.coordinator_keys and message.key_type == wanted else ()

    return names


def _share_key(message: Any, image: MetadataImage) -> Iterable[str]:
    return () if message.key_type in (GROUP_KEY, TRANSACTION_KEY) else (CLUSTER_NAME,)


def _each_topic(operation: AclOperation, asked: str = "topics", answered: str = "topics") -> Each:
    return Each(asked, answered, operation, _topic, "Topic")


# --- before and after ------------------------------------------------------------------------------------------------


def _visible(may: Permissions, gateway: Gateway) -> list[str]:
    """The topics that the client may describe."""
    return [name for name in gateway.image.topics_by_name if may.silently(DESCRIBE, TOPIC, name)]


def _metadata(call: Call[Any], may: Permissions, gateway: Gateway) -> Call[Any] | TopLevel:
    """A question for all topics becomes one for the visible ones; nothing is created without CREATE."""
    message = call.message
    if message.topics is None or (not message.topics and call.version == 0):
        topics = [MetadataRequestTopic.make(name=name) for name in _visible(may, gateway)]
        return replace(call, message=changed(message, topics=topics, allow_auto_topic_creation=False))
    return call


def _creatable(item: Any, message: Any, image: MetadataImage) -> Subject:
    """A topic that does not exist and would be created."""
    if not message.allow_auto_topic_creation or item.name is None or item.name in image.topic_ids:
        return None
    return TOPIC, item.name


def _metadata_operations(response: Any, call: Call[Any], may: Permissions, gateway: Gateway) -> None:
    """Version 0 asks for all topics with an empty list, which is also what is left when all are refused."""
    if call.version == 0:
        response.topics = [each for each in response.topics if may.silently(DESCRIBE, TOPIC, each.name)]
    if call.message.include_topic_authorized_operations:
        for topic in response.topics:
            if topic.topic_authorized_operations != NOT_ASKED:
                topic.topic_authorized_operations = may.operations(TOPIC, topic.name)
    _cluster_operations(response, call, may, gateway)


def _cluster_operations(response: Any, call: Call[Any], may: Permissions, gateway: Gateway) -> None:
    if response.cluster_authorized_operations != NOT_ASKED:
        response.cluster_authorized_operations = may.operations(CLUSTER)


def _topic_pages(call: Call[Any], may: Permissions, gateway: Gateway) -> Call[Any] | TopLevel:
    if call.message.topics:
        return call
    topics = [TopicRequest.make(name=name) for name in _visible(may, gateway)]
    if not topics:
        return DescribeTopicPartitionsResponseData.make(topics=())
    cursor = call.message.cursor
    if cursor is not None and cursor.topic_name not in {each.name for each in topics}:
        topics.append(TopicRequest.make(name=cursor.topic_name))
    return replace(call, message=changed(call.message, topics=topics))


def _page_operations(response: Any, call: Call[Any], may: Permissions, gateway: Gateway) -> None:
    for topic in response.topics:
        topic.topic_authorized_operations = may.operations(TOPIC, topic.name)


def _listed_groups(response: Any, call: Call[Any], may: Permissions, gateway: Gateway) -> None:
    if not may.silently(DESCRIBE, CLUSTER):
        response.groups = [each for each in response.groups if may.silently(DESCRIBE, GROUP, each.group_id)]


def _listed_transactions(response: Any, call: Call[Any], may: Permissions, gateway: Gateway) -> None:
    response.transaction_states = [
        each for each in response.transaction_states if may.silently(DESCRIBE, TXN, each.transactional_id)
    ]


def _described_transactions(response: Any, call: Call[Any], may: Permissions, gateway: Gateway) -> None:
    for state in response.transaction_states:
        state.topics = [each for each in state.topics if may.silently(DESCRIBE, TOPIC, each.topic)]


def _described_groups(response: Any, call: Call[Any], may: Permissions, gateway: Gateway) -> None:
    """The operations, and the refusal of a group whose members have topics that the client may not see."""
    response.groups = list(response.groups)
    for group in response.groups:
        if group.error_code == 0 and not all(may(DESCRIBE, TOPIC, name) for name in _assigned(group)):
            group.error_code = TopicAuthorizationFailed.code
            group.error_message = "The described group uses topics that the client is not authorized to describe."
            group.members = ()
        if group.authorized_operations != NOT_ASKED:
            group.authorized_operations = may.operations(GROUP, group.group_id)


def _assigned(group: Any) -> Iterator[str]:
    for member in group.members:
        for field in ("assignment", "target_assignment"):
            for each in getattr(getattr(member, field, None), "topic_partitions", ()):
                yield each.topic_name


def _group_offsets(response: Any, call: Call[Any], may: Permissions, gateway: Gateway) -> None:
    """Offsets of topics that may not be described: an error where they were named, and not there where all were
    asked for."""
    wanted = {each.group_id: each.topics for each in call.message.groups}
    for group in response.groups:
        group.topics = _shown(group.topics, is_all=wanted.get(group.group_id) is None, may=may, gateway=gateway)


def _offsets(response: Any, call: Call[Any], may: Permissions, gateway: Gateway) -> None:
    if call.version >= 8:
        _group_offsets(response, call, may, gateway)
    else:
        response.topics = _shown(response.topics, is_all=call.message.topics is None, may=may, gateway=gateway)


def _shown(topics: Iterable[Any], *, is_all: bool, may: Permissions, gateway: Gateway) -> list[Any]:
    shown = []
    for topic in topics:
        name = getattr(topic, "topic_name", None) or getattr(topic, "name", "")
        if not name and (found := gateway.image.topics.get(topic.topic_id)) is not None:
            name = found.name
        if name and not (may.silently if is_all else may)(DESCRIBE, TOPIC, name):
            if is_all:
                continue
            _hide(topic)
        shown.append(topic)
    return shown


def _hide(topic: Any) -> None:
    for partition in topic.partitions:
        partition.error_code = TopicAuthorizationFailed.code
        for field, unknown in (("committed_offset", -1), ("start_offset", -1), ("lag", -1), ("metadata", "")):
            if field in partition.__slots__:
                setattr(partition, field, unknown)


def _created_configs(response: Any, call: Call[Any], may: Permissions, gateway: Gateway) -> None:
    """KIP-525: a client that may not describe the settings of its topic does not get them."""
    for topic in response.topics:
        if topic.error_code == 0 and not may.silently(DESCRIBE_CONFIGS, TOPIC, topic.name):
            topic.topic_config_error_code = TopicAuthorizationFailed.code
            topic.num_partitions = topic.replication_factor = -1
            topic.configs = ()


def _transaction_partitions(call: Call[Any], may: Permissions, gateway: Gateway) -> Call[Any] | TopLevel:
    """When one topic is refused, nothing is added (`handleAddPartitionsToTxnRequest`)."""
    message = call.message
    topics = message.v3_and_below_topics
    denied = {each.name for each in topics if call.version < 4 and not may(WRITE, TOPIC, each.name)}
    if not denied:
        return call
    return added.AddPartitionsToTxnResponseData.make(
        results_by_topic_v3_and_below=[
            added.AddPartitionsToTxnTopicResult.make(
                name=each.name,
                results_by_partition=[
                    added.AddPartitionsToTxnPartitionResult.make(
                        partition_index=number,
                        partition_error_code=(
                            TopicAuthorizationFailed if each.name in denied else OperationNotAttempted
                        ).code,
                    )
                    for number in each.partitions
                ],
            )
            for each in topics
        ]
    )


# --- items of answers whose refusal has none -------------------------------------------------------------------------


def _offset_not_deleted(topic: Any, error: KafkaError) -> OffsetDeleteResponseTopic:
    return OffsetDeleteResponseTopic.make(
        name=topic.name,
        partitions=[
            OffsetDeleteResponsePartition.make(partition_index=each.partition_index, error_code=error.code)
            for each in topic.partitions
        ],
    )


def _share_offset_not_altered(topic: Any, error: KafkaError) -> AlterShareGroupOffsetsResponseTopic:
    return AlterShareGroupOffsetsResponseTopic.make(
        topic_name=topic.topic_name,
        partitions=[
            AlterShareGroupOffsetsResponsePartition.make(
                partition_index=each.partition_index, error_code=error.code, error_message=error.message
            )
            for each in topic.partitions
        ],
    )


def _share_offset_not_deleted(topic: Any, error: KafkaError) -> DeleteShareGroupOffsetsResponseTopic:
    return DeleteShareGroupOffsetsResponseTopic.make(
        topic_name=topic.topic_name, error_code=error.code, error_message=error.message
    )


# --- the table -------------------------------------------------------------------------------------------------------


def _cluster(operation: AclOperation, or_operation: AclOperation | None = None) -> Access:
    return Access(needs=[Need(operation, CLUSTER, cluster, or_operation)])


def _group_member(*each: Each, also: str = "") -> Access:
    return Access(needs=[Need(READ, GROUP, _of("group_id"))], each=each, states=also)


def _each_name(asked: str, answered: str, operation: AclOperation, resource: AclResource, **row: Any) -> Access:
    what = {GROUP: "Group", TXN: "TransactionalId"}[resource]
    return Access(each=[Each(asked, answered, operation, _plain(resource), what)], **row)


def _heartbeat() -> Access:
    return Access(
        needs=[
            Need(READ, GROUP, _of("group_id")),
            Need(DESCRIBE, TOPIC, lambda message, image: message.subscribed_topic_names or ()),
        ]
    )


_USES_TOPICS: Final = "Describe on the topics that members have"
_CONFIGS_OF: Final = "Topic, Group, or else Cluster"


def _configs(answered: str, operation: AclOperation) -> Access:
    return Access(each=[Each("resources", answered, operation, _config_resource, _CONFIGS_OF)])


def _offset_groups() -> Access:
    return Access(
        needs=[Need(DESCRIBE, GROUP, lambda message, image: () if message.groups else (message.group_id,))],
        each=[Each("groups", "groups", DESCRIBE, lambda item, message, image: (GROUP, item.group_id), "Group")],
        after=_offsets,
        states="Describe on Topic",
    )


def _new_producer() -> Access:
    def without_id(message: Any, image: MetadataImage) -> Sequence[str]:
        return () if message.transactional_id is not None else (CLUSTER_NAME,)

    return Access(
        needs=[
            Need(WRITE, TXN, _of("transactional_id")),
            Need(AclOperation.IDEMPOTENT_WRITE, CLUSTER, without_id, or_some=(WRITE, TOPIC)),
        ]
    )


def _transaction(*needs: Need, each: Sequence[Each] = ()) -> Access:
    return Access(needs=[Need(WRITE, TXN, _of("transactional_id")), *needs], each=each)


def _partitions_to_txn() -> Access:
    return Access(
        needs=[
            Need(
                WRITE,
                TXN,
                lambda message, image: () if message.transactions else (message.v3_and_below_transactional_id,),
            ),
            Need(CLUSTER_ACTION, CLUSTER, lambda message, image: (CLUSTER_NAME,) if message.transactions else ()),
        ],
        before=_transaction_partitions,
        states="Write on each Topic (versions 0 to 3)",
    )


def _metadata_row() -> Access:
    return Access(
        each=[
            _each_topic(DESCRIBE),
            Each("topics", "topics", CREATE, _creatable, "Topic that it would create", unless=(CREATE, CLUSTER)),
        ],
        before=_metadata,
        after=_metadata_operations,
        is_view=True,
    )


ACCESS: Final[Mapping[str, Access]] = {
    "Produce": Access(
        needs=[Need(WRITE, TXN, _of("transactional_id"))], each=[_each_topic(WRITE, "topic_data", "responses")]
    ),
    "Fetch": Access(states="Read on each Topic of the fetch session, at every fetch"),
    "ListOffsets": Access(each=[_each_topic(DESCRIBE)]),
    "Metadata": _metadata_row(),
    "OffsetCommit": _group_member(_each_topic(READ)),
    "OffsetFetch": _offset_groups(),
    "FindCoordinator": Access(
        needs=[
            Need(DESCRIBE, GROUP, _single_key(GROUP_KEY)),
            Need(DESCRIBE, TXN, _single_key(TRANSACTION_KEY)),
            Need(CLUSTER_ACTION, CLUSTER, _share_key),
        ],
        each=[Each("coordinator_keys", "coordinators", DESCRIBE, _coordinated, "Group or TransactionalId")],
    ),
    "JoinGroup": _group_member(),
    "Heartbeat": _group_member(),
    "LeaveGroup": _group_member(),
    "SyncGroup": _group_member(),
    "DescribeGroups": _each_name("groups", "groups", DESCRIBE, GROUP, after=_described_groups),
    "ListGroups": Access(after=_listed_groups, states="Describe on Cluster; else the groups with Describe on Group"),
    "SaslHandshake": NOTHING,
    "ApiVersions": NOTHING,
    "CreateTopics": Access(
        each=[Each("topics", "topics", CREATE, _topic, "Topic", unless=(CREATE, CLUSTER))],
        after=_created_configs,
        states="DescribeConfigs on Topic for the settings in the answer",
    ),
    "DeleteTopics": Access(
        each=[
            Each("topic_names", "responses", DELETE, _plain(TOPIC), "Topic"),
            Each("topics", "responses", DELETE, _topic, "Topic"),
        ]
    ),
    "DeleteRecords": Access(each=[_each_topic(DELETE)]),
    "InitProducerId": _new_producer(),
    "OffsetForLeaderEpoch": Access(
        each=[Each("topics", "topics", DESCRIBE, lambda item, message, image: (TOPIC, item.topic), "Topic")]
    ),
    "AddPartitionsToTxn": _partitions_to_txn(),
    "AddOffsetsToTxn": _transaction(Need(READ, GROUP, _of("group_id"))),
    "EndTxn": _transaction(),
    "WriteTxnMarkers": _cluster(CLUSTER_ACTION, ALTER),
    "TxnOffsetCommit": _transaction(Need(READ, GROUP, _of("group_id")), each=[_each_topic(READ)]),
    "DescribeAcls": _cluster(DESCRIBE),
    "CreateAcls": _cluster(ALTER),
    "DeleteAcls": _cluster(ALTER),
    "DescribeConfigs": _configs("results", DESCRIBE_CONFIGS),
    "AlterConfigs": _configs("responses", ALTER_CONFIGS),
    "AlterReplicaLogDirs": _cluster(ALTER),
    "DescribeLogDirs": _cluster(DESCRIBE),
    "SaslAuthenticate": NOTHING,
    "CreatePartitions": Access(each=[_each_topic(ALTER, "topics", "results")]),
    "DeleteGroups": _each_name("groups_names", "results", DELETE, GROUP),
    "ElectLeaders": _cluster(ALTER),
    "IncrementalAlterConfigs": _configs("responses", ALTER_CONFIGS),
    "AlterPartitionReassignments": _cluster(ALTER),
    "ListPartitionReassignments": _cluster(DESCRIBE),
    "OffsetDelete": Access(
        needs=[Need(DELETE, GROUP, _of("group_id"))],
        each=[Each("topics", "topics", READ, _topic, "Topic", denied=_offset_not_deleted)],
    ),
    "DescribeClientQuotas": _cluster(DESCRIBE_CONFIGS),
    "AlterClientQuotas": _cluster(ALTER_CONFIGS),
    "DescribeUserScramCredentials": _cluster(DESCRIBE),
    "AlterUserScramCredentials": _cluster(ALTER),
    "DescribeQuorum": _cluster(DESCRIBE),
    "UpdateFeatures": _cluster(ALTER),
    "DescribeCluster": Access(
        after=_cluster_operations, states="nothing; the operations in the answer are the client's"
    ),
    "DescribeProducers": Access(each=[_each_topic(READ)]),
    "UnregisterBroker": _cluster(ALTER),
    "DescribeTransactions": _each_name(
        "transactional_ids",
        "transaction_states",
        DESCRIBE,
        TXN,
        after=_described_transactions,
        states="topics without Describe are left out",
    ),
    "ListTransactions": Access(after=_listed_transactions, states="the ids with Describe on TransactionalId"),
    "ConsumerGroupHeartbeat": _heartbeat(),
    "ConsumerGroupDescribe": _each_name(
        "group_ids", "groups", DESCRIBE, GROUP, after=_described_groups, states=_USES_TOPICS
    ),
    "GetTelemetrySubscriptions": NOTHING,
    "PushTelemetry": NOTHING,
    "ListConfigResources": _cluster(DESCRIBE_CONFIGS),
    "ShareFetch": _group_member(also="Read on each Topic of the share session, at every fetch"),
    "ShareAcknowledge": _group_member(also="Read on each Topic"),
    "InitializeShareGroupState": _cluster(CLUSTER_ACTION),
    "ReadShareGroupState": _cluster(CLUSTER_ACTION),
    "WriteShareGroupState": _cluster(CLUSTER_ACTION),
    "DeleteShareGroupState": _cluster(CLUSTER_ACTION),
    "ReadShareGroupStateSummary": _cluster(CLUSTER_ACTION),
    "DescribeTopicPartitions": Access(each=[_each_topic(DESCRIBE)], before=_topic_pages, after=_page_operations),
    "ShareGroupHeartbeat": _heartbeat(),
    "ShareGroupDescribe": _each_name(
        "group_ids", "groups", DESCRIBE, GROUP, after=_described_groups, states=_USES_TOPICS
    ),
    "DescribeShareGroupOffsets": Access(
        each=[Each("groups", "groups", DESCRIBE, lambda item, message, image: (GROUP, item.group_id), "Group")],
        after=_group_offsets,
        states="Describe on Topic",
    ),
    "AlterShareGroupOffsets": _group_member(
        Each("topics", "responses", READ, _named_topic, "Topic", denied=_share_offset_not_altered)
    ),
    "DeleteShareGroupOffsets": Access(
        needs=[Need(DELETE, GROUP, _of("group_id"))],
        each=[Each("topics", "responses", READ, _named_topic, "Topic", denied=_share_offset_not_deleted)],
    ),
}
"""API name -> row, for every API that clients may ask."""
_BY_KEY: Final = {apis.BY_NAME[name].key: row for name, row in ACCESS.items()}


def access_of(key: int) -> Access | None:
    """The row of an API key; None: nobody has said who may ask for it."""
    return _BY_KEY.get(key)
