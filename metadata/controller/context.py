"""The active controller's dependencies, beside its own state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from metadata.controller.inbox import Inbox
from metadata.controller.requests import BrokerProbe, ReplicaQuery
from metadata.environment import Environment
from metadata.events import Events
from metadata.quorum.log import MetadataLog


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerContext:
    """The dependencies of every controller term of one node."""

    node_id: int
    cluster_id: str
    log: MetadataLog
    environment: Environment
    events: Events
    static_settings: Mapping[str, Any]
    query: ReplicaQuery
    probe: BrokerProbe
    inbox: Inbox
