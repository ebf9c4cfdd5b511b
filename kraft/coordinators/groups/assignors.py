"""Who gets which partition: Kafka's range, roundrobin, sticky and cooperative-sticky. Pure.

Members are taken in the order of their ids (of their instance ids before, for static ones), topics by name.
Sources: org.apache.kafka.clients.consumer.RangeAssignor, RoundRobinAssignor, internals.AbstractStickyAssignor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import cycle

from kraft.coordinators.groups.subscriptions import Subscription, TopicPartition

Subscriptions = Mapping[str, Subscription]
PartitionCounts = Mapping[str, int]
Assignment = dict[str, list[TopicPartition]]

COOPERATIVE = "cooperative-sticky"


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


def assign_sticky(members: Subscriptions, counts: PartitionCounts) -> Assignment:
    """As even as can be, and no partition moves that does not have to."""
    wanted = {
        (topic, partition): [member for member in _ordered(members) if topic in members[member].topics]
        for topic in _topics(members, counts)
        for partition in range(counts[topic])
    }
    assigned = _kept(members, wanted)
    taken = {partition for partitions in assigned.values() for partition in partitions}
    free = sorted((each for each in wanted if each not in taken), key=lambda each: (len(wanted[each]), each))
    for partition in free:
        taker = min(wanted[partition], key=lambda member: len(assigned[member]))
        assigned[taker].append(partition)
    _balance(assigned, wanted)
    return assigned


def assign_cooperative(members: Subscriptions, counts: PartitionCounts) -> Assignment:
    """KIP-429: what moves is first taken from its owner; it is given on in the rebalance that follows."""
    target = assign_sticky(members, counts)
    owner = {partition: member for member, partitions in _claims(members).items() for partition in partitions}
    return {
        member: [partition for partition in partitions if owner.get(partition, member) == member]
        for member, partitions in target.items()
    }


def _kept(members: Subscriptions, wanted: Mapping[TopicPartition, list[str]]) -> Assignment:
    kept: Assignment = {member: [] for member in members}
    for member, partitions in _claims(members).items():
        kept[member] = sorted(partition for partition in partitions if member in wanted.get(partition, ()))
    return kept


def _claims(members: Subscriptions) -> dict[str, set[TopicPartition]]:
    """What each member says it owns; of two the one of the later generation, and none of two of the same."""
    best: dict[TopicPartition, tuple[int, str | None]] = {}
    for member in _ordered(members):
        for partition in members[member].owned:
            generation, holder = best.get(partition, (-2, None))
            if members[member].generation > generation:
                best[partition] = members[member].generation, member
            elif members[member].generation == generation and holder is not None:
                best[partition] = generation, None
    claims: dict[str, set[TopicPartition]] = {member: set() for member in members}
    for partition, (_, holder) in best.items():
        if holder is not None:
            claims[holder].add(partition)
    return claims


def _balance(assigned: Assignment, wanted: Mapping[TopicPartition, list[str]]) -> None:
    """Move single partitions from members with more to members with at least two fewer, until none can."""
    while True:
        move = _next_move(assigned, wanted)
        if move is None:
            return
        partition, giver, taker = move
        assigned[giver].remove(partition)
        assigned[taker].append(partition)


def _next_move(
    assigned: Assignment, wanted: Mapping[TopicPartition, list[str]]
) -> tuple[TopicPartition, str, str] | None:
    for giver in sorted(assigned, key=lambda member: (-len(assigned[member]), member)):
        for partition in sorted(assigned[giver], reverse=True):
            taker = min(wanted[partition], key=lambda member: len(assigned[member]))
            if len(assigned[giver]) - len(assigned[taker]) > 1:
                return partition, giver, taker
    return None


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
    "sticky": assign_sticky,
    COOPERATIVE: assign_cooperative,
}
