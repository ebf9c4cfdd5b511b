"""Three nodes of Apache Kafka on this machine, plain or with TLS everywhere and logins of its clients.

Each node is a broker and a voter. With TLS, brokers and controllers know each other by certificates, and clients log in
with SCRAM-SHA-512, as at our own clusters with `--secure`.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from bench.cluster import BenchError
from bench.rabbitmq import free_ports
from bench.sides import until
from kraft.config.models import NodeConfig
from kraft.launcher.certificates import CertificateAuthority

HOST: Final = "127.0.0.1"
NODES: Final = (1, 2, 3)
CLUSTER_ID: Final = "YmVuY2gtYmVuY2gtYmVuYw"
START_S: Final = 120
STOP_S: Final = 30
MECHANISM: Final = "SCRAM-SHA-512"
USER: Final = "admin"
JVM: Final = ("-Xms512m", "-Xmx512m", "-XX:+UseG1GC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error")
REPLICATED: Final = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "offsets.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
}


class KafkaNodes:
    """A context manager; its nodes are gone at the end."""

    def __init__(self, libs: Path, *, secure: bool) -> None:
        """`libs` has the jars of a release."""
        self._libs, self._secure = libs, secure
        self._folder = Path(tempfile.mkdtemp(prefix="kraft-bench-kafka-"))
        self._password = secrets.token_urlsafe(18)
        ports = iter(free_ports(3 * len(NODES)))
        self._ports = {node: (next(ports), next(ports), next(ports)) for node in NODES}
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def servers(self) -> str:
        return ",".join(f"{HOST}:{clients}" for clients, _, _ in self._ports.values())

    @property
    def login(self) -> Mapping[str, Any]:
        """Options of librdkafka."""
        if not self._secure:
            return {}
        return {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": MECHANISM,
            "sasl.username": USER,
            "sasl.password": self._password,
            "ssl.ca.location": str(self._folder / "certs" / "ca.pem"),
        }

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    def __enter__(self) -> Self:
        try:
            for node in NODES:
                self._start(node)
            self._wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait(STOP_S)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, node: int) -> None:
        config = self._folder / f"{node}.properties"
        config.touch(mode=0o600)
        config.write_text("".join(f"{name}={value}\n" for name, value in self._properties(node).items()))
        java = [shutil.which("java") or "java", *JVM, "-cp", f"{self._libs}/*"]
        user = ["--add-scram", f"{MECHANISM}=[name={USER},password={self._password}]"] if self._secure else []
        formatting = [*java, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(config), *user]
        done = subprocess.run(formatting, capture_output=True, text=True, timeout=START_S, check=False)
        if done.returncode:
            raise BenchError(f"Kafka cannot format a folder: {done.stdout}{done.stderr}")
        with (self._folder / f"{node}.log").open("wb") as log:
            self._processes.append(subprocess.Popen([*java, "kafka.Kafka", str(config)], stdout=log, stderr=log))

    def _properties(self, node: int) -> dict[str, str]:
        clients, brokers, controller = self._ports[node]
        within, outside = ("SSL", "SASL_SSL") if self._secure else ("PLAINTEXT", "PLAINTEXT")
        own = {"CLIENTS": clients, "BROKERS": brokers}
        listeners = ",".join(f"{name}://{HOST}:{port}" for name, port in own.items())
        return {
            **REPLICATED,
            "process.roles": "broker,controller",
            "node.id": str(node),
            "controller.quorum.voters": ",".join(f"{each}@{HOST}:{ports[2]}" for each, ports in self._ports.items()),
            "listeners": f"{listeners},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": listeners,
            "inter.broker.listener.name": "BROKERS",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": f"CLIENTS:{outside},BROKERS:{within},CONTROLLER:{within}",
            "log.dirs": str(self._folder / f"logs-{node}"),
            **(self._certificates(node) if self._secure else {}),
        }

    def _certificates(self, node: int) -> dict[str, str]:
        clients, brokers, controller = self._ports[node]
        own = NodeConfig(
            id=node, host=HOST, rest_port=brokers, kafka_port=clients, quorum_port=controller, data="-", log_dirs=("-",)
        )
        authority = CertificateAuthority(str(self._folder / "certs"))
        login = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        return {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": authority.node(own),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": authority.path,
            "ssl.client.auth": "required",
            "listener.name.clients.ssl.client.auth": "none",
            "sasl.enabled.mechanisms": MECHANISM,
            f"listener.name.clients.{MECHANISM.lower()}.sasl.jaas.config": login,
        }

    def _wait_until_ready(self) -> None:
        admin = AdminClient({"bootstrap.servers": self.servers, **self.login, "log_level": 0})

        def is_ready() -> bool:
            if any(process.poll() is not None for process in self._processes):
                raise BenchError("a node has ended")
            try:
                return len(admin.list_topics(timeout=5).brokers) == len(NODES)
            except KafkaException:
                return False

        try:
            until(is_ready, "all nodes of Kafka are brokers", limit_s=START_S)
        except BenchError as error:
            logs = "\n".join(path.read_text(errors="replace")[-1_000:] for path in sorted(self._folder.glob("*.log")))
            raise BenchError(f"Kafka does not start: {error}: {logs}") from error
