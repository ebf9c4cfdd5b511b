"""Three nodes of Apache Kafka on the folders that an export has made, and Kafka's tools."""

from __future__ import annotations

import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.clients.java.__main__ import MAVEN_S
from tests.clients.scripts import run_program
from tests.integration.support.waiting import NotYet, wait_until

NODES = (1, 2, 3)
START_S = 300
STOP_S = 450
"""The last voter waits five minutes for a controller that lets it go, and stops then, in order."""
JAVA = shutil.which("java")
QUIET = {"log_level": 0}
"""Of librdkafka, which reports each refused connection."""
POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>jars</groupId><artifactId>jars</artifactId><version>1</version><dependencies>{}</dependencies></project>"""
DEPENDENCY = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"


def fetch_jars(name: str, release: str, cache: Path, *more: str) -> Path:
    """The folder with the jars of one of Kafka's artifacts, and of others beside it."""
    jars = cache / f"{name}-{release}"
    if not (jars / f"{name}-{release}.jar").exists():
        jars.mkdir(parents=True, exist_ok=True)
        wanted = [DEPENDENCY.format("org.apache.kafka", each, release) for each in (name, *more)]
        wanted.append(DEPENDENCY.format("org.slf4j", "slf4j-simple", "1.7.36"))
        pom = jars / "pom.xml"
        pom.write_text(POM.format("".join(wanted)))
        copy = ["mvn", "-q", "-B", "-f", pom, "dependency:copy-dependencies", f"-DoutputDirectory={jars}"]
        run_program([*copy, "-DexcludeArtifactIds=slf4j-reload4j"], timeout_s=MAVEN_S)
    return jars


def run_tool(jars: Path, name: str, *arguments: str) -> str:
    """What a program of Kafka prints; it has to end with 0."""
    command = [str(JAVA), "-Xmx200m", "-XX:TieredStopAtLevel=1", "-cp", f"{jars}/*", name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=START_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass
class KafkaNodes:
    """Their folders are `node-ID`, with server.properties."""

    jars: Path
    folder: Path
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, *nodes: int) -> None:
        for node in nodes or NODES:
            folder = self.folder / f"node-{node}"
            command = [str(JAVA), "-Xmx320m", "-Xms96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
            command += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{self.jars}/*", "kafka.Kafka"]
            with (folder / "kafka.out").open("ab") as out:
                self.processes[node] = subprocess.Popen(
                    [*command, f"{folder}/server.properties"], stdout=out, stderr=out
                )

    def kill(self, node: int) -> None:
        self.processes[node].kill()
        self.processes.pop(node).wait()

    def stop(self) -> None:
        """In order, all at once, as kafka-server-stop does; what has not ended by the deadline is killed."""
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        try:
            codes = {node: process.wait(STOP_S) for node, process in self.processes.items()}
        finally:
            for process in self.processes.values():
                process.kill()
                process.wait()
            self.processes.clear()
        assert set(codes.values()) <= {0, 128 + signal.SIGTERM}, codes

    def tool(self, name: str, *arguments: str) -> str:
        return run_tool(self.jars, name, *arguments)

    def output(self) -> str:
        """The last lines of each node."""
        paths = [self.folder / f"node-{node}/kafka.out" for node in NODES]
        return "\n".join(path.read_text(errors="replace")[-2_000:] for path in paths if path.exists())

    def wait_until_ready(self, bootstrap: str, **login: str) -> None:
        """`login`: more settings of the client."""
        admin = AdminClient({"bootstrap.servers": bootstrap, **login, **QUIET})

        def all_are_led() -> bool:
            ended = [node for node, process in self.processes.items() if process.poll() is not None]
            assert not ended, f"nodes {ended} of Kafka have ended: {self.output()}"
            try:
                found = admin.list_topics(timeout=10)
            except KafkaException as error:
                raise NotYet(str(error)) from error
            partitions = [each for topic in found.topics.values() for each in topic.partitions.values()]
            late = [each.isrs for each in partitions if each.leader < 0 or len(each.isrs) < len(NODES)]
            if len(found.brokers) < len(NODES) or not partitions or late:
                raise NotYet(f"{len(found.brokers)} brokers, {late[:4]}")
            return True

        wait_until(all_are_led, deadline_s=START_S, what="three brokers of Kafka with all replicas in sync")
