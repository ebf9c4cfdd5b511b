"""Names and numbers in Kafka's messages that a handler reads and a node sends, each in one place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal
from uuid import UUID

from kraft.protocol.errors import InvalidRequest, UnknownTopicOrPartition
from metadata.controller.requests import ConfigResource
from metadata.records import ResourceType

READ_UNCOMMITTED, READ_COMMITTED = 0, 1
"""Isolation levels (KIP-98): all up to the high watermark, or what was committed, up to the last stable offset."""
DEBUGGING_REPLICA = -2
"""Kafka's replica id of a reader whom any replica answers, leading or not."""
RECOVERED, RECOVERING = 0, 1
"""States of a leader after an unclean election (KIP-704)."""
PREFERRED, UNCLEAN = 0, 1
"""Types of elections (KIP-460)."""

Operation = Literal["set", "delete", "append", "subtract"]
OPERATIONS: tuple[Operation, ...] = ("set", "delete", "append", "subtract")
"""Operations of IncrementalAlterConfigs, by Kafka's number (KIP-339)."""
RESOURCE_TYPES: dict[ResourceType, int] = {"topic": 2, "broker": 4, "client-metrics": 16, "group": 32}
"""Kafka's number of each type of resource whose settings are in the metadata log."""


def resource_of(number: int, name: str) -> ConfigResource:
    """Raises InvalidRequest 42 for a type of resource that has no settings here."""
    for resource_type, known in RESOURCE_TYPES.items():
        if number == known:
            return ConfigResource(resource_type=resource_type, name=name)
    raise InvalidRequest(
        f"resources of type {number} have no settings here; "
        + ", ".join(f"{known} ({name})" for name, known in RESOURCE_TYPES.items())
        + " have"
    )


REST, KAFKA = "REST", "KAFKA"
"""Names of a broker's two listeners for nodes in its registration. Beside them are the addresses that Kafka clients
get, by the names of their listeners."""

METADATA_TOPIC_ID = UUID(int=1)
"""Kafka's Uuid.METADATA_TOPIC_ID: a Fetch of this topic reads the metadata log."""

TOPIC_ID_PREFIX = "id:"


def name_of(topic_id: UUID) -> str:
    """The name by which nodes send a topic id where Kafka's message has no field for one (ListOffsets, DeleteRecords,
    OffsetForLeaderEpoch, DescribeProducers). By the time of the request, the topic's own name may mean another topic,
    created after the deletion of the one that is meant. No topic has such a name: a colon is not legal there.
    """
    return TOPIC_ID_PREFIX + topic_id.hex


def id_of(name: str) -> UUID:
    """The topic id in such a name. Raises UnknownTopicOrPartition 3 for anything that `name_of` did not make."""
    try:
        if not name.startswith(TOPIC_ID_PREFIX):
            raise ValueError(name)
        return UUID(hex=name.removeprefix(TOPIC_ID_PREFIX))
    except ValueError:
        raise UnknownTopicOrPartition(f"topic {name[:60]!r}: brokers name topics by 'id:' and the topic id") from None


MECHANISM_NUMBERS: Mapping[str, int] = {"SCRAM-SHA-256": 1, "SCRAM-SHA-512": 2}
"""Source: ScramMechanism."""
