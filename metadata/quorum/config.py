"""Configuration of a voter: its names, its secret, the addresses of the others, and its timeouts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from metadata.environment import Tls


@dataclass(frozen=True, slots=True, kw_only=True)
class QuorumConfig:
    cluster_id: str
    node_id: int
    key: bytes
    """The key that all voters share, see `metadata.cluster_keys`."""
    voters: Mapping[int, tuple[str, int]]
    """Address under which this node reaches each voter; its own entry is not used."""
    listen: tuple[str, int]
    directory: str
    """`<data>/__cluster_metadata`."""
    election_timeout_ms: int
    listen_tls: Tls | None = None
    """TLS of connections from other voters."""
    dial_tls: Mapping[int, Tls] = field(default_factory=dict)
    """TLS of connections to the voters whose ports have it."""
    snapshot_bytes: int
    """Bytes of journal after which a snapshot is taken (Q7)."""

    @property
    def peers(self) -> tuple[int, ...]:
        return tuple(sorted(voter for voter in self.voters if voter != self.node_id))

    @property
    def rank(self) -> int:
        return sorted(self.voters).index(self.node_id)
