"""The Kafka listener of a node, with a handler for each API that its roles can answer."""

from __future__ import annotations

from typing import Protocol

from kraft.config.models import ClusterConfig, NodeConfig
from kraft.coordinators.groups.coordinator import GroupCoordinator
from kraft.wire.handlers.all import node_handlers
from kraft.wire.handlers.metadata_log import MetadataFetches
from kraft.wire.handlers.producer_ids import ProducerIdSource
from kraft.wire.server import WireServer
from metadata.controller.active import ActiveController
from metadata.environment import Environment
from metadata.quorum.log import MetadataLog
from metadata.settings import BrokerSettings
from replication.manager.manager import ReplicaManager


class Door(Protocol):
    """A listener for clients, beside the Kafka one: HTTP. Its port is open while it is started."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


def wire_server(
    config: ClusterConfig,
    node: NodeConfig,
    *,
    environment: Environment,
    log: MetadataLog,
    controller: ActiveController | None,
    replicas: ReplicaManager | None,
    groups: GroupCoordinator | None,
    producer_ids: ProducerIdSource | None,
    settings: BrokerSettings,
) -> WireServer:
    """What a role would answer is None on a node without it."""
    fetches = MetadataFetches(log, clock=environment.clock, cluster_id=config.cluster_id) if node.is_voter else None
    return WireServer(
        environment,
        host=node.bind_host,
        port=node.kafka_port,
        cluster_id=config.cluster_id,
        password=config.keys.password,
        handlers=node_handlers(replicas, controller, metadata=fetches, groups=groups, producer_ids=producer_ids),
        settings=settings,
        on_broker_connection_lost=None if controller is None else controller.broker_connection_lost,
    )
