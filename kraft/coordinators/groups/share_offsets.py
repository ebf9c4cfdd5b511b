"""Where share groups stand, for administrators: what is known of it, how it is set, and how it is forgotten (KIP-932).

The share coordinator keeps it. A group changes first, and its log with it; then the share coordinator is asked, and
what it has answered is recorded. So a coordinator that dies between the two leaves no group behind that takes a state
for one that is not there. Source: GroupCoordinatorService.describeShareGroupOffsets, alterShareGroupOffsets and
deleteShareGroupOffsets, Kafka 4.4.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from uuid import UUID

from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.consumer_records import Partitions
from kraft.coordinators.groups.group_metadata import GroupMetadata
from kraft.coordinators.groups.shard import GroupShard
from kraft.coordinators.groups.share_group import ShareGroup
from kraft.coordinators.groups.share_requests import (
    InitializeStates,
    Persister,
    ResetStates,
    ShareTopicsDeleted,
    StartOffset,
    StatesDeleted,
    StatesInitialized,
)
from kraft.protocol.errors import (
    CoordinatorNotAvailable,
    GroupIdNotFound,
    KafkaError,
    NonEmptyGroup,
    UnknownTopicOrPartition,
)
from kraft.protocol.primitives import TopicPartition
from metadata.image import MetadataImage, TopicIdPartition

TOPIC_ROW = -1
"""Partition of a row that is about a whole topic."""
UNKNOWN = StartOffset(-1, 0, -1)
"""The offset of a partition for which the group has no state."""


class ShareOffsetRequests:
    """Offsets of the share groups of one shard."""

    def __init__(self, shard: GroupShard, persister: Persister) -> None:
        self._shard = shard
        self._persister = persister

    # --- describe -----------------------------------------------------------------------------------------------

    async def describe(self, request: r.DescribeShareOffsets) -> a.ShareOffsets:
        """Raises GroupIdNotFound 69."""
        group, image = self._group(request.group), self._image()
        asked = dict.fromkeys(_names(group.initialized, image) if request.partitions is None else request.partitions)
        known, rows = _known(asked, image)
        await self._shard.settle()
        found = await self._persister.offsets(request.group, group.with_state.intersection(known.values()))
        rows += [_row(*names, found.get(where, UNKNOWN)) for names, where in known.items()]
        return a.ShareOffsets(offsets=tuple(rows))

    def _group(self, group_id: str) -> ShareGroup:
        entry = self._shard.entries.get(group_id)
        if entry is None or not entry.exists:
            raise GroupIdNotFound(f"Group {group_id} not found.")
        if entry.share is None:
            raise GroupIdNotFound(f"Group {group_id} is not a share group.")
        return entry.share

    def _image(self) -> MetadataImage:
        return self._shard.context.image()

    # --- reset --------------------------------------------------------------------------------------------------

    async def reset(self, request: r.ResetShareOffsets) -> a.ShareOffsets:
        """The group comes into being if there is none. Raises NonEmptyGroup 68, GroupIdNotFound 69 for a group of
        another type."""
        offsets = {(topic, partition): offset for topic, partition, offset in request.offsets}
        known, rows = _known(offsets, self._image())
        start_offsets = {where: offsets[names] for names, where in known.items()}
        entry = self._shard.entry(request.group)
        if not known and not entry.exists:
            return a.ShareOffsets(offsets=tuple(rows))
        asked = await self._shard.ask(entry, lambda ticket: ResetStates(ticket=ticket, start_offsets=start_offsets))
        assert isinstance(asked, InitializeStates), asked
        partitions = frozenset(start_offsets)
        done = partitions & await self._persister.initialize(asked)
        await self._persister.changed(request.group, partitions)
        self._shard.check()
        self._shard.submit(entry, StatesInitialized(initialized=done, failed=partitions - done))
        await self._shard.settle()
        failed = CoordinatorNotAvailable("the share coordinator has not answered; reset it again")
        for (topic, partition), where in known.items():
            outcome = StartOffset(start_offsets[where], 0, -1) if where in done else failed
            rows.append(_row(topic, partition, outcome))
        return a.ShareOffsets(offsets=tuple(rows))

    # --- delete -------------------------------------------------------------------------------------------------

    async def delete(self, request: r.DeleteShareOffsets) -> a.ShareOffsets:
        """Also of topics that the group has no state of. Raises NonEmptyGroup 68, GroupIdNotFound 69."""
        group = self._group(request.group)
        entry = self._shard.entries[request.group]
        check_no_members(entry)
        image = self._image()
        rows, topic_ids = [], set[UUID]()
        for name in dict.fromkeys(request.topics):
            topic = image.topic(name)
            if topic is None:
                rows.append(_row(name, TOPIC_ROW, UnknownTopicOrPartition("This server does not host this topic.")))
            else:
                topic_ids.add(topic.topic_id)
                rows.append(_row(name, TOPIC_ROW, UNKNOWN))
        await self._delete(entry, group, frozenset(topic_ids & group.topic_ids))
        return a.ShareOffsets(offsets=tuple(rows))

    async def delete_states(self, entry: GroupMetadata, group: ShareGroup) -> None:
        """Delete all state of a group, and the group. Raises NonEmptyGroup 68 when a member has joined meanwhile."""
        await self._delete(entry, group, group.topic_ids)
        check_no_members(entry)

    async def _delete(self, entry: GroupMetadata, group: ShareGroup, topic_ids: frozenset[UUID]) -> None:
        """A deletion that has failed is repeated with the next: its topics are noted in the log."""
        partitions = _with_state(group, topic_ids, self._image())
        if not partitions:
            return
        self._shard.submit(entry, StatesDeleted(topic_ids=topic_ids))
        await self._shard.settle()
        await self._persister.delete(group.group_id, partitions)
        await self._persister.changed(group.group_id, partitions)
        self._shard.check()
        if entry.member_ids:  # a member that has come meanwhile had them initialised again, and that may be deleted too
            self._shard.submit(entry, StatesDeleted(topic_ids=topic_ids))
        else:
            self._shard.submit(entry, ShareTopicsDeleted(topic_ids=topic_ids))
        await self._shard.settle()


def _with_state(group: ShareGroup, topic_ids: Collection[UUID], image: MetadataImage) -> Partitions:
    """The partitions of which the share coordinator may have a state, also after a deletion that has failed."""
    deleting = (image.topics[each] for each in group.states.deleting if each in image.topics)
    partitions = group.with_state.union(
        TopicIdPartition(topic.topic_id, number) for topic in deleting for number in topic.partitions
    )
    return frozenset(each for each in partitions if each.topic_id in topic_ids)


def _names(partitions: Iterable[TopicIdPartition], image: MetadataImage) -> list[TopicPartition]:
    return sorted(
        (image.topics[each.topic_id].name, each.partition) for each in partitions if each.topic_id in image.topics
    )


def _known(
    asked: Iterable[TopicPartition], image: MetadataImage
) -> tuple[dict[TopicPartition, TopicIdPartition], list[a.ShareOffset]]:
    """The partitions that exist, and the refusals of the others."""
    known, refused = {}, []
    missing = UnknownTopicOrPartition("This server does not host this topic-partition.")
    for name, number in asked:
        topic = image.topic(name)
        if topic is None or number not in topic.partitions:
            refused.append(_row(name, number, missing))
        else:
            known[name, number] = TopicIdPartition(topic.topic_id, number)
    return known, refused


def _row(topic: str, partition: int, found: StartOffset | KafkaError) -> a.ShareOffset:
    if isinstance(found, KafkaError):
        return a.ShareOffset(topic, partition, error_code=found.code, error_message=found.message)
    return a.ShareOffset(topic, partition, found.start_offset, found.leader_epoch, found.lag)


def check_no_members(entry: GroupMetadata) -> None:
    """Raises NonEmptyGroup 68."""
    if entry.member_ids:
        raise NonEmptyGroup(f"group {entry.group.group_id!r} has {len(entry.member_ids)} members; they leave first")
