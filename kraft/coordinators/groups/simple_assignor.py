"""Which member should read which share partition: Kafka's assignor `simple` for share groups. Pure.

Each partition is shared by the same number of members, and each member has about the same number of partitions. With
at most as many members as partitions each partition has one member; with more members, several. Balance comes first,
then each member keeps what it has. Members that want different topics share each topic among its subscribers.
Source: org.apache.kafka.coordinator.group.assignor.SimpleAssignor and its two builders, Kafka 4.4.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

from kraft.coordinators.groups.consumer_records import Partitions
from kraft.coordinators.groups.server_assignors import Assignment, Subscribers
from metadata.image import TopicIdPartition


def assign_simple(members: Subscribers, partitions: Mapping[UUID, Collection[int]]) -> Assignment:
    """Every partition of `partitions` whose topic somebody wants has a member at least."""
    assigned: dict[str, frozenset[TopicIdPartition]] = dict.fromkeys(members, frozenset())
    for topics in _topics_shared_alike(members):
        takers = sorted(member_id for member_id, each in members.items() if topics <= each.topics)
        wanted = [
            TopicIdPartition(topic, each) for topic in sorted(topics) for each in sorted(partitions.get(topic, ()))
        ]
        targets = {member_id: members[member_id].target for member_id in takers}
        for member_id, share in _share(takers, wanted, targets).items():
            assigned[member_id] |= share
    return assigned


def _topics_shared_alike(members: Subscribers) -> Sequence[frozenset[UUID]]:
    """Topics that are shared out together: all of them where all members want the same, else each by itself."""
    choices = {each.topics for each in members.values()}
    if len(choices) <= 1:
        return [each for each in choices if each]
    return [frozenset({topic}) for topic in sorted(frozenset[UUID]().union(*choices))]


def _share(
    takers: Sequence[str], wanted: Sequence[TopicIdPartition], targets: Mapping[str, Partitions]
) -> dict[str, set[TopicIdPartition]]:
    if not wanted:
        return {}
    sharing = -(-len(takers) // len(wanted))
    slots, number = sharing * len(wanted), len(takers)
    room = {
        member_id: -(-slots * (index + 1) // number) - -(-slots * index // number)
        for index, member_id in enumerate(takers)
    }
    held: Counter[TopicIdPartition] = Counter()
    shares: dict[str, set[TopicIdPartition]] = {member_id: set() for member_id in takers}
    known = set(wanted)
    for member_id in takers:  # each keeps what it has, as long as it has room and others have not enough of it
        for each in sorted(targets[member_id] & known):
            if len(shares[member_id]) < room[member_id] and held[each] < sharing:
                shares[member_id].add(each)
                held[each] += 1
    _fill(takers, wanted, shares, room, held, sharing)
    return shares


def _fill(
    takers: Sequence[str],
    wanted: Sequence[TopicIdPartition],
    shares: dict[str, set[TopicIdPartition]],
    room: Mapping[str, int],
    held: Counter[TopicIdPartition],
    sharing: int,
) -> None:
    """Round after round, each partition that has too few members gets one more, those with the fewest first. A member
    never gets a partition twice, so that some room may stay empty at the end."""
    free = [member_id for member_id in takers if len(shares[member_id]) < room[member_id]]
    for members_of_each in range(1, sharing + 1):
        for each in wanted:
            if held[each] >= members_of_each:
                continue
            taker = next((member_id for member_id in free if each not in shares[member_id]), None)
            if taker is not None:
                shares[taker].add(each)
                held[each] += 1
                free.remove(taker)
                if len(shares[taker]) < room[taker]:
                    free.append(taker)
