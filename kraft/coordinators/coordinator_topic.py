"""The internal topic whose partitions' leaders are coordinators: it comes into being here, and says who coordinates."""

from __future__ import annotations

from collections.abc import Callable

from kraft.broker.gateway import Gateway
from kraft.coordinators.led_partitions import partition_of
from kraft.protocol.errors import CoordinatorNotAvailable, LeaderNotAvailable, NotCoordinator
from metadata.controller.requests import ErrorDetail, NewTopic


class CoordinatorTopic:
    def __init__(self, gateway: Gateway, name: str, new: Callable[[Gateway], NewTopic]) -> None:
        self._gateway = gateway
        self._name = name
        self._new = new

    async def ensure(self) -> None:
        """G5, T1: it comes into being when it is first needed. Raises CoordinatorNotAvailable 15."""
        if self._gateway.image.topic(self._name) is not None:
            return
        try:
            created = await self._gateway.ensure_topic(self._new(self._gateway))
        except LeaderNotAvailable as unknown:
            raise CoordinatorNotAvailable(str(unknown)) from unknown
        if isinstance(created, ErrorDetail):
            raise CoordinatorNotAvailable(f"{self._name} cannot be created: {created.message}")

    def coordinator_of(self, key: str) -> int:
        """Node id of the leader of the partition of a group or a transactional id; the topic is there. Raises
        NotCoordinator 16 while it has none."""
        image = self._gateway.image
        number = partition_of(key, self._name, image)
        topic = image.topic(self._name)
        assert topic is not None, key
        partition = topic.partitions[number]
        if not partition.has_leader:
            raise NotCoordinator(f"partition {number} of {self._name} has no leader")
        return partition.leader
