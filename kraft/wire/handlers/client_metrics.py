"""GetTelemetrySubscriptions (71) and PushTelemetry (72): metrics of clients, at a broker without a receiver (KIP-714).

Subscriptions are stored as settings and named to the clients that match them; metrics that a client pushes are checked
and dropped. Nothing is kept for a client: its subscription id follows from its instance id and from what it is asked
for, so that a push under an older subscription is noticed. Source: ClientMetricsManager, ClientMetricsConfigs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID
from zlib import crc32

from kraft.broker.configs import client_metrics_configs
from kraft.coordinators.groups.patterns import compiled
from kraft.protocol.encoding import ZERO_UUID
from kraft.protocol.errors import (
    InvalidConfig,
    InvalidRequest,
    TelemetryTooLarge,
    UnknownSubscriptionId,
    UnsupportedCompressionType,
)
from kraft.protocol.messages.get_telemetry_subscriptions_request import GetTelemetrySubscriptionsRequestData
from kraft.protocol.messages.get_telemetry_subscriptions_response import GetTelemetrySubscriptionsResponseData
from kraft.protocol.messages.push_telemetry_request import PushTelemetryRequestData
from kraft.protocol.messages.push_telemetry_response import PushTelemetryResponseData
from kraft.values import value
from kraft.wire.api_handler import ApiHandler, Call
from kraft.wire.node_parts import NodeParts
from metadata.settings import ClientMetricsSettings

NO_CODEC = 0
CODECS = (4, 3, 1, 2)
"""zstd, lz4, gzip, snappy: those that a push may use, in Kafka's order."""
PUSH_BYTES_MAX = 1_048_576
"""Kafka's default of telemetry.max.bytes."""
ALL_METRICS = "*"
INT32 = 0xFFFFFFFF
MATCHED = frozenset(
    {
        "client_instance_id",
        "client_id",
        "client_software_name",
        "client_software_version",
        "client_source_address",
        "client_source_port",
    }
)
"""What a subscription may name of a client."""


@value()
class _Wanted:
    """What the subscriptions that match a client ask of it together."""

    metrics: Sequence[str]
    interval_ms: int
    subscription_id: int


def client_patterns(text: str) -> Mapping[str, str]:
    """The patterns (RE2) of a subscription's `match`, by what they are compared with. Raises InvalidConfig 40."""
    patterns: dict[str, str] = {}
    for item in filter(None, (each.strip() for each in text.split(","))):
        key, equals, pattern = item.partition("=")
        if not equals or key.strip() not in MATCHED:
            raise InvalidConfig(f"Illegal client matching pattern: {item}; {', '.join(sorted(MATCHED))} can be matched")
        try:
            compiled(pattern.strip())
        except ValueError as error:
            raise InvalidConfig(f"Illegal client matching pattern: {item}: {error}") from error
        patterns[key.strip()] = pattern.strip()
    return patterns


def apis(broker: NodeParts) -> Sequence[ApiHandler]:
    handlers = _ClientMetrics(broker)
    return [
        ApiHandler(
            request=GetTelemetrySubscriptionsRequestData,
            response=GetTelemetrySubscriptionsResponseData,
            handle=handlers.subscriptions,
            refuse=lambda message, version, error: GetTelemetrySubscriptionsResponseData.make(error_code=error.code),
        ),
        ApiHandler(
            request=PushTelemetryRequestData,
            response=PushTelemetryResponseData,
            handle=handlers.push,
            refuse=lambda message, version, error: PushTelemetryResponseData.make(error_code=error.code),
        ),
    ]


class _ClientMetrics:
    def __init__(self, broker: NodeParts) -> None:
        self._gateway = broker.gateway
        self._broker = broker

    def subscriptions(self, call: Call[GetTelemetrySubscriptionsRequestData]) -> GetTelemetrySubscriptionsResponseData:
        """A client without an instance id is given one."""
        instance = call.message.client_instance_id
        if instance == ZERO_UUID:
            instance = UUID(bytes=self._broker.environment.rng.randbytes(16), version=4)
        wanted = self._wanted(instance, call)
        return GetTelemetrySubscriptionsResponseData.make(
            client_instance_id=instance,
            subscription_id=wanted.subscription_id,
            accepted_compression_types=CODECS,
            push_interval_ms=wanted.interval_ms,
            telemetry_max_bytes=PUSH_BYTES_MAX,
            delta_temporality=True,
            requested_metrics=wanted.metrics,
        )

    def push(self, call: Call[PushTelemetryRequestData]) -> PushTelemetryResponseData:
        """Raises InvalidRequest 42, UnknownSubscriptionId 117, UnsupportedCompressionType 76, TelemetryTooLarge 118."""
        message = call.message
        if message.client_instance_id == ZERO_UUID:
            raise InvalidRequest("a push names the client instance id that GetTelemetrySubscriptions gave")
        if message.subscription_id != self._wanted(message.client_instance_id, call).subscription_id:
            raise UnknownSubscriptionId("the subscriptions have changed; ask GetTelemetrySubscriptions again")
        if message.compression_type not in (NO_CODEC, *CODECS):
            raise UnsupportedCompressionType(f"compression type {message.compression_type} is not accepted for metrics")
        if len(message.metrics) > PUSH_BYTES_MAX:
            raise TelemetryTooLarge(f"{len(message.metrics)} bytes of metrics; {PUSH_BYTES_MAX} are accepted")
        return PushTelemetryResponseData.make(error_code=0)

    def _wanted(self, instance: UUID, call: Call[Any]) -> _Wanted:
        client = _description(instance, call)
        metrics: set[str] = set()
        interval_ms = int(ClientMetricsSettings().interval_ms)
        for settings in self._matching(client):
            metrics.update(filter(None, (each.strip() for each in settings["metrics"].split(","))))
            interval_ms = min(interval_ms, int(settings["interval.ms"]))
        named = (ALL_METRICS,) if ALL_METRICS in metrics else tuple(sorted(metrics))
        asked = crc32(f"{interval_ms} {','.join(named)}".encode()) ^ crc32(instance.bytes)
        return _Wanted(named, interval_ms, asked - (INT32 + 1 if asked > INT32 // 2 else 0))

    def _matching(self, client: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
        for kind, name in self._gateway.image.configs:
            if kind == "client-metrics":
                settings = {each.name: each.value or "" for each in client_metrics_configs(self._gateway, name)}
                with suppress(InvalidConfig):  # a pattern that another version has stored matches nobody
                    patterns = client_patterns(settings["match"])
                    if all(compiled(pattern).fullmatch(client[key]) for key, pattern in patterns.items()):
                        yield settings


def _description(instance: UUID, call: Call[Any]) -> Mapping[str, str]:
    host, _, port = call.connection.peer.rpartition(":")
    return {
        "client_instance_id": str(instance),
        "client_id": call.client_id or "",
        "client_software_name": call.connection.software_name,
        "client_software_version": call.connection.software_version,
        "client_source_address": host,
        "client_source_port": port,
    }
