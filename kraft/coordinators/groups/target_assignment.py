"""The target assignment of a group of the consumer protocol (KIP-848): who is to have what. Pure.

That of a small group is computed within the event that makes it due. That of a large one takes as long as many
heartbeats: the shell computes it apart from the event loop, from the group as it stands, and hands it to the group in
parts (`TargetsComputed`). The group goes on meanwhile: a member that has gone gets nothing, one that wants other
topics now takes of its target what it wants (`reconciliation`), and the next assignment sees both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from uuid import UUID

from kraft.coordinators.groups.consumer_group import ConsumerGroup
from kraft.coordinators.groups.consumer_records import Partitions
from kraft.coordinators.groups.consumer_requests import TargetsComputed
from kraft.coordinators.groups.server_assignors import SERVER_ASSIGNORS, Subscriber
from metadata.image import MetadataImage

ASSIGNED_AT_ONCE_MAX = 100
"""Members of a group whose target assignment is computed with each new epoch."""
PART_WEIGHT_MAX = 5_000
"""Partitions of one part, each member counted as `MEMBER_WEIGHT` of them: some 5 ms."""
MEMBER_WEIGHT = 20


def is_assigned_at_once(group: ConsumerGroup) -> bool:
    return len(group.members) <= ASSIGNED_AT_ONCE_MAX


def is_assignment_due(group: ConsumerGroup, *, interval_ms: int, now_ms: int) -> bool:
    """Whether a large group is due, which is assigned once in an interval: a new member has no partitions before."""
    is_newer = group.epoch > group.assignment_epoch
    return is_newer and not is_assigned_at_once(group) and now_ms >= group.assigned_ms + interval_ms


def changed_targets(
    group: ConsumerGroup, image: MetadataImage, assignors: Collection[str]
) -> Sequence[tuple[str, Partitions]]:
    """The members that are to have something else than so far."""
    ids = image.topic_ids
    known: dict[frozenset[str], frozenset[UUID]] = {}
    for names in map(group.subscription_of, group.members.values()):
        if names not in known:
            known[names] = frozenset(ids[name] for name in names if name in ids)
    members = {
        member_id: Subscriber(
            topics=known[group.subscription_of(member)],
            instance_id=member.instance_id,
            target=group.targets.get(member_id, frozenset()),
        )
        for member_id, member in group.members.items()
    }
    wanted = frozenset[UUID]().union(*known.values())
    counts = {topic: len(image.topics[topic].partitions) for topic in wanted}
    assign = SERVER_ASSIGNORS[group.preferred_assignor(assignors)]
    return [each for each in assign(members, counts).items() if group.targets.get(each[0]) != each[1]]


def in_parts(changes: Sequence[tuple[str, Partitions]], epoch: int) -> Iterator[TargetsComputed]:
    """One at least."""
    part: list[tuple[str, Partitions]] = []
    weight = 0
    for change in changes:
        part.append(change)
        weight += MEMBER_WEIGHT + len(change[1])
        if weight >= PART_WEIGHT_MAX:
            yield TargetsComputed(epoch=epoch, changes=part)
            part, weight = [], 0
    yield TargetsComputed(epoch=epoch, changes=part, is_last=True)
