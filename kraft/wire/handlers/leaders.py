"""Which topic a request means, and who leads a partition instead of this broker (KIP-951)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from kraft.broker.gateway import Gateway
from kraft.wire.api_handler import Call
from kraft.wire.terms import id_of
from metadata.image import TopicIdPartition
from metadata.records import NO_LEADER

UNKNOWN = (-1, -1)
"""Leader id and epoch when this broker does not know better: a client then asks for metadata."""


class Leaders:
    """What answers about partitions say of topics and leaders, from the image of this broker."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def asked_id(self, call: Call[Any], name: str) -> UUID | None:
        """The id of the topic that a request names; None when there is no such topic. A node sends the id as the name
        (`kraft.wire.terms.name_of`); UnknownTopicOrPartition 3 is raised when it does not.
        """
        return id_of(name) if call.is_from_node else self.id_of(name)

    def id_of(self, name: str) -> UUID | None:
        """The id of the topic with this name; None when there is no such topic."""
        topic = self._gateway.image.topics_by_name.get(name)
        return None if topic is None else topic.topic_id

    def current(self, key: TopicIdPartition) -> tuple[int, int]:
        """Leader and leader epoch of a partition, -1 each where they are not known: the hint for a client that came to
        the wrong broker (KIP-951). A wrong hint is worse than none, for clients follow it at once: this broker never
        names itself, nor one that is not alive.
        """
        image = self._gateway.image
        partition = image.partition(key.topic_id, key.partition)
        if partition is None or partition.leader in (NO_LEADER, self._gateway.node_id):
            return UNKNOWN
        broker = image.brokers.get(partition.leader)
        if broker is None or broker.fenced:
            return UNKNOWN
        return partition.leader, partition.leader_epoch
