"""The same data here, under Apache Kafka, here again, and once more round, with the same clients on the same addresses.

Needs Java 17, and `mvn` once for the jars; KRAFT_KAFKA_CACHE is the folder where they are kept.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.clients.exchange_load import (
    GROUPS,
    READ_S,
    RECORDS,
    TOPICS,
    Loaded,
    accept,
    accept_the_rest,
    bootstrap_of,
    check,
    check_aborted,
    committed_of,
    consume,
    end_of,
    load,
    produce,
    read,
    transaction,
    write_batch,
)
from tests.clients.java.__main__ import fetch
from tests.clients.kafka_nodes import JAVA, NODES, QUIET, START_S, KafkaNodes, fetch_jars, run_tool
from tests.integration.conftest import run_cluster
from tests.integration.support.cluster import Cluster, kraft
from tests.integration.support.configuration import REPLICATED
from tests.integration.support.waiting import NotYet, wait_until

SETTINGS = {
    **REPLICATED,
    "offsets.topic.num.partitions": 4,
    "transaction.state.log.num.partitions": 4,
    "share.coordinator.state.topic.num.partitions": 4,
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1_000,
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
    "group.initial.rebalance.delay.ms": 0,
    "log.cleaner.backoff.ms": 1_000,
    "log.retention.check.interval.ms": 1_000,
}
ROUNDS = (("3.9.1", "4.4.0"), ("4.1.0", "3.9.1"), ("4.4.0", "4.4.0"))
"""The Kafka that goes on first, and the one of the second round. From 4.1 to 3.9: offsets with ids of topics."""
SHARES_SINCE = "4.2"
SHELL_MAX = "4.3.1"
"""The newest kafka-metadata-shell on Maven Central."""
TEST_S = 3_000
CACHE = Path(os.environ.get("KRAFT_KAFKA_CACHE", str(Path.home() / ".cache/kraft")))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(TEST_S),
    pytest.mark.skipif(JAVA is None, reason="Java is needed to run Apache Kafka"),
]


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Cluster]:
    yield from run_cluster(tmp_path, settings=SETTINGS)


@pytest.mark.parametrize(("release", "then"), ROUNDS)
def test_kafka_goes_on_and_so_does_this_cluster_after_it(
    source: Cluster, tmp_path: Path, release: str, then: str
) -> None:
    loaded = load(source)
    bootstrap, data = bootstrap_of(source), Path(source.data)
    refused("runs (nodes 1, 2, 3); stop it", "export", "kafka", "--data", str(data), "--to", str(tmp_path / "kafka"))
    source.stop_all()
    assert has_open_transaction(data)
    before = sums(data)
    listed = kraft("export", "kafka", "--data", str(data), "--to", str(tmp_path / "kafka"), "--dry-run").stdout
    assert "- REST consumers (rest/i): Kafka has no REST; their committed offsets come along" in listed
    assert not (tmp_path / "kafka").exists()
    kafka = exported(data, tmp_path / "kafka", release)
    check_tools(kafka, release)
    of_shell = kafka if release != "4.4.0" else exported(data, tmp_path / "for-the-shell", SHELL_MAX)
    check_shell(of_shell, min(release, SHELL_MAX))
    with running(kafka, bootstrap):
        check(bootstrap, loaded)
        check_aborted(bootstrap, loaded.open_at)
        go_on(kafka, bootstrap, loaded, release)
        refused("node 1 runs", "import", "kafka", *folders_of(kafka), "--data", str(tmp_path / "back"))
    assert sums(data) == before

    of_kafka = sums(kafka.folder)
    back = imported(kafka, tmp_path / "back")
    assert sums(kafka.folder) == of_kafka
    with started(back):
        check(bootstrap, loaded)
        if has_shares(release):
            accept_the_rest(bootstrap, loaded)
        go_on_here(bootstrap, loaded)

    again = exported(Path(back.data), tmp_path / "once-more", then)
    with running(again, bootstrap):
        check(bootstrap, loaded)
        for group in GROUPS:
            loaded.group_at[group] = consume(bootstrap, group, 100)
        transaction(bootstrap, "commits", b"once more").commit_transaction(READ_S)
        loaded.log = read(bootstrap, TOPICS)
    with started(imported(again, tmp_path / "back-again")):
        check(bootstrap, loaded)
        go_on_here(bootstrap, loaded)


@contextmanager
def running(kafka: KafkaNodes, bootstrap: str) -> Iterator[None]:
    """The three nodes of Kafka, until they are stopped in order."""
    try:
        kafka.start()
        kafka.wait_until_ready(bootstrap)
        yield
    finally:
        kafka.stop()


@contextmanager
def started(cluster: Cluster) -> Iterator[None]:
    """This cluster on the ports that it has, until it is stopped in order."""
    try:
        cluster.start(free_ports=False)
        yield
        cluster.stop_all()
    finally:
        cluster.destroy()


def go_on_here(bootstrap: str, loaded: Loaded) -> None:
    """Each group is where it was and reads on, and the producers write."""
    for group, protocol in GROUPS.items():
        at = consume(bootstrap, group, 200, protocol=protocol)
        assert at == loaded.group_at[group] + 200
        loaded.group_at[group] = at
    produce(bootstrap, "orders", [b"here"] * 100)
    transaction(bootstrap, "commits", b"here").commit_transaction(READ_S)
    loaded.log = read(bootstrap, TOPICS)


def refused(problem: str, *arguments: str) -> None:
    """In a sentence, with exit code 1."""
    done = kraft(*arguments, check=False)
    assert (done.returncode, problem in " ".join(done.stderr.split())) == (1, True), done
    assert "Traceback" not in done.stderr


def has_open_transaction(data: Path) -> bool:
    """Whether the ledger ends with records of a transaction, and no marker."""
    rows = [
        json.loads(line)
        for line in kraft("log", "dump", "--json", str(data / "node-1/logs/ledger-0")).stdout.splitlines()
    ]
    last = [row for row in rows if row["kind"] == "batch"][-1]
    return bool(last["is_transactional"]) and not last["is_control"]


def test_a_secured_cluster_starts_under_kafka_as_it_is_written(tmp_path: Path) -> None:
    """TLS, logins and ACLs: Kafka's nodes log in as the administrator, who goes on with the same files."""
    data = tmp_path / "data"
    kraft("up", "--secure", "--free-ports", "--detach", "--data", str(data))
    try:
        lines = (data / "client/librdkafka.conf").read_text().splitlines()
        login = dict(line.split("=", 1) for line in lines)
        admin = AdminClient({**login, **QUIET})
        for done in admin.create_topics([NewTopic("orders", 2, 3)]).values():
            done.result(READ_S)
        write_as(login, 100)
    finally:
        kraft("down", "--data", str(data))
    before = sums(data)
    release = "4.1.0"
    kraft("export", "kafka", "--data", str(data), "--to", str(tmp_path / "kafka"), "--kafka", release)
    kafka = KafkaNodes(jars=fetch(release, CACHE), folder=tmp_path / "kafka")
    try:
        kafka.start()
        kafka.wait_until_ready(login["bootstrap.servers"], **login)
        write_as(login, 50)
        consumer = Consumer({**login, "group.id": "g", **QUIET})
        ends = [end_of(consumer, TopicPartition("orders", number)) for number in range(2)]
        consumer.close()
        assert sum(ends) == 150
        with pytest.raises(KafkaException):
            AdminClient({**login, "sasl.password": "wrong", **QUIET}).list_topics(timeout=10)
    finally:
        kafka.stop()
    assert sums(data) == before


def write_as(login: dict[str, str], count: int) -> None:
    producer = Producer({**login, "enable.idempotence": True, **QUIET})
    for number in range(count):
        producer.produce("orders", b"%d" % number)
    assert not producer.flush(READ_S)


def exported(data: Path, folder: Path, release: str) -> KafkaNodes:
    kraft("export", "kafka", "--data", str(data), "--to", str(folder), "--kafka", release)
    linked = [path for path in folder.rglob("*.log") if path.stat().st_nlink > 1]
    assert len(linked) >= 6, linked
    for node in NODES:
        assert "compacted 0 " in (folder / f"node-{node}/logs/cleaner-offset-checkpoint").read_text()
    return KafkaNodes(jars=fetch(release, CACHE), folder=folder)


def folders_of(kafka: KafkaNodes) -> list[str]:
    return [argument for node in NODES for argument in ("--from", str(kafka.folder / f"node-{node}"))]


def imported(kafka: KafkaNodes, data: Path) -> Cluster:
    kraft("import", "kafka", *folders_of(kafka), "--data", str(data))
    config = data / "cluster.toml"
    lines = ["", "[settings]", *(f'"{name}" = {value!r}' for name, value in SETTINGS.items())]
    config.write_text(config.read_text() + "\n".join(lines).replace("'", '"') + "\n")
    return Cluster(data=str(data), config=str(config))


def check_tools(kafka: KafkaNodes, release: str) -> None:
    """Kafka's decoder takes the snapshot."""
    snapshot = snapshot_of(kafka)
    dump = "kafka.tools.DumpLogSegments" if release < "4.4" else "org.apache.kafka.tools.DumpLogSegments"
    dumped = kafka.tool(dump, "--cluster-metadata-decoder", "--files", str(snapshot))
    for kind in ("FEATURE_LEVEL_RECORD", "ACCESS_CONTROL_ENTRY_RECORD", "CLIENT_QUOTA_RECORD", "USER_SCRAM"):
        assert kind in dumped, kind


def check_shell(kafka: KafkaNodes, release: str) -> None:
    """On a busy machine the shell sometimes runs its command before it has read the snapshot, and prints nothing."""
    shell = fetch_jars("kafka-shell", release, CACHE)
    names = ("--snapshot", str(snapshot_of(kafka)), "ls", "image/topics/byName")

    def names_of_topics() -> list[str]:
        if not (found := run_tool(shell, "org.apache.kafka.shell.MetadataShell", *names).split()):
            raise NotYet("nothing was printed")
        return found

    listed = wait_until(names_of_topics, deadline_s=START_S, what="names of topics from kafka-metadata-shell")
    assert set(listed) >= {"orders", "compacted", "timed", "queue", "__consumer_offsets", "__transaction_state"}
    assert ("__share_group_state" in listed) is has_shares(release)


def snapshot_of(kafka: KafkaNodes) -> Path:
    (snapshot,) = (kafka.folder / "node-1/logs/__cluster_metadata-0").glob("*.checkpoint")
    return snapshot


def go_on(kafka: KafkaNodes, bootstrap: str, loaded: Loaded, release: str) -> None:
    """Clients go on, and a node is killed between them."""
    for group, protocol in GROUPS.items():
        at = consume(bootstrap, group, 500, protocol=protocol if release >= "4" else "classic")
        assert at == loaded.group_at[group] + 500
        loaded.group_at[group] = at
    if has_shares(release):
        accept(bootstrap, loaded, 30)
    kafka.kill(2)
    produce(bootstrap, "orders", [b"kafka"] * 500)
    transaction(bootstrap, "commits", b"kafka").commit_transaction(READ_S)
    kafka.start(2)
    kafka.wait_until_ready(bootstrap)
    loaded.log = read(bootstrap, TOPICS)
    assert sum(len(records) for (topic, _), records in loaded.log.items() if topic == "orders") == RECORDS + 500
    assert {group: committed_of(bootstrap, group) for group in loaded.group_at} == loaded.group_at
    assert write_batch(bootstrap, loaded.batch) == (0, loaded.offset)
    listed = kafka.tool("org.apache.kafka.tools.LogDirsCommand", "--bootstrap-server", bootstrap, "--describe")
    assert "orders-0" in listed
    assert '"error":null' in listed.replace(" ", "")


def has_shares(release: str) -> bool:
    return release >= SHARES_SINCE


def sums(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
