"""A cluster to measure: started by the command of users, used over its REST API, measured through /proc."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from bench.client import Answer, Client, request
from kraft.launcher.python import PYTHON

START_S = 300
COMMAND_S = 300
CHANGE_S = 30.0
POLL_S = 0.05
"""The interval of polls for a condition without a notification."""
BUSY = 503
"""Codes of a node that has just started: it has done nothing."""
JSON = ("Content-Type: application/json",)
LISTENING = "0A"
"""State of a socket in /proc/net/tcp."""
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class BenchError(Exception):
    """The cluster did not carry out a request; the message has the details."""


@dataclass(frozen=True, slots=True)
class Usage:
    """The usage of all nodes together."""

    cpu_s: float
    resident_bytes: int


def process_cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def process_resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


def listener(port: int) -> int:
    """The process of this machine that listens on the port."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for row in Path(table).read_text().splitlines()[1:]:
            fields = row.split()
            if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if any(os.readlink(entry) in inodes for entry in Path(f"/proc/{pid}/fd").iterdir()):
                return int(pid)
        except OSError:
            continue
    raise BenchError(f"no process of this machine that can be seen listens on port {port}")


class Cluster:
    """Three nodes in a temporary folder. `start` measures command to ready."""

    def __init__(self, settings: Mapping[str, Any] | None = None) -> None:
        """With `settings` besides those of the default cluster.toml."""
        self._settings = settings or {}
        self._folder = tempfile.TemporaryDirectory(prefix="kraft-bench-")
        self.data = os.path.join(self._folder.name, "data")
        self.nodes: dict[int, dict[str, Any]] = {}
        self.cluster_id = ""
        self._clients: dict[int, Client] = {}
        self._numbers = itertools.count(1)

    def start(self) -> float:
        """Seconds from the command to its line that the cluster is ready."""
        begin = time.perf_counter()
        file = [self._config()] if self._settings else []
        command = self._command("up", *file, "--free-ports", "--no-console", "--json", "--detach", "--data", self.data)
        ended = subprocess.run(command, capture_output=True, text=True, timeout=START_S, stdin=subprocess.DEVNULL)
        seconds = time.perf_counter() - begin
        if ended.returncode or not ended.stdout:
            raise BenchError(f"kraft up ended with {ended.returncode}: {ended.stdout}{ended.stderr}")
        document = json.loads(ended.stdout.splitlines()[0])
        self.cluster_id = document["cluster_id"]
        self.nodes = {node["id"]: node for node in document["nodes"]}
        self._clients = {node_id: Client(node["rest"]) for node_id, node in self.nodes.items()}
        return seconds

    def down(self) -> None:
        """Stop all nodes, and keep their data."""
        for client in self._clients.values():
            client.close()
        subprocess.run(self._command("down", "--data", self.data), capture_output=True, timeout=COMMAND_S)

    def stop(self) -> None:
        try:
            self.down()
        finally:
            self._folder.cleanup()

    def _config(self) -> str:
        default = resources.files("kraft.config").joinpath("cluster.toml").read_text()
        lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in self._settings.items())
        path = Path(self._folder.name) / "cluster.toml"
        path.write_text(default.replace("[settings]\n", f"[settings]\n{lines}", 1))
        return str(path)

    async def restart_node(self, node_id: int) -> None:
        command = self._command("node", "restart", str(node_id), "--data", self.data, "--json")
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, error = await asyncio.wait_for(process.communicate(), COMMAND_S)
        if process.returncode:
            raise BenchError(f"node {node_id} did not restart: {out.decode()}{error.decode()}")
        self.nodes[node_id]["pid"] = json.loads(out.splitlines()[0])["pid"]

    def _command(self, *words: str) -> list[str]:
        return [*PYTHON, "-m", "kraft", *words]

    # What the nodes use

    @property
    def pids(self) -> list[int]:
        return [node["pid"] for node in self.nodes.values()]

    def usage(self) -> Usage:
        return Usage(
            sum(process_cpu_s(pid) for pid in self.pids), sum(process_resident_bytes(pid) for pid in self.pids)
        )

    # Asking

    async def ask(
        self, method: str, path: str, *, node_id: int | None = None, document: Any = None, headers: Sequence[str] = ()
    ) -> Answer:
        body = b"" if document is None else json.dumps(document).encode()
        chosen = self._clients[next(iter(self._clients)) if node_id is None else node_id]
        asked = request(method, path, body=body, headers=(*(JSON if body else ()), *headers))
        deadline = time.perf_counter() + CHANGE_S
        answer = await chosen.ask(asked)
        while answer.status == BUSY and time.perf_counter() < deadline:
            await asyncio.sleep(POLL_S)
            answer = await chosen.ask(asked)
        if answer.status >= 300:
            raise BenchError(f"{method} {path}: {answer.status} {answer.body.decode()[:500]}")
        return answer

    async def json(self, method: str, path: str, *, node_id: int | None = None, document: Any = None) -> Any:
        return json.loads((await self.ask(method, path, node_id=node_id, document=document)).body)

    async def controller_id(self, *, node_id: int | None = None) -> int:
        return int((await self.json("GET", "/kraft/status", node_id=node_id))["controller_id"])

    async def create_topic(
        self,
        *,
        replication_factor: int = 3,
        assignment: Sequence[int] | None = None,
        configs: Mapping[str, str] | None = None,
    ) -> str:
        """One partition; returns the name once its leader is known everywhere and all replicas are in sync."""
        name = f"bench-{next(self._numbers)}"
        document: dict[str, Any] = {"topic_name": name}
        if assignment is not None:
            document["replicas_assignments"] = {"0": list(assignment)}
        else:
            document |= {"partitions_count": 1, "replication_factor": replication_factor}
        wanted = {"file.delete.delay.ms": "0", **(configs or {})}
        document["configs"] = [{"name": key, "value": value} for key, value in wanted.items()]
        await self.ask("POST", f"/v3/clusters/{self.cluster_id}/topics", document=document)
        for node_id in self.nodes:
            await self.wait_in_sync(name, node_id=node_id)
        return name

    async def delete_topic(self, name: str) -> None:
        await self.ask("DELETE", f"/v3/clusters/{self.cluster_id}/topics/{name}")

    async def partition(self, name: str, *, node_id: int | None = None) -> dict[str, Any]:
        found: dict[str, Any] = await self.json("GET", f"/topics/{name}/partitions/0", node_id=node_id)
        return found

    async def wait_in_sync(self, name: str, *, node_id: int | None = None) -> None:
        deadline = time.perf_counter() + CHANGE_S
        seen: Any = None
        while time.perf_counter() < deadline:
            try:
                seen = await self.partition(name, node_id=node_id)
                if seen["leader"] in self.nodes and all(replica["in_sync"] for replica in seen["replicas"]):
                    return
            except (BenchError, OSError) as error:
                seen = error
            await asyncio.sleep(POLL_S)
        raise BenchError(f"{name} is not in sync on node {node_id} after {CHANGE_S} s: {seen}")

    async def leader(self, name: str, *, node_id: int | None = None) -> int:
        return int((await self.partition(name, node_id=node_id))["leader"])

    async def end_offset(self, name: str, *, node_id: int | None = None) -> int:
        answer = await self.json("GET", f"/topics/{name}/partitions/0/offsets", node_id=node_id)
        return int(answer["end_offset"])

    async def wait_end_offset(self, name: str, wanted: int, *, node_id: int | None = None) -> None:
        deadline = time.perf_counter() + CHANGE_S
        end_offset = -1
        while time.perf_counter() < deadline:
            end_offset = await self.end_offset(name, node_id=node_id)
            if end_offset >= wanted:
                break
            await asyncio.sleep(POLL_S)
        if end_offset != wanted:
            raise BenchError(f"{name} ends at {end_offset}, sent were {wanted} records")
