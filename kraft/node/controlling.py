"""The two small adapters between this broker and the active controller."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kraft.broker.control import ControllerDoor
from metadata.controller.events import AlterPartition, ErrorDetail
from metadata.image import PartitionImage, TopicIdPartition
from metadata.settings import BrokerSettings


class AlterPartitionSender:
    """`replication`'s way to change an ISR: one attempt within the replica socket timeout; it retries itself (I8)."""

    def __init__(self, door: ControllerDoor, settings: Callable[[], BrokerSettings]) -> None:
        self._door = door
        self._settings = settings

    async def alter(self, request: AlterPartition) -> Mapping[TopicIdPartition, PartitionImage | ErrorDetail]:
        return await self._door.control(request, timeout_ms=self._settings().replica_socket_timeout_ms)
