"""Assignors on the client's side: Kafka's range, roundrobin, sticky and cooperative-sticky. Pure.

Members are taken in the order of their ids (of their instance ids before, for static ones), topics by name.
Sources: org.apache.kafka.clients.consumer.RangeAssignor, RoundRobinAssignor; for the sticky ones see `sticky`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import cycle

from kraft.coordinators.groups.sticky import (
    Assignment,
    PartitionCounts,
    Subscriptions,
    assign_cooperative,
    assign_sticky,
)
from kraft.coordinators.groups.subscriptions import COOPERATIVE, STICKY


def assign(protocol: str, members: Subscriptions, counts: PartitionCounts) -> Assignment:
    """Each member's partitions, sorted. Topics that do not exist are left out."""
    assigned = ASSIGNORS[protocol](members, counts)
    return {member: sorted(assigned[member]) for member in members}


def assign_range(members: Subscriptions, counts: PartitionCounts) -> Assignment:
    """Each topic for itself: neighbouring partitions, the first members get one more."""
    assigned: Assignment = {member: [] for member in members}
    for topic in _topics(members, counts):
        takers = [member for member in _ordered(members) if topic in members[member].topics]
        share, extra = divmod(counts[topic], len(takers))
        start = 0
        for index, member in enumerate(takers):
            size = share + (index < extra)
            assigned[member] += [(topic, partition) for partition in range(start, start + size)]
            start += size
    return assigned


def assign_round_robin(members: Subscriptions, counts: PartitionCounts) -> Assignment:
    """All partitions of all topics in turn; a member that does not want the topic is passed over."""
    assigned: Assignment = {member: [] for member in members}
    turn = cycle(_ordered(members))
    for topic in _topics(members, counts):
        for partition in range(counts[topic]):
            member = next(member for member in turn if topic in members[member].topics)
            assigned[member].append((topic, partition))
    return assigned


def _topics(members: Subscriptions, counts: PartitionCounts) -> list[str]:
    return sorted({topic for each in members.values() for topic in each.topics if counts.get(topic)})


def _ordered(members: Subscriptions) -> list[str]:
    def order(member: str) -> tuple[bool, str, str]:
        instance_id = members[member].instance_id
        return instance_id is None, instance_id or member, member

    return sorted(members, key=order)


ASSIGNORS: Mapping[str, Callable[[Subscriptions, PartitionCounts], Assignment]] = {
    "range": assign_range,
    "roundrobin": assign_round_robin,
    STICKY: assign_sticky,
    COOPERATIVE: assign_cooperative,
}
