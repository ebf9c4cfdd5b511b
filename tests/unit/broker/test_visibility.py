"""A node answers an administrative request when it has seen its effect itself."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from kraft.broker.visibility import is_visible
from kraft.protocol.errors import TopicAlreadyExists
from metadata.controller.requests import (
    AlterConfigs,
    AlterReassignments,
    AlterUsers,
    ConfigAlteration,
    ConfigResource,
    CreatePartitions,
    CreateTopics,
    DeleteTopics,
    ElectLeaders,
    ErrorDetail,
    NewPartitions,
    NewTopic,
    PartitionReassignment,
    ReplaceConfigs,
    ScramDeletion,
    ScramUpsertion,
    TopicCreated,
)
from metadata.image import MetadataImage
from metadata.records import (
    ConfigRecord,
    PartitionChangeRecord,
    PartitionRecord,
    Reason,
    TopicRecord,
    UserScramCredentialRecord,
)

ID = UUID(int=3)
EMPTY = MetadataImage()
WITH_TOPIC = EMPTY.apply(
    [
        TopicRecord(name="t", topic_id=ID),
        PartitionRecord(topic_id=ID, partition=0, replicas=(1,), isr=(1,), leader=1),
        ConfigRecord(resource_type="topic", resource_name="t", name="retention.ms", value="5"),
        UserScramCredentialRecord(
            name="u", mechanism="SCRAM-SHA-256", salt=b"s1".hex(), iterations=4096, stored_key="00", server_key="00"
        ),
    ]
)
CREATE = CreateTopics(topics=(NewTopic(name="t"),))
CREATED = {"t": TopicCreated(topic_id=ID, partitions=1, replication_factor=1, configs={})}
REFUSED = ErrorDetail(TopicAlreadyExists, "it exists")
TOPIC = ConfigResource(resource_type="topic", name="t")
SET = AlterConfigs(resources={TOPIC: (ConfigAlteration(name="retention.ms", operation="set", value="5"),)})
CHANGE = AlterConfigs(resources={TOPIC: (ConfigAlteration(name="retention.ms", operation="set", value="6"),)})
UNSET = AlterConfigs(resources={TOPIC: (ConfigAlteration(name="retention.ms", operation="delete"),)})
REPLACE = ReplaceConfigs(resources={TOPIC: {"retention.ms": " 05 "}})
EMPTIED = ReplaceConfigs(resources={TOPIC: {}})
GROW = CreatePartitions(topics=(NewPartitions(topic="t", count=2),))


def _user(salt: bytes) -> AlterUsers:
    upsertion = ScramUpsertion(
        name="u", mechanism="SCRAM-SHA-256", iterations=4096, salt=salt, salted_password=bytes(32)
    )
    return AlterUsers(upsertions=(upsertion,))


NO_USER = AlterUsers(deletions=(ScramDeletion(name="u", mechanism="SCRAM-SHA-256"),))


def _moved(replicas: tuple[int, ...] | None) -> AlterReassignments:
    return AlterReassignments(reassignments=(PartitionReassignment(topic="t", partition=0, replicas=replicas),))


@pytest.mark.parametrize(
    ("request_", "reply", "on_empty", "on_topic"),
    [
        (CREATE, CREATED, False, True),
        (CREATE, {"t": REFUSED}, True, True),
        (CreateTopics(topics=CREATE.topics, validate_only=True), CREATED, True, True),
        (DeleteTopics(topics=("t",)), {"t": None}, True, False),
        (DeleteTopics(topics=(ID,)), {ID: None}, True, False),
        (DeleteTopics(topics=("t",)), {"t": REFUSED}, True, True),
        (GROW, {"t": None}, False, False),
        (GROW, {"t": REFUSED}, True, True),
        (SET, {TOPIC: None}, False, True),
        (CHANGE, {TOPIC: None}, False, False),
        (UNSET, {TOPIC: None}, True, False),
        (UNSET, {TOPIC: REFUSED}, True, True),
        (REPLACE, {TOPIC: None}, False, True),
        (REPLACE, {TOPIC: REFUSED}, True, True),
        (EMPTIED, {TOPIC: None}, True, False),
        (ElectLeaders(election="preferred", partitions=None), {}, True, True),
        (ElectLeaders(election="preferred", partitions=None), {("t", 0): None}, True, True),
        (ElectLeaders(election="unclean", partitions=None), {("t", 0): None}, True, True),
        (_moved((2,)), {("t", 0): None}, True, False),
        (_moved((2,)), {("t", 0): REFUSED}, True, True),
        (_moved((1,)), {("t", 0): None}, True, True),
        (_moved(None), {("t", 0): None}, True, True),
        (_user(b"s1"), {"u": None}, False, True),
        (_user(b"s2"), {"u": None}, False, False),
        (_user(b"s2"), {"u": REFUSED}, True, True),
        (NO_USER, {"u": None}, True, False),
        (NO_USER, {"u": REFUSED}, True, True),
    ],
)
def test_what_was_done_is_visible(request_: Any, reply: Any, on_empty: bool, on_topic: bool) -> None:
    assert is_visible(EMPTY, request_, reply) is on_empty
    assert is_visible(WITH_TOPIC, request_, reply) is on_topic


def test_an_election_is_visible_when_the_leader_is_there() -> None:
    preferred = ElectLeaders(election="preferred", partitions=None)
    reply: Any = {("t", 0): None}
    on_two = WITH_TOPIC.apply([_leader(2, epoch=1)])
    nobody = on_two.apply([_leader(-1, epoch=2)])
    assert not is_visible(on_two, preferred, reply)
    assert is_visible(on_two, ElectLeaders(election="unclean", partitions=None), reply)
    assert not is_visible(nobody, ElectLeaders(election="unclean", partitions=None), reply)


def _leader(leader: int, *, epoch: int) -> PartitionChangeRecord:
    return PartitionChangeRecord(
        topic_id=ID,
        partition=0,
        reason=Reason.BROKER_FENCED,
        leader=leader,
        leader_epoch=epoch,
        partition_epoch=epoch,
    )
