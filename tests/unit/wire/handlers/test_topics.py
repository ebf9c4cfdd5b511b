"""Topics of clients: the answers of each version, with the codes that Kafka's controller gives."""

from __future__ import annotations

from uuid import UUID

import pytest

from kraft.protocol.encoding import ZERO_UUID
from kraft.protocol.errors import NotController, RequestTimedOut
from kraft.protocol.messages.create_partitions_request import (
    CreatePartitionsAssignment,
    CreatePartitionsRequestData,
    CreatePartitionsTopic,
)
from kraft.protocol.messages.create_partitions_response import CreatePartitionsResponseData
from kraft.protocol.messages.create_topics_request import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequestData,
)
from kraft.protocol.messages.create_topics_response import CreatableTopicResult, CreateTopicsResponseData
from kraft.protocol.messages.delete_topics_request import DeleteTopicsRequestData, DeleteTopicState
from kraft.protocol.messages.delete_topics_response import DeleteTopicsResponseData
from kraft.wire.handlers import topics
from tests.support.admin_client import AdminClient
from tests.support.controller_world import World

NEWEST = 7


def client(**static: str) -> AdminClient:
    world = World(**static)
    world.start(1, 2, 3)
    world.create("old", (1, 2), (2, 3))
    return AdminClient(topics.apis, world)


def create(
    admin: AdminClient, *wanted: CreatableTopic, version: int = NEWEST, validate_only: bool = False
) -> dict[str, CreatableTopicResult]:
    request = CreateTopicsRequestData.make(topics=wanted, timeout_ms=12_345, validate_only=validate_only)
    answer = admin.ask(request, version, CreateTopicsResponseData)
    assert len({topic.name for topic in answer.topics}) == len(answer.topics)
    return {topic.name: topic for topic in answer.topics}


def wanted(name: str, *, partitions: int = 2, factor: int = 3, **configs: str | None) -> CreatableTopic:
    return CreatableTopic.make(
        name=name,
        num_partitions=partitions,
        replication_factor=factor,
        configs=[CreatableTopicConfig.make(name=key.replace("_", "."), value=text) for key, text in configs.items()],
    )


def assigned(name: str, *placed: tuple[int, tuple[int, ...]], partitions: int = -1, factor: int = -1) -> CreatableTopic:
    assignments = [CreatableReplicaAssignment.make(partition_index=index, broker_ids=ids) for index, ids in placed]
    return CreatableTopic.make(name=name, num_partitions=partitions, replication_factor=factor, assignments=assignments)


def grow(admin: AdminClient, *wanted: CreatePartitionsTopic, version: int = 3) -> list[tuple[str, int]]:
    request = CreatePartitionsRequestData.make(topics=wanted, timeout_ms=20_000)
    answer = admin.ask(request, version, CreatePartitionsResponseData)
    assert all(bool(result.error_code) == bool(result.error_message) for result in answer.results)
    return [(result.name, result.error_code) for result in answer.results]


@pytest.mark.parametrize("version", range(2, 8))
def test_a_topic_is_created_as_asked(version: int) -> None:
    admin = client()
    created = create(admin, wanted("new", retention_ms="5000"), version=version)["new"]
    image = admin.gateway.image.topic("new")
    assert image is not None
    assert (len(image.partitions), image.replication_factor) == (2, 3)
    assert (created.error_code, created.error_message) == (0, None)
    assert admin.gateway.asked[0][1] == 12_345, "the client's timeout is the controller's"
    if version >= 5:
        assert (created.num_partitions, created.replication_factor) == (2, 3)
        configs = {config.name: config for config in created.configs or ()}
        assert (configs["retention.ms"].value, configs["retention.ms"].config_source) == ("5000", 1)
        assert (configs["cleanup.policy"].value, configs["cleanup.policy"].config_source) == ("delete", 5)
    assert created.topic_id == (image.topic_id if version >= 7 else ZERO_UUID)


def test_defaults_are_those_of_the_cluster() -> None:
    admin = client(num_partitions="4", default_replication_factor="2", log_retention_ms="77")
    created = create(admin, wanted("new", partitions=-1, factor=-1))["new"]
    assert (created.num_partitions, created.replication_factor) == (4, 2)
    retention = next(config for config in created.configs or () if config.name == "retention.ms")
    assert (retention.value, retention.config_source) == ("77", 4)


def test_a_topic_of_kafkas_own_tests_has_small_segments() -> None:
    admin = client()
    created = create(admin, wanted("small", **{"internal.segment.bytes": "2000"}))["small"]
    assert (created.error_code, created.error_message) == (0, None)
    shown = {config.name: (config.value, config.config_source) for config in created.configs or ()}
    assert (shown["internal.segment.bytes"], shown["segment.bytes"]) == (("2000", 1), ("1073741824", 5))
    assert admin.gateway.image.config("topic", "small") == {"internal.segment.bytes": "2000"}


def test_what_is_only_validated_is_not_made() -> None:
    admin = client()
    assert create(admin, wanted("new"), validate_only=True)["new"].num_partitions == 2
    assert create(admin, wanted("old"), validate_only=True)["old"].error_code == 36
    assert admin.gateway.image.topic("new") is None


def test_a_manual_assignment_is_kept() -> None:
    admin = client()
    assert create(admin, assigned("new", (1, (2, 1)), (0, (3, 1))))["new"].error_code == 0
    topic = admin.gateway.image.topic("new")
    assert topic is not None
    assert [topic.partitions[index].replicas for index in (0, 1)] == [(3, 1), (2, 1)]


@pytest.mark.parametrize(
    ("topic", "code"),
    [
        (wanted("old"), 36),
        (wanted("a b"), 17),
        (wanted("new", partitions=0), 37),
        (wanted("new", partitions=0, factor=0), 38),
        (wanted("new", factor=0), 38),
        (wanted("new", factor=4), 38),
        (wanted("new", retention_ms="soon"), 40),
        (wanted("new", no_such_setting="1"), 40),
        (wanted("new", retention_ms=None), 40),
        (assigned("new", (0, (1, 9))), 39),
        (assigned("new", (0, (1,)), (0, (2,))), 39),
        (assigned("new", (1, (1,))), 39),
        (assigned("new", (0, (1,)), partitions=1), 42),
        (assigned("new", (0, (1,)), factor=1), 42),
        (wanted("__cluster_metadata"), 42),
    ],
)
def test_a_refused_topic_has_a_code_and_reports_why_and_the_others_are_made(topic: CreatableTopic, code: int) -> None:
    admin = client()
    answer = create(admin, topic, wanted("other"))
    refused = answer[topic.name]
    assert (refused.error_code, refused.topic_id, refused.num_partitions) == (code, ZERO_UUID, -1)
    assert refused.error_message
    assert (answer["other"].error_code, "other" in admin.gateway.image.topic_ids) == (0, True)
    assert "new" not in admin.gateway.image.topic_ids


def test_a_topic_named_twice_is_refused_once_and_not_made() -> None:
    admin = client()
    answer = create(admin, wanted("new"), wanted("new", retention_ms=None), wanted("other"))
    assert {name: result.error_code for name, result in answer.items()} == {"new": 42, "other": 0}
    assert "new" not in admin.gateway.image.topic_ids


@pytest.mark.parametrize("error", [NotController("none"), RequestTimedOut("late")])
def test_each_topic_receives_that_the_controller_does_not_answer(error: NotController | RequestTimedOut) -> None:
    admin = client()
    admin.gateway.unreachable = error
    answer = create(admin, wanted("new"), wanted("other"))
    assert [(topic.error_code, topic.error_message) for topic in answer.values()] == [(error.code, error.message)] * 2
    names = DeleteTopicsRequestData.make(topic_names=["old", "other"])
    assert [r.error_code for r in admin.ask(names, 5, DeleteTopicsResponseData).responses] == [error.code] * 2
    assert grow(admin, CreatePartitionsTopic.make(name="old", count=4, assignments=None)) == [("old", error.code)]


def test_too_many_partitions_at_once_refuse_the_request() -> None:
    admin = client()
    answer = create(admin, wanted("new", partitions=10_001), wanted("other"))
    assert [topic.error_code for topic in answer.values()] == [44, 44]
    assert "other" not in admin.gateway.image.topic_ids


# --- DeleteTopics -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(1, 6))
def test_topics_are_deleted_by_name(version: int) -> None:
    admin = client()
    request = DeleteTopicsRequestData.make(topic_names=["old", "none"], timeout_ms=20_000)
    answer = admin.ask(request, version, DeleteTopicsResponseData)
    assert [(result.name, result.error_code) for result in answer.responses] == [("old", 0), ("none", 3)]
    assert bool(answer.responses[1].error_message) == (version >= 5)
    assert "old" not in admin.gateway.image.topic_ids


def test_topics_are_deleted_by_name_or_id() -> None:
    admin = client()
    world = admin.gateway.world
    second = world.create("second", (1,))
    old = admin.gateway.image.topic_ids["old"]
    states = [
        DeleteTopicState.make(name="old"),
        DeleteTopicState.make(name=None, topic_id=second),
        DeleteTopicState.make(name=None, topic_id=UUID(int=5)),
        DeleteTopicState.make(name=None),
        DeleteTopicState.make(name="both", topic_id=UUID(int=6)),
    ]
    answer = admin.ask(DeleteTopicsRequestData.make(topics=states), 6, DeleteTopicsResponseData)
    assert {(result.name, result.topic_id, result.error_code) for result in answer.responses} == {
        ("old", old, 0),
        ("second", second, 0),
        (None, UUID(int=5), 100),
        (None, ZERO_UUID, 42),
        ("both", UUID(int=6), 42),
    }
    assert not admin.gateway.image.topics


@pytest.mark.parametrize("by_id", [False, True])
def test_a_topic_named_twice_is_not_deleted(by_id: bool) -> None:
    admin = client()
    old = admin.gateway.image.topic_ids["old"]
    again = DeleteTopicState.make(name=None, topic_id=old) if by_id else DeleteTopicState.make(name="old")
    request = DeleteTopicsRequestData.make(topics=[DeleteTopicState.make(name="old"), again])
    answer = admin.ask(request, 6, DeleteTopicsResponseData)
    assert {result.error_code for result in answer.responses} == {42}
    assert "old" in admin.gateway.image.topic_ids


# --- CreatePartitions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", range(4))
def test_partitions_are_added(version: int) -> None:
    admin = client()
    by_hand = CreatePartitionsTopic.make(
        name="old", count=3, assignments=[CreatePartitionsAssignment.make(broker_ids=(3, 1))]
    )
    assert grow(admin, by_hand, version=version) == [("old", 0)]
    topic = admin.gateway.image.topic("old")
    assert topic is not None
    assert topic.partitions[2].replicas == (3, 1)


def test_partitions_are_refused_with_kafkas_codes() -> None:
    admin = client()
    one = [CreatePartitionsAssignment.make(broker_ids=(3, 1))]
    for topic, code in (
        (CreatePartitionsTopic.make(name="none", count=4, assignments=None), 3),
        (CreatePartitionsTopic.make(name="old", count=2, assignments=None), 37),
        (CreatePartitionsTopic.make(name="old", count=1, assignments=None), 37),
        (CreatePartitionsTopic.make(name="old", count=4, assignments=one), 39),
        (CreatePartitionsTopic.make(name="old", count=20_000, assignments=None), 44),
    ):
        assert grow(admin, topic) == [(topic.name, code)]
    twice = CreatePartitionsTopic.make(name="old", count=4, assignments=None)
    assert grow(admin, twice, twice) == [("old", 42)]
