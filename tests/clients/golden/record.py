"""Record the golden exchanges: Apache Kafka from Maven Central (one broker, KRaft), and the program's questions.

    python -m tests.clients.golden.record [--libs FOLDER] [--out FILE] [--append]

Needs `mvn` and Java 17 or newer; the jars are fetched once into FOLDER. Writes kafka-VERSION.jsonl.xz beside this file.
With --append what FILE holds stays as it is, and only questions that it has not yet are added.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kraft.protocol.messages.describe_cluster_request import DescribeClusterRequestData
from tests.clients.golden import program
from tests.clients.golden.files import KAFKA_VERSION, RECORDED, load, save
from tests.clients.golden.peer import Peer

START_S = 120
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>golden</groupId><artifactId>golden</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA_VERSION}</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
</dependencies></project>"""
SETTINGS = {
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.num.partitions": "1",
    "offsets.topic.replication.factor": "1",
    "num.partitions": "1",
    "default.replication.factor": "1",
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--libs", type=Path, default=Path(tempfile.gettempdir()) / f"kafka-{KAFKA_VERSION}-libs")
    arguments.add_argument("--out", type=Path, default=RECORDED)
    arguments.add_argument("--append", action="store_true")
    asked = arguments.parse_args()
    fetch_jars(asked.libs)
    with kafka(asked.libs) as port:
        peer = Peer(("127.0.0.1", port))
        program.run(peer.ask)
        peer.close()
    for api, version, name, how in peer.broken:
        sys.stderr.write(f"closed the connection: {api} {version} {name!r}: {how}\n")
    kept = load(asked.out) if asked.append else []
    known = {exchange.key for exchange in kept}
    exchanges = [*kept, *(exchange for exchange in peer.exchanges if exchange.key not in known)]
    save(exchanges, asked.out)
    sys.stdout.write(f"{len(exchanges)} exchanges, {asked.out.stat().st_size:,} bytes in {asked.out}\n")


def fetch_jars(libs: Path) -> None:
    if any(libs.glob("kafka_2.13-*.jar")):
        return
    libs.mkdir(parents=True, exist_ok=True)
    (libs / "pom.xml").write_text(POM)
    subprocess.run(
        ["mvn", "-q", "dependency:copy-dependencies", f"-DoutputDirectory={libs}"], cwd=libs, check=True, timeout=900
    )


@contextmanager
def kafka(libs: Path) -> Iterator[int]:
    """One broker that is its own controller; its port. It is gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="golden-kafka-"))
    port, controller_port = free_port(), free_port()
    properties = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "log.dirs": str(folder / "logs"),
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        **SETTINGS,
    }
    config = folder / "server.properties"
    config.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
    run = java(libs, heap_mib=512)
    subprocess.run(
        [*run, "kafka.tools.StorageTool", "format", "-t", "Z29sZGVuLWdvbGRlbi1nbw", "-c", str(config)],
        check=True,
        capture_output=True,
        timeout=START_S,
    )
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen([*run, "kafka.Kafka", str(config)], stdout=log, stderr=log)
    try:
        wait_until_ready(port, server)
        yield port
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def java(libs: Path, *, heap_mib: int) -> list[str]:
    """The command, without the class."""
    quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
    return [shutil.which("java") or "java", f"-Xmx{heap_mib}m", quiet, "-cp", f"{libs}/*"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_ready(port: int, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        assert server.poll() is None, f"Kafka ended with {server.returncode}"
        probe = Peer(("127.0.0.1", port))
        if not probe.broken and (answer := probe.ask("brokers", DescribeClusterRequestData.make(), 0)).brokers:  # type: ignore[attr-defined]
            probe.close()
            assert answer is not None
            return
        probe.close()
        time.sleep(0.5)
    raise TimeoutError(f"Kafka is not ready after {START_S} s")


if __name__ == "__main__":
    os.umask(0o077)
    main()
