"""Kafka Streams (the word count of its examples, at least once) and Kafka Connect (file source and sink), standalone.

    python -m tests.clients.streams [--bootstrap HOST:PORT,...] [--cache FOLDER]

Needs Java 17 and `mvn`, which fetches Kafka 4.3.1 from Maven Central once. Both run as programs of their own and are
ended when what they write is there, or when it is not there in time.
"""

from __future__ import annotations

import struct
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.clients.scripts import Steps, cluster, end, parser, run_program
from tests.integration.support.waiting import wait_until

KAFKA_VERSION = "4.3.1"
ARTIFACTS = ("kafka-streams-examples", "connect-runtime", "connect-file")
MAVEN_S = 600
DEADLINE_S = 120
ROUNDS = 200
LINES = [f"line {number} äöü" for number in range(1_000)]
COUNTS = "streams-wordcount-output"
"""Topics of the example, which it does not let anybody choose."""
WORDS = "streams-plaintext-input"


def main() -> None:
    asked = parser(__doc__).parse_args()
    jars = fetch(asked.cache)
    steps = Steps(f"Kafka {KAFKA_VERSION}")
    with cluster(asked.bootstrap) as bootstrap, tempfile.TemporaryDirectory() as folder:
        programs = Programs(jars, bootstrap, Path(folder))
        for step in (programs.streams_word_count, programs.connect_file_source_and_sink):
            steps.run(step)
    end(steps.verdict())


def fetch(cache: Path) -> Path:
    jars = cache / f"streams-{KAFKA_VERSION}"
    if not (jars / f"kafka-streams-examples-{KAFKA_VERSION}.jar").exists():
        jars.mkdir(parents=True, exist_ok=True)
        made = [("org.apache.kafka", name, KAFKA_VERSION) for name in ARTIFACTS] + [
            ("org.slf4j", "slf4j-simple", "1.7.36")
        ]
        dependencies = "".join(
            f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version></dependency>"
            for group, name, version in made
        )
        pom = jars / "pom.xml"
        pom.write_text(
            '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>x</groupId>'
            f"<artifactId>x</artifactId><version>1</version><dependencies>{dependencies}</dependencies></project>"
        )
        copy = ["mvn", "-q", "-B", "-f", pom, "dependency:copy-dependencies", f"-DoutputDirectory={jars}"]
        run_program(copy, timeout_s=MAVEN_S)
    return jars


class Programs:
    def __init__(self, jars: Path, bootstrap: str, folder: Path) -> None:
        self._jars, self._bootstrap, self._folder = jars, bootstrap, folder
        self._admin = AdminClient({"bootstrap.servers": bootstrap})

    # --- steps

    def streams_word_count(self) -> None:
        """Counts go through a repartition topic and a compacted changelog that Streams creates itself."""
        self._topics({WORDS: {}, COUNTS: {"cleanup.policy": "compact"}})
        producer = Producer({"bootstrap.servers": self._bootstrap, "enable.idempotence": True})
        for number in range(ROUNDS):
            producer.produce(WORDS, f"all streams lead to kafka {number % 7}")
        assert producer.flush(DEADLINE_S) == 0
        wanted = dict.fromkeys(("all", "streams", "lead", "to", "kafka"), ROUNDS)
        wanted |= {str(digit): len(range(digit, ROUNDS, 7)) for digit in range(7)}
        settings = {"bootstrap.servers": self._bootstrap, "application.id": f"count-{uuid.uuid4().hex[:8]}"}
        settings |= {"state.dir": str(self._folder / "state"), "commit.interval.ms": "200"}
        example = "org.apache.kafka.streams.examples.wordcount.WordCountDemo"
        with self._program(example, self._properties("streams", settings)), self._reading(COUNTS) as read:
            counts: dict[str, int] = {}

            def is_counted() -> bool:
                counts.update({key.decode(): struct.unpack(">q", value)[0] for key, value in read()})
                return counts == wanted

            wait_until(is_counted, deadline_s=DEADLINE_S, what="the counts")
        internal = [topic for topic in self._admin.list_topics(timeout=60).topics if topic.startswith("count-")]
        assert any(topic.endswith("-changelog") for topic in internal), internal
        assert any(topic.endswith("-repartition") for topic in internal), internal

    def connect_file_source_and_sink(self) -> None:
        topic, source, sink = f"connect-{uuid.uuid4().hex[:8]}", self._folder / "source.txt", self._folder / "sink.txt"
        self._topics({topic: {}})
        source.write_text("\n".join(LINES) + "\n")
        text = "org.apache.kafka.connect.storage.StringConverter"
        worker = {
            "bootstrap.servers": self._bootstrap,
            "key.converter": text,
            "value.converter": text,
            "offset.storage.file.filename": str(self._folder / "offsets"),
            "offset.flush.interval.ms": "500",
            "listeners": "http://127.0.0.1:0",
            "plugin.discovery": "hybrid_warn",
        }
        files = {
            "source": {"connector.class": "FileStreamSource", "file": str(source), "topic": topic},
            "sink": {"connector.class": "FileStreamSink", "file": str(sink), "topics": topic},
        }
        connectors = [
            self._properties(name, {"name": f"{topic}-{name}", "tasks.max": "1", **settings})
            for name, settings in files.items()
        ]
        standalone = "org.apache.kafka.connect.cli.ConnectStandalone"
        with self._program(standalone, self._properties("worker", worker), *connectors):
            wait_until(
                lambda: sink.exists() and sink.read_text().splitlines() == LINES,
                deadline_s=DEADLINE_S,
                what="all lines in the sink, in their order",
            )
            source.write_text("\n".join([*LINES, "one more"]) + "\n")
            wait_until(
                lambda: sink.read_text().splitlines() == [*LINES, "one more"],
                deadline_s=DEADLINE_S,
                what="the last line",
            )

    # --- tools of the trade

    def _topics(self, wanted: Mapping[str, Mapping[str, str]]) -> None:
        topics = [
            NewTopic(name, 3 if name == WORDS else 1, 3, config=dict(configs)) for name, configs in wanted.items()
        ]
        for future in self._admin.create_topics(topics).values():
            future.result(60)

    def _properties(self, name: str, settings: Mapping[str, str]) -> str:
        path = self._folder / f"{name}.properties"
        path.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        return str(path)

    @contextmanager
    def _program(self, name: str, *arguments: str) -> Iterator[None]:
        """Runs beside the block. What it wrote is told when the block fails."""
        log = self._folder / f"{name.rpartition('.')[2]}.log"
        jvm = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
        with log.open("w") as output:
            command = [*jvm, "-cp", f"{self._jars}/*", name, *arguments]
            process = subprocess.Popen(command, stdout=output, stderr=output, cwd=self._folder)
            try:
                yield
                assert process.poll() is None, f"{name} has ended"
            except AssertionError as failure:
                raise AssertionError(f"{failure}\n{log.read_text()[-8000:]}") from failure
            finally:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    @contextmanager
    def _reading(self, topic: str) -> Iterator:
        consumer = Consumer(
            {"bootstrap.servers": self._bootstrap, "group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"}
        )
        consumer.subscribe([topic])
        try:
            yield lambda: _pairs(consumer)
        finally:
            consumer.close()


def _pairs(consumer: Consumer) -> list[tuple[bytes, bytes]]:
    messages = consumer.consume(1000, timeout=1)  # short: what has not come yet comes with the next look
    return [(message.key(), message.value()) for message in messages if not message.error()]


if __name__ == "__main__":
    main()
