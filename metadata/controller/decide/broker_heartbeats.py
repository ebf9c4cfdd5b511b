"""What the active controller knows from the brokers' heartbeats. Soft state: never in the log.

Fenced or not is a fact and lives in the image. An entry here ends when its broker is fenced; all of them end with the
controller. What a heartbeat changes, and when silence fences a broker, is decided in `brokers`.
Source: org.apache.kafka.controller.BrokerHeartbeatManager.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from types import MappingProxyType

from kraft.values import value
from metadata.controller.requests import NO_FAILED_REPLICAS, FailedReplicas


@value(kw_only=True)
class BrokerLiveness:
    broker_epoch: int
    last_contact_ms: int
    metadata_offset: int = -1
    """Last metadata offset the broker says it has applied; -1 until it says so."""
    caught_up_ms: int | None = None
    """When it last had applied all that was committed then; None: not yet."""
    wants_shutdown: bool = False
    shutdown_offset: int = -1
    """B6: all active brokers must have applied this offset before this one may stop; -1: no shutdown under way."""
    is_disconnected: bool = False
    """Its connection broke, or this controller is new and has not heard it: no heartbeat came since. A new incarnation
    then need not wait for the session to end (B1), or a restart of everything would take a session's time."""
    failed: FailedReplicas = NO_FAILED_REPLICAS
    """As of its last heartbeat. A new controller knows of none until it has heard the broker, which beats at once."""


@value(kw_only=True)
class Liveness:
    brokers: Mapping[int, BrokerLiveness] = field(default_factory=lambda: MappingProxyType({}))

    def with_broker(self, broker_id: int, state: BrokerLiveness) -> Liveness:
        return Liveness(brokers=MappingProxyType({**self.brokers, broker_id: state}))

    def without(self, broker_id: int) -> Liveness:
        left = {other: state for other, state in self.brokers.items() if other != broker_id}
        return Liveness(brokers=MappingProxyType(left))

    def postponed(self, by_ms: int) -> Liveness:
        """As if all had been heard `by_ms` later."""
        if not by_ms:
            return self
        moved = {
            broker_id: replace(state, last_contact_ms=state.last_contact_ms + by_ms)
            for broker_id, state in self.brokers.items()
        }
        return Liveness(brokers=MappingProxyType(moved))

    def has_session(self, broker_id: int, *, now_ms: int, timeout_ms: int) -> bool:
        state = self.brokers.get(broker_id)
        return state is not None and not state.is_disconnected and now_ms - state.last_contact_ms < timeout_ms
