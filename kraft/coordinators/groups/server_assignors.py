"""Assignors of the coordinator (KIP-848): Kafka's `uniform` and `range`. Pure.

`uniform` balances first (two members with the same choice differ by one partition at most), then leaves each partition
where it is. `range` gives each member neighbouring partitions, of topics alike the same numbers; members are taken in
the order of their instance ids, then of their member ids. Neither looks at racks; Kafka's have not since 4.0.
Source: org.apache.kafka.coordinator.group.assignor.UniformAssignor with its two builders, RangeAssignor; Kafka 4.3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from uuid import UUID

from kraft.coordinators.groups.consumer_records import Partitions
from metadata.image import TopicIdPartition

ROUNDS_MAX = 16
"""Rounds of balancing over all topics: where subscriptions overlap, each about halves what is left to balance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscriber:
    topics: frozenset[UUID]
    """All exist."""
    instance_id: str | None = None
    target: Partitions = frozenset()
    """What it was to have so far."""


Subscribers = Mapping[str, Subscriber]
"""Member id -> subscriber."""
Counts = Mapping[UUID, int]
"""How many partitions each topic has."""
Assignment = dict[str, Partitions]


def assign_uniform(members: Subscribers, counts: Counts) -> Assignment:
    """Every partition of every topic that somebody wants is in the result once."""
    if not members:
        return {}
    choices = {member.topics for member in members.values()}
    if len(choices) == 1:
        return _assign_alike(members, counts, next(iter(choices)))
    return _Balance(members, counts).assignment()


def assign_range(members: Subscribers, counts: Counts) -> Assignment:
    order = sorted(members, key=lambda member_id: _place(member_id, members[member_id]))
    assigned: dict[str, list[TopicIdPartition]] = {member_id: [] for member_id in order}
    for topic in _topics(members):
        takers = [member_id for member_id in order if topic in members[member_id].topics]
        share, extra = divmod(counts[topic], len(takers))
        start = 0
        for index, member_id in enumerate(takers):
            end = start + share + (index < extra)
            assigned[member_id] += [TopicIdPartition(topic, partition) for partition in range(start, end)]
            start = end
    return {member_id: frozenset(partitions) for member_id, partitions in assigned.items()}


SERVER_ASSIGNORS: Mapping[str, Callable[[Subscribers, Counts], Assignment]] = {
    "uniform": assign_uniform,
    "range": assign_range,
}


def _place(member_id: str, member: Subscriber) -> tuple[bool, str, str]:
    return member.instance_id is None, member.instance_id or "", member_id


def _topics(members: Subscribers) -> list[UUID]:
    return sorted({topic for member in members.values() for topic in member.topics})


# --- uniform, all want the same -------------------------------------------------------------------------------------


def _assign_alike(members: Subscribers, counts: Counts, topics: frozenset[UUID]) -> Assignment:
    """The extra partitions, where they do not divide evenly, stay with those who have more than their share."""
    wanted = [TopicIdPartition(topic, partition) for topic in sorted(topics) for partition in range(counts[topic])]
    exist = frozenset(wanted)
    share, extra = divmod(len(wanted), len(members))
    kept: dict[str, list[TopicIdPartition]] = {}
    quotas: dict[str, int] = {}
    taken: set[TopicIdPartition] = set()
    for index, member_id in enumerate(sorted(members)):
        mine = sorted((members[member_id].target & exist) - taken)
        has_extra = extra > 0 and (len(mine) > share or len(members) - index <= extra)
        extra -= has_extra
        quotas[member_id] = share + has_extra
        kept[member_id] = mine[: quotas[member_id]]
        taken.update(kept[member_id])
    free = iter([partition for partition in wanted if partition not in taken])
    for member_id, partitions in kept.items():
        partitions += [next(free) for _ in range(quotas[member_id] - len(partitions))]
    return {member_id: frozenset(partitions) for member_id, partitions in kept.items()}


# --- uniform, each wants something else -----------------------------------------------------------------------------


class _Balance:
    """Gives what nobody has to the one with least, topic by topic; then moves from the one with most to the one with
    least of a topic's subscribers, until no move helps."""

    def __init__(self, members: Subscribers, counts: Counts) -> None:
        self._members = members
        self._counts = counts
        self._ids = sorted(members)
        self._subscribers: dict[UUID, list[int]] = {}
        for index, member_id in enumerate(self._ids):
            for topic in sorted(members[member_id].topics):
                self._subscribers.setdefault(topic, []).append(index)
        self._sizes = [0] * len(self._ids)
        self._owners = {topic: [-1] * counts[topic] for topic in self._subscribers}

    def assignment(self) -> Assignment:
        self._keep()
        order = sorted(self._subscribers, key=self._rank)
        for topic in order:
            self._fill(topic)
        shared = [topic for topic in order if len(self._subscribers[topic]) > 1]
        for _ in range(ROUNDS_MAX):
            if not sum(self._level(topic) for topic in shared):
                break
        assigned: dict[str, list[TopicIdPartition]] = {member_id: [] for member_id in self._ids}
        for topic, owners in self._owners.items():
            for partition, owner in enumerate(owners):
                assigned[self._ids[owner]].append(TopicIdPartition(topic, partition))
        return {member_id: frozenset(partitions) for member_id, partitions in assigned.items()}

    def _keep(self) -> None:
        for index, member_id in enumerate(self._ids):
            member = self._members[member_id]
            for each in sorted(member.target):
                topic = each.topic_id
                is_there = topic in member.topics and each.partition < self._counts[topic]
                if is_there and self._owners[topic][each.partition] < 0:
                    self._give(topic, each.partition, index)

    def _give(self, topic: UUID, partition: int, member: int) -> None:
        owner = self._owners[topic][partition]
        if owner >= 0:
            self._sizes[owner] -= 1
        self._owners[topic][partition] = member
        self._sizes[member] += 1

    def _rank(self, topic: UUID) -> tuple[float, int, UUID]:
        """Topics with many partitions for each subscriber first: later ones even out what they leave uneven."""
        subscribers = len(self._subscribers[topic])
        return -self._counts[topic] / subscribers, subscribers, topic

    def _fill(self, topic: UUID) -> None:
        least = [(self._sizes[member], member) for member in self._subscribers[topic]]
        heapify(least)
        for partition, owner in enumerate(self._owners[topic]):
            if owner < 0:
                _, member = heappop(least)
                self._give(topic, partition, member)
                heappush(least, (self._sizes[member], member))

    def _level(self, topic: UUID) -> int:
        """How many partitions were moved."""
        owned: dict[int, list[int]] = {}
        for partition, owner in enumerate(self._owners[topic]):
            owned.setdefault(owner, []).append(partition)
        least = [(self._sizes[member], member) for member in self._subscribers[topic]]
        most = [(-self._sizes[member], member) for member in owned]
        heapify(least)
        heapify(most)
        moved = 0
        while most and least:
            has_most, has_least = most[0][1], least[0][1]
            if self._sizes[has_least] != least[0][0]:
                heappop(least)  # it has given up one since, and was put in again
            elif self._sizes[has_most] != -most[0][0] or not owned[has_most]:
                heappop(most)
            elif self._sizes[has_most] - self._sizes[has_least] <= 1:
                break
            else:
                partition = owned[has_most].pop()
                self._give(topic, partition, has_least)
                owned.setdefault(has_least, []).append(partition)
                moved += 1
                for member in (has_most, has_least):
                    heappush(least, (self._sizes[member], member))
                    heappush(most, (-self._sizes[member], member))
        return moved
