"""The input of a decision (`ControllerState`) and its result (`Decision`)."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from kraft.protocol.errors import StaleBrokerEpoch
from kraft.values import value
from metadata.controller.decide.broker_heartbeats import Liveness
from metadata.controller.decide.events import InternalEvent
from metadata.controller.requests import FailedReplicas
from metadata.image import BrokerImage, MetadataImage, PartitionImage, TopicIdPartition
from metadata.records import Record
from metadata.settings import BrokerSettings

LogEndQueries: TypeAlias = tuple[tuple[int, tuple[TopicIdPartition, ...]], ...]
"""(broker id, partitions whose log end the broker is asked for)."""


@dataclass(frozen=True, kw_only=True)
class ControllerState:
    """The state that a decision is made on."""

    image: MetadataImage
    liveness: Liveness
    now_ms: int
    settings: BrokerSettings
    """The controller's effective settings: static ones, overridden by the cluster-wide dynamic ones."""
    rng: random.Random
    cluster_id: str

    @cached_property
    def active(self) -> frozenset[int]:
        """Brokers that may lead and join ISRs (L1, I6)."""
        return frozenset(broker.broker_id for broker in self.image.brokers.values() if broker.is_active)

    def eligible(self, partition: PartitionImage, *, among: frozenset[int] | None = None) -> frozenset[int]:
        """The active brokers whose log of this partition works (L1, KIP-858).

        A read-only one may still lead when the ISR has no better member: its records stay readable, and writes continue
        as soon as there is room. `among`: the brokers that will be active, if they differ from the image's.
        """
        active = self.active if among is None else among
        if not self._failing:
            return active
        key = TopicIdPartition(partition.topic_id, partition.partition)
        live = active - {broker for broker, failed in self._failing.items() if key in failed.offline}
        whole = live - {broker for broker, failed in self._failing.items() if key in failed.read_only}
        return live if whole.isdisjoint(partition.isr) else whole

    @cached_property
    def _failing(self) -> dict[int, FailedReplicas]:
        return {broker: state.failed for broker, state in self.liveness.brokers.items() if len(state.failed)}

    @property
    def is_any_failing(self) -> bool:
        return bool(self._failing)

    def has_failed(self, broker_id: int, partition: PartitionImage) -> bool:
        failed = self._failing.get(broker_id)
        key = TopicIdPartition(partition.topic_id, partition.partition)
        return failed is not None and (key in failed.offline or key in failed.read_only)

    def broker_at_epoch(self, broker_id: int, broker_epoch: int) -> BrokerImage:
        """The registration that a broker claims to act under. Raises StaleBrokerEpoch 77."""
        broker = self.image.brokers.get(broker_id)
        if broker is None:
            raise StaleBrokerEpoch(
                f"broker {broker_id} is not registered, so broker epoch {broker_epoch} is not current"
            )
        if broker.broker_epoch != broker_epoch:
            raise StaleBrokerEpoch(
                f"broker {broker_id} has broker epoch {broker.broker_epoch}, the request has {broker_epoch}"
            )
        return broker

    def allows_unclean(self, topic_name: str) -> bool:
        """L3: the topic's own setting, else the broker default."""
        override = self.image.config("topic", topic_name).get("unclean.leader.election.enable")
        return self.settings.unclean_leader_election_enable if override is None else override.lower() == "true"


@value(kw_only=True)
class Decision:
    """The records to commit, the answer to send after the commit, and the soft state from then on."""

    liveness: Liveness
    records: tuple[Record, ...] = ()
    is_atomic: bool = False
    """All records happen or none does, as where Kafka has `ControllerResult.atomicOf`. Otherwise every prefix of them
    is a valid state of the cluster, from which the next controller can continue."""
    reply: object = None
    queries: LogEndQueries = ()
    """Queries to live replicas; their answers return as one `LogEndsLearned` (L8)."""
    candidates: tuple[TopicIdPartition, ...] = ()
    is_deferred: bool = False
    """The reply is not known yet: the `LogEndsLearned` with this request has it."""
    follow_up: InternalEvent | None = None
    """The event to decide next, on the image with these records."""
