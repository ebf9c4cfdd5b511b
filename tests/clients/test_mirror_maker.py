"""MirrorMaker 2 between a cluster here and Apache Kafka, in both directions, with the offsets of groups translated.

Needs Java 17, and `mvn` once for the jars; KRAFT_KAFKA_CACHE is the folder where they are kept.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from kraft.protocol.messages.describe_client_quotas_request import DescribeClientQuotasRequestData
from tests.clients.exchange_load import ACL, READ_S, bootstrap_of, committed_of, consume, produce, read, secure
from tests.clients.java.__main__ import fetch
from tests.clients.kafka_nodes import JAVA, QUIET, KafkaNodes, fetch_jars
from tests.clients.record_kafka import one_node
from tests.integration.conftest import run_cluster
from tests.integration.support.cluster import Cluster
from tests.integration.support.transactional import ask_at
from tests.integration.support.waiting import NotYet, wait_until

RELEASE = "4.1.0"
RECORDS = 1_000
TEST_S = 1_200
MIRRORED_S = 300
CACHE = Path(os.environ.get("KRAFT_KAFKA_CACHE", str(Path.home() / ".cache/kraft")))
RETENTION_MS = "123456789"
RESOURCE_NOT_FOUND = 91
PROPERTIES = """clusters = kraft, kafka
kraft.bootstrap.servers = {kraft}
kafka.bootstrap.servers = {kafka}
kraft->kafka.enabled = true
kraft->kafka.topics = orders
kafka->kraft.enabled = true
kafka->kraft.topics = invoices
groups = .*
replication.policy.class = org.apache.kafka.connect.mirror.IdentityReplicationPolicy
sync.group.offsets.enabled = true
kraft.consumer.isolation.level = read_committed
kafka.consumer.isolation.level = read_committed
emit.checkpoints.interval.seconds = 5
sync.group.offsets.interval.seconds = 5
refresh.topics.interval.seconds = 10
refresh.groups.interval.seconds = 10
sync.topic.configs.interval.seconds = 10
sync.topic.acls.interval.seconds = 10
replication.factor = 1
offset-syncs.topic.replication.factor = 1
checkpoints.topic.replication.factor = 1
heartbeats.topic.replication.factor = 1
config.storage.replication.factor = 1
offset.storage.replication.factor = 1
status.storage.replication.factor = 1
"""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(TEST_S),
    pytest.mark.skipif(JAVA is None, reason="Java is needed to run Apache Kafka"),
]


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Cluster]:
    yield from run_cluster(
        tmp_path,
        settings={
            "default.replication.factor": 3,
            "group.initial.rebalance.delay.ms": 0,
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        },
    )


@contextmanager
def mirroring(kraft: str, kafka: str, folder: Path) -> Iterator[None]:
    jars = fetch_jars("connect-mirror", RELEASE, CACHE, "connect-runtime")
    properties = folder / "mm2.properties"
    properties.write_text(PROPERTIES.format(kraft=kraft, kafka=kafka))
    command = [str(JAVA), "-Xmx512m", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
    command += ["-cp", f"{jars}/*", "org.apache.kafka.connect.mirror.MirrorMaker", str(properties)]
    with (folder / "mm2.out").open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def test_both_directions(ours: Cluster, tmp_path: Path) -> None:
    kafka = KafkaNodes(jars=fetch(RELEASE, CACHE), folder=tmp_path / "kafka")
    kafka.folder.mkdir()
    with one_node(kafka) as theirs:
        here = bootstrap_of(ours)
        fill(here, "orders")
        fill(theirs, "invoices")
        secure(here, AdminClient({"bootstrap.servers": here, **QUIET}))
        with mirroring(here, theirs, tmp_path):
            check(here, theirs, "orders")
            check(theirs, here, "invoices")
            check_security(theirs)
            check_failover(here, theirs, "orders")
            check_failover(theirs, here, "invoices")


def fill(bootstrap: str, topic: str) -> None:
    """Records before and after a transaction that was aborted, and a group in the middle."""
    admin = AdminClient({"bootstrap.servers": bootstrap, **QUIET})
    for done in admin.create_topics([NewTopic(topic, 2, 1, config={"retention.ms": RETENTION_MS})]).values():
        done.result(READ_S)
    values = [b"%s %d" % (topic.encode(), number) for number in range(RECORDS)]
    produce(bootstrap, topic, values[: RECORDS // 2])
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": f"aborts-{topic}", **QUIET})
    producer.init_transactions(READ_S)
    producer.begin_transaction()
    producer.produce(topic, b"aborted", b"0")
    assert not producer.flush(READ_S)
    producer.abort_transaction(READ_S)
    produce(bootstrap, topic, values[RECORDS // 2 :])
    consume(bootstrap, f"readers-{topic}", RECORDS // 2, topic=topic)


def check(source: str, target: str, topic: str) -> None:
    """All committed records in their order, at other offsets; the group is not ahead, and nothing is left out."""
    group = f"readers-{topic}"
    before = read(source, {topic: 2})

    def is_there() -> bool:
        admin = AdminClient({"bootstrap.servers": target, **QUIET})
        if topic not in admin.list_topics(timeout=10).topics:
            raise NotYet("no topic")
        count = sum(map(len, read(target, {topic: 2}).values()))
        if count < RECORDS:
            raise NotYet(f"{count} of {RECORDS} records")
        return True

    wait_until(is_there, deadline_s=MIRRORED_S, what=f"{topic} at the other cluster")
    after = read(target, {topic: 2})
    for place, records in before.items():
        assert [(key, value) for _, key, value in after[place]] == [(key, value) for _, key, value in records]
    moved = [(one[0], other[0]) for place in before for one, other in zip(before[place], after[place], strict=True)]
    assert any(one != other for one, other in moved)  # markers and aborted records are not there

    def is_translated() -> bool:
        if not committed_of(target, group, topic=topic):
            raise NotYet("the group is not there")
        return True

    wait_until(is_translated, deadline_s=MIRRORED_S, what=f"the offsets of {group}")
    check_group(source, target, topic, group)
    admin = AdminClient({"bootstrap.servers": target, **QUIET})
    described = admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)])
    (config,) = [done.result(READ_S) for done in described.values()]
    assert config["retention.ms"].value == RETENTION_MS


def places_of(bootstrap: str, group: str, topic: str) -> list[int]:
    """The committed offset of each partition; 0 for none."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, **QUIET})
    try:
        found = consumer.committed([TopicPartition(topic, number) for number in range(2)], READ_S)
        return [max(place.offset, 0) for place in found]
    finally:
        consumer.close()


def check_group(source: str, target: str, topic: str, group: str) -> None:
    """Its place at the target, as a count of records, is not beyond its place at the source."""
    done = []
    for bootstrap in (source, target):
        log, places = read(bootstrap, {topic: 2}), places_of(bootstrap, group, topic)
        done.append([sum(offset < at for offset, _, _ in log[topic, number]) for number, at in enumerate(places)])
    lags = [here - there for here, there in zip(*done, strict=True)]
    print(f"{topic}: the group is {lags} records behind its place at the source")
    assert all(lag >= 0 for lag in lags), lags


def check_security(target: str) -> None:
    """The ACL of the topic is there; the user and the quota are not."""
    admin = AdminClient({"bootstrap.servers": target, **QUIET})
    anything = AclBindingFilter(
        ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
    )

    def is_there() -> bool:
        if (found := admin.describe_acls(anything).result(READ_S)) != [ACL]:
            raise NotYet(f"{found}")
        return True

    wait_until(is_there, deadline_s=MIRRORED_S, what="the ACL at the other cluster")
    with pytest.raises(KafkaException) as refused:
        admin.describe_user_scram_credentials(["alice"])["alice"].result(READ_S)
    assert refused.value.args[0].code() == RESOURCE_NOT_FOUND, refused.value
    assert not ask_at(target, DescribeClientQuotasRequestData.make(components=[], strict=False), 1).entries


def check_failover(source: str, target: str, topic: str) -> None:
    """A member goes on at the target, and reads all that the group had not read, written later or not."""
    group = f"readers-{topic}"
    produce(source, topic, [b"late %d" % number for number in range(100)])
    places = places_of(source, group, topic)
    left = {
        value for number, at in enumerate(places) for offset, _, value in read(source, {topic: 2})[topic, number]
        if offset >= at
    }  # fmt: skip
    assert len(left) == RECORDS // 2 + 100
    config = {"bootstrap.servers": target, "group.id": group, "auto.offset.reset": "earliest", **QUIET}
    consumer = Consumer(config)
    consumer.subscribe([topic])
    try:

        def are_read() -> bool:
            for message in consumer.consume(1_000, 1):
                assert message.error() is None, message.error()
                left.discard(message.value())
            if left:
                raise NotYet(f"{len(left)} records, such as {min(left)!r}")
            return True

        wait_until(are_read, deadline_s=MIRRORED_S, what="what the group has left")
    finally:
        consumer.close()
