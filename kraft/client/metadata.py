"""What a client knows of the cluster: its nodes with their addresses, and the leaders of a topic. Frozen; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NO_LEADER = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    id: int
    url: str
    """Base URL of its REST listener."""
    rack: str | None
    is_fenced: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicMetadata:
    name: str
    leaders: tuple[int, ...]
    """The leader of each partition; -1 where there is none now."""
    fetched_ms: float

    @property
    def partitions(self) -> int:
        return len(self.leaders)

    @property
    def with_leader(self) -> tuple[int, ...]:
        """Partitions with a leader; all, when none has one."""
        found = tuple(number for number, leader in enumerate(self.leaders) if leader != NO_LEADER)
        return found or tuple(range(len(self.leaders)))


def parse_nodes(document: Mapping[str, Any], *, scheme: str = "http") -> tuple[Node, ...]:
    """From `GET /v3/clusters/{id}/brokers`. All nodes have the same scheme."""
    return tuple(
        Node(id=each["broker_id"], url=f"{scheme}://{each['rest']}", rack=each["rack"], is_fenced=each["is_fenced"])
        for each in document["data"]
    )


def parse_topic(name: str, document: Sequence[Mapping[str, Any]], *, now_ms: float) -> TopicMetadata:
    """From `GET /topics/{topic}/partitions`."""
    leaders = {each["partition"]: each["leader"] for each in document}
    assert sorted(leaders) == list(range(len(leaders))), f"partitions of {name!r} are {sorted(leaders)}"
    ordered = (leaders[number] for number in range(len(leaders)))
    return TopicMetadata(
        name=name, leaders=tuple(NO_LEADER if leader is None else leader for leader in ordered), fetched_ms=now_ms
    )
