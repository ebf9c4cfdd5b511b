"""Every request to the controller and every kind of reply, over a real connection, equal on both sides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from kraft.protocol.errors import (
    FencedLeaderEpoch,
    InvalidConfig,
    InvalidPartitions,
    KafkaError,
    NoReassignmentInProgress,
    NotController,
    PreferredLeaderNotAvailable,
    StaleBrokerEpoch,
    TopicAlreadyExists,
    UnknownTopicId,
)
from kraft.wire.channels.controller import CONTROLLER_RPCS, ControllerChannel
from metadata.acls import Acl, AclFilter, AclOperation, AclPattern, AclPermission, AclResource
from metadata.controller.requests import (
    AllocateProducerIds,
    AlterClientQuotas,
    AlterConfigs,
    AlterPartition,
    AlterReassignments,
    AlterRoute,
    AlterUsers,
    BrokerHeartbeat,
    BrokerRegistered,
    ConfigAlteration,
    ConfigResource,
    CreateAcls,
    CreatePartitions,
    CreateTopics,
    DeleteAcls,
    DeleteTopics,
    DescribeQuorum,
    ElectLeaders,
    ErrorDetail,
    FailedReplicas,
    HeartbeatAnswer,
    IsrMember,
    NewPartitions,
    NewTopic,
    NodeProgress,
    PartitionAlteration,
    PartitionReassignment,
    ProducerIdBlock,
    QuorumProgress,
    QuotaAlteration,
    RegisterBroker,
    ReplaceConfigs,
    ScramDeletion,
    ScramUpsertion,
    TopicCreated,
    UnregisterBroker,
)
from metadata.image import PartitionImage, TopicIdPartition
from metadata.records import LeaderRecovery, UncleanElectionReport
from metadata.routes import Binding, RouteKind
from tests.unit.wire.fakes import T0, T1, TOPIC, loopback, run

COMMITTED = PartitionImage(
    topic_id=TOPIC,
    partition=0,
    replicas=(1, 2, 3),
    isr=(1, 3),
    leader=3,
    leader_epoch=5,
    partition_epoch=9,
    adding_replicas=(3,),
    removing_replicas=(2,),
    leader_recovery=LeaderRecovery.RECOVERING,
    unclean=UncleanElectionReport(answers={3: (4, 100), 1: (4, 90)}, log_end_offset=100, high_watermark_known=120),
)
BROKER = ConfigResource(resource_type="broker", name="")
TOPIC_CONFIG = ConfigResource(resource_type="topic", name="orders")
ACL = Acl(
    resource=AclResource.TOPIC,
    name="orders",
    pattern=AclPattern.PREFIXED,
    principal="User:a",
    host="10.0.0.0/8",
    operation=AclOperation.READ,
    permission=AclPermission.DENY,
)

CASES: list[tuple[Any, Any]] = [
    (
        RegisterBroker(
            cluster_id="c", broker_id=3, incarnation_id=UUID(int=9), rest="h:8080", kafka="::1:9092", rack="r1"
        ),
        BrokerRegistered(broker_epoch=2**40),
    ),
    (
        RegisterBroker(
            cluster_id="c",
            broker_id=3,
            incarnation_id=UUID(int=9),
            rest="h:1",
            kafka="k:2",
            listeners={"PLAINTEXT": "a:3", "OUTSIDE": "::1:4"},
        ),
        BrokerRegistered(broker_epoch=0),
    ),
    (
        BrokerHeartbeat(broker_id=1, broker_epoch=5, metadata_offset=77, wants_shutdown=True),
        HeartbeatAnswer(is_caught_up=True, is_fenced=False, should_shut_down=True, metadata_offset=7),
    ),
    (
        BrokerHeartbeat(broker_id=1, broker_epoch=5, metadata_offset=-1, wants_fence=True),
        HeartbeatAnswer(is_caught_up=False, is_fenced=True, should_shut_down=False, metadata_offset=-1),
    ),
    (
        BrokerHeartbeat(
            broker_id=1,
            broker_epoch=5,
            metadata_offset=77,
            failed=FailedReplicas(
                offline=frozenset({TopicIdPartition(TOPIC, 0), TopicIdPartition(UUID(int=3), 7)}),
                read_only=frozenset({TopicIdPartition(TOPIC, 1), TopicIdPartition(UUID(int=4), 2)}),
            ),
        ),
        HeartbeatAnswer(
            is_caught_up=True,
            is_fenced=False,
            should_shut_down=False,
            metadata_offset=2**40,
            offline={
                1: frozenset({TopicIdPartition(TOPIC, 0), TopicIdPartition(UUID(int=3), 7)}),
                3: frozenset({TopicIdPartition(TOPIC, 1), TopicIdPartition(TOPIC, 2)}),
            },
        ),
    ),
    (
        AlterPartition(
            broker_id=3,
            broker_epoch=12,
            alterations=(
                PartitionAlteration(
                    topic_id=TOPIC,
                    partition=0,
                    leader_epoch=5,
                    partition_epoch=8,
                    new_isr=(IsrMember(broker_id=1, broker_epoch=4), IsrMember(broker_id=3)),
                    recovered=True,
                ),
                PartitionAlteration(
                    topic_id=TOPIC, partition=1, leader_epoch=5, partition_epoch=8, new_isr=(), recovered=False
                ),
            ),
        ),
        {T0: COMMITTED, T1: ErrorDetail(FencedLeaderEpoch, "leader epoch is 6, not 5")},
    ),
    (
        AlterPartition(broker_id=3, broker_epoch=12, alterations=()),
        {T1: replace(COMMITTED, partition=1, unclean=None, leader_recovery=LeaderRecovery.RECOVERED, leader=-1)},
    ),
    (
        ElectLeaders(election="preferred", partitions=(("a", 0), ("a", 2), ("b", 1))),
        {("a", 0): None, ("a", 2): ErrorDetail(PreferredLeaderNotAvailable, "broker 2 is fenced"), ("b", 1): None},
    ),
    (ElectLeaders(election="unclean", partitions=None), {}),
    (
        AlterReassignments(
            reassignments=(
                PartitionReassignment(topic="a", partition=0, replicas=(1, 2)),
                PartitionReassignment(topic="a", partition=1, replicas=None),
            )
        ),
        {("a", 0): None, ("a", 1): ErrorDetail(NoReassignmentInProgress, "nothing to cancel")},
    ),
    (
        CreateTopics(
            topics=(
                NewTopic(name="a", partitions=3, replication_factor=2, configs={"retention.ms": "5"}),
                NewTopic(name="b", assignment={0: (1, 2), 1: (2, 1)}),
            ),
            validate_only=True,
        ),
        {
            "a": TopicCreated(topic_id=TOPIC, partitions=3, replication_factor=2, configs={"retention.ms": "5"}),
            "b": ErrorDetail(TopicAlreadyExists, "topic 'b' exists"),
        },
    ),
    (DeleteTopics(topics=("a", TOPIC)), {"a": None, TOPIC: ErrorDetail(UnknownTopicId, "no such topic")}),
    (
        CreatePartitions(
            topics=(NewPartitions(topic="a", count=4), NewPartitions(topic="b", count=2, assignments=((1, 2),)))
        ),
        {"a": ErrorDetail(InvalidPartitions, "it has 8"), "b": None},
    ),
    (
        AlterConfigs(
            resources={
                TOPIC_CONFIG: (
                    ConfigAlteration(name="retention.ms", operation="set", value="5"),
                    ConfigAlteration(name="cleanup.policy", operation="delete"),
                ),
                BROKER: (ConfigAlteration(name="log.cleanup.policy", operation="append", value="compact"),),
            },
            validate_only=True,
        ),
        {TOPIC_CONFIG: None, BROKER: ErrorDetail(InvalidConfig, "not a list")},
    ),
    (UnregisterBroker(broker_id=3), None),
    (
        DescribeQuorum(),
        QuorumProgress(
            leader_id=1,
            leader_epoch=4,
            high_watermark=70,
            nodes=(
                NodeProgress(node_id=1, log_end_offset=70, heard_ms_ago=0, caught_up_ms_ago=0),
                NodeProgress(node_id=2, log_end_offset=60, heard_ms_ago=900, caught_up_ms_ago=3000),
                NodeProgress(node_id=3),
            ),
        ),
    ),
    (
        ReplaceConfigs(resources={TOPIC_CONFIG: {"retention.ms": "5"}, BROKER: {}}, validate_only=True),
        {TOPIC_CONFIG: ErrorDetail(InvalidConfig, "no"), BROKER: None},
    ),
    (CreateAcls(acls=(ACL, ACL)), [None, ErrorDetail(InvalidConfig, "no")]),
    (
        DeleteAcls(filters=(AclFilter(), AclFilter(name="orders", principal="User:a", host="*"))),
        [(ACL,), ErrorDetail(InvalidConfig, "no")],
    ),
    (
        AlterClientQuotas(
            alterations=(
                QuotaAlteration(entity=(("client-id", None), ("user", "a")), quotas={"producer_byte_rate": 1.0}),
                QuotaAlteration(entity=(("user", None),), quotas={"producer_byte_rate": None}),
            ),
            validate_only=True,
        ),
        [None, ErrorDetail(InvalidConfig, "no")],
    ),
    (
        AlterUsers(
            deletions=(ScramDeletion(name="a", mechanism="SCRAM-SHA-256"),),
            upsertions=(
                ScramUpsertion(
                    name="b", mechanism="SCRAM-SHA-512", iterations=5_000, salt=b"salt", salted_password=b"p" * 64
                ),
            ),
        ),
        {"a": ErrorDetail(InvalidConfig, "no"), "b": None},
    ),
    (AlterRoute(name="r", operation="create", kind=RouteKind.PATTERN, added=(Binding("a.*", "t"),)), None),
    (AlterRoute(name="r", operation="alter", added=(Binding("", "t"),), removed=(Binding("a", "u"),)), None),
    (AllocateProducerIds(broker_id=1, broker_epoch=5), ProducerIdBlock(first=2**33, count=1000)),
]


@pytest.mark.parametrize(("request_", "reply"), CASES, ids=lambda value: type(value).__name__)
def test_request_and_reply_arrive_as_they_were_sent(request_: Any, reply: Any) -> None:
    async def main() -> None:
        async with loopback() as world:
            world.controller.answer = reply
            peers = world.peers()
            assert await ControllerChannel(peers).request(1, request_, timeout_ms=54_321) == reply
            [(asked, reported_ms)] = world.controller.asked
            assert asked == request_
            assert 0 < reported_ms <= 54_321  # what is left of it after the connection was opened
            await peers.close()

    run(main())


def test_every_request_of_the_controller_has_a_case() -> None:
    assert {type(request) for request, _ in CASES} == set(CONTROLLER_RPCS)


REFUSALS: list[KafkaError] = [NotController("the leader is node 2"), StaleBrokerEpoch("epoch 5; registered with 9 ✗")]


@pytest.mark.parametrize(
    "request_", {type(request): request for request, _ in CASES}.values(), ids=lambda r: type(r).__name__
)
@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: error.name)
def test_a_refusal_arrives_with_type_and_message(request_: Any, error: KafkaError) -> None:
    async def main() -> None:
        async with loopback() as world:
            world.controller.answer = error
            peers = world.peers()
            with pytest.raises(type(error)) as caught:
                await ControllerChannel(peers).request(1, request_, timeout_ms=60_000)
            assert caught.value.message == error.message
            await peers.close()

    run(main())
