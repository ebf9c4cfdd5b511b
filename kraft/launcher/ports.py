"""Check for free ports before anything is started, so that the message names a used port and the key to change."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from kraft.config.models import ClusterConfig, NodeConfig

FREE_PORT_FIRST: Final = 10_000
FREE_PORT_LAST: Final = 32_000
"""Below the ports that systems use for outgoing connections, so that a stopped node finds its port free again."""
FREE_PORT_TRIES_MAX: Final = 1_000

_KEYS: Final = ("rest_port", "kafka_port", "quorum_port")


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenPort:
    node_id: int
    key: str
    host: str
    port: int
    reason: str

    def __str__(self) -> str:
        return (
            f"port {self.port} on {self.host}, the {self.key} of node {self.node_id}, cannot be used ({self.reason}): "
            f"change {self.key} of node {self.node_id} in cluster.toml, or start with --free-ports"
        )


def taken_ports(config: ClusterConfig) -> list[TakenPort]:
    taken: list[TakenPort] = []
    for node in config.nodes:
        for key in _keys(node):
            port: int = getattr(node, key)
            if reason := _why_not(node.bind_host, port):
                taken.append(TakenPort(node_id=node.id, key=key, host=node.bind_host, port=port, reason=reason))
        for each in node.listeners:
            host = each.host or node.bind_host
            if reason := _why_not(host, each.port):
                key = f"port of listener {each.name}"
                taken.append(TakenPort(node_id=node.id, key=key, host=host, port=each.port, reason=reason))
    return taken


def with_free_ports(config: ClusterConfig) -> ClusterConfig:
    """The configuration with every listening port replaced by a free one."""
    used: set[int] = set()
    nodes = []
    for node in config.nodes:
        ports = dict(zip(_KEYS, _free_ports(node.bind_host, used), strict=False))
        listeners = tuple(
            each.model_copy(update={"port": next(_free_ports(each.host or node.bind_host, used))})
            for each in node.listeners
        )
        nodes.append(node.model_copy(update={**ports, "listeners": listeners}))
    return config.model_copy(update={"nodes": tuple(nodes)})


def _keys(node: NodeConfig) -> tuple[str, ...]:
    return _KEYS if node.is_voter else _KEYS[:2]


def _free_ports(host: str, used: set[int]) -> Iterator[int]:
    """Ports from a random start, so that clusters started at the same time rarely collide."""
    for _ in range(FREE_PORT_TRIES_MAX):
        port = random.randint(FREE_PORT_FIRST, FREE_PORT_LAST)
        if port not in used and not _why_not(host, port):
            used.add(port)
            yield port
    raise OSError(f"no free port found on {host} in {FREE_PORT_TRIES_MAX} tries")


def _why_not(host: str, port: int) -> str:
    """The reason why nothing can listen there; empty when it can."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        return error.strerror or str(error)
    return ""
