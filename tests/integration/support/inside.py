"""A test's own way through a node's Kafka listener, with the cluster's secret, as another broker would come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from kraft.runtime.environment import close_environment, system_environment
from kraft.wire.channels import ForwardChannel
from kraft.wire.peers import Peers
from tests.integration.support.cluster import Cluster

Result = TypeVar("Result")
STRANGER = 99


def forward(cluster: Cluster, node_id: int, ask: Callable[[ForwardChannel], Awaitable[Result]]) -> Result:
    """The outcome of one request over the `forward` purpose of a node."""
    secret = (Path(cluster.data) / "cluster.secret").read_text().strip()
    host, port = cluster.node(node_id).kafka.split(":")

    async def attempt() -> Result:
        environment = system_environment(threads=1)
        peers = Peers(environment, node_id=STRANGER, secret=secret, address=lambda *_: (host, int(port)))
        try:
            return await ask(ForwardChannel(peers, node_id))
        finally:
            await peers.close()
            close_environment(environment)

    return asyncio.run(attempt())
