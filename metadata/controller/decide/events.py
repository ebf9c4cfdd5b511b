"""Events of the controller besides requests: time, broken connections, answers to its own queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from metadata.controller.requests import ControllerRequest, ElectLeaders, ReplicaLogEnd
from metadata.image import TopicIdPartition


@dataclass(frozen=True, slots=True)
class ActivationEvent:
    """This node became the active controller: every unfenced broker gets a session's time to send a heartbeat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsTick:
    """Look for brokers that have been silent for too long (B3); fences at most one."""

    late_ms: int = 0
    """Delay of this tick. A controller that slept received nothing: the brokers are not to blame (B5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiredHeartbeat:
    """A heartbeat that waited too long in the queue: it renews the session and changes nothing else (B5)."""

    broker_id: int
    broker_epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerDisconnected:
    """The broker's connection to the controller broke; it may return."""

    broker_id: int
    broker_epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerUnreachable:
    """The broker's connection broke and its port refuses: its process is dead now, before the session ends."""

    broker_id: int
    broker_epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEndsLearned:
    """The answers of the live replicas of offline partitions about their logs (L8); only silent brokers are missing."""

    partitions: tuple[TopicIdPartition, ...]
    answers: Mapping[int, tuple[ReplicaLogEnd, ...]]
    """Answers by broker, of the brokers that answered in time."""
    request: ElectLeaders | None = None
    """The ElectLeaders request behind the queries, if there is one: it overrides the topics' settings, as in Kafka."""


@dataclass(frozen=True, slots=True)
class PreferredElectionTick:
    """L6: elect preferred leaders again where others lead."""


@dataclass(frozen=True, slots=True)
class UncleanSweepTick:
    """L4: look at all partitions without a leader."""


InternalEvent: TypeAlias = (
    ActivationEvent
    | SessionsTick
    | ExpiredHeartbeat
    | BrokerDisconnected
    | BrokerUnreachable
    | LogEndsLearned
    | PreferredElectionTick
    | UncleanSweepTick
)

Input: TypeAlias = ControllerRequest | InternalEvent
