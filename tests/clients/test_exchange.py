"""The same data here, under Apache Kafka, and here again, with the same clients on the same addresses.

Needs Java 17, and `mvn` once for the jars; KRAFT_KAFKA_CACHE is the folder where they are kept.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.messages.init_producer_id_request import InitProducerIdRequestData
from kraft.protocol.messages.produce_request import PartitionProduceData, ProduceRequestData, TopicProduceData
from tests.clients.java.__main__ import fetch
from tests.integration.conftest import run_cluster
from tests.integration.support.cluster import Cluster, kraft
from tests.integration.support.configuration import REPLICATED
from tests.integration.support.transactional import ask_at
from tests.integration.support.waiting import NotYet, wait_until

SETTINGS = {
    **REPLICATED,
    "offsets.topic.num.partitions": 4,
    "transaction.state.log.num.partitions": 4,
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1_000,
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
    "group.initial.rebalance.delay.ms": 0,
}
RELEASES = ("3.9.1", "4.1.0", "4.4.0")
RECORDS = 4_000
VALUE = b"x" * 1_000
OPEN_MS = 20_000
START_S = 120
READ_S = 60
ACL = AclBinding(
    ResourceType.TOPIC, "orders", ResourcePatternType.LITERAL, "User:alice", "*", AclOperation.READ,
    AclPermissionType.ALLOW,
)  # fmt: skip
JAVA = shutil.which("java")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(JAVA is None, reason="Java is needed to run Apache Kafka")]

Log = Mapping[tuple[str, int], list[tuple[int, bytes | None, bytes | None]]]
"""(topic, partition) -> offset, key and value of each record that a reader of committed records gets."""


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Cluster]:
    yield from run_cluster(tmp_path, settings=SETTINGS)


@dataclass
class Kafka:
    """Three nodes of Apache Kafka on exported folders."""

    jars: Path
    folder: Path
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, node: int) -> None:
        folder = self.folder / f"node-{node}"
        command = [str(JAVA), "-Xmx320m", "-Xms96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        command += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{self.jars}/*", "kafka.Kafka"]
        with (folder / "kafka.out").open("ab") as out:
            self.processes[node] = subprocess.Popen([*command, f"{folder}/server.properties"], stdout=out, stderr=out)

    def kill(self, node: int) -> None:
        self.processes[node].kill()
        self.processes.pop(node).wait()

    def stop(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            process.wait(START_S)
        self.processes.clear()

    def tool(self, name: str, *arguments: str) -> str:
        command = [str(JAVA), "-Xmx200m", "-XX:TieredStopAtLevel=1", "-cp", f"{self.jars}/*", name, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_S, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@dataclass
class Loaded:
    """What the clients know."""

    producer_id: int
    epoch: int
    batch: bytes
    offset: int
    group_at: int
    log: Log


def read(bootstrap: str, topics: Mapping[str, int]) -> Log:
    """All committed records, up to the end of each log."""
    config = {"bootstrap.servers": bootstrap, "group.id": str(uuid.uuid4()), "isolation.level": "read_committed"}
    consumer = Consumer({**config, "enable.auto.commit": False, "auto.offset.reset": "earliest"})
    found: dict[tuple[str, int], list[tuple[int, bytes | None, bytes | None]]] = {}
    try:
        for topic, partitions in topics.items():
            for number in range(partitions):
                where = TopicPartition(topic, number, 0)
                _, end = consumer.get_watermark_offsets(where, timeout=READ_S)
                records = found[topic, number] = []
                consumer.assign([where])

                def is_read(where: TopicPartition = where, end: int = end, records: list[Any] = records) -> bool:
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


def bootstrap_of(cluster: Cluster) -> str:
    return ",".join(node.kafka for node in cluster.nodes)


def produce(bootstrap: str, topic: str, values: list[bytes], *, key: bytes | None = None, **config: Any) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 20, **config})
    failures: list[Any] = []
    for number, value in enumerate(values):
        producer.produce(
            topic,
            value,
            key or str(number % 50).encode(),
            on_delivery=lambda error, _: failures.append(error) if error else None,
        )
        if number % 200 == 0:
            producer.poll(0)
    assert not producer.flush(READ_S)
    assert not failures, failures[:3]


def transaction(bootstrap: str, name: str, value: bytes) -> Producer:
    """A transaction that has written one record and is open."""
    config = {"bootstrap.servers": bootstrap, "transactional.id": name, "transaction.timeout.ms": OPEN_MS}
    producer = Producer(config)
    producer.init_transactions(READ_S)
    producer.begin_transaction()
    producer.produce("ledger", value)
    assert not producer.flush(READ_S)
    return producer


def consume(bootstrap: str, group: str, count: int) -> int:
    """Members take records of orders and commit; the offsets that are committed then, all together."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe(["orders"])
    try:
        left = count

        def are_read() -> bool:
            nonlocal left
            for message in consumer.consume(left, 1):
                assert message.error() is None, message.error()
                left -= 1
            return left == 0

        wait_until(are_read, deadline_s=READ_S, what=f"{count} records of orders")
        consumer.commit(asynchronous=False)
        return committed(consumer)
    finally:
        consumer.close()


def committed(consumer: Consumer) -> int:
    places = consumer.committed([TopicPartition("orders", number) for number in range(2)], READ_S)
    return sum(max(place.offset, 0) for place in places)


def committed_of(bootstrap: str, group: str) -> int:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    try:
        return committed(consumer)
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


TOPICS = {"orders": 2, "compacted": 1, "ledger": 1, "retries": 1}


def load(cluster: Cluster) -> Loaded:
    bootstrap = bootstrap_of(cluster)
    admin = AdminClient({"bootstrap.servers": bootstrap})
    topics = [
        NewTopic("orders", 2, 3, config={"segment.bytes": str(1 << 20), "retention.ms": str(7 * 86_400_000)}),
        NewTopic("compacted", 1, 3, config={"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01"}),
        NewTopic("ledger", 1, 3),
        NewTopic("retries", 1, 3),
    ]
    for done in admin.create_topics(topics).values():
        done.result(READ_S)
    produce(bootstrap, "orders", [VALUE] * (RECORDS // 2))
    cluster.kill(2)
    produce(bootstrap, "orders", [VALUE] * (RECORDS // 2))
    cluster.restart(2)
    produce(bootstrap, "compacted", [b"%d" % number for number in range(2_000)])
    transaction(bootstrap, "commits", b"committed").commit_transaction(READ_S)
    transaction(bootstrap, "aborts", b"aborted").abort_transaction(READ_S)
    group_at = consume(bootstrap, "readers", RECORDS // 4)
    user = UserScramCredentialUpsertion("alice", ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096), b"secret")
    for done in admin.alter_user_scram_credentials([user]).values():
        done.result(READ_S)
    for made in admin.create_acls([ACL]).values():
        made.result(READ_S)
    init = InitProducerIdRequestData.make(transactional_id=None, transaction_timeout_ms=1_000)
    given = ask_at(bootstrap.split(",")[0], init, 4)
    batch = build_batch(
        [NewRecord(b"k", b"once", [], time.time_ns() // 1_000_000)],
        producer_id=given.producer_id,
        producer_epoch=given.producer_epoch,
        base_sequence=0,
    )
    error, offset = write_batch(bootstrap, batch)
    assert not error, error
    log = read(bootstrap, TOPICS)
    assert sum(len(log["orders", number]) for number in range(2)) == RECORDS
    return Loaded(given.producer_id, given.producer_epoch, batch, offset, group_at, log)


def check(bootstrap: str, loaded: Loaded) -> None:
    """The records are at their offsets, the group is where it was, and a retry of the producer is recognised."""
    assert read(bootstrap, {name: TOPICS[name] for name in ("orders", "compacted", "retries")}) == {
        place: records for place, records in loaded.log.items() if place[0] != "ledger"
    }
    assert committed_of(bootstrap, "readers") == loaded.group_at
    assert write_batch(bootstrap, loaded.batch) == (0, loaded.offset)
    admin = AdminClient({"bootstrap.servers": bootstrap})
    described = admin.describe_user_scram_credentials(["alice"])["alice"].result(READ_S)
    assert [info.mechanism for info in described.scram_credential_infos] == [ScramMechanism.SCRAM_SHA_256]
    anything = AclBindingFilter(
        ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
    )
    assert admin.describe_acls(anything).result(READ_S) == [ACL]


def settled(bootstrap: str) -> list[bytes | None]:
    """Values of the ledger once nothing in it is open."""
    return [value for _, _, value in read(bootstrap, {"ledger": 1})["ledger", 0]]


def sums(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def ready(bootstrap: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})

    def all_are_led() -> bool:
        try:
            found = admin.list_topics(timeout=10)
        except KafkaException as error:
            raise NotYet(str(error)) from error
        partitions = [each for topic in found.topics.values() for each in topic.partitions.values()]
        if (
            len(found.brokers) < 3
            or not partitions
            or any(each.leader < 0 or len(each.isrs) < 3 for each in partitions)
        ):
            raise NotYet(f"{len(found.brokers)} brokers, {[each.isrs for each in partitions][:4]}")
        return True

    wait_until(all_are_led, deadline_s=START_S, what="three brokers of Kafka with all replicas in sync")


@pytest.mark.parametrize("release", RELEASES)
def test_kafka_goes_on_and_so_does_this_cluster_after_it(source: Cluster, tmp_path: Path, release: str) -> None:
    loaded = load(source)
    bootstrap, data = bootstrap_of(source), Path(source.data)
    transaction(bootstrap, "open", b"open")  # and its producer is gone
    source.stop_all()
    before = sums(data)
    cache = Path(os.environ.get("KRAFT_KAFKA_CACHE", str(Path.home() / ".cache/kraft")))
    kafka = Kafka(jars=fetch(release, cache), folder=tmp_path / "kafka")
    kraft("export", "kafka", "--data", str(data), "--to", str(kafka.folder), "--kafka", release)
    linked = [path for path in kafka.folder.rglob("*.log") if path.stat().st_nlink > 1]
    assert len(linked) >= 6, linked
    try:
        for node in (1, 2, 3):
            kafka.start(node)
        ready(bootstrap)
        check(bootstrap, loaded)
        assert settled(bootstrap) == [b"committed"]
        assert consume(bootstrap, "readers", 500) == loaded.group_at + 500
        kafka.kill(2)
        produce(bootstrap, "orders", [b"kafka"] * 500)
        kafka.start(2)
        ready(bootstrap)
        assert sum(len(records) for place, records in read(bootstrap, {"orders": 2}).items()) == RECORDS + 500
        listed = kafka.tool("org.apache.kafka.tools.LogDirsCommand", "--bootstrap-server", bootstrap, "--describe")
        assert "orders-0" in listed
        after = read(bootstrap, TOPICS)
    finally:
        kafka.stop()
    (snapshot,) = (kafka.folder / "node-1/logs/__cluster_metadata-0").glob("*.checkpoint")
    dump = "kafka.tools.DumpLogSegments" if release < "4.4" else "org.apache.kafka.tools.DumpLogSegments"
    dumped = kafka.tool(dump, "--cluster-metadata-decoder", "--files", str(snapshot))
    assert "FEATURE_LEVEL_RECORD" in dumped
    assert sums(data) == before

    back = tmp_path / "back"
    folders = [argument for node in (1, 2, 3) for argument in ("--from", str(kafka.folder / f"node-{node}"))]
    kraft("import", "kafka", *folders, "--data", str(back))
    again = Cluster(data=str(back), config=str(back / "cluster.toml"))
    try:
        again.start(free_ports=False)
        assert read(bootstrap_of(again), TOPICS) == after
        assert committed_of(bootstrap_of(again), "readers") == loaded.group_at + 500
        assert write_batch(bootstrap_of(again), loaded.batch) == (0, loaded.offset)
        produce(bootstrap_of(again), "orders", [b"here"] * 100)
        again.stop_all()
    finally:
        again.destroy()
    kraft("export", "kafka", "--data", str(back), "--to", str(tmp_path / "once-more"), "--dry-run")
