"""What the cluster consists of, as clients are told: the codes, ids and lists of each version as Kafka 4.1 has them."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

import pytest

from kraft.protocol.encoding import ZERO_UUID
from kraft.protocol.messages import describe_topic_partitions_request as pages
from kraft.protocol.messages.describe_cluster_request import DescribeClusterRequestData
from kraft.protocol.messages.describe_cluster_response import DescribeClusterResponseData
from kraft.protocol.messages.describe_topic_partitions_request import DescribeTopicPartitionsRequestData, TopicRequest
from kraft.protocol.messages.describe_topic_partitions_response import DescribeTopicPartitionsResponseData
from kraft.protocol.messages.metadata_request import MetadataRequestData, MetadataRequestTopic
from kraft.protocol.messages.metadata_response import MetadataResponseData, MetadataResponseTopic
from kraft.wire.handlers import metadata as client_metadata
from kraft.wire.handlers import operations
from kraft.wire.handlers.endpoints import node_endpoints
from metadata.controller.requests import DeleteTopics
from metadata.image import TopicIdPartition
from metadata.image_codec import decode_image, encode_image
from tests.support.admin_client import AdminClient
from tests.support.controller_world import CLUSTER_ID, World

NEWEST = 13
VERSIONS = range(NEWEST + 1)
UNKNOWN, LEADER_NOT_AVAILABLE, REPLICA_NOT_AVAILABLE, INVALID_TOPIC, INVALID_REQUEST = 3, 5, 9, 17, 42
LISTENER_NOT_FOUND, UNKNOWN_ID, MISMATCHED_ENDPOINT_TYPE, UNSUPPORTED_ENDPOINT_TYPE = 72, 100, 114, 115


def client(**static: str) -> AdminClient:
    world = World(**static)
    world.start(1, 2, 3, racks=["a", "b", None])
    world.create("old", (1, 2), (2, 3))
    return AdminClient(client_metadata.apis, world)


def metadata(admin: AdminClient, version: int, *names: str, all_topics: bool = False, **asked: bool) -> dict:
    wanted = None if all_topics else [MetadataRequestTopic.make(name=name) for name in names]
    answer = admin.ask(MetadataRequestData.make(topics=wanted, **asked), version, MetadataResponseData)
    return {topic.name: topic for topic in answer.topics}


def by_id(admin: AdminClient, *ids: UUID, version: int = NEWEST) -> list[MetadataResponseTopic]:
    topics = [MetadataRequestTopic.make(name=None, topic_id=topic_id) for topic_id in ids]
    answer = admin.ask(MetadataRequestData.make(topics=topics), version, MetadataResponseData)
    return list(answer.topics)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_topic_is_reported_with_its_partitions_and_replicas(version: int):
    admin = client()
    topic = metadata(admin, version, "old")["old"]
    assert topic.error_code == 0
    first = topic.partitions[0]
    assert (first.error_code, first.partition_index, first.leader_id) == (0, 0, 1)
    assert list(first.replica_nodes) == list(first.isr_nodes) == [1, 2]
    assert first.leader_epoch == (admin.gateway.world.partition("old").leader_epoch if version >= 7 else -1)
    assert topic.topic_id == (admin.gateway.image.topic_ids["old"] if version >= 10 else ZERO_UUID)
    assert not topic.is_internal


@pytest.mark.parametrize("version", VERSIONS)
def test_brokers_controller_and_cluster_are_named(version: int):
    admin = client()
    admin.gateway.active = 2
    answer = admin.ask(MetadataRequestData.make(topics=[]), version, MetadataResponseData)
    racks = ["a", "b", None] if version >= 1 else [None, None, None]
    assert [(each.node_id, each.host, each.port, each.rack) for each in answer.brokers] == [
        (number, f"host{number}", 9092, rack) for number, rack in zip((1, 2, 3), racks, strict=True)
    ]
    assert answer.controller_id == (2 if version >= 1 else -1)
    assert answer.cluster_id == (CLUSTER_ID if version >= 2 else None)
    assert answer.error_code == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_null_asks_for_all_topics_and_an_empty_list_for_none(version: int):
    admin = client()
    assert set(metadata(admin, version)) == ({"old"} if version == 0 else set())
    if version >= 1:
        assert set(metadata(admin, version, all_topics=True)) == {"old"}


def test_an_answer_is_kept_until_the_metadata_changes():
    admin = client()
    (api,) = (each for each in admin._apis.values() if each.request is MetadataRequestData)
    table = cast(Any, api.handle).__self__

    def ask(version: int = NEWEST, **asked: bool) -> MetadataResponseData:
        return admin.ask(MetadataRequestData.make(topics=None, **asked), version, MetadataResponseData)

    first = ask()
    assert ask() == first
    assert len(table._answers) == 1
    assert ask(include_topic_authorized_operations=True) != first
    assert ask(version=9).topics[0].topic_id == ZERO_UUID
    assert len(table._answers) == 3
    admin.gateway.world.create("another", (1,))
    assert {topic.name for topic in ask().topics} == {"old", "another"}
    assert len(table._answers) == 1
    admin.gateway.active = 2
    assert ask().controller_id == 2


def test_a_topic_named_twice_is_reported_once():
    answer = client().ask(
        MetadataRequestData.make(topics=[MetadataRequestTopic.make(name="old")] * 2), NEWEST, MetadataResponseData
    )
    assert [topic.name for topic in answer.topics] == ["old"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("name", "code"), [("nobody", UNKNOWN), ("a b", INVALID_TOPIC), ("", INVALID_TOPIC)])
def test_a_topic_that_is_not_there(version: int, name: str, code: int):
    found = metadata(client(), version, name)[name]
    assert (found.error_code, found.partitions, found.topic_id) == (code, (), ZERO_UUID)


def test_topics_are_found_by_id():
    admin = client()
    known, gone = admin.gateway.image.topic_ids["old"], UUID(int=7)
    found, missing = by_id(admin, known, gone)
    assert (found.error_code, found.name, found.topic_id, len(found.partitions)) == (0, "old", known, 2)
    assert (missing.error_code, missing.name, missing.topic_id) == (UNKNOWN_ID, None, gone)


@pytest.mark.parametrize("version", [10, 11])
def test_ids_before_version_12_are_an_invalid_request(version: int):
    admin = client()
    topics = [MetadataRequestTopic.make(name="old", topic_id=UUID(int=7))]
    answer = admin.ask(MetadataRequestData.make(topics=topics), version, MetadataResponseData)
    assert [topic.error_code for topic in answer.topics] == [INVALID_REQUEST]
    assert answer.brokers == ()


def test_version_13_reports_a_refusal_at_the_top_too():
    answer = client_metadata._refuse_metadata(
        MetadataRequestData.make(topics=None), NEWEST, client_metadata.InvalidRequest("x")
    )
    assert answer.error_code == INVALID_REQUEST


def test_a_topic_made_again_has_another_id_and_the_old_one_is_unknown():
    admin = client()
    old = admin.gateway.image.topic_ids["old"]
    admin.gateway.world.decide(DeleteTopics(topics=("old",)))
    admin.gateway.world.create("old", (1,))
    assert metadata(admin, NEWEST, "old")["old"].topic_id != old
    assert by_id(admin, old)[0].error_code == UNKNOWN_ID


@pytest.mark.parametrize("version", VERSIONS)
def test_a_broker_that_died_is_not_named_and_its_replicas_are_offline(version: int):
    admin = client()
    epoch_before = admin.gateway.world.partition("old", 1).leader_epoch
    admin.gateway.world.decide_fence(2)
    answer = admin.ask(
        MetadataRequestData.make(topics=[MetadataRequestTopic.make(name="old")]), version, MetadataResponseData
    )
    assert [each.node_id for each in answer.brokers] == [1, 3]
    second = answer.topics[0].partitions[1]
    assert second.leader_id == 3
    assert list(second.isr_nodes) == [3]
    if version == 0:
        assert second.error_code == REPLICA_NOT_AVAILABLE
        assert list(second.replica_nodes) == [3]
    else:
        assert second.error_code == 0
        assert list(second.replica_nodes) == [2, 3]
    assert list(second.offline_replicas) == ([2] if version >= 5 else [])
    if version >= 7:
        assert second.leader_epoch > epoch_before


@pytest.mark.parametrize("version", VERSIONS)
def test_a_replica_whose_log_has_failed_is_offline_while_its_broker_lives(version: int):
    admin = client()
    topic_id = admin.gateway.image.topic_ids["old"]

    def offline() -> list[list[int]]:
        return [list(each.offline_replicas) for each in metadata(admin, version, "old")["old"].partitions]

    assert offline() == [[], []]
    admin.offline_replicas = {
        2: frozenset({TopicIdPartition(topic_id, 0)}),
        3: frozenset({TopicIdPartition(UUID(int=1), 1)}),
    }
    assert offline() == ([[2], []] if version >= 5 else [[], []]), "what was kept is not told any more"
    page = admin.ask(DescribeTopicPartitionsRequestData.make(), 0, DescribeTopicPartitionsResponseData)
    assert [list(each.offline_replicas) for each in page.topics[0].partitions] == [[2], []]
    admin.offline_replicas = {}
    assert offline() == [[], []]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_partition_without_a_leader_keeps_its_epoch(version: int):
    admin = client()
    admin.gateway.world.create("alone", (3,))
    admin.gateway.world.decide_fence(3)
    (found,) = metadata(admin, version, "alone")["alone"].partitions
    assert (found.error_code, found.leader_id) == (LEADER_NOT_AVAILABLE, -1)
    if version >= 7:
        assert found.leader_epoch == admin.gateway.world.partition("alone").leader_epoch > 0


@pytest.mark.parametrize("version", [0, 5, 6, NEWEST])
def test_listener_missing_at_leader_is_an_error(version: int):
    world = World()
    world.start(1)
    world.create("old", (1,))
    admin = AdminClient(client_metadata.apis, world, listener="ELSEWHERE")
    answer = admin.ask(
        MetadataRequestData.make(topics=[MetadataRequestTopic.make(name="old")]), version, MetadataResponseData
    )
    (partition,) = answer.topics[0].partitions
    assert answer.brokers == ()
    assert partition.error_code == (LISTENER_NOT_FOUND if version >= 6 else LEADER_NOT_AVAILABLE)
    assert partition.leader_id == -1


@pytest.mark.parametrize(
    ("listener", "reported"),
    [("PLAINTEXT", ["nat:1", "host2:9092"]), ("OUTSIDE", ["out:2", "out:3"]), ("OTHER", ["x:4"]), ("NONE", [])],
)
def test_clients_receive_the_addresses_of_the_listener_that_they_use(listener: str, reported: list[str]):
    world = World()
    world.register(1, listeners={"PLAINTEXT": "nat:1", "OUTSIDE": "out:2", "OTHER": "x:4"})
    world.register(2, listeners={"OUTSIDE": "out:3"})
    for broker_id in (1, 2):
        world.beat(broker_id)
    admin = AdminClient(client_metadata.apis, world, listener=listener)
    assert decode_image(encode_image(world.image)) == world.image
    answer = admin.ask(MetadataRequestData.make(topics=[]), NEWEST, MetadataResponseData)
    assert [f"{each.host}:{each.port}" for each in answer.brokers] == reported
    described = admin.ask(DescribeClusterRequestData.make(), 2, DescribeClusterResponseData)
    assert [f"{each.host}:{each.port}" for each in described.brokers] == reported
    broker, connection = admin.parts, admin._connection
    assert [f"{each.host}:{each.port}" for each in node_endpoints(broker, [2, 1, 1, -1, 9], connection)] == reported


def test_the_controller_is_a_live_broker_whatever_is_known_of_the_active_one():
    admin = client()

    def named() -> int:
        return admin.ask(MetadataRequestData.make(topics=[]), NEWEST, MetadataResponseData).controller_id

    admin.gateway.active = 3
    assert named() == 3
    admin.gateway.world.decide_fence(3)
    assert named() == 1
    admin.gateway.active = -1
    assert named() == 1
    admin.gateway.active = 100  # a controller that is no broker
    assert named() == 1
    for broker_id in (1, 2):
        admin.gateway.world.decide_fence(broker_id)
    assert named() == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_operations_are_reported_to_a_caller_that_asks(version: int):
    admin = client()
    request = MetadataRequestData.make(
        topics=[MetadataRequestTopic.make(name="old")],
        include_topic_authorized_operations=True,
        include_cluster_authorized_operations=True,
    )
    answer = admin.ask(request, version, MetadataResponseData)
    assert answer.cluster_authorized_operations == (operations.CLUSTER if 8 <= version <= 10 else operations.NOT_ASKED)
    assert answer.topics[0].topic_authorized_operations == (operations.TOPIC if version >= 8 else operations.NOT_ASKED)
    unasked = admin.ask(MetadataRequestData.make(topics=[]), version, MetadataResponseData)
    assert unasked.cluster_authorized_operations == operations.NOT_ASKED


def test_operations_are_the_bits_of_kafka():
    assert (operations.TOPIC, operations.GROUP, operations.CLUSTER) == (3576, 3400, 8096)


def test_offsets_topic_is_internal():
    admin = client()
    admin.gateway.world.create("__consumer_offsets", (1,))
    assert metadata(admin, NEWEST, "__consumer_offsets")["__consumer_offsets"].is_internal


# --- auto-creation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_an_unknown_topic_is_unknown_first_and_there_when_asked_again(version: int):
    admin = client(auto_create_topics_enable="true", num_partitions="4")
    assert metadata(admin, version, "new")["new"].error_code == UNKNOWN
    assert len(metadata(admin, version, "new")["new"].partitions) == 4


@pytest.mark.parametrize(
    ("enabled", "allowed", "version", "name"),
    [
        ("false", True, NEWEST, "new"),
        ("true", False, NEWEST, "new"),
        ("true", True, NEWEST, "a b"),
        ("true", True, NEWEST, "__share_group_state"),
    ],
)
def test_nothing_is_created_unless_both_sides_allow_it(enabled: str, allowed: bool, version: int, name: str):
    admin = client(auto_create_topics_enable=enabled)
    metadata(admin, version, name, allow_auto_topic_creation=allowed)
    assert set(admin.gateway.image.topic_ids) == {"old"}


def test_a_coordinators_topic_is_made_as_its_coordinators_need_it():
    admin = client(auto_create_topics_enable="true", transaction_state_log_num_partitions="7")
    metadata(admin, NEWEST, "__transaction_state")
    assert len(metadata(admin, NEWEST, "__transaction_state")["__transaction_state"].partitions) == 7
    assert admin.gateway.image.config("topic", "__transaction_state")["cleanup.policy"] == "compact"


def test_an_id_and_all_topics_create_nothing():
    admin = client(auto_create_topics_enable="true")
    by_id(admin, UUID(int=8))
    metadata(admin, NEWEST, all_topics=True)
    assert set(admin.gateway.image.topic_ids) == {"old"}


# --- DescribeCluster ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [0, 1, 2])
def test_describe_cluster(version: int):
    admin = client()
    admin.gateway.world.decide_fence(3)
    answer = admin.ask(
        DescribeClusterRequestData.make(include_cluster_authorized_operations=True),
        version,
        DescribeClusterResponseData,
    )
    assert (answer.error_code, answer.error_message, answer.cluster_id) == (0, None, CLUSTER_ID)
    assert [(each.broker_id, each.host, each.rack) for each in answer.brokers] == [(1, "host1", "a"), (2, "host2", "b")]
    assert answer.controller_id == 1
    assert answer.endpoint_type == 1
    assert answer.cluster_authorized_operations == operations.CLUSTER


def test_describe_cluster_reports_fenced_brokers_to_a_caller_that_asks():
    admin = client()
    admin.gateway.world.decide_fence(3)
    answer = admin.ask(DescribeClusterRequestData.make(include_fenced_brokers=True), 2, DescribeClusterResponseData)
    assert [(each.broker_id, each.is_fenced) for each in answer.brokers] == [(1, False), (2, False), (3, True)]
    assert answer.cluster_authorized_operations == operations.NOT_ASKED


@pytest.mark.parametrize(
    ("kind", "code"), [(2, MISMATCHED_ENDPOINT_TYPE), (0, UNSUPPORTED_ENDPOINT_TYPE), (9, UNSUPPORTED_ENDPOINT_TYPE)]
)
def test_describe_cluster_has_endpoints_of_brokers_only(kind: int, code: int):
    answer = client().ask(DescribeClusterRequestData.make(endpoint_type=kind), 1, DescribeClusterResponseData)
    assert answer.error_code == code
    assert answer.error_message


# --- DescribeTopicPartitions ----------------------------------------------------------------------------------------


def page(admin: AdminClient, *names: str, limit: int = 2_000, cursor: tuple[str, int] | None = None):
    request = DescribeTopicPartitionsRequestData.make(
        topics=[TopicRequest.make(name=name) for name in names],
        response_partition_limit=limit,
        cursor=None if cursor is None else pages.Cursor.make(topic_name=cursor[0], partition_index=cursor[1]),
    )
    answer = admin.ask(request, 0, DescribeTopicPartitionsResponseData)
    rows = [(topic.name, partition.partition_index) for topic in answer.topics for partition in topic.partitions]
    after = answer.next_cursor
    return answer, rows, None if after is None else (after.topic_name, after.partition_index)


def paged(**static: str) -> AdminClient:
    world = World(**static)
    world.start(1, 2, 3)
    for name, count in (("a", 3), ("b", 1), ("c", 2)):
        world.create(name, *[(1, 2)] * count)
    return AdminClient(client_metadata.apis, world)


WHOLE = [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("c", 0), ("c", 1)]


def test_all_partitions_come_in_order():
    answer, rows, cursor = page(paged())
    assert rows == WHOLE
    assert cursor is None
    first = answer.topics[0].partitions[0]
    assert (first.leader_id, list(first.replica_nodes), list(first.isr_nodes)) == (1, [1, 2], [1, 2])
    assert (first.eligible_leader_replicas, first.last_known_elr, first.offline_replicas) == ((), (), ())
    assert answer.topics[0].topic_authorized_operations == operations.TOPIC


@pytest.mark.parametrize("limit", range(1, 8))
@pytest.mark.parametrize("names", [(), ("c", "a", "b")])
def test_pages_follow_each_other_without_gap_or_repetition(limit: int, names: tuple[str, ...]):
    admin, found, cursor = paged(), [], None
    for _ in range(20):
        _, rows, cursor = page(admin, *names, limit=limit, cursor=cursor)
        assert len(rows) <= limit
        found += rows
        if cursor is None:
            break
    assert found == WHOLE


@pytest.mark.parametrize(("limit", "setting"), [(0, "2000"), (-5, "2000"), (100, "1")])
def test_a_page_has_one_partition_at_least_and_at_most_what_the_broker_allows(limit: int, setting: str):
    _, rows, cursor = page(paged(max_request_partition_size_limit=setting), limit=limit)
    assert rows == [("a", 0)]
    assert cursor == ("a", 1)


def test_a_page_names_topics_that_are_not_there():
    answer, rows, _ = page(paged(), "a", "nobody", "x y")
    assert {topic.name: topic.error_code for topic in answer.topics} == {
        "a": 0,
        "nobody": UNKNOWN,
        "x y": INVALID_TOPIC,
    }
    assert rows == WHOLE[:3]


@pytest.mark.parametrize(("names", "cursor"), [(("a",), ("b", 0)), (("a",), ("a", -1)), ((), ("a", -1))])
def test_a_cursor_that_fits_nothing_is_an_invalid_request(names: tuple[str, ...], cursor: tuple[str, int]):
    answer, _, _ = page(paged(), *names, cursor=cursor)
    assert [topic.error_code for topic in answer.topics] == [INVALID_REQUEST] * len(names)


def test_a_cursor_beyond_a_topic_that_is_gone_goes_on_behind_it():
    _, rows, cursor = page(paged(), cursor=("bb", 4))
    assert rows == WHOLE[4:]
    assert cursor is None
