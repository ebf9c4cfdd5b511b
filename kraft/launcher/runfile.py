"""`<data>/cluster.json`: the processes of a running cluster, so that other commands find them.

Written when the nodes are started and again when one of them is restarted; removed when all are stopped.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from kraft.layout import OPERATOR_FILE, WITNESS_VARIABLE

RUN_FILE: Final = "cluster.json"
RESOLVED_FILE: Final = "resolved.toml"
WITNESS_FOLDER: Final = "witness"
CERTIFICATES_FOLDER: Final = "certs"
"""Folder with the CA and the certificates of a cluster of `--secure`."""
CLIENT_FOLDER: Final = "client"
"""Folder with what a client of a cluster of `--secure` needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRun:
    """One node as started. `rest` is a base URL, `kafka` and `quorum` are host:port."""

    id: int
    roles: tuple[str, ...]
    pid: int
    rest: str
    kafka: str
    quorum: str | None
    data: str
    ca: str | None = None
    """File with the CAs of its HTTP port's certificate; None without TLS."""
    certificate: str | None = None
    """File with the node's own certificate and key, where its HTTP port wants one."""
    logs_in: bool = False
    """Clients of its HTTP port log in."""

    @property
    def name(self) -> str:
        """The node's name for people."""
        return f"node {self.id}"

    @property
    def log(self) -> str:
        return os.path.join(self.data, "node.log")

    @property
    def is_broker(self) -> bool:
        return "broker" in self.roles


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRun:
    cluster_id: str
    config: str
    """The resolved configuration that every node was started with."""
    data: str
    launcher_pid: int | None
    """The `kraft up` with which the nodes end; None when detached."""
    nodes: tuple[NodeRun, ...]
    witness: str | None = None
    """Folder where each node's disk keeps a witness of durable data (`kraft/runtime/witness.py`), if it does."""
    client: str | None = None
    """Folder with what a client needs to log in (`kraft/launcher/client_files.py`); None without `--secure`."""

    def node(self, node_id: int) -> NodeRun:
        """The node of an id. Raises LookupError with all ids."""
        for node in self.nodes:
            if node.id == node_id:
                return node
        ids = ", ".join(str(node.id) for node in self.nodes)
        raise LookupError(f"there is no node {node_id}; the nodes are {ids}")

    def with_nodes(self, nodes: Iterable[NodeRun]) -> ClusterRun:
        return replace(self, nodes=tuple(nodes))

    def with_pid(self, node_id: int, pid: int) -> ClusterRun:
        return replace(self, nodes=tuple(replace(n, pid=pid) if n.id == node_id else n for n in self.nodes))

    def variables(self, node_id: int) -> dict[str, str]:
        """Variables of a node's environment, besides those of the process that starts it."""
        folder = self.witness_of(node_id)
        return {} if folder is None else {WITNESS_VARIABLE: folder}

    def witness_of(self, node_id: int) -> str | None:
        return None if self.witness is None else os.path.join(self.witness, f"node-{node_id}")

    def to_document(self) -> dict[str, Any]:
        return asdict(self)

    def summary(self) -> dict[str, Any]:
        """The output of `kraft up --json`."""
        client = {} if self.client is None else {"client": self.client}
        return {"cluster_id": self.cluster_id, **client, "nodes": [asdict(node) for node in self.nodes]}


def run_of(document: dict[str, Any]) -> ClusterRun:
    """The opposite of `to_document`; requests to its nodes have credentials from now on. Raises KeyError and
    TypeError."""
    nodes = tuple(NodeRun(**{**node, "roles": tuple(node["roles"])}) for node in document["nodes"])
    run = ClusterRun(**{**document, "nodes": nodes})
    remember_credentials(run)
    return run


def run_path(data: str) -> str:
    return os.path.join(data, RUN_FILE)


def save_run(run: ClusterRun) -> None:
    path = run_path(run.data)
    with open(f"{path}.tmp", "w", encoding="utf-8") as out:
        json.dump(asdict(run), out, indent=2)
    os.replace(f"{path}.tmp", path)


def load_run(data: str) -> ClusterRun | None:
    """The run of a folder; None when no cluster runs from it, or its run file is not readable."""
    try:
        with open(run_path(data), encoding="utf-8") as text:
            document = json.load(text)
        return run_of(document)
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, KeyError, TypeError):
        return None


def remember_credentials(run: ClusterRun) -> None:
    """This process may read the data folder, and so the key of the cluster's operator: that is its credential."""
    secured = [node for node in run.nodes if node.ca or node.logs_in]
    if not secured:
        return
    from kraft.client.credentials import Credentials, remember  # a node imports this module, and is no client

    for node in secured:
        token = partial(_operator_token, run.data) if node.logs_in else None
        remember(node.rest, Credentials(ca=node.ca, certificate=node.certificate, token=token))


def _operator_token(data: str) -> str:
    from kraft.protocol.operator_tokens import make_token

    key = bytes.fromhex(Path(data, OPERATOR_FILE).read_text(encoding="utf-8").strip())
    return make_token(key, now_ms=time.time_ns() // 1_000_000)


def remove_run(data: str) -> None:
    if os.path.exists(run_path(data)):
        os.remove(run_path(data))
