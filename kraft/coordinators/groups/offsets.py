"""Committed offsets: who may commit, what a commit records, when an offset is forgotten (G4, G7, G8). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kraft.coordinators.groups.classic_group import ClassicGroup, Phase
from kraft.coordinators.groups.classic_rebalance import check_generation, member_or_raise
from kraft.coordinators.groups.consumer_group import ConsumerGroup, ConsumerMember
from kraft.coordinators.groups.records import NO_EXPIRY, CommittedOffset, GroupRecord, OffsetKey
from kraft.coordinators.groups.requests import OffsetToCommit
from kraft.coordinators.groups.subscriptions import decode_subscription
from kraft.protocol.errors import (
    GroupIdNotFound,
    IllegalGeneration,
    NonEmptyGroup,
    OffsetMetadataTooLarge,
    RebalanceInProgress,
    StaleMemberEpoch,
    UnknownMemberId,
    UnsupportedVersion,
)
from kraft.protocol.primitives import INT64_MAX, TopicPartition
from metadata.image import TopicIdPartition

CONSUMER = "consumer"
NO_RETENTION = -1
"""A commit that does not say how long it is to be kept."""
REDRIVE_PREFIX = "kraft.redrive."
"""The own group of a queue, before its name: how far its dead letters were brought back. Its offsets do not expire."""
DELAYED_PREFIX = "kraft.delayed."
"""The own group of a partition of a delay topic: how far its records were forwarded. Its offsets do not expire."""
OWN_PREFIXES = (REDRIVE_PREFIX, DELAYED_PREFIX)
"""Groups that keep a progress of the cluster's own: no list of groups has them; they are described and deleted by
name."""
Offsets = Mapping[TopicPartition, CommittedOffset]


def check_commit(
    group: ClassicGroup, *, exists: bool = True, member_id: str, generation: int, instance_id: str | None = None
) -> None:
    """G4. Raises IllegalGeneration 22, UnknownMemberId 25, RebalanceInProgress 27, GroupIdNotFound 69,
    FencedInstanceId 82."""
    if group.phase is Phase.EMPTY and generation < 0:
        return
    if not exists:
        raise GroupIdNotFound(f"there is no group {group.group_id!r}, so it has no generation {generation}")
    if generation < 0 and not member_id and instance_id is None:
        raise UnknownMemberId(f"group {group.group_id!r} has members: only they commit its offsets")
    member_or_raise(group, member_id, instance_id)
    check_generation(group, generation)
    if group.phase is Phase.COMPLETING:
        raise RebalanceInProgress(f"group {group.group_id!r} is rebalancing: sync first, then commit")


def check_commit_in_transaction(
    group: ClassicGroup, *, exists: bool, member_id: str, generation: int, instance_id: str | None
) -> None:
    """T11: a client that names itself is checked as a member, also while the group rebalances; producers before KIP-447
    name nobody. Raises IllegalGeneration 22, UnknownMemberId 25, FencedInstanceId 82."""
    if generation < 0 and (group.phase is Phase.EMPTY or (not member_id and instance_id is None)):
        return
    if not exists:
        raise IllegalGeneration(f"there is no group {group.group_id!r}, so it has no generation {generation}")
    member_or_raise(group, member_id, instance_id)
    check_generation(group, generation)


def check_consumer_commit_in_transaction(
    group: ConsumerGroup,
    *,
    member_id: str,
    epoch: int,
    instance_id: str | None,
    partitions: Iterable[TopicIdPartition],
) -> None:
    """The same for a group of the consumer protocol; its epochs are generations to a producer (KIP-848). Raises
    IllegalGeneration 22, UnknownMemberId 25."""
    if epoch < 0 and (not group.members or (not member_id and instance_id is None)):
        return
    try:
        check_consumer_epoch(group, member_id, epoch, partitions=partitions)
    except StaleMemberEpoch as stale:
        raise IllegalGeneration(stale.message) from stale


def check_consumer_epoch(
    group: ConsumerGroup, member_id: str, epoch: int, *, partitions: Iterable[TopicIdPartition] | None = None
) -> ConsumerMember:
    """G12: whether an epoch is that of the member; a commit may also come from the epoch in which the member was given
    the partition, or a later one: nobody else has had it since (KIP-1251). `partitions` is None for a fetch.

    Raises UnknownMemberId 25, StaleMemberEpoch 113, for members of the classic protocol IllegalGeneration 22."""
    member = group.members.get(member_id)
    if member is None:
        raise UnknownMemberId(f"Member {member_id} is not a member of group {group.group_id}.")
    refusal = StaleMemberEpoch if member.classic is None else IllegalGeneration
    if epoch == member.member_epoch:
        return member
    if epoch > member.member_epoch or partitions is None:
        raise refusal(f"The received member epoch {epoch} does not match the member epoch {member.member_epoch}.")
    for partition in partitions:
        since = member.assigned.get(partition, member.revoking.get(partition))
        if since is None:
            raise refusal(f"{partition} is neither assigned to member {member_id} nor to be revoked from it.")
        if epoch < since:
            raise refusal(f"{partition} was assigned in epoch {since}; this commit is of epoch {epoch}.")
    return member


def check_consumer_commit(
    group: ConsumerGroup, member_id: str, epoch: int, *, partitions: Iterable[TopicIdPartition], knows_epochs: bool
) -> None:
    """KIP-848, KIP-1251. Raises also UnsupportedVersion 35 for a member of the consumer protocol that commits with a
    version of the request that knows generations alone."""
    if epoch < 0 and not group.members:
        return
    member = group.members.get(member_id)
    if member is not None and member.classic is None and not knows_epochs:
        raise UnsupportedVersion(
            "OffsetCommit version 9 or above must be used by members using the consumer group protocol"
        )
    check_consumer_epoch(group, member_id, epoch, partitions=partitions)


def check_follows(offsets: Offsets, new: OffsetToCommit, follows: OffsetToCommit) -> None:
    """Compare and set: nobody has committed another offset or other metadata since; the same request again may have.
    Raises IllegalGeneration 22."""
    known = offsets.get((new.topic, new.partition))
    current = (-1, "") if known is None else (known.offset, known.metadata)
    if current not in ((follows.offset, follows.metadata), (new.offset, new.metadata)):
        raise IllegalGeneration(f"{new.topic}-{new.partition} was committed by another one since: {current}")


def commit_records(
    group_id: str,
    offsets: Mapping[TopicPartition, tuple[int, int, str]],
    *,
    metadata_bytes_max: int,
    wall_ms: int,
    retention_ms: int = NO_RETENTION,
) -> list[GroupRecord]:
    """`offsets`: offset, leader epoch, metadata. Raises OffsetMetadataTooLarge 12."""
    expire_timestamp = NO_EXPIRY if retention_ms == NO_RETENTION else min(max(0, wall_ms + retention_ms), INT64_MAX)
    records = []
    for (topic, partition), (offset, leader_epoch, metadata) in offsets.items():
        if len(metadata.encode()) > metadata_bytes_max:
            raise OffsetMetadataTooLarge(
                f"metadata of {topic}-{partition} is longer than the {metadata_bytes_max} bytes of "
                "offset.metadata.max.bytes"
            )
        value = CommittedOffset(
            offset=offset,
            leader_epoch=leader_epoch,
            metadata=metadata,
            commit_timestamp=wall_ms,
            expire_timestamp=expire_timestamp,
        )
        records.append(GroupRecord(OffsetKey(group_id, topic, partition), value))
    return records


def tombstones(group_id: str, partitions: Sequence[TopicPartition]) -> list[GroupRecord]:
    return [GroupRecord(OffsetKey(group_id, topic, partition), None) for topic, partition in partitions]


def subscribed_topics(group: ClassicGroup) -> frozenset[str] | None:
    """Topics that the members want; None when that cannot be known."""
    if group.protocol_type != CONSUMER or not group.members:
        return frozenset() if not group.members else None
    topics: set[str] = set()
    for member in group.members.values():
        try:
            topics.update(decode_subscription(member.metadata(group.protocol) or member.protocols[0][1]).topics)
        except ValueError:
            return None
    return frozenset(topics)


def check_delete_group(group: ClassicGroup | None, group_id: str, *, has_offsets: bool) -> None:
    """G8. Raises GroupIdNotFound 69, NonEmptyGroup 68."""
    if group is None and not has_offsets:
        raise GroupIdNotFound(f"there is no group {group_id!r}")
    if group is not None and group.phase is not Phase.EMPTY:
        raise NonEmptyGroup(f"group {group_id!r} has {len(group.members)} members ({group.phase}); they leave first")


def topics_in_use(group: ClassicGroup, topics: frozenset[str]) -> frozenset[str]:
    """G8: offsets of topics that members are subscribed to are not deleted (86). Raises NonEmptyGroup 68 for members
    of another protocol, who may be using any."""
    if group.phase is not Phase.EMPTY and group.protocol_type != CONSUMER:
        raise NonEmptyGroup(f"group {group.group_id!r} has members of type {group.protocol_type!r}; they leave first")
    subscribed = subscribed_topics(group)
    return topics if subscribed is None else topics & subscribed


def is_deletable(group: ClassicGroup, *, has_offsets: bool, has_instances: bool) -> bool:
    """G7: a group of former members that keeps nothing any more is forgotten when offsets are looked at."""
    was_used = group.protocol_type is not None and group.phase is Phase.EMPTY
    return was_used and not (group.pending or has_offsets or has_instances)


def expired(group: ClassicGroup | None, offsets: Offsets, *, wall_ms: int, retention_ms: int) -> list[TopicPartition]:
    """G7: of an empty group from when it became empty; of one with members only what nobody is subscribed to, and
    not during a rebalance; of one that never had members by the time of the commit."""
    if group is None or group.protocol_type is None:
        return [key for key, each in offsets.items() if _is_over(each, 0, wall_ms=wall_ms, retention_ms=retention_ms)]
    if group.phase is Phase.EMPTY:
        since_ms = group.state_timestamp
        return [
            key for key, each in offsets.items() if _is_over(each, since_ms, wall_ms=wall_ms, retention_ms=retention_ms)
        ]
    subscribed = subscribed_topics(group) if group.phase is Phase.STABLE else None
    if subscribed is None:
        return []
    return [
        key
        for key, each in offsets.items()
        if key[0] not in subscribed and _is_over(each, 0, wall_ms=wall_ms, retention_ms=retention_ms)
    ]


def consumer_expired(
    group: ConsumerGroup, offsets: Offsets, *, wall_ms: int, retention_ms: int
) -> list[TopicPartition]:
    """G7: of topics that nobody is subscribed to, by the time of the commit."""
    subscribed = group.subscribed_topics
    return [
        key
        for key, each in offsets.items()
        if key[0] not in subscribed and _is_over(each, 0, wall_ms=wall_ms, retention_ms=retention_ms)
    ]


def _is_over(offset: CommittedOffset, since_ms: int, *, wall_ms: int, retention_ms: int) -> bool:
    """Not before `retention_ms` after its commit and `since_ms`, unless the commit said when."""
    if offset.expire_timestamp != NO_EXPIRY:
        return wall_ms >= offset.expire_timestamp
    return wall_ms - max(offset.commit_timestamp, since_ms) >= retention_ms
