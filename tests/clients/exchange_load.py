"""What clients write into a cluster that is to become one of Apache Kafka, and what they must find there again."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import AcknowledgeType, Consumer, KafkaException, Producer, ShareConsumer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from kraft.client.response import Answer
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.messages.alter_client_quotas_request import (
    AlterClientQuotasRequestData,
    EntityData,
    EntryData,
    OpData,
)
from kraft.protocol.messages.describe_client_quotas_request import ComponentData, DescribeClientQuotasRequestData
from kraft.protocol.messages.init_producer_id_request import InitProducerIdRequestData
from kraft.protocol.messages.produce_request import PartitionProduceData, ProduceRequestData, TopicProduceData
from tests.clients.kafka_nodes import QUIET
from tests.integration.support.cluster import Cluster
from tests.integration.support.transactional import ask_at
from tests.integration.support.waiting import NotYet, wait_until

RECORDS = 4_000
VALUE = b"x" * 1_000
QUEUED = 100
OPEN_MS = 20_000
BINARY = "application/vnd.kafka.binary.v2+json"
READ_S = 300
DAY_MS = 86_400_000
ACL = AclBinding(
    ResourceType.TOPIC, "orders", ResourcePatternType.LITERAL, "User:alice", "*", AclOperation.READ,
    AclPermissionType.ALLOW,
)  # fmt: skip
QUOTA = 1_048_576.0
TOPICS = {"orders": 2, "compacted": 1, "timed": 1, "ledger": 1, "retries": 1}
SMALL = {"segment.bytes": "65536"}
GROUPS = {"readers": "classic", "modern": "consumer"}
"""Group -> its protocol; those of Kafka's clients."""

Records = list[tuple[int, bytes | None, bytes | None]]
Log = Mapping[tuple[str, int], Records]
"""(topic, partition) -> offset, key and value of each record that a reader of committed records gets."""


@dataclass
class Loaded:
    """What the clients know."""

    batch: bytes
    """The first one of an idempotent producer."""
    offset: int
    log: Log
    group_at: dict[str, int]
    open_at: int = -1
    """The offset of the one record of a transaction that is open."""
    accepted: set[bytes] = field(default_factory=set)
    released: set[bytes] = field(default_factory=set)
    """Values of the queue that a share group has handed back."""


def bootstrap_of(cluster: Cluster) -> str:
    return ",".join(node.kafka for node in cluster.nodes)


def load(cluster: Cluster) -> Loaded:
    """A node is killed in the middle; at the end a transaction is open, whose producer is gone."""
    bootstrap = bootstrap_of(cluster)
    admin = AdminClient({"bootstrap.servers": bootstrap, **QUIET})
    topics = [
        NewTopic("orders", 2, 3, config={"segment.bytes": str(1 << 20), "retention.ms": str(7 * DAY_MS)}),
        NewTopic("compacted", 1, 3, config={"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01", **SMALL}),
        NewTopic("timed", 1, 3, config={"retention.ms": str(3 * DAY_MS), **SMALL}),
        *(NewTopic(name, 1, 3) for name in ("ledger", "retries", "queue")),
    ]
    for done in admin.create_topics(topics).values():
        done.result(READ_S)
    produce(bootstrap, "orders", [VALUE] * (RECORDS // 2))
    cluster.kill(2)
    produce(bootstrap, "orders", [VALUE] * (RECORDS // 2))
    cluster.restart(2)
    transaction(bootstrap, "commits", b"committed").commit_transaction(READ_S)
    transaction(bootstrap, "aborts", b"aborted").abort_transaction(READ_S)
    group_at = {group: consume(bootstrap, group, RECORDS // 4, protocol=GROUPS[group]) for group in GROUPS}
    group_at["rest"] = commit_over_rest(cluster)
    secure(bootstrap, admin)
    batch = first_batch(bootstrap)
    error, offset = write_batch(bootstrap, batch)
    assert not error, error
    compact_and_retain(bootstrap)
    loaded = Loaded(batch, offset, {}, group_at)
    use_queue(bootstrap, admin, loaded)
    loaded.log = read(bootstrap, TOPICS)
    assert sum(len(loaded.log["orders", number]) for number in range(2)) == RECORDS
    transaction(bootstrap, "open", b"open")
    loaded.open_at = check_open(bootstrap)
    return loaded


def commit_over_rest(cluster: Cluster) -> int:
    """A REST consumer reads and commits, and stays; the offsets that are committed, all together."""

    def ask(method: str, path: str, document: Any = None) -> Any:
        found = cluster.send(1, method, f"/consumers/rest{path}", document, Accept=BINARY)
        assert isinstance(found, Answer), found
        assert found.is_success, found
        return found.json()

    ask("POST", "", {"name": "i", "format": "binary", "auto.offset.reset": "earliest", "auto.commit.enable": "false"})
    ask("POST", "/instances/i/subscription", {"topics": ["orders"]})
    wait_until(lambda: bool(ask("GET", "/instances/i/records")), deadline_s=READ_S, what="records for a REST consumer")
    ask("POST", "/instances/i/offsets")
    return committed_of(bootstrap_of(cluster), "rest")


def secure(bootstrap: str, admin: AdminClient) -> None:
    user = UserScramCredentialUpsertion("alice", ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096), b"secret")
    for done in admin.alter_user_scram_credentials([user]).values():
        done.result(READ_S)
    for made in admin.create_acls([ACL]).values():
        made.result(READ_S)
    entry = EntryData.make(
        entity=[EntityData.make(entity_type="user", entity_name="alice")],
        ops=[OpData.make(key="consumer_byte_rate", value=QUOTA, remove=False)],
    )
    answer = ask_at(bootstrap.split(",")[0], AlterClientQuotasRequestData.make(entries=[entry]), 1)
    assert [each.error_code for each in answer.entries] == [0], answer


def first_batch(bootstrap: str) -> bytes:
    given = ask_at(
        bootstrap.split(",")[0], InitProducerIdRequestData.make(transactional_id=None, transaction_timeout_ms=1_000), 4
    )
    return build_batch(
        [NewRecord(b"k", b"once", [], time.time_ns() // 1_000_000)],
        producer_id=given.producer_id,
        producer_epoch=given.producer_epoch,
        base_sequence=0,
    )


def compact_and_retain(bootstrap: str) -> None:
    """Until a part of both topics is gone."""
    values = [b"%d" % number + b"." * 90 for number in range(2_000)]
    produce(bootstrap, "compacted", values)
    old_ms = time.time_ns() // 1_000_000 - 10 * DAY_MS
    produce(bootstrap, "timed", values[:400], timestamp=old_ms)
    produce(bootstrap, "timed", values[:400])

    def are_smaller() -> bool:
        found = read(bootstrap, {"compacted": 1, "timed": 1})
        compacted, timed = found["compacted", 0], found["timed", 0]
        if len(compacted) == len(values) or timed[0][0] == 0:
            raise NotYet(f"{len(compacted)} of {len(values)} records, log start {timed[0][0]}")
        return True

    wait_until(are_smaller, deadline_s=READ_S, what="a compaction, and a deletion by time")


# --- clients --------------------------------------------------------------------------------------------------------


def read(bootstrap: str, topics: Mapping[str, int]) -> Log:
    """All committed records, up to the last stable offset of each log."""
    config = {"bootstrap.servers": bootstrap, "group.id": str(uuid.uuid4()), "isolation.level": "read_committed"}
    consumer = Consumer({**config, "enable.auto.commit": False, "auto.offset.reset": "earliest", **QUIET})
    found: dict[tuple[str, int], Records] = {}
    try:
        for topic, partitions in topics.items():
            for number in range(partitions):
                where = TopicPartition(topic, number, 0)
                end = end_of(consumer, where)
                records = found[topic, number] = []
                consumer.assign([where])

                def is_read(where: TopicPartition = where, end: int = end, records: Records = records) -> bool:
                    for message in consumer.consume(1_000, 1):
                        assert message.error() is None, message.error()
                        records.append((message.offset(), message.key(), message.value()))
                    (at,) = consumer.position([where])
                    if end and at.offset < end:
                        raise NotYet(f"{where.topic}-{where.partition}: at {at.offset} of {end}")
                    return True

                wait_until(is_read, deadline_s=READ_S, what="the end of the log")
    finally:
        consumer.close()
    return found


def end_of(consumer: Consumer, where: TopicPartition) -> int:
    """The end of what it may read, once the partition has a leader."""

    def end() -> tuple[int]:
        try:
            return (consumer.get_watermark_offsets(where, timeout=READ_S)[1],)
        except KafkaException as error:
            raise NotYet(str(error)) from error

    return wait_until(end, deadline_s=READ_S, what=f"the end of {where.topic}-{where.partition}")[0]


def produce(bootstrap: str, topic: str, values: list[bytes], *, timestamp: int = 0) -> None:
    """Idempotent; 50 keys. `timestamp`: 0 for now."""
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 20, **QUIET})
    failures: list[Any] = []
    for number, value in enumerate(values):
        producer.produce(
            topic,
            value,
            str(number % 50).encode(),
            on_delivery=lambda error, _: failures.append(error) if error else None,
            timestamp=timestamp,
        )
        if number % 100 == 0:
            producer.flush(READ_S)
    assert not producer.flush(READ_S)
    assert not failures, failures[:3]


def transaction(bootstrap: str, name: str, value: bytes) -> Producer:
    """A transaction that has written one record and is open."""
    config = {"bootstrap.servers": bootstrap, "transactional.id": name, "transaction.timeout.ms": OPEN_MS}
    producer = Producer({**config, **QUIET})
    producer.init_transactions(READ_S)
    producer.begin_transaction()
    producer.produce("ledger", value)
    assert not producer.flush(READ_S)
    return producer


def consume(bootstrap: str, group: str, count: int, *, protocol: str = "classic", topic: str = "orders") -> int:
    """A member takes records and commits; the offsets that are committed then, all together."""
    config = {"bootstrap.servers": bootstrap, "group.id": group, "group.protocol": protocol}
    consumer = Consumer({**config, "auto.offset.reset": "earliest", "enable.auto.commit": False, **QUIET})
    consumer.subscribe([topic])
    try:
        left = count

        def are_read() -> bool:
            nonlocal left
            for message in consumer.consume(left, 1):
                assert message.error() is None, message.error()
                left -= 1
            return left == 0

        wait_until(are_read, deadline_s=READ_S, what=f"{count} records of {topic}")
        consumer.commit(asynchronous=False)
        return _committed(consumer, topic)
    finally:
        consumer.close()


def _committed(consumer: Consumer, topic: str) -> int:
    places = consumer.committed([TopicPartition(topic, number) for number in range(2)], READ_S)
    return sum(max(place.offset, 0) for place in places)


def committed_of(bootstrap: str, group: str, *, topic: str = "orders") -> int:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, **QUIET})
    try:
        return _committed(consumer, topic)
    finally:
        consumer.close()


def write_batch(bootstrap: str, batch: bytes) -> tuple[int, int]:
    """Error code and base offset of a batch for retries-0, at its leader."""
    data = [TopicProduceData.make(name="retries", partition_data=[PartitionProduceData.make(index=0, records=batch)])]
    request = ProduceRequestData.make(acks=-1, timeout_ms=30_000, topic_data=data)

    def answer() -> Any:
        for address in bootstrap.split(","):
            try:
                found = ask_at(address, request, 11).responses[0].partition_responses[0]
            except OSError:
                continue
            if found.error_code not in (3, 6, 19):
                return found
        raise NotYet("retries-0 has no leader")

    found = wait_until(answer, deadline_s=READ_S, what="an answer of the leader")
    return found.error_code, found.base_offset


# --- the queue ------------------------------------------------------------------------------------------------------


def use_queue(bootstrap: str, admin: AdminClient, loaded: Loaded) -> None:
    """A share group accepts 30 of 100 records, hands 10 back, and leaves the others."""
    entry = ConfigEntry("share.auto.offset.reset", "earliest", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.GROUP, "workers", incremental_configs=[entry])
    for done in admin.incremental_alter_configs([resource]).values():
        done.result(READ_S)
    produce(bootstrap, "queue", [b"job %d" % number for number in range(QUEUED)])
    accept(bootstrap, loaded, 30, release=10)


def accept(bootstrap: str, loaded: Loaded, count: int, *, release: int = 0) -> None:
    """None of them may have been accepted before, and those that were handed back are known to be repeated."""
    with _member(bootstrap) as consumer:
        taken, given_back = 0, 0

        def are_taken() -> bool:
            nonlocal taken, given_back
            for message in consumer.poll(1.0):
                assert message.error() is None, message.error()
                value = message.value()
                assert value not in loaded.accepted, value
                if value in loaded.released:
                    assert message.delivery_count() > 1, value
                if given_back < release:
                    given_back += 1
                    loaded.released.add(value)
                    consumer.acknowledge(message, AcknowledgeType.RELEASE)
                elif taken < count and value not in loaded.released:
                    taken += 1
                    loaded.accepted.add(value)
                    consumer.acknowledge(message, AcknowledgeType.ACCEPT)
                else:
                    consumer.acknowledge(message, AcknowledgeType.RELEASE)
            consumer.commit_sync()
            if taken < count:
                raise NotYet(f"{taken} of {count}")
            return True

        wait_until(are_taken, deadline_s=READ_S, what=f"{count} records of the queue")


def accept_the_rest(bootstrap: str, loaded: Loaded) -> None:
    """All that nobody has accepted, once each."""
    with _member(bootstrap) as consumer:

        def are_taken() -> bool:
            for message in consumer.poll(1.0):
                assert message.error() is None, message.error()
                assert message.value() not in loaded.accepted, message.value()
                if message.value() in loaded.released:
                    assert message.delivery_count() > 1, message.value()
                loaded.accepted.add(message.value())
                consumer.acknowledge(message, AcknowledgeType.ACCEPT)
            consumer.commit_sync()
            if len(loaded.accepted) < QUEUED:
                raise NotYet(f"{len(loaded.accepted)} of {QUEUED}")
            return True

        wait_until(are_taken, deadline_s=READ_S, what="the rest of the queue")


@contextmanager
def _member(bootstrap: str) -> Iterator[Any]:
    config = {"bootstrap.servers": bootstrap, "group.id": "workers", "share.acknowledgement.mode": "explicit"}
    consumer = ShareConsumer({**config, **QUIET})
    consumer.subscribe(["queue"])
    try:
        yield consumer
    finally:
        consumer.close()


# --- checks ---------------------------------------------------------------------------------------------------------


def check(bootstrap: str, loaded: Loaded) -> None:
    """Records are at their offsets, groups where they were, and a retry of the producer is recognised."""
    found = read(bootstrap, TOPICS)
    for place, records in found.items():
        if place[0] == "compacted":
            check_compacted(loaded.log[place], records)
        else:
            assert records == loaded.log[place], place
    assert {group: committed_of(bootstrap, group) for group in loaded.group_at} == loaded.group_at
    assert write_batch(bootstrap, loaded.batch) == (0, loaded.offset)
    check_security(bootstrap)


def check_compacted(before: Records, after: Records) -> None:
    """Of each key the last record is there, at its offset, and nothing else than what was there."""
    assert set(after) <= set(before)
    last = {key: (offset, value) for offset, key, value in before}
    assert {key: (offset, value) for offset, key, value in after} == last


def check_security(bootstrap: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap, **QUIET})
    described = admin.describe_user_scram_credentials(["alice"])["alice"].result(READ_S)
    assert [info.mechanism for info in described.scram_credential_infos] == [ScramMechanism.SCRAM_SHA_256]
    anything = AclBindingFilter(
        ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
    )
    assert admin.describe_acls(anything).result(READ_S) == [ACL]
    asked = [ComponentData.make(entity_type="user", match_type=0, match="alice")]
    answer = ask_at(bootstrap.split(",")[0], DescribeClientQuotasRequestData.make(components=asked, strict=True), 1)
    (entry,) = answer.entries
    assert [(each.key, each.value) for each in entry.values] == [("consumer_byte_rate", QUOTA)]


def ends(bootstrap: str, topic: str = "ledger") -> tuple[int, int]:
    """The last stable offset of its partition 0, and its high watermark."""
    found = []
    for level in ("read_committed", "read_uncommitted"):
        consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "ends", "isolation.level": level, **QUIET})
        try:
            found.append(end_of(consumer, TopicPartition(topic, 0)))
        finally:
            consumer.close()
    stable, high = found
    return stable, high


def check_open(bootstrap: str) -> int:
    """The ledger has one open transaction, whose record is the last; gives its offset."""
    stable, high = ends(bootstrap)
    assert high == stable + 1, (stable, high)
    return stable


def check_aborted(bootstrap: str, at: int) -> None:
    """The transaction that was open at this offset is aborted when its timeout is over, by one marker."""

    def is_settled() -> bool:
        found = ends(bootstrap)
        if found != (at + 2, at + 2):
            raise NotYet(f"last stable offset and high watermark: {found}")
        return True

    wait_until(is_settled, deadline_s=READ_S, what="the end of the open transaction")
    assert [value for _, _, value in read(bootstrap, {"ledger": 1})["ledger", 0]] == [b"committed"]
