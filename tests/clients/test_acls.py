"""ACLs with a client that is not ours: what an administrator allows a user works, and what goes is refused at once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from tests.clients.test_security import PASSWORD, librdkafka
from tests.integration.support.cluster import Cluster
from tests.integration.support.secured import secured_cluster
from tests.integration.support.waiting import wait_until

DEADLINE_S = 60
USERS = "".join(f'\n[[users]]\nname = "{name}"\npassword = "{PASSWORD}"\n' for name in ("admin", "alice"))
READ, WRITE = AclOperation.READ, AclOperation.WRITE


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    settings = {
        "sasl.enabled.mechanisms": "SCRAM-SHA-256",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:admin",
        "group.initial.rebalance.delay.ms": 0,
        "ssl.client.auth": "none",
    }
    yield from secured_cluster(tmp_path_factory.mktemp("acls"), protocol="SASL_SSL", settings=settings, tail=USERS)


def done(futures: dict[Any, Any]) -> list[Any]:
    return [future.result(DEADLINE_S) for future in futures.values()]


def allowed(operation: AclOperation, resource: ResourceType, name: str) -> AclBinding:
    return AclBinding(
        resource, name, ResourcePatternType.LITERAL, "User:alice", "*", operation, AclPermissionType.ALLOW
    )


def test_a_fetch_that_waits_ends_soon_after_its_acl_has_gone(nodes: Cluster) -> None:
    """Its consumer would wait for ten minutes."""
    admin = AdminClient(librdkafka(nodes, "SCRAM-SHA-256"))
    done(admin.create_topics([NewTopic("quiet", 1, 3)]))
    done(admin.create_acls([allowed(READ, ResourceType.TOPIC, "quiet")]))
    config = {"group.id": "g", "fetch.wait.max.ms": 300_000, "socket.timeout.ms": 300_000, "enable.auto.commit": False}
    consumer = Consumer({**librdkafka(nodes, "SCRAM-SHA-256", user="alice"), **config})
    waits_s = 0.0
    try:
        consumer.assign([TopicPartition("quiet", 0, 0)])
        wait_until(lambda: consumer.poll(5) is None)  # a broker may not know the ACL yet
        reads = AclBindingFilter(
            ResourceType.TOPIC, "quiet", ResourcePatternType.MATCH, None, None, READ, AclPermissionType.ANY
        )
        assert len(done(admin.delete_acls([reads]))[0]) == 1
        begun_s = time.monotonic()
        found = consumer.poll(60)
        waits_s = time.monotonic() - begun_s
    finally:
        consumer.close()
    assert found is not None
    assert found.error().code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    assert waits_s < 10


def outcome(producer: Producer, topic: str) -> int:
    """The code of the error with which a record comes back; 0: it was written."""
    codes: list[int] = []
    producer.produce(topic, b"x", on_delivery=lambda error, _: codes.append(error.code() if error else 0))
    producer.flush(DEADLINE_S)
    return codes[0]


def test_what_a_user_may_do_until_the_acl_goes(nodes: Cluster) -> None:
    config = librdkafka(nodes, "SCRAM-SHA-256")
    admin = AdminClient(config)
    done(admin.create_topics([NewTopic("mine", 1, 3), NewTopic("theirs", 1, 3)]))
    bindings = [
        allowed(WRITE, ResourceType.TOPIC, "mine"),
        allowed(READ, ResourceType.TOPIC, "mine"),
        allowed(READ, ResourceType.GROUP, "g"),
    ]
    done(admin.create_acls(bindings))
    alice = librdkafka(nodes, "SCRAM-SHA-256", user="alice")
    assert set(AdminClient(alice).list_topics(timeout=DEADLINE_S).topics) == {"mine"}
    producer = Producer({**alice, "message.timeout.ms": 30_000})
    assert outcome(producer, "mine") == 0
    assert outcome(producer, "theirs") == KafkaError.TOPIC_AUTHORIZATION_FAILED
    consumer = Consumer({**alice, "group.id": "g", "auto.offset.reset": "earliest"})
    try:
        consumer.subscribe(["mine"])
        wait_until(lambda: (message := consumer.poll(0.5)) and not message.error() and message.value())
    finally:
        consumer.close()
    mine = AclBindingFilter(
        ResourceType.TOPIC, "mine", ResourcePatternType.MATCH, "User:alice", None, WRITE, AclPermissionType.ANY
    )
    assert len(admin.describe_acls(mine).result(DEADLINE_S)) == 1
    [gone] = done(admin.delete_acls([mine]))
    assert gone == [bindings[0]]
    wait_until(lambda: outcome(producer, "mine") == KafkaError.TOPIC_AUTHORIZATION_FAILED)
    lines = [
        json.loads(line)
        for path in Path(nodes.data).glob("node-*/audit.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert {"refused", "changed"} <= {line["event"] for line in lines}
    assert any(line["principal"] == "User:alice" and line.get("resource") == "theirs" for line in lines)
