"""Settings of cluster.toml with which a node starts here, and none of Apache Kafka does. Pure.

Source: KafkaConfig.validateValues, GroupCoordinatorConfig and CleanerConfig of Kafka 3.9 to 4.4. What contradicts each
other for share groups is refused here, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from kraft.kafka_data.releases import SHARE_GROUPS, Release, number_of
from metadata.settings import BrokerSettings

_ASSIGNORS: Final = "group.consumer.assignors"
_ASSIGNORS_SINCE: Final = "4.0"
"""Before, it took names of classes only."""
_OF_CONSUMER_GROUPS: Final = ("session.timeout.ms", "heartbeat.interval.ms", "assignment.interval.ms")
ORDERED: Final = (
    ("replica.fetch.wait.max.ms", "replica.lag.time.max.ms"),
    ("replica.fetch.wait.max.ms", "replica.socket.timeout.ms"),
    *((f"group.consumer.min.{name}", f"group.consumer.{name}") for name in _OF_CONSUMER_GROUPS),
    *((f"group.consumer.{name}", f"group.consumer.max.{name}") for name in _OF_CONSUMER_GROUPS),
)
"""Pairs of settings: the first may not be greater than the second."""
CLEANER_BYTES_MIN: Final = 1 << 20
"""log.cleaner.dedupe.buffer.size has to be more than that."""


def since(name: str) -> str | None:
    """The first release that takes a setting of cluster.toml as it is here; None for all."""
    if name == _ASSIGNORS:
        return _ASSIGNORS_SINCE
    return SHARE_GROUPS.since if name.startswith("group.share.") else None


def is_taken(name: str, release: Release) -> bool:
    first = since(name)
    return first is None or number_of(first) <= number_of(release.name)


def refusals(settings: BrokerSettings) -> Iterator[str]:
    """Why no Kafka starts with the settings, in words."""
    values: dict[str, Any] = settings.model_dump(by_alias=True)
    for less, more in ORDERED:
        if values[less] > values[more]:
            yield f"{less} = {values[less]} is more than {more} = {values[more]}"
    buffer = values["log.cleaner.dedupe.buffer.size"]
    if values["log.cleaner.enable"] and buffer <= CLEANER_BYTES_MIN:
        yield f"log.cleaner.dedupe.buffer.size = {buffer} has to be more than {CLEANER_BYTES_MIN}"
    queued, request = values["queued.max.request.bytes"], values["socket.request.max.bytes"]
    if 0 < queued < request:
        yield f"queued.max.request.bytes = {queued} is less than socket.request.max.bytes = {request}"
    if not values["max.connections.per.ip"] and not values["max.connections.per.ip.overrides"]:
        yield "max.connections.per.ip = 0 needs max.connections.per.ip.overrides"
