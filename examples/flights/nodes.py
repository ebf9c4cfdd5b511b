"""A cluster of three nodes, run by the `kraft` command and used over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from source import PARTITIONS

TOPIC = "flights"
REQUEST_TIMEOUT_S = 4
WAIT_LIMIT_S = 60
LOOK_S = 0.02
BUSY = 503
LAG_LIMIT_MS = 2_000
CONFIG = f"""
[settings]
default.replication.factor = 3
min.insync.replicas = 2
replica.lag.time.max.ms = {LAG_LIMIT_MS}
"""


def connect(url: str) -> http.client.HTTPConnection:
    host, _, port = url.removeprefix("http://").partition(":")
    return http.client.HTTPConnection(host, int(port), timeout=REQUEST_TIMEOUT_S)


class Cluster:
    def __init__(self, data: str) -> None:
        self.data = data
        config = Path(data).with_suffix(".toml")
        config.write_text(CONFIG + "".join(f"[[nodes]]\nid = {node_id}\n" for node_id in (1, 2, 3)))
        self.nodes = self.kraft("up", str(config), "--detach", "--free-ports", "--json")["nodes"]
        self.urls = [node["rest"] for node in self.nodes]
        self.kraft("topics", "create", TOPIC, "--partitions", str(PARTITIONS), "--json")

    def kraft(self, *arguments: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "kraft", *arguments, "--data", self.data],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"kraft {' '.join(arguments)} failed: {done.stderr}")
        return json.loads(done.stdout) if "--json" in arguments else None

    def ask(self, path: str, *, avoid: int = -1, accept: str = "application/json") -> tuple[Any, Any]:
        """From the first node that answers."""
        for node in self.nodes:
            connection = connect(node["rest"])
            try:
                if node["id"] != avoid:
                    connection.request("GET", path, headers={"Accept": accept})
                    answer = connection.getresponse()
                    if answer.status == BUSY:
                        continue
                    return json.loads(answer.read()), answer.headers
            except (OSError, http.client.HTTPException):
                continue
            finally:
                connection.close()
        raise SystemExit(f"no node answers {path}")

    def leader(self, partition: int, *, avoid: int = -1) -> int | None:
        found: int | None = self.ask(f"/topics/{TOPIC}/partitions/{partition}", avoid=avoid)[0]["leader"]
        return found

    def isr(self, partition: int, *, avoid: int = -1) -> list[int]:
        document, _ = self.ask(f"/topics/{TOPIC}/partitions/{partition}", avoid=avoid)
        return [replica["broker"] for replica in document["replicas"] if replica["in_sync"]]

    def controller(self, *, avoid: int = -1) -> int:
        return int(self.ask("/kraft/status", avoid=avoid)[0]["controller_id"])

    def signal(self, node_id: int, number: int) -> None:
        os.kill(next(node["pid"] for node in self.nodes if node["id"] == node_id), number)

    def restart(self, node_id: int) -> None:
        pid = self.kraft("node", "restart", str(node_id), "--json")["pid"]
        next(node for node in self.nodes if node["id"] == node_id)["pid"] = pid
        self.wait_for_whole_isr()

    def wait_for_whole_isr(self) -> None:
        until(lambda: all(len(self.isr(partition)) == 3 for partition in range(PARTITIONS)), "all replicas in sync")


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WAIT_LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {WAIT_LIMIT_S} s for {what}")
        time.sleep(LOOK_S)
