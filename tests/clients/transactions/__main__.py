"""Transactions of Java: Kafka's own copier and Streams (exactly_once_v2) while brokers are killed, and its tools.

    python -m tests.clients.transactions [--kafka 4.3.1] [--cache FOLDER] [--only NAME ...] [--records 20000]

Needs Java 17 and `mvn`, which fetches the tools and Streams from Maven Central once. It kills nodes with -9, so they
are always its own. Every record of the input has to be in the output once, and every word counted once.
"""

from __future__ import annotations

import re
import struct
import subprocess
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import confluent_kafka
import pytest
from confluent_kafka import KafkaException

from kraft.client.response import Answer
from kraft.coordinators.java import abs_hash
from tests.clients.exactly_once import (
    DEADLINE_S,
    PARTITIONS,
    committed_pairs,
    committed_values,
    difference,
    killing,
    write,
)
from tests.clients.java.__main__ import fetch as fetch_tools
from tests.clients.scripts import SETTINGS, Steps, end, parser
from tests.clients.streams.__main__ import fetch as fetch_streams
from tests.integration.conftest import run_cluster
from tests.integration.support.cluster import Cluster
from tests.integration.support.transactional import V1, RawProducer, config_of_brokers
from tests.integration.support.waiting import wait_until

RELEASE = "4.3.1"
RECORDS = 4_000
PIPELINED_RECORDS = 20_000
PIPELINED = ("max.in.flight.requests.per.connection=5", "batch.size=400", "linger.ms=0", "acks=all")
"""Of Java's producer: a transaction takes many batches for each partition, five requests of them in flight."""
TRANSACTION = 50
"""Records of one transaction of the copier."""
LINES = 800
LINE_EVERY_S = 0.05
"""So that nodes die in the middle of it."""
TOOLS = "org.apache.kafka.tools"
COPIER = f"{TOOLS}.TransactionalMessageCopier"
WORD_COUNT = "org.apache.kafka.streams.examples.wordcount.WordCountDemo"
COUNTS, WORDS = "streams-wordcount-output", "streams-plaintext-input"
"""Topics of the example, which it does not let anybody choose."""
STATES = "__transaction_state"


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--kafka", default=RELEASE, help="release of the tools (default: %(default)s)")
    arguments.add_argument("--only", nargs="+", default=[""], help="the steps whose names have one of these in them")
    arguments.add_argument(
        "--records", type=int, default=PIPELINED_RECORDS, help="of the pipelining producer (default: %(default)s)"
    )
    asked = arguments.parse_args()
    if asked.bootstrap is not None:
        arguments.error("--bootstrap: nodes are killed here, so they have to be the script's own")
    steps = Steps(f"Kafka {asked.kafka} transactions")
    settings = {**SETTINGS, "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1_000}
    with tempfile.TemporaryDirectory(prefix="kraft-transactions-") as folder:
        for cluster in run_cluster(Path(folder), settings=settings):
            jars = fetch_tools(asked.kafka, asked.cache), fetch_streams(asked.cache)
            java_ = Java(*jars, cluster, Path(folder), records=asked.records)
            for step in (each for each in java_.steps() if any(part in each.__name__ for part in asked.only)):
                steps.run(step)
                cluster.heal()
    end(steps.verdict())


class Java:
    def __init__(self, tools: Path, streams: Path, cluster: Cluster, folder: Path, *, records: int) -> None:
        self._records = records
        self._tools, self._streams, self._cluster, self._folder = tools, streams, cluster, folder
        self._bootstrap = ",".join(node.kafka for node in cluster.nodes)
        self._count = 0

    def steps(self) -> Iterator[Callable[[], None]]:
        yield self.transactions_are_listed_and_described
        yield self.an_open_transaction_is_terminated_by_force
        yield self.an_open_transaction_is_aborted_in_its_partition
        yield self.nothing_hangs
        yield self.what_hangs_is_found_and_aborted
        yield self.the_log_of_transactions_is_kafkas
        yield self.producer_performance
        yield self.pipelined_produces_while_nodes_are_killed
        yield self.message_copier_while_nodes_are_killed
        yield self.streams_count_each_word_once_while_nodes_are_killed

    # --- the tools

    def transactions_are_listed_and_described(self) -> None:
        topic, name, producer = self._opened(b"one", b"two")
        listed = self._transactions("list")
        assert re.search(rf"^{name}\s+\d+\s+\d+\s+Ongoing", listed, re.MULTILINE), listed
        assert name not in self._transactions("list", "--duration-filter", "600000")
        described = self._transactions("describe", "--transactional-id", name)
        assert re.search(rf"{name}\s.*\sOngoing\s.*{topic}-0", described), described
        producers = self._transactions("describe-producers", "--topic", topic, "--partition", "0")
        row = producers.splitlines()[-1].split()
        assert (row[0].isdigit(), row[-1]) == (True, "0"), producers
        producer.commit_transaction(DEADLINE_S)
        wait_until(lambda: "CompleteCommit" in self._transactions("describe", "--transactional-id", name), what="it")
        assert committed_values(self._bootstrap, topic) == [b"one", b"two"]

    def an_open_transaction_is_terminated_by_force(self) -> None:
        topic, name, producer = self._opened(b"dropped")
        self._transactions("forceTerminateTransaction", "--transactionalId", name)
        assert committed_values(self._bootstrap, topic) == []
        with pytest.raises(KafkaException, match="fenced"):
            producer.commit_transaction(DEADLINE_S)

    def an_open_transaction_is_aborted_in_its_partition(self) -> None:
        """By an administrator's marker, whatever its coordinator thinks."""
        topic, _, producer = self._opened(b"dropped")
        self._transactions("abort", "--topic", topic, "--partition", "0", "--start-offset", "0")
        assert committed_values(self._bootstrap, topic) == []
        listed = self._transactions("describe-producers", "--topic", topic, "--partition", "0")
        assert listed.splitlines()[-1].split()[-1] == "None", listed
        producer.abort_transaction(DEADLINE_S)

    def nothing_hangs(self) -> None:
        found = self._transactions("find-hanging", "--broker-id", "1").splitlines()
        assert len(found) == 1, found

    def what_hangs_is_found_and_aborted(self) -> None:
        """A batch that came after its transaction had ended, to a leader that asks no coordinator."""
        config_of_brokers(self._cluster, transaction_partition_verification_enable="false")
        try:
            topic, late = self._topic(), RawProducer(self._cluster, f"late-{uuid.uuid4().hex[:8]}", V1)
            late.init()
            assert late.add((topic, 0)) == 0
            assert late.write(topic, "in time", timestamp_ms=_minutes_ago(0)) == 0
            assert late.end(commits=True) == 0
            wait_until(lambda: committed_values(self._bootstrap, topic) == [b"in time"], what="the marker")
            wait_until(lambda: late.write(topic, "late", timestamp_ms=_minutes_ago(20)) == 0, what="a late batch")
            assert committed_values(self._bootstrap, topic) == [b"in time"]
            found = self._transactions("find-hanging", "--topic", topic).splitlines()
            assert len(found) == 2, found
            row = dict(zip(found[0].split(), found[1].split(), strict=True))
            assert (row["Topic"], row["ProducerId"], row["StartOffset"]) == (topic, str(late.producer_id), "2"), found
            self._transactions("abort", "--topic", topic, "--partition", "0", "--start-offset", row["StartOffset"])
            assert len(self._transactions("find-hanging", "--topic", topic).splitlines()) == 1
            write(self._bootstrap, topic, [b"after"])
            assert committed_values(self._bootstrap, topic) == [b"in time", b"after"]
        finally:
            config_of_brokers(self._cluster, transaction_partition_verification_enable=None)

    def the_log_of_transactions_is_kafkas(self) -> None:
        """Also with what Kafka does not know: the key with which the id was taken over at last."""
        topic, name, producer = self._opened(b"one")
        producer.commit_transaction(DEADLINE_S)
        begun = self._cluster.send(1, "POST", f"/transactions/{name}", {}, Idempotency_Key="begin-1")
        assert isinstance(begun, Answer), begun
        assert begun.status == 200, begun
        number = abs_hash(name) % 50
        leader = self._cluster.leader_of(STATES, number)
        (segment, *_) = sorted(self._cluster.folder(leader, STATES, number).glob("*.log"))
        dumped = self._java(
            f"{TOOLS}.DumpLogSegments", "--transaction-log-decoder", "--print-data-log", "--files", str(segment)
        )
        states = re.findall(rf"transactional_?[iI]d\W+{name}.*?(?:state|transactionStatus)\W+(\w+)", dumped)
        assert len(states) >= 5, dumped
        assert states[-1] in ("0", "Empty"), dumped
        (data, *_) = sorted(self._cluster.folder(leader, topic, 0).glob("*.log"))
        dumped = self._java(f"{TOOLS}.DumpLogSegments", "--print-data-log", "--files", str(data))
        assert "endTxnMarker: COMMIT" in dumped, dumped

    def producer_performance(self) -> None:
        topic = self._topic()
        said = self._java(
            f"{TOOLS}.ProducerPerformance",
            *("--bootstrap-server", self._bootstrap, "--topic", topic, "--num-records", "5000"),
            *("--record-size", "100", "--throughput", "5000", "--transaction-duration-ms", "200"),
        )
        assert "5000 records sent" in said, said
        assert len(committed_values(self._bootstrap, topic)) == 5_000

    def pipelined_produces_while_nodes_are_killed(self) -> None:
        """The program ends with the first error after which its producer cannot go on."""
        topic = self._topic()
        with killing(self._cluster) as kills:
            said = self._java(
                f"{TOOLS}.ProducerPerformance",
                *("--bootstrap-server", self._bootstrap, "--topic", topic, "--num-records", str(self._records)),
                *("--record-size", "50", "--throughput", "400", "--transaction-duration-ms", "100"),
                *("--transactional-id", f"id-{uuid.uuid4().hex[:8]}", "--producer-props", *PIPELINED),
            )
        assert kills, "it was too fast"
        assert f"{self._records} records sent" in said, said
        assert len(committed_values(self._bootstrap, topic)) == self._records, said

    # --- from topic to topic

    def message_copier_while_nodes_are_killed(self) -> None:
        source, sink, group = self._topic(), self._topic(), f"group-{uuid.uuid4().hex[:8]}"
        wanted = [b"%d" % number for number in range(RECORDS)]
        write(self._bootstrap, source, wanted)
        with killing(self._cluster) as kills:
            copiers = [threading.Thread(target=self._copied, args=(source, sink, group, n)) for n in range(PARTITIONS)]
            for copier in copiers:
                copier.start()
            for copier in copiers:
                copier.join(DEADLINE_S)
        assert kills, "it was too fast"
        assert not any(copier.is_alive() for copier in copiers)
        found = Counter(committed_values(self._bootstrap, sink))
        assert found == Counter(wanted), difference(found, Counter(wanted))

    def _copied(self, source: str, sink: str, group: str, partition: int) -> None:
        """Started again until all is copied: an instance that a broker has fenced ends, as it does in Kafka's tests."""
        arguments = [
            *("--input-topic", source, "--input-partition", str(partition), "--output-topic", sink),
            *("--broker-list", self._bootstrap, "--transaction-size", str(TRANSACTION), "--consumer-group", group),
            *("--transactional-id", f"{group}-{partition}", "--enable-random-aborts", "--use-group-metadata"),
        ]
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            done = self._run(self._tools, COPIER, *arguments, within_s=DEADLINE_S)
            if done.returncode == 0:
                return

    # --- streams

    def streams_count_each_word_once_while_nodes_are_killed(self) -> None:
        for topic in (WORDS, COUNTS):
            self._cluster.create_topic(topic, partitions=PARTITIONS)
        name = f"count-{uuid.uuid4().hex[:8]}"
        path = self._folder / "streams.properties"
        path.write_text(
            f"bootstrap.servers={self._bootstrap}\napplication.id={name}\nstate.dir={self._folder / 'state'}\n"
            "processing.guarantee=exactly_once_v2\ncommit.interval.ms=100\nreplication.factor=3\n"
        )
        wanted = Counter(word for number in range(LINES) for word in _words(number))
        counts: dict[str, int] = {}
        with self._beside(self._streams, WORD_COUNT, str(path)), killing(self._cluster) as kills:
            lines = [" ".join(_words(number)).encode() for number in range(LINES)]
            writing = threading.Thread(
                target=write, args=(self._bootstrap, WORDS, lines), kwargs={"every_s": LINE_EVERY_S}
            )
            writing.start()

            def is_counted() -> bool:
                counts.clear()
                for key, value in committed_pairs(self._bootstrap, COUNTS):
                    counts[key.decode()] = struct.unpack(">q", value)[0]
                assert all(count <= wanted[word] for word, count in counts.items()), (counts, wanted)
                return counts == dict(wanted)

            wait_until(is_counted, deadline_s=DEADLINE_S, what="the counts")
            writing.join()
        assert len(kills) > 1, kills

    # --- how they are called

    def _topic(self) -> str:
        name = f"java-{uuid.uuid4().hex[:8]}"
        self._cluster.create_topic(name, partitions=PARTITIONS)
        return name

    def _opened(self, *values: bytes) -> tuple[str, str, confluent_kafka.Producer]:
        """A topic, a transactional id, and its producer that has written these to partition 0."""
        topic, name = self._topic(), f"id-{uuid.uuid4().hex[:8]}"
        producer = confluent_kafka.Producer(
            {"bootstrap.servers": self._bootstrap, "transactional.id": name, "log_level": 0}
        )
        producer.init_transactions(DEADLINE_S)
        producer.begin_transaction()
        for value in values:
            producer.produce(topic, value, partition=0)
        assert producer.flush(DEADLINE_S) == 0
        return topic, name, producer

    def _transactions(self, *arguments: str) -> str:
        return self._java(f"{TOOLS}.TransactionsCommand", "--bootstrap-server", self._bootstrap, *arguments)

    def _java(self, name: str, *arguments: str) -> str:
        done = self._run(self._tools, name, *arguments, within_s=DEADLINE_S)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def _run(self, jars: Path, name: str, *arguments: str, within_s: float) -> subprocess.CompletedProcess[str]:
        command = _command(jars, name, arguments)
        return subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=within_s, check=False
        )

    @contextmanager
    def _beside(self, jars: Path, name: str, *arguments: str) -> Iterator[None]:
        """Runs beside the block. What it wrote is told when the block fails."""
        log = self._folder / f"{name.rpartition('.')[2]}.log"
        with log.open("w") as output:
            process = subprocess.Popen(_command(jars, name, arguments), stdout=output, stderr=output)
            try:
                yield
                assert process.poll() is None, f"{name} has ended"
            except AssertionError as failure:
                raise AssertionError(f"{failure}\n{log.read_text()[-8000:]}") from failure
            finally:
                process.kill()
                process.wait()


def _command(jars: Path, name: str, arguments: Sequence[str]) -> list[str]:
    jvm = ["java", "-Xmx384m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
    return [*jvm, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{jars}/*", name, *arguments]


def _words(number: int) -> list[str]:
    return ["all", "streams", "lead", "to", "kafka", str(number % 7)]


def _minutes_ago(minutes: int) -> int:
    """In ms."""
    return int(time.time() * 1_000) - minutes * 60_000


if __name__ == "__main__":
    main()
