"""The metadata that the parts of a broker take on: from the image on that holds the registration of this process (B2).

A broker that led by the registration of an earlier process would lead in the past. So replicas and coordinators see
nothing of the metadata before, and a broker has caught up once it has read up to its own registration (KIP-631).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

from metadata.delta import MetadataDelta
from metadata.image import MetadataImage
from replication.manager.manager import ReplicaManager


class RegisteredMetadata:
    def __init__(
        self,
        *,
        broker_id: int,
        incarnation_id: UUID,
        replicas: ReplicaManager,
        further: Sequence[Callable[[MetadataDelta, MetadataImage], None]],
    ) -> None:
        """`further` parts take on each change after the replicas, in this order."""
        self._broker_id = broker_id
        self._incarnation_id = incarnation_id
        self._replicas = replicas
        self._further = further
        self._is_registered = False

    def has_caught_up(self) -> bool:
        return self._is_registered

    def on_metadata(self, delta: MetadataDelta, image: MetadataImage) -> None:
        is_first = not self._is_registered
        if is_first:
            own = image.brokers.get(self._broker_id)
            self._is_registered = own is not None and own.incarnation_id == self._incarnation_id
            if not self._is_registered:
                return
        self._replicas.apply_metadata(delta)
        if is_first:
            self._replicas.remove_strays()
        for take_on in self._further:
            take_on(delta, image)
