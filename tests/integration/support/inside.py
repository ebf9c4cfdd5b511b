"""A test's own way through a node's Kafka listener, with the cluster's secret, as another broker would come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from kraft.runtime.environment import close_environment, system_environment
from kraft.wire.channels.forward import RemotePartitionClient
from kraft.wire.peers import Peers
from kraft.wire.rpc import ReplyT, RequestT, Rpc
from metadata.cluster_keys import cluster_keys
from tests.integration.support.cluster import Cluster

Result = TypeVar("Result")
STRANGER = 99
TIMEOUT_MS = 20_000


def forward(cluster: Cluster, node_id: int, ask: Callable[[RemotePartitionClient], Awaitable[Result]]) -> Result:
    """The outcome of one request over the `forward` purpose of a node."""
    return _with_peers(cluster, node_id, lambda peers: ask(RemotePartitionClient(peers, node_id)))


def ask_as_peer(cluster: Cluster, node_id: int, rpc: Rpc[RequestT, ReplyT], request: RequestT) -> ReplyT:
    """One call of any API. Raises the KafkaError of a refusal."""
    return _with_peers(
        cluster, node_id, lambda peers: peers.call(node_id, "forward", rpc, request, timeout_ms=TIMEOUT_MS)
    )


def _with_peers(cluster: Cluster, node_id: int, ask: Callable[[Peers], Awaitable[Result]]) -> Result:
    identity = [(Path(cluster.data) / name).read_text().strip() for name in ("cluster.secret", "cluster.id")]
    password = cluster_keys(identity[0], cluster_id=identity[1]).password
    host, port = cluster.node(node_id).kafka.split(":")

    async def attempt() -> Result:
        environment = system_environment(threads=1)
        peers = Peers(environment, node_id=STRANGER, password=password, address=lambda *_: (host, int(port)))
        try:
            return await ask(peers)
        finally:
            await peers.close()
            close_environment(environment)

    return asyncio.run(attempt())
