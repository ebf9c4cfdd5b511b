"""Where this node finds the others, per purpose: its own overrides, cluster.toml, else what a broker registered."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kraft.broker.gateway import NodeInfo
from kraft.config.models import ClusterConfig, Purpose, parse_address
from kraft.protocol.errors import BrokerNotAvailable
from metadata.image import MetadataImage


class AddressBook:
    def __init__(self, config: ClusterConfig, *, node_id: int, image: Callable[[], MetadataImage]) -> None:
        self._config = config
        self._node_id = node_id
        self._image = image
        self._known = {node.id for node in config.nodes}
        self._configured: dict[tuple[int, Purpose], tuple[str, int]] = {}
        """Asked for before each request; the addresses in cluster.toml never change."""

    def address(self, node_id: int, purpose: Purpose) -> tuple[str, int]:
        """Raises BrokerNotAvailable for a node that neither the configuration nor the metadata knows."""
        configured = self._configured.get((node_id, purpose))
        if configured is not None:
            return configured
        if node_id in self._known:
            found = self._config.address(self._node_id, node_id, purpose)
            self._configured[node_id, purpose] = found.host, found.port
            return found.host, found.port
        broker = self._image().brokers.get(node_id)
        if broker is None:
            raise BrokerNotAvailable(f"node {node_id} is not in cluster.toml and never registered as a broker")
        registered = parse_address(broker.kafka)
        return registered.host, registered.port


def node_infos(config: ClusterConfig) -> Mapping[int, NodeInfo]:
    return {
        node.id: NodeInfo(
            node_id=node.id,
            roles=node.roles,
            rest=str(node.rest),
            kafka=str(node.kafka),
            quorum=None if node.quorum is None else str(node.quorum),
            rack=node.rack,
        )
        for node in config.nodes
    }
