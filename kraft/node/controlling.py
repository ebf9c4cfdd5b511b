"""What stands between this broker and the active controller: who it is, and the way of its ISR changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from uuid import UUID

from kraft.broker.control import ControllerDoor
from kraft.broker.lifecycle import BrokerIdentity
from kraft.config.models import ClusterConfig, NodeConfig
from metadata.controller.events import AlterPartition, ErrorDetail
from metadata.image import PartitionImage, TopicIdPartition
from metadata.settings import BrokerSettings


def broker_identity(config: ClusterConfig, node: NodeConfig, incarnation_id: UUID) -> BrokerIdentity:
    return BrokerIdentity(
        cluster_id=config.cluster_id,
        broker_id=node.id,
        incarnation_id=incarnation_id,
        rest=str(node.rest),
        kafka=str(node.kafka),
        rack=node.rack,
    )


class AlterPartitionSender:
    """`replication`'s way to change an ISR: one attempt within the replica socket timeout; it retries itself (I8)."""

    def __init__(self, door: ControllerDoor, settings: Callable[[], BrokerSettings]) -> None:
        self._door = door
        self._settings = settings

    async def alter(self, request: AlterPartition) -> Mapping[TopicIdPartition, PartitionImage | ErrorDetail]:
        return await self._door.control(request, timeout_ms=self._settings().replica_socket_timeout_ms)
