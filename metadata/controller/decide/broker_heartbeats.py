"""The active controller's state from the brokers' heartbeats. Soft state: never in the log.

Fenced or not is a fact in the image. An entry here ends when its broker is fenced; all of them end with the controller.
`brokers` decides what a heartbeat changes, and when silence fences a broker.
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
    """Last metadata offset that the broker has reported as applied; -1: not reported yet."""
    caught_up_ms: int | None = None
    """Last time at which it had applied all that was committed; None: not yet."""
    wants_shutdown: bool = False
    shutdown_offset: int = -1
    """B6: all active brokers must have applied this offset before this one may stop; -1: no controlled shutdown."""
    is_disconnected: bool = False
    """Its connection broke, or this controller is new: no heartbeat arrived since. A new incarnation then need not wait
    for the end of the session (B1), or a restart of all nodes would take a session's time."""
    failed: FailedReplicas = NO_FAILED_REPLICAS
    """The failed replicas of its last heartbeat. A new controller knows none until the broker's first heartbeat, which
    is sent at once."""


@value(kw_only=True)
class Liveness:
    brokers: Mapping[int, BrokerLiveness] = field(default_factory=lambda: MappingProxyType({}))

    def with_broker(self, broker_id: int, state: BrokerLiveness) -> Liveness:
        return Liveness(brokers=MappingProxyType({**self.brokers, broker_id: state}))

    def without(self, broker_id: int) -> Liveness:
        left = {other: state for other, state in self.brokers.items() if other != broker_id}
        return Liveness(brokers=MappingProxyType(left))

    def postponed(self, by_ms: int) -> Liveness:
        """The same as if all brokers had been heard `by_ms` later."""
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
