"""Each refusal of topics, partitions, configs, ids and registrations has Kafka's code and says what would be right."""

from __future__ import annotations

from uuid import UUID

import pytest

from kraft.protocol.errors import BrokerIdNotRegistered, InconsistentClusterId, PolicyViolation, StaleBrokerEpoch
from metadata.controller.requests import (
    AllocateProducerIds,
    AlterConfigs,
    BrokerHeartbeat,
    ConfigAlteration,
    ConfigResource,
    CreatePartitions,
    CreateTopics,
    DeleteTopics,
    ErrorDetail,
    NewPartitions,
    NewTopic,
    ProducerIdBlock,
    RegisterBroker,
    ReplaceConfigs,
    TopicCreated,
)
from metadata.settings import BrokerSettings, topic_settings
from tests.support.controller_world import World


def world() -> World:
    made = World()
    made.start(1, 2, 3)
    made.create("a.b", (1, 2))
    return made


@pytest.mark.parametrize(
    ("topic", "code", "reported"),
    [
        (NewTopic(name=""), 17, "empty"),
        (NewTopic(name="."), 17, "'.'"),
        (NewTopic(name=".."), 17, "'..'"),
        (NewTopic(name="x" * 250), 17, "249"),
        (NewTopic(name="a b"), 17, "ASCII"),
        (NewTopic(name="ä"), 17, "ASCII"),
        (NewTopic(name="a_b"), 17, "collides with 'a.b'"),
        (NewTopic(name="a.b"), 36, "exists"),
        (NewTopic(name="t", partitions=0), 37, "at least 1"),
        (NewTopic(name="t", partitions=-2), 37, "at least 1"),
        (NewTopic(name="t", replication_factor=0), 38, "at least 1"),
        (NewTopic(name="t", replication_factor=4), 38, "only 3"),
        (NewTopic(name="t", assignment={0: (1,)}, partitions=1), 42, "must be -1"),
        (NewTopic(name="t", assignment={1: (1,)}), 39, "0, 1, 2"),
        (NewTopic(name="t", assignment={}), 39, "0, 1, 2"),
        (NewTopic(name="t", assignment={0: ()}), 39, "at least one"),
        (NewTopic(name="t", assignment={0: (1, 1)}), 39, "twice"),
        (NewTopic(name="t", assignment={0: (9,)}), 39, "not registered"),
        (NewTopic(name="t", assignment={0: (1, 2), 1: (1,)}), 39, "2"),
        (NewTopic(name="t", configs={"retention.m": "1"}), 40, "did you mean retention.ms?"),
        (NewTopic(name="t", configs={"retention.ms": "soon"}), 40, "whole number"),
        (NewTopic(name="t", configs={"retention.ms": "-2"}), 40, "greater than or equal to -1"),
        (NewTopic(name="t", configs={"unclean.leader.election.enable": "yes"}), 40, "true or false"),
        (NewTopic(name="t", configs={"cleanup.policy": "burn"}), 40, "cleanup.policy"),
        (NewTopic(name="t", configs={"delivery.target.topic": "a b"}), 40, "delivery.target.topic"),
        (NewTopic(name="t", configs={"delivery.target.topic": "t"}), 40, "cannot forward records to itself"),
        (NewTopic(name="t", configs={"delivery.target.topic": "__consumer_offsets"}), 40, "internal topic"),
    ],
)
def test_create_refused(topic: NewTopic, code: int, reported: str) -> None:
    reply = world().decide(CreateTopics(topics=(topic,))).reply[topic.name]  # type: ignore[index]
    assert isinstance(reply, ErrorDetail), reply
    assert (reply.error.code, reported in reply.message) == (code, True), reply


@pytest.mark.parametrize(
    "request_",
    [
        CreateTopics(topics=(NewTopic(name="t", partitions=10_001),)),
        CreateTopics(topics=(NewTopic(name="t", partitions=9_999), NewTopic(name="u"), NewTopic(name="v"))),
        CreateTopics(topics=(NewTopic(name="t", assignment=dict.fromkeys(range(10001), (1,))),)),
        CreatePartitions(topics=(NewPartitions(topic="a.b", count=10_002),)),
    ],
)
def test_more_than_10_000_partitions_are_refused_as_a_whole(request_: CreateTopics | CreatePartitions) -> None:
    made = world()
    before = made.image
    with pytest.raises(PolicyViolation, match="the request asks for 10001 new partitions"):
        made.decide(request_)
    assert made.image is before


def test_10_000_partitions_are_created() -> None:
    made = world()
    made.decide(CreateTopics(topics=(NewTopic(name="t", partitions=10_000, replication_factor=3),)))
    topic = made.image.topic("t")
    assert topic is not None
    assert len(topic.partitions) == 10_000


def test_create_gives_what_was_asked() -> None:
    made = world()
    topics = (
        NewTopic(name="t", partitions=4, replication_factor=3, configs={"cleanup.policy": "compact"}),
        NewTopic(name="bad name"),
    )
    decision = made.decide(CreateTopics(topics=topics))
    created = decision.reply["t"]  # type: ignore[index]
    assert isinstance(created, TopicCreated)
    assert (created.partitions, created.replication_factor, created.configs) == (4, 3, {"cleanup.policy": "compact"})
    topic = made.image.topic("t")
    assert topic is not None
    assert [sorted(partition.replicas) for partition in topic.partitions.values()] == [[1, 2, 3]] * 4
    assert len({partition.leader for partition in topic.partitions.values()}) == 3
    assert made.image.config("topic", "t") == {"cleanup.policy": "compact"}


def test_who_makes_the_topic_of_groups_gets_it_as_its_coordinators_need_it() -> None:
    made = World(**{"offsets.topic.segment.bytes": "5000", "log.segment.bytes": "300"})
    made.start(1, 2, 3)
    said = {"min.insync.replicas": "1", "max.message.bytes": "9000"}
    decision = made.decide(CreateTopics(topics=(NewTopic(name="__consumer_offsets", configs=said),)))
    kept = made.image.config("topic", "__consumer_offsets")
    assert kept == {"cleanup.policy": "compact", "compression.type": "producer", "segment.bytes": "5000", **said}
    created = decision.reply["__consumer_offsets"]  # type: ignore[index]
    assert isinstance(created, TopicCreated)
    assert created.configs == kept


def test_validate_only_changes_nothing() -> None:
    made = world()
    before = made.image
    made.decide(CreateTopics(topics=(NewTopic(name="t"),), validate_only=True))
    made.decide(CreatePartitions(topics=(NewPartitions(topic="a.b", count=5),), validate_only=True))
    assert made.image == before


def test_twice_in_one_request() -> None:
    made = world()
    reply = made.decide(CreateTopics(topics=(NewTopic(name="t"), NewTopic(name="t")))).reply
    assert reply["t"].error.code == 42  # type: ignore[index]
    both = made.decide(CreateTopics(topics=(NewTopic(name="c_d"), NewTopic(name="c.d")))).reply
    assert both["c.d"].error.code == 17  # type: ignore[index]


def test_a_topic_made_again_is_another_one() -> None:
    made = world()
    first = made.image.topic_ids["a.b"]
    assert made.decide(DeleteTopics(topics=(first, "nope", UUID(int=7)))).reply == {
        first: None,
        "nope": ErrorDetail(*_of(made, "nope")),
        UUID(int=7): ErrorDetail(*_of(made, UUID(int=7))),
    }
    assert made.create("a.b", (1,)) != first


def _of(made: World, topic: str | UUID) -> tuple[type, str]:
    detail = made.decide(DeleteTopics(topics=(topic,))).reply[topic]  # type: ignore[index]
    assert detail.error.code == (3 if isinstance(topic, str) else 100)
    return detail.error, detail.message


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        (NewPartitions(topic="nope", count=2), 3),
        (NewPartitions(topic="a.b", count=1), 37),
        (NewPartitions(topic="a.b", count=0), 37),
        (NewPartitions(topic="a.b", count=3, assignments=((1, 2),)), 39),
        (NewPartitions(topic="a.b", count=2, assignments=((1,),)), 39),
        (NewPartitions(topic="a.b", count=2, assignments=((1, 8),)), 39),
    ],
)
def test_growth_refused(wanted: NewPartitions, code: int) -> None:
    reply = world().decide(CreatePartitions(topics=(wanted,))).reply
    assert reply[wanted.topic].error.code == code  # type: ignore[index]


def test_growth() -> None:
    made = world()
    wanted = NewPartitions(topic="a.b", count=3, assignments=((3, 1), (2, 3)))
    assert made.decide(CreatePartitions(topics=(wanted,))).reply == {"a.b": None}
    assert [made.partition("a.b", index).replicas for index in range(3)] == [(1, 2), (3, 1), (2, 3)]


TOPIC = ConfigResource(resource_type="topic", name="a.b")
ALL_BROKERS = ConfigResource(resource_type="broker", name="")


@pytest.mark.parametrize(
    ("resource", "change", "code"),
    [
        (ConfigResource(resource_type="topic", name="nope"), ("retention.ms", "set", "1"), 3),
        (ConfigResource(resource_type="broker", name="x"), ("log.retention.ms", "set", "1"), 42),
        (ConfigResource(resource_type="broker", name="9"), ("log.retention.ms", "set", "1"), 102),
        (TOPIC, ("retention.ms", "set", None), 42),
        (TOPIC, ("retention.ms", "append", "1"), 40),
        (TOPIC, ("log.retention.ms", "set", "1"), 40),
        (TOPIC, ("cleanup.policy", "subtract", "delete"), 40),
        (TOPIC, ("no.such.thing", "set", "1"), 40),
        (ALL_BROKERS, ("num.partitions", "set", "2"), 42),
        (ALL_BROKERS, ("broker.id", "set", "2"), 42),
        (ALL_BROKERS, ("log.cleaner.threads", "set", "2"), 42),
        (ALL_BROKERS, ("listener.name.plaintext.ssl.keystore.location", "set", "x"), 42),
        (ALL_BROKERS, ("num.partition", "set", "2"), 40),
    ],
)
def test_config_refused(resource: ConfigResource, change: tuple[str, str, str | None], code: int) -> None:
    made = world()
    alteration = ConfigAlteration(name=change[0], operation=change[1], value=change[2])  # type: ignore[arg-type]
    good = ConfigAlteration(name="min.insync.replicas", operation="set", value="2")
    reply = made.decide(AlterConfigs(resources={resource: (good, alteration)})).reply
    assert reply[resource].error.code == code  # type: ignore[index]
    assert not made.image.configs, "all alterations of one resource or none"


def test_static_settings_are_refused_with_kafkas_message() -> None:
    made = world()
    changes = tuple(
        ConfigAlteration(name=name, operation="set", value="2")
        for name in ("num.partitions", "log.retention.ms", "auto.create.topics.enable")
    )
    detail = made.decide(AlterConfigs(resources={ALL_BROKERS: changes})).reply[ALL_BROKERS]
    assert detail is not None
    said = "Cannot update these configs dynamically: [auto.create.topics.enable, num.partitions]"
    assert (detail.error.code, detail.message) == (42, said)
    gone = ConfigAlteration(name="num.partitions", operation="delete")
    assert made.decide(AlterConfigs(resources={ALL_BROKERS: (gone,)})).reply == {ALL_BROKERS: None}


def test_internal_segment_bytes_stands_in_place_of_segment_bytes() -> None:
    made = world()
    small = ConfigAlteration(name="internal.segment.bytes", operation="set", value="2000")
    assert made.decide(AlterConfigs(resources={TOPIC: (small,)})).reply == {TOPIC: None}
    settings = topic_settings(BrokerSettings(), made.image.config("topic", "a.b"))
    assert (settings.segment_size, settings.segment_bytes) == (2_000, 1_073_741_824)
    assert topic_settings(BrokerSettings(), {}).segment_size == 1_073_741_824


def test_config_lists_and_canonical_values() -> None:
    made = world()
    for operation, value, expected in [
        ("append", "compact", "delete,compact"),
        ("append", "compact", "delete,compact"),
        ("subtract", "delete", "compact"),
        ("delete", None, None),
    ]:
        change = ConfigAlteration(name="cleanup.policy", operation=operation, value=value)  # type: ignore[arg-type]
        assert made.decide(AlterConfigs(resources={TOPIC: (change,)})).reply == {TOPIC: None}
        assert made.image.config("topic", "a.b").get("cleanup.policy") == expected
    change = ConfigAlteration(name="retention.ms", operation="set", value=" 07 ")
    made.decide(AlterConfigs(resources={TOPIC: (change,)}))
    assert made.image.config("topic", "a.b") == {"retention.ms": "7"}


def test_unset_is_what_is_not_set_whatever_its_name() -> None:
    """As in Kafka: kafka-reassign-partitions --verify unsets throttles, whether there are any or not."""
    made = world()
    change = ConfigAlteration(name="leader.replication.throttled.replicas", operation="delete")
    assert made.decide(AlterConfigs(resources={TOPIC: (change,)})).reply == {TOPIC: None}


def test_replaced_settings_are_exactly_those_named() -> None:
    made = world()
    made.decide(ReplaceConfigs(resources={TOPIC: {"retention.ms": "07", "cleanup.policy": "compact"}}))
    assert made.image.config("topic", "a.b") == {"retention.ms": "7", "cleanup.policy": "compact"}
    bad = {"retention.ms": "8", "cleanup.policy": "shred"}
    refused = made.decide(ReplaceConfigs(resources={TOPIC: bad, ALL_BROKERS: {}})).reply
    assert refused[TOPIC].error.code == 40  # type: ignore[index]
    made.decide(ReplaceConfigs(resources={TOPIC: {}}, validate_only=True))
    assert made.image.config("topic", "a.b") == {"retention.ms": "7", "cleanup.policy": "compact"}
    assert made.decide(ReplaceConfigs(resources={TOPIC: {"segment.ms": "9"}})).reply == {TOPIC: None}
    assert made.image.config("topic", "a.b") == {"segment.ms": "9"}


def test_producer_ids_are_never_given_twice() -> None:
    made = world()
    blocks = [made.decide(AllocateProducerIds(broker_id=id_, broker_epoch=made.epoch(id_))).reply for id_ in (1, 2, 1)]
    assert blocks == [ProducerIdBlock(first=first, count=1000) for first in (0, 1000, 2000)]
    with pytest.raises(StaleBrokerEpoch):
        made.decide(AllocateProducerIds(broker_id=1, broker_epoch=77))
    with pytest.raises(StaleBrokerEpoch):
        made.decide(AllocateProducerIds(broker_id=9, broker_epoch=1))


def test_heartbeats_refused() -> None:
    made = world()
    with pytest.raises(BrokerIdNotRegistered):
        made.decide(BrokerHeartbeat(broker_id=9, broker_epoch=0, metadata_offset=0))
    with pytest.raises(StaleBrokerEpoch):
        made.decide(BrokerHeartbeat(broker_id=1, broker_epoch=7, metadata_offset=0))


def test_a_broker_of_another_cluster() -> None:
    request = RegisterBroker(cluster_id="other", broker_id=1, incarnation_id=UUID(int=1), rest="r", kafka="k")
    with pytest.raises(InconsistentClusterId):
        world().decide(request)


def test_a_broker_is_fenced_until_it_has_its_own_registration() -> None:
    made = World()
    epoch = made.register(1)
    behind = made.beat(1, offset=epoch - 1).reply
    assert (behind.is_caught_up, behind.is_fenced) == (False, True)  # type: ignore[attr-defined]
    ahead = made.beat(1, offset=epoch).reply
    assert (ahead.is_caught_up, ahead.is_fenced) == (True, False)  # type: ignore[attr-defined]


def test_delay_topics_do_not_forward_to_delay_topics() -> None:
    made = world()
    target = "delivery.target.topic"
    created = made.decide(CreateTopics(topics=(NewTopic(name="later", configs={target: "a.b"}),)))
    assert isinstance(created.reply["later"], TopicCreated)  # type: ignore[index]

    def answer(topic: str, to: str) -> object:
        resource = ConfigResource(resource_type="topic", name=topic)
        change = ConfigAlteration(name=target, operation="set", value=to)
        return made.decide(AlterConfigs(resources={resource: (change,)})).reply[resource]  # type: ignore[index]

    for topic, to, reported in (
        ("a.b", "later", "later: that is a delay topic itself, and records could go in circles"),
        ("a.b", "elsewhere", "the delay topic later forwards records to a.b, and they could go in circles"),
        ("later", "later", "a topic cannot forward records to itself"),
        ("later", "__share_group_state", "an internal topic takes no records of others"),
    ):
        refused = answer(topic, to)
        assert isinstance(refused, ErrorDetail), (topic, to)
        assert (refused.error.code, reported in refused.message) == (40, True), refused
    assert answer("later", "not-yet-there") is None, "it may be created later"
    assert answer("a.b", "elsewhere") is None, "nothing forwards to it any more"
