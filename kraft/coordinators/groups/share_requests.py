"""What a member of a share group (KIP-932) asks, what else happens to its group, and the answers. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias
from uuid import UUID

from kraft.coordinators.groups.consumer_records import Partitions
from kraft.protocol.errors import KafkaError
from kraft.values import value
from metadata.image import TopicIdPartition


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareHeartbeat:
    """All that a member ever asks: to join (epoch 0), to leave (-1), and whether anything is new. What is None has not
    changed since its last heartbeat."""

    ticket: int
    member_id: str
    member_epoch: int
    client_id: str
    client_host: str
    rack_id: str | None = None
    topics: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareHeartbeatAnswer:
    member_id: str
    member_epoch: int
    heartbeat_interval_ms: int = 0
    assignment: Partitions | None = None
    """All that the member has now; None when nothing has changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatesInitialized:
    """The share coordinator has answered: these partitions have a state now, and those have none."""

    initialized: Partitions
    failed: Partitions = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareTopicsDeleted:
    """Topics are gone, and so are the states of their partitions."""

    topic_ids: frozenset[UUID]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatesDeleted:
    """The states of share partitions of the group are about to be deleted, or were."""

    topic_ids: frozenset[UUID] | None = None
    """None: of all topics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetStates:
    """A group without members, or a new one, is to begin at these offsets. The answer is what the share coordinator is
    to be asked."""

    ticket: int
    start_offsets: Mapping[TopicIdPartition, int]


ShareEvent: TypeAlias = ShareHeartbeat | StatesInitialized | ShareTopicsDeleted | StatesDeleted | ResetStates


@dataclass(frozen=True, slots=True, kw_only=True)
class InitializeStates:
    """What the share coordinator is to be asked once the records of the decision are replicated."""

    group_id: str
    state_epoch: int
    start_offsets: Mapping[TopicIdPartition, int]


@value()
class StartOffset:
    """What the share coordinator knows of a share partition, and how many records are left of it."""

    start_offset: int
    leader_epoch: int
    lag: int
    """-1: not known."""


class Persister(Protocol):
    """The share coordinator, as the group coordinator needs it (KIP-932). Each raises KafkaError, OSError or
    ConnectionClosed when the outcome is not known."""

    async def initialize(self, request: InitializeStates) -> Partitions:
        """The partitions that have a state now; the others have none, or an answer is missing."""
        ...

    async def delete(self, group_id: str, partitions: Partitions) -> None:
        """Also of partitions that have no state."""
        ...

    async def changed(self, group_id: str, partitions: Partitions) -> None:
        """The leaders of the partitions are notified that the share coordinator knows another state than they do."""
        ...

    async def offsets(
        self, group_id: str, partitions: Partitions
    ) -> Mapping[TopicIdPartition, StartOffset | KafkaError]:
        """Where the group stands in each."""
        ...
