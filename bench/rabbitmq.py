"""RabbitMQ of Debian's package: three nodes on this machine in a temporary folder, and a quorum queue of theirs."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bench.cluster import BenchError, listener
from bench.sides import until

PROGRAMS: Final = Path("/usr/lib/rabbitmq/bin")
NODES: Final = 3
START_S: Final = 90.0
STOP_S: Final = 30
WAIT_S: Final = 120.0
_JAVA: Final = ("java", "-Xmx256m")
_RECEIVED: Final = re.compile(r"receiving rate avg: (\d+) msg/s")
OUTSTANDING: Final = 500
"""Publishings without a confirmation, and deliveries without an acknowledgement, at most."""


class RabbitMq:
    """The nodes, each with a name, an Erlang cookie and ports of its own. `pids` are those of the Erlang machines."""

    name = "RabbitMQ"

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bench-rabbitmq-")
        self._home = Path(self._folder.name)
        cookie = self._home / ".erlang.cookie"
        cookie.write_text("bench")
        cookie.chmod(0o400)
        mapper, *ports = free_ports(1 + 2 * NODES)
        self._environment = {**os.environ, "HOME": str(self._home), "ERL_EPMD_PORT": str(mapper)}
        self._ports = ports[:NODES]
        names = [f"bench{number}@localhost" for number in range(NODES)]
        peers = "".join(f"cluster_formation.classic_config.nodes.{at} = {each}\n" for at, each in enumerate(names, 1))
        config = self._home / "rabbitmq.conf"
        config.write_text(f"cluster_formation.peer_discovery_backend = classic_config\n{peers}")
        mapping = subprocess.Popen(["epmd", "-port", str(mapper)], env=self._environment)
        self._processes: list[subprocess.Popen[bytes]] = [mapping]
        for name, port, distribution in zip(names, self._ports, ports[NODES:], strict=True):
            self._processes.append(self._start(name, port, distribution, config))
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    @property
    def pids(self) -> Mapping[int, int]:
        return {port: listener(port) for port in self._ports}

    def _start(self, name: str, port: int, distribution: int, config: Path) -> subprocess.Popen[bytes]:
        folder = self._home / name
        folder.mkdir()
        environment = self._environment | {
            "RABBITMQ_NODENAME": name,
            "RABBITMQ_NODE_PORT": str(port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_CONFIG_FILE": str(config.with_suffix("")),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        }
        with (folder / "output").open("wb") as output:
            return subprocess.Popen([PROGRAMS / "rabbitmq-server"], env=environment, stdout=output, stderr=output)

    def _wait(self) -> None:
        """Until all nodes are one cluster."""
        program = str(PROGRAMS / "rabbitmqctl")
        command = [program, "-n", "bench0@localhost", "await_online_nodes", str(NODES)]

        def are_one() -> bool:
            return not subprocess.run(command, env=self._environment, capture_output=True, timeout=START_S).returncode

        until(are_one, "RabbitMQ's nodes are one cluster", limit_s=START_S)

    def publish_and_accept(self, classpath: str, *, size: int, count: int) -> float:
        """RabbitMQ's own client publishes `count` persistent messages of `size` bytes to a new quorum queue, each
        confirmed, and acknowledges each; it has `OUTSTANDING` of both under way. Returns the messages a second that
        were acknowledged."""
        program = [*_JAVA, "-cp", classpath, "com.rabbitmq.perf.PerfTest"]
        queue = ["--quorum-queue", "--queue", f"bench-{time.time_ns()}"]
        work = ["--pmessages", count, "--cmessages", count, "--size", size, "--flag", "persistent"]
        limits = ["--confirm", OUTSTANDING, "--qos", OUTSTANDING]
        uri = ["--uri", f"amqp://guest:guest@127.0.0.1:{self._ports[0]}"]
        command = [str(each) for each in (*program, *uri, *queue, *work, *limits)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S)
        found = _RECEIVED.findall(done.stdout)
        if done.returncode or not found:
            raise BenchError(f"PerfTest ended with {done.returncode}: {(done.stdout + done.stderr)[-1000:]}")
        return float(found[-1])

    def close(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._folder.cleanup()


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody uses, each another one."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
