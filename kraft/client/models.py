"""What administration answers: frozen, with Kafka's words. Made from documents of the v3 dialect. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

Document = Mapping[str, Any]
RouteKind: TypeAlias = Literal["direct", "pattern", "fanout"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterDescription:
    cluster_id: str
    controller_id: int
    """Node id of the active controller; -1 when there is none now."""
    brokers: tuple[BrokerDescription, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerDescription:
    broker_id: int
    host: str
    port: int
    """The port of Kafka's protocol."""
    rest: str
    """host:port of the REST API."""
    rack: str | None
    is_fenced: bool
    broker_epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionDescription:
    topic: str
    partition: int
    leader: int
    """-1 when there is none."""
    leader_epoch: int
    replicas: tuple[int, ...]
    """The preferred leader first."""
    isr: tuple[int, ...]

    @property
    def is_under_replicated(self) -> bool:
        return len(self.isr) < len(self.replicas)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicDescription:
    name: str
    topic_id: str
    is_internal: bool
    replication_factor: int
    partitions: tuple[PartitionDescription, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigEntry:
    name: str
    value: str | None
    is_default: bool
    is_read_only: bool
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionResult:
    """What became of one partition of many; `error` None: done, or nothing was to be done."""

    topic: str
    partition: int
    error: str | None
    code: int | None


class RouteBinding(NamedTuple):
    """Records whose routing key matches go to the topic."""

    key: str
    """A key (direct), words with * and # (pattern), or empty (fanout)."""
    topic: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteDescription:
    name: str
    kind: RouteKind
    bindings: tuple[RouteBinding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reassignment:
    topic: str
    partition: int
    adding: tuple[int, ...]
    removing: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupListing:
    group: str
    state: str
    """EMPTY, PREPARING_REBALANCE, COMPLETING_REBALANCE, ASSIGNING, RECONCILING, STABLE or DEAD."""
    generation: int
    coordinator: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLag:
    topic: str
    partition: int
    current_offset: int
    """-1: nothing is committed."""
    log_end_offset: int
    lag: int
    member: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupDescription:
    group: str
    state: str
    generation: int
    coordinator: int
    assignor: str
    members: tuple[str, ...]
    lags: tuple[GroupLag, ...]

    @property
    def total_lag(self) -> int:
        return sum(each.lag for each in self.lags)


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetChange:
    topic: str
    partition: int
    old_offset: int
    """-1: there was none."""
    new_offset: int


def parse_broker(document: Document) -> BrokerDescription:
    return BrokerDescription(
        broker_id=document["broker_id"],
        host=document["host"],
        port=document["port"],
        rest=document["rest"],
        rack=document["rack"],
        is_fenced=document["is_fenced"],
        broker_epoch=document["broker_epoch"],
    )


def parse_partition(document: Document) -> PartitionDescription:
    return PartitionDescription(
        topic=document["topic_name"],
        partition=document["partition_id"],
        leader=document["leader_id"],
        leader_epoch=document["leader_epoch"],
        replicas=tuple(document["assignment"]),
        isr=tuple(document["isr"]),
    )


def parse_topic_description(document: Document, partitions: Document) -> TopicDescription:
    return TopicDescription(
        name=document["topic_name"],
        topic_id=document["topic_id"] or "",
        is_internal=document["is_internal"],
        replication_factor=document["replication_factor"],
        partitions=tuple(map(parse_partition, partitions["data"])),
    )


def parse_config(document: Document) -> ConfigEntry:
    return ConfigEntry(
        name=document["name"],
        value=document["value"],
        is_default=document["is_default"],
        is_read_only=document["is_read_only"],
        source=document["source"],
    )


def parse_result(document: Document) -> PartitionResult:
    return PartitionResult(
        topic=document["topic_name"],
        partition=document["partition_id"],
        error=document["message"],
        code=document.get("kafka_code"),
    )


def parse_reassignment(document: Document) -> Reassignment:
    return Reassignment(
        topic=document["topic_name"],
        partition=document["partition_id"],
        adding=tuple(document["adding_replicas"]),
        removing=tuple(document["removing_replicas"]),
    )


def parse_route(document: Document) -> RouteDescription:
    return RouteDescription(
        name=document["route_name"],
        kind=document["route_kind"],
        bindings=tuple(RouteBinding(each["binding_key"], each["topic_name"]) for each in document["bindings"]),
    )


def parse_group(document: Document) -> GroupListing:
    return GroupListing(
        group=document["consumer_group_id"],
        state=document["state"],
        generation=document["generation"],
        coordinator=last_number(document["coordinator"]),
    )


def parse_group_description(document: Document, consumers: Document, lags: Document) -> GroupDescription:
    listing = parse_group(document)
    return GroupDescription(
        group=listing.group,
        state=listing.state,
        generation=listing.generation,
        coordinator=listing.coordinator,
        assignor=document["partition_assignor"],
        members=tuple(each["consumer_id"] for each in consumers["data"]),
        lags=tuple(map(_parse_lag, lags["data"])),
    )


def _parse_lag(document: Document) -> GroupLag:
    return GroupLag(
        topic=document["topic_name"],
        partition=document["partition_id"],
        current_offset=document["current_offset"],
        log_end_offset=document["log_end_offset"],
        lag=document["lag"],
        member=document["consumer_id"],
    )


def parse_offset_change(document: Document) -> OffsetChange:
    return OffsetChange(
        topic=document["topic_name"],
        partition=document["partition_id"],
        old_offset=document["old_offset"],
        new_offset=document["new_offset"],
    )


def last_number(related: Document | None) -> int:
    """The id at the end of a link to a broker; -1 without a link."""
    return -1 if related is None else int(str(related["related"]).rpartition("/")[2])
