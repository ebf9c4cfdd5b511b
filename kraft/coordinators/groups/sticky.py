"""Kafka's sticky assignment, partition for partition: balanced first, then as few moves as can be. Pure.

Source: org.apache.kafka.clients.consumer.internals.AbstractStickyAssignor of 4.1, without racks. Where its result hangs
on the order of a HashMap, that order is computed. It differs where Kafka's would throw, give a member what it does not
want, or give a partition to two: an empty subscription equals no other, a previous owner gets a partition back only
while it is subscribed, a partition that its topic does not have is not kept, and of two claims (cooperative) the newest
generation's holder gives up the partition before anyone else gets it, also when subscriptions differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kraft.coordinators.groups.subscriptions import Subscription
from kraft.coordinators.java import HashOrder, hash_ordered, partition_hash
from kraft.protocol.primitives import TopicPartition

Subscriptions = Mapping[str, Subscription]
PartitionCounts = Mapping[str, int]
Assignment = dict[str, list[TopicPartition]]

Pair = tuple[str, str]
"""From member, to member."""


def assign_sticky(members: Subscriptions, counts: PartitionCounts) -> Assignment:
    ordered = {member: members[member] for member in hash_ordered(sorted(members))}
    known = _wanted(members, counts)
    owned, doubly = _owned(ordered, known)
    if len({frozenset(each.topics) for each in ordered.values()}) == 1:
        return _Equal(owned, doubly, known).assigned()
    return _General(ordered, owned, known).assigned()


def assign_cooperative(members: Subscriptions, counts: PartitionCounts) -> Assignment:
    """KIP-429: what moves is first taken from its owner; it is given on in the rebalance that follows."""
    ordered = {member: members[member] for member in hash_ordered(sorted(members))}
    owned, doubly = _owned(ordered, _wanted(members, counts))
    owner = {partition: member for member, partitions in owned.items() for partition in partitions}
    return {
        member: [each for each in partitions if each not in doubly and owner.get(each, member) == member]
        for member, partitions in assign_sticky(members, counts).items()
    }


def _wanted(members: Subscriptions, counts: PartitionCounts) -> dict[str, int]:
    """The topics that exist and that somebody wants."""
    wanted = {topic for each in members.values() for topic in each.topics}
    return {topic: counts[topic] for topic in wanted if counts.get(topic)}


def _owned(members: Subscriptions, counts: PartitionCounts) -> tuple[Assignment, set[TopicPartition]]:
    """What each member holds by its claims (the newest generation's counts), and what several of one claimed."""
    owned: Assignment = {member: [] for member in members}
    doubly: set[TopicPartition] = set()
    owner: dict[TopicPartition, str] = {}
    for member, subscription in members.items():
        for partition in subscription.owned:
            if not 0 <= partition[1] < counts.get(partition[0], 0):
                continue
            other = owner.get(partition)
            if other is None or subscription.generation > members[other].generation:
                owned[member].append(partition)
            elif subscription.generation == members[other].generation:
                doubly.add(partition)
            else:
                continue
            if other is not None and partition in owned[other]:
                owned[other].remove(partition)
            owner[partition] = member
    return owned, doubly


class _Equal:
    """All members want the same topics: nobody gets more than one partition more than another."""

    def __init__(self, owned: Assignment, doubly: set[TopicPartition], counts: PartitionCounts) -> None:
        self._owned = owned
        self._doubly = doubly
        self._all = [(topic, number) for topic in sorted(counts) for number in range(counts[topic])]
        self._low, self._larger_wanted = divmod(len(self._all), len(owned))
        self._high = self._low + (self._larger_wanted > 0)
        self._below: list[str] = []
        """Members with fewer than the lower quota."""
        self._at_low: list[str] = []
        """Members with exactly the lower quota, of which some get one more."""
        self._result: Assignment = {member: [] for member in owned}

    def assigned(self) -> Assignment:
        self._keep_owned()
        taken = {partition for kept in self._result.values() for partition in kept}
        self._below.sort()
        self._at_low.sort()
        self._fill([partition for partition in self._all if partition not in taken])
        return self._result

    def _keep_owned(self) -> None:
        larger = 0
        for member, claims in self._owned.items():
            owned = sorted((each for each in claims if each not in self._doubly), key=lambda each: (each[1], each[0]))
            if len(owned) < self._low:
                self._result[member] = owned
                self._below.append(member)
            elif len(owned) >= self._high and larger < self._larger_wanted:
                larger += 1
                if larger == self._larger_wanted:
                    self._at_low.clear()
                self._result[member] = owned[: self._high]
            else:
                self._result[member] = owned[: self._low]
                if larger < self._larger_wanted:
                    self._at_low.append(member)

    def _fill(self, free: list[TopicPartition]) -> None:
        """In turn, all to the lower quota first."""
        turn = 0
        for partition in free:
            if self._below:
                turn = 0 if turn >= len(self._below) else turn
                member = self._below[turn]
                turn += 1
            else:
                member = self._at_low.pop(0)
            self._result[member].append(partition)
            if len(self._result[member]) == self._low:
                turn -= 1
                self._below.pop(turn)
                self._at_low.append(member)


@dataclass(slots=True)
class _Moves:
    """Which partitions went from whom to whom, so that no two of a topic go opposite ways between two members."""

    pairs: dict[TopicPartition, Pair] = field(default_factory=dict)
    by_topic: dict[str, dict[Pair, HashOrder[TopicPartition]]] = field(default_factory=dict)

    def moved(self, partition: TopicPartition, giver: str, taker: str) -> None:
        known = self.pairs.pop(partition, None)
        if known is not None:
            of_topic = self.by_topic[partition[0]]
            of_topic[known].remove(partition)
            if not of_topic[known]:
                del of_topic[known]
            giver = known[0]
        if giver != taker:
            self.pairs[partition] = giver, taker
            of_topic = self.by_topic.setdefault(partition[0], {})
            of_topic.setdefault((giver, taker), HashOrder(partition_hash)).add(partition)

    def better(self, partition: TopicPartition, giver: str, taker: str) -> TopicPartition:
        """A partition of the topic that came the other way before, if there is one: it goes back instead."""
        known = self.pairs.get(partition)
        back = taker, giver if known is None else known[0]
        found = self.by_topic.get(partition[0], {}).get(back)
        return partition if found is None else found.keys()[0]


class _General:
    """Members want different topics: move single partitions while that makes the shares more even."""

    def __init__(self, members: Subscriptions, owned: Assignment, counts: PartitionCounts) -> None:
        self._members = members
        self._counts = counts
        self._takers = {topic: [m for m, each in members.items() if topic in each.topics] for topic in counts}
        self._shares = {
            member: [each for each in partitions if each[0] in members[member].topics]
            for member, partitions in owned.items()
        }
        self._has_revoked = any(len(self._shares[member]) < len(owned[member]) for member in owned)
        self._owner = {partition: member for member, share in self._shares.items() for partition in share}
        topics = sorted(counts, key=lambda topic: (len(self._takers[topic]), topic))
        self._all = [(topic, number) for topic in topics for number in range(counts[topic])]
        self._moves = _Moves()

    def assigned(self) -> Assignment:
        is_fresh = not any(self._shares.values())
        free = [partition for partition in self._all if partition not in self._owner]
        for partition in free:
            self._give(partition, self._least(partition[0]))
        before, score = {member: list(share) for member, share in self._shares.items()}, self._score()
        if not self._has_revoked:
            self._even_out(free)
        if self._even_out(self._all) and not is_fresh and self._score() >= score:
            return before
        return self._shares

    def _previous_owners(self) -> dict[TopicPartition, str]:
        """Owners by claims of generations before the newest."""
        newest = max(each.generation for each in self._members.values())
        best: dict[TopicPartition, tuple[int, str]] = {}
        for member, each in self._members.items():
            if each.generation < newest:
                for partition in each.owned:
                    if partition not in best or each.generation > best[partition][0]:
                        best[partition] = each.generation, member
        return {partition: member for partition, (_, member) in best.items()}

    def _even_out(self, partitions: list[TopicPartition]) -> bool:
        """Whether anything moved. Ends: each move makes the sum of the squares of the shares' sizes smaller."""
        previous, has_moved, is_moving = self._previous_owners(), False, True
        movable = [partition for partition in partitions if len(self._takers[partition[0]]) > 1]
        while is_moving:
            is_moving = False
            for partition in movable:
                taker = self._better_owner(partition, previous.get(partition))
                if taker is not None:
                    self._move(self._moves.better(partition, self._owner[partition], taker), taker)
                    has_moved = is_moving = True
        return has_moved

    def _better_owner(self, partition: TopicPartition, previous: str | None) -> str | None:
        size = len(self._shares[self._owner[partition]])
        takers = self._takers[partition[0]]
        if previous is not None and previous in takers and size > len(self._shares[previous]) + 1:
            return previous
        least = self._least(partition[0])
        return least if size > len(self._shares[least]) + 1 else None

    def _least(self, topic: str) -> str:
        return min(self._takers[topic], key=lambda member: (len(self._shares[member]), member))

    def _give(self, partition: TopicPartition, member: str) -> None:
        self._shares[member].append(partition)
        self._owner[partition] = member

    def _move(self, partition: TopicPartition, taker: str) -> None:
        giver = self._owner[partition]
        self._moves.moved(partition, giver, taker)
        self._shares[giver].remove(partition)
        self._give(partition, taker)

    def _score(self) -> int:
        """The sum of the differences of all pairs of shares that can change; 0 is perfectly even."""
        movable = {member for takers in self._takers.values() if len(takers) > 1 for member in takers}
        sizes = sorted(len(self._shares[member]) for member in movable)
        return sum((2 * index - len(sizes) + 1) * size for index, size in enumerate(sizes))
