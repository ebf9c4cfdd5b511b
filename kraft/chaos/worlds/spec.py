"""The nodes and settings of a cluster, before ports and folders are chosen. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from kraft.config.models import Role
from kraft.protocol.primitives import SettingValue

NOTHING: Final[Mapping[str, SettingValue]] = MappingProxyType({})
BOTH_ROLES: Final[tuple[Role, ...]] = ("broker", "controller")


class ScenarioError(Exception):
    """The scenario requests an impossible action; the message contains what is possible."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    roles: tuple[Role, ...] = BOTH_ROLES
    settings: Mapping[str, SettingValue] = field(default_factory=dict)
    """Kafka settings of this node alone."""
    rack: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSpec:
    nodes: Mapping[int, NodeSpec]
    settings: Mapping[str, SettingValue] = field(default_factory=dict)
    """Kafka settings of all nodes."""

    @staticmethod
    def of(count: int = 3, *, controllers: int = 0, settings: Mapping[str, SettingValue] = NOTHING) -> ClusterSpec:
        """`count` nodes with both roles, or `count` brokers, and behind them dedicated controllers."""
        brokers: tuple[Role, ...] = ("broker",) if controllers else BOTH_ROLES
        nodes = {number: NodeSpec(roles=brokers) for number in range(1, count + 1)}
        nodes |= {count + number: NodeSpec(roles=("controller",)) for number in range(1, controllers + 1)}
        return ClusterSpec(nodes=nodes, settings=settings)

    @property
    def brokers(self) -> tuple[int, ...]:
        return tuple(node_id for node_id, node in self.nodes.items() if "broker" in node.roles)

    @property
    def voters(self) -> tuple[int, ...]:
        return tuple(node_id for node_id, node in self.nodes.items() if "controller" in node.roles)
