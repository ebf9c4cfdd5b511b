"""The parts of a node with the controller role: a voter of the metadata quorum, which may be the active controller."""

from __future__ import annotations

from dataclasses import dataclass

from kraft.node.context import NodeContext
from kraft.node.quorum import voter_log
from kraft.wire.channels.controller import WireBrokerProbe
from kraft.wire.channels.replicas import WireReplicaQuery
from kraft.wire.metadata_fetches import MetadataFetches
from metadata.controller.active import ActiveController
from metadata.quorum.raft_log import RaftMetadataLog


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerParts:
    log: RaftMetadataLog
    active: ActiveController
    fetches: MetadataFetches
    """Serves the metadata log to nodes that are no voters."""

    def has_caught_up(self) -> bool:
        """Whether this voter had all that was committed when it asked; that is never taken back."""
        return self.log.has_caught_up


def controller_parts(context: NodeContext) -> ControllerParts:
    config, node, environment = context.config, context.node, context.environment
    settings = context.publisher.settings
    log = voter_log(
        config,
        node.id,
        environment=environment,
        host=context.quorum,
        events=context.events,
        on_fatal=context.on_fatal,
        is_hanging=context.main_loop.is_hanging,
        certificates=context.certificates,
    )
    active = ActiveController(
        node_id=node.id,
        cluster_id=config.cluster_id,
        log=log,
        environment=environment,
        events=context.events,
        static_settings=config.static_settings(node.id),
        query=WireReplicaQuery(context.peers, timeout_ms=settings.unclean_recovery_timeout_ms),
        probe=WireBrokerProbe(context.peers, timeout_ms=settings.broker_probe_timeout_ms),
    )
    return ControllerParts(
        log=log,
        active=active,
        fetches=MetadataFetches(log, clock=environment.clock, cluster_id=config.cluster_id),
    )
