"""The group coordinator of one broker: a shard for each partition of `__consumer_offsets` that it leads.

`CoordinatorShards` keeps them. Here are the requests, what changed metadata means to groups, and the expiry of offsets.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import UUID

from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.consumer_group import ConsumerGroup
from kraft.coordinators.groups.consumer_requests import ConsumerHeartbeat, ConsumerHeartbeatAnswer
from kraft.coordinators.groups.consumers import Consumers
from kraft.coordinators.groups.group_metadata import GroupMetadata
from kraft.coordinators.groups.offsets import (
    OWN_PREFIXES,
    consumer_expired,
    expired,
    is_deletable,
    tombstones,
)
from kraft.coordinators.groups.request_handlers import RequestHandlers, Verify
from kraft.coordinators.groups.shard import UNWRITABLE, GroupShard
from kraft.coordinators.groups.share_group import ShareGroup
from kraft.coordinators.groups.share_requests import (
    InitializeStates,
    Persister,
    ShareHeartbeat,
    ShareHeartbeatAnswer,
    ShareTopicsDeleted,
    StatesInitialized,
)
from kraft.coordinators.shard import CoordinatorContext, CoordinatorShard
from kraft.coordinators.shards import CoordinatorShards, Periodic
from kraft.protocol.batches.markers import Marker
from kraft.protocol.errors import (
    CoordinatorNotAvailable,
    GroupIdNotFound,
    InvalidGroupId,
    KafkaError,
)
from metadata.delta import MetadataDelta
from metadata.environment import ConnectionClosed
from metadata.events import Events
from metadata.image import MetadataImage, TopicIdPartition

MINUTE_MS = 60_000
NAMELESS = (r.CommitOffsets, r.FetchOffsets, r.DescribeGroup, r.DeleteGroup)
"""A consumer without a group may have committed offsets under an empty name, as in Kafka."""
EXPIRE_AT_ONCE = 10_000
"""Offsets that are forgotten with one append."""


class _ServedShard(GroupShard):
    """A shard with the handlers of its requests."""

    def __init__(
        self,
        partition: TopicIdPartition,
        leader_epoch: int,
        context: CoordinatorContext,
        *,
        on_failed: Callable[[CoordinatorShard[Any]], None],
        count_instances: Callable[[], int],
        verify: Verify,
        persister: Persister,
    ) -> None:
        super().__init__(partition, leader_epoch, context, on_failed=on_failed)
        self.consumers = Consumers(self, count_instances)
        self._handlers = RequestHandlers(self, verify, persister)

    async def handle(self, request: r.Request) -> a.Answer:
        try:
            if isinstance(request, r.CreateInstance | r.InstanceRequest):
                return await self.consumers.handle(request)
            if isinstance(request, r.CommitInstanceInTransaction):
                commit = self.consumers.commit_in_transaction(request)
                return commit if isinstance(commit, a.Refused) else await self._handlers.handle(commit)
            return await self._handlers.handle(request)
        finally:
            self.forget_if_idle(request.group)


class GroupCoordinator:
    def __init__(self, context: CoordinatorContext, events: Events, *, verify: Verify, persister: Persister) -> None:
        self._context = context
        self._events = events
        self._verify = verify
        self._persister = persister
        self._acls = context.image().acls
        """Those by which patterns were looked at last."""
        expiry: Periodic[_ServedShard] = Periodic(
            lambda settings: settings.offsets_retention_check_interval_ms, work=expire_offsets
        )
        self.shards = CoordinatorShards(GroupShard.names, context, events, new=self._new_shard, periodic=(expiry,))

    def _new_shard(self, partition: TopicIdPartition, leader_epoch: int) -> _ServedShard:
        shard = _ServedShard(
            partition,
            leader_epoch,
            self._context,
            on_failed=self.shards.failed,
            count_instances=self.count_instances,
            verify=self._verify,
            persister=self._persister,
        )
        shard.on_initialize = lambda request: self.shards.tasks.run(self._initialize(shard, request))
        return shard

    # --- requests -------------------------------------------------------------------------------------------

    async def ask(self, request: r.Request) -> a.Answer:
        """Raises NotCoordinator 16, CoordinatorLoadInProgress 14, CoordinatorNotAvailable 15, or a refusal."""
        if isinstance(request, r.ListGroups):
            return self._list()
        if not request.group and not isinstance(request, NAMELESS):
            raise InvalidGroupId("a group has a name")
        return await (await self.shards.leading(request.group)).handle(request)

    async def consumer_heartbeat(
        self, group: str, event_of: Callable[[int, str], ConsumerHeartbeat]
    ) -> ConsumerHeartbeatAnswer:
        """A heartbeat of the consumer protocol; `event_of` gets its ticket, and an id for a member that has none yet.

        Raises NotCoordinator 16, CoordinatorLoadInProgress 14, CoordinatorNotAvailable 15, or a refusal."""
        shard = await self.shards.leading(group)
        new_member_id = str(UUID(bytes=self._context.environment.rng.randbytes(16), version=4))
        entry = shard.entry(group)
        try:
            answer = await shard.ask(entry, lambda ticket: event_of(ticket, new_member_id))
        finally:
            shard.forget_if_idle(group)
        assert isinstance(answer, ConsumerHeartbeatAnswer), answer
        return answer

    async def share_heartbeat(self, group: str, event_of: Callable[[int], ShareHeartbeat]) -> ShareHeartbeatAnswer:
        """A heartbeat of a member of a share group; `event_of` gets its ticket. Raises as `consumer_heartbeat`."""
        shard = await self.shards.leading(group)
        entry = shard.entry(group)
        try:
            answer = await shard.ask(entry, event_of)
        finally:
            shard.forget_if_idle(group)
        assert isinstance(answer, ShareHeartbeatAnswer), answer
        return answer

    async def describe_consumer_group(self, group: str) -> ConsumerGroup:
        """A group as it is, once all of that is replicated; not to be changed. Raises GroupIdNotFound 69."""
        found = (await self._entry(group)).consumer
        if found is None:
            raise GroupIdNotFound(f"Group {group} is not a consumer group.")
        return found

    async def describe_share_group(self, group: str) -> ShareGroup:
        """The same for a share group. Raises GroupIdNotFound 69."""
        found = (await self._entry(group)).share
        if found is None:
            raise GroupIdNotFound(f"Group {group} is not a share group.")
        return found

    async def _entry(self, group: str) -> GroupMetadata:
        """A copy of what is known of a group, once all of that is replicated."""
        if not group:
            raise InvalidGroupId("a group has a name")
        shard = await self.shards.leading(group)
        entry = shard.entries.get(group)
        if entry is None or not entry.exists:
            raise GroupIdNotFound(f"Group {group} not found.")
        found = replace(entry)
        await shard.settle()
        return found

    async def end_transaction(
        self, partition: int, producer_id: int, producer_epoch: int, marker: Marker, *, transaction_version: int
    ) -> None:
        """Write a marker for a partition of `__consumer_offsets` and apply what it ends. Raises NotCoordinator 16,
        CoordinatorLoadInProgress 14, CoordinatorNotAvailable 15, NotEnoughReplicas 19, InvalidProducerEpoch 47,
        TransactionCoordinatorFenced 52."""
        shard = self.shards.of_partition(partition)
        await shard.end_transaction(producer_id, producer_epoch, marker, transaction_version=transaction_version)

    def count_instances(self) -> int:
        """REST consumers of all groups that are coordinated here."""
        return sum(
            len(entry.instances) for shard in self.shards.by_partition.values() for entry in shard.entries.values()
        )

    def _list(self) -> a.GroupList:
        """Raises CoordinatorLoadInProgress 14, or the error of a shard that failed: a part is no list."""
        found = []
        for shard in self.shards.all_or_raise():
            for group_id, entry in shard.entries.items():
                if entry.exists and not group_id.startswith(OWN_PREFIXES):
                    found.append(a.GroupListing(group_id, entry.state, entry.protocol_type, entry.kind))
        return a.GroupList(groups=tuple(sorted(found, key=lambda each: each.group)))

    # --- metadata -------------------------------------------------------------------------------------------

    def on_metadata(self, delta: MetadataDelta, image: MetadataImage) -> None:
        self.shards.on_metadata(image)
        has_other_topics = bool(delta.created_topics or delta.removed_topics or delta.changed_topics)
        has_other_acls, self._acls = self._acls is not image.acls, image.acls
        if has_other_topics or has_other_acls:
            for shard in self.shards.by_partition.values():
                if shard.is_loaded:
                    shard.consumers.membership.on_metadata()
                    if has_other_topics:
                        _look_at_topics_again(shard, delta)
        if delta.removed_topics:
            self._forget_topics({topic.name for topic in delta.removed_topics.values()})
            self._forget_share_partitions(frozenset(delta.removed_topics))

    def _forget_topics(self, names: set[str]) -> None:
        """Offsets of a topic go with it: a new topic of the same name has none."""
        for shard in self.shards.loaded():
            for group_id, entry in list(shard.entries.items()):
                records = tombstones(group_id, [key for key in entry.partitions_with_offsets if key[0] in names])
                for at in range(0, len(records), EXPIRE_AT_ONCE):
                    shard.append_apart(records[at : at + EXPIRE_AT_ONCE])

    # --- share groups ---------------------------------------------------------------------------------------

    async def _initialize(self, shard: _ServedShard, request: InitializeStates) -> None:
        """Ask the share coordinator, and record its answer. What has no answer counts as failed, and is asked for
        again."""
        asked, done = frozenset(request.start_offsets), frozenset[TopicIdPartition]()
        try:
            done = await self._persister.initialize(request)
        except (KafkaError, ConnectionClosed, OSError) as error:
            self._events.emit("share_states_not_initialized", group=request.group_id, error=str(error))
        entry = shard.entries.get(request.group_id)
        if entry is None or entry.share is None or shard.has_ended:
            return
        try:
            shard.submit(entry, StatesInitialized(initialized=done & asked, failed=asked - done))
        except UNWRITABLE as error:
            self._events.emit("share_states_not_initialized", group=request.group_id, error=str(error))

    def _forget_share_partitions(self, topic_ids: frozenset[UUID]) -> None:
        for shard in self.shards.loaded():
            for entry in list(shard.entries.values()):
                if entry.share is not None and not topic_ids.isdisjoint(entry.share.topic_ids):
                    with suppress(CoordinatorNotAvailable):  # as in Kafka: not tried again
                        shard.submit(entry, ShareTopicsDeleted(topic_ids=topic_ids))

    def stop(self) -> None:
        self.shards.stop()


def _look_at_topics_again(shard: GroupShard, delta: MetadataDelta) -> None:
    """Modern groups do at their next heartbeat: they assign again if one of their topics has changed."""
    has_grown = any(len(old.partitions) != len(new.partitions) for old, new in delta.changed_topics.values())
    if has_grown or delta.created_topics or delta.removed_topics:
        for entry in shard.entries.values():
            if entry.modern is not None:
                entry.modern.is_metadata_checked = False


def expire_offsets(shard: GroupShard) -> None:
    """Offsets that are older than their retention, and groups that nothing is left of (G7)."""
    retention_ms = shard.context.settings().offsets_retention_minutes * MINUTE_MS
    for group_id, entry in list(shard.entries.items()):
        if entry.share is not None:
            continue  # it has no offsets here, and stays until it is deleted
        if group_id.startswith(OWN_PREFIXES):
            continue  # its offsets are all that is known of what was brought back or forwarded
        has_instances, stable = bool(entry.instances), entry.stable_offsets
        if entry.consumer is None:
            gone = expired(entry.group, stable, wall_ms=shard.wall_ms, retention_ms=retention_ms)
            has_offsets = len(gone) < len(entry.offsets) or bool(entry.pending)
            is_over = is_deletable(entry.group, has_offsets=has_offsets, has_instances=has_instances)
        else:
            gone = consumer_expired(entry.consumer, stable, wall_ms=shard.wall_ms, retention_ms=retention_ms)
            has_offsets = len(gone) < len(entry.offsets) or bool(entry.pending)
            is_over = not (entry.consumer.members or has_offsets or has_instances)
        records = tombstones(group_id, gone)
        if is_over:
            records += entry.group_tombstones()
        for at in range(0, len(records), EXPIRE_AT_ONCE):
            shard.append_apart(records[at : at + EXPIRE_AT_ONCE])
        shard.forget_if_idle(group_id)
