"""Which TLS each port of a node has, and each connection to another node: `tls_mode`, and the protocols of listeners.

    tls_mode      nodes dial    nodes may come without TLS    a port whose protocol has no TLS
    (none)        by protocol   by protocol                   takes no TLS
    allow         without TLS   yes                           takes both
    prefer        with TLS      yes                           takes both
    require       with TLS      no                            takes both

Clients of a port whose protocol has TLS always need it. Each row works together with the rows next to it, so that a
cluster moves from one to the next node by node. Pure.
"""

from __future__ import annotations

from typing import Protocol

from kraft.config.models import ClusterConfig, NodeConfig, SecurityProtocol, has_tls
from metadata.environment import Tls


class Certificates(Protocol):
    """TLS of a node, as server and as the client of other nodes (`kraft.runtime.tls.NodeTls`)."""

    @property
    def server(self) -> Tls: ...
    @property
    def either(self) -> Tls:
        """A server's that also takes connections without TLS."""
        ...

    @property
    def client(self) -> Tls: ...


def uses_tls(config: ClusterConfig) -> bool:
    """Whether the nodes need certificates."""
    return config.tls_mode is not None or any(node.has_tls for node in config.nodes)


def dial_tls(config: ClusterConfig, peer: NodeConfig, certificates: Certificates | None) -> Tls | None:
    """TLS of this node's connections to the Kafka port and the quorum's port of a peer."""
    if certificates is None or config.tls_mode == "allow":
        return None
    return certificates.client if config.tls_mode is not None or has_tls(peer.kafka_protocol) else None


def shared_port_tls(config: ClusterConfig, node: NodeConfig, certificates: Certificates | None) -> Tls | None:
    """TLS of the Kafka port, which nodes and clients share."""
    if certificates is None or (config.tls_mode is None and not has_tls(node.kafka_protocol)):
        return None
    is_strict = has_tls(node.kafka_protocol) and not may_be_plain(config)
    return certificates.server if is_strict else certificates.either


def quorum_port_tls(config: ClusterConfig, node: NodeConfig, certificates: Certificates | None) -> Tls | None:
    """TLS of the quorum's port, where only nodes come."""
    if certificates is None or (config.tls_mode is None and not has_tls(node.kafka_protocol)):
        return None
    return certificates.either if may_be_plain(config) else certificates.server


def client_port_tls(config: ClusterConfig, protocol: SecurityProtocol, certificates: Certificates | None) -> Tls | None:
    """TLS of a port where only clients come: of HTTP, or a further listener."""
    if certificates is None:
        return None
    if has_tls(protocol):
        return certificates.server
    return None if config.tls_mode is None else certificates.either


def may_be_plain(config: ClusterConfig) -> bool:
    """Whether nodes may come without TLS, whatever the protocol of the port is."""
    return config.tls_mode in ("allow", "prefer")


def nodes_need_tls(config: ClusterConfig) -> bool:
    """Whether nodes that come without TLS are refused at a port that takes both."""
    return config.tls_mode == "require"
