"""Connections of Kafka clients by address: how many are open, and how many are made in a second (KIP-402, KIP-612).

Nodes are not counted: the first request of a connection shows whether it is one.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from kraft.broker.client_quotas import Rate
from kraft.wire.handler_table import ApiHandlers
from metadata.controller.decide.client_quotas import CONNECTION_CREATION_RATE, IP
from metadata.environment import Clock
from metadata.image import QuotaEntity
from metadata.settings import BrokerSettings

ADDRESSES_MAX = 10_000
"""Addresses whose rate is counted; when there are more, the one that connected longest ago begins again."""
DELAY_MS_MAX = 1_000
"""Longest wait of a new connection for `max.connection.creation.rate`: a sample of the rate."""


class ConnectionQuotas:
    """What is open and what was made, by the address of the client."""

    def __init__(
        self,
        clock: Clock,
        *,
        settings: Callable[[], BrokerSettings],
        quotas: Callable[[], Mapping[QuotaEntity, Mapping[str, float]]],
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._quotas = quotas
        self._open: Counter[str] = Counter()
        self._made: OrderedDict[str, Rate] = OrderedDict()
        self._all = Rate()

    def refusal(self, host: str) -> str:
        """Why a new connection of this address is refused; empty: it is not, and counts."""
        settings = self._settings()
        limit = overrides(settings.max_connections_per_ip_overrides).get(host, settings.max_connections_per_ip)
        if self._open[host] >= limit:
            return f"{self._open[host]} clients of {host} are connected (max.connections.per.ip)"
        bound, now_ms = self._rate_of(host), self._clock.monotonic_ms()
        if bound is None:
            return ""
        rate = self._made.pop(host, None) or Rate()
        self._made[host] = rate
        if len(self._made) > ADDRESSES_MAX:
            self._made.popitem(last=False)
        rate.add(1, now_ms)
        if not rate.over_ms(bound, now_ms):
            return ""
        rate.add(-1, now_ms)
        return f"{host} connects more often than {bound:g} times a second ({CONNECTION_CREATION_RATE})"

    def delay_ms(self) -> int:
        """How long a new connection waits, so that no more are made in a second than the setting allows."""
        now_ms = self._clock.monotonic_ms()
        self._all.add(1, now_ms)
        return min(self._all.over_ms(self._settings().max_connection_creation_rate, now_ms), DELAY_MS_MAX)

    @contextmanager
    def counting(self, host: str) -> Iterator[None]:
        """While the connection is open."""
        self._open[host] += 1
        try:
            yield
        finally:
            self._open[host] -= 1
            if not self._open[host]:
                del self._open[host]

    def _rate_of(self, host: str) -> float | None:
        quotas = self._quotas()
        if not quotas:
            return None
        own: QuotaEntity = ((IP, host),)
        default: QuotaEntity = ((IP, None),)
        for entity in (own, default):
            if CONNECTION_CREATION_RATE in quotas.get(entity, ()):
                return quotas[entity][CONNECTION_CREATION_RATE]
        return None


def connection_quotas(clock: Clock, handlers: ApiHandlers) -> ConnectionQuotas:
    """The limits of a node, as its settings and its image have them at each connection."""
    return ConnectionQuotas(clock, settings=lambda: handlers.settings, quotas=lambda: handlers.quota_entities)


def overrides(text: str) -> dict[str, int]:
    """`host:count` with commas between, as in Kafka; an address of IPv6 has colons of its own."""
    pairs = (each.strip().rpartition(":") for each in text.split(",") if each.strip())
    return {host: int(count) for host, _, count in pairs}
