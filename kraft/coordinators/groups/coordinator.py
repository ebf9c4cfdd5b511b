"""The group coordinator of one broker: a shard for each partition of `__consumer_offsets` that it leads.

Which partitions these are, and when they are loaded, is told by `LedPartitions`. Here are the requests, what changed
metadata means to groups, and the clock by which offsets expire.
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.consumer_group import ConsumerGroup
from kraft.coordinators.groups.consumer_requests import Beaten, ConsumerHeartbeat
from kraft.coordinators.groups.consumers import Consumers
from kraft.coordinators.groups.offsets import consumer_expired, expired, is_deletable, tombstones
from kraft.coordinators.groups.request_handlers import RequestHandlers, Verify
from kraft.coordinators.groups.shard import Shard
from kraft.coordinators.leadership_check import LeadershipCheck
from kraft.coordinators.led_partition import Surroundings
from kraft.coordinators.led_partitions import LedPartitions, Names
from kraft.coordinators.led_partitions import partition_of as named_partition_of
from kraft.protocol.batches.markers import Marker
from kraft.protocol.errors import GroupIdNotFound, InvalidGroupId
from metadata.delta import MetadataDelta
from metadata.environment import TimerHandle
from metadata.events import Events
from metadata.image import MetadataImage, TopicIdPartition
from metadata.internal_topics import OFFSETS_TOPIC

NAMES = Names(OFFSETS_TOPIC, "groups", "groups_loaded", "group_record_skipped")
MINUTE_MS = 60_000
NAMELESS = (r.CommitOffsets, r.FetchOffsets, r.DescribeGroup, r.DeleteGroup)
"""As in Kafka, whoever reads without a group may have committed offsets under an empty name."""
EXPIRE_AT_ONCE = 10_000
"""Offsets that are forgotten with one append."""


class _Led:
    """One shard with those who serve its requests."""

    def __init__(self, shard: Shard, count_instances: Callable[[], int], verify: Verify) -> None:
        self.shard = shard
        self.consumers = Consumers(shard, count_instances)
        self.handlers = RequestHandlers(shard, verify)
        self.standing = LeadershipCheck(shard)

    async def be_certain(self) -> None:
        """That this broker coordinates the group. Raises NotCoordinator 16, CoordinatorLoadInProgress 14, or 15."""
        self.shard.check()
        if not self.standing.is_certain:
            await self.standing.prove()

    async def handle(self, request: r.Request) -> a.Answer:
        await self.be_certain()
        try:
            if isinstance(request, r.CreateInstance | r.InstanceRequest):
                return await self.consumers.handle(request)
            if isinstance(request, r.CommitInstanceInTransaction):
                commit = self.consumers.commit_in_transaction(request)
                return commit if isinstance(commit, a.Refused) else await self.handlers.handle(commit)
            return await self.handlers.handle(request)
        finally:
            self.shard.forget_if_idle(request.group)


class GroupCoordinator:
    def __init__(self, around: Surroundings, events: Events, *, verify: Verify) -> None:
        self._around = around
        self._verify = verify
        self._partitions = LedPartitions(NAMES, around, events, new=self._new)
        self._led = self._partitions.by_number
        self._expiry: TimerHandle | None = None

    def _new(self, key: TopicIdPartition, leader_epoch: int) -> _Led:
        shard = Shard(key, leader_epoch, self._around, on_failed=self._partitions.failed)
        return _Led(shard, self.count_instances, self._verify)

    # --- requests -------------------------------------------------------------------------------------------

    async def ask(self, request: r.Request) -> a.Answer:
        """Raises NotCoordinator 16, CoordinatorLoadInProgress 14, CoordinatorNotAvailable 15, or a refusal."""
        if isinstance(request, r.ListGroups):
            return self._list()
        if not request.group and not isinstance(request, NAMELESS):
            raise InvalidGroupId("a group has a name")
        return await self._partitions.of(request.group).handle(request)

    async def beat(self, group: str, event_of: Callable[[int, str], ConsumerHeartbeat]) -> Beaten:
        """A heartbeat of the consumer protocol; `event_of` gets its ticket, and an id for a member that has none yet.

        Raises NotCoordinator 16, CoordinatorLoadInProgress 14, CoordinatorNotAvailable 15, or a refusal."""
        led = self._partitions.of(group)
        await led.be_certain()
        new_member_id = str(UUID(bytes=self._around.environment.rng.randbytes(16), version=4))
        entry = led.shard.entry(group)
        try:
            answer = await led.shard.ask(entry, lambda ticket: event_of(ticket, new_member_id))
        finally:
            led.shard.forget_if_idle(group)
        assert isinstance(answer, Beaten), answer
        return answer

    async def describe_consumer_group(self, group: str) -> ConsumerGroup:
        """A group as it is, once all of that is replicated; not to be changed. Raises GroupIdNotFound 69."""
        if not group:
            raise InvalidGroupId("a group has a name")
        led = self._partitions.of(group)
        await led.be_certain()
        entry = led.shard.entries.get(group)
        if entry is None or not entry.exists:
            raise GroupIdNotFound(f"Group {group} not found.")
        if entry.consumer is None:
            raise GroupIdNotFound(f"Group {group} is not a consumer group.")
        found = entry.consumer
        await led.shard.settle()
        return found

    async def end_transaction(
        self, partition: int, producer_id: int, producer_epoch: int, marker: Marker, *, transaction_version: int
    ) -> None:
        """A marker for a partition of `__consumer_offsets`: who knows what it ends writes it. Raises NotCoordinator 16,
        CoordinatorLoadInProgress 14, CoordinatorNotAvailable 15, NotEnoughReplicas 19, InvalidProducerEpoch 47,
        TransactionCoordinatorFenced 52."""
        led = self._partitions.numbered(partition)
        await led.shard.end_transaction(producer_id, producer_epoch, marker, transaction_version=transaction_version)

    def count_instances(self) -> int:
        """REST consumers of all groups that are coordinated here."""
        return sum(len(entry.instances) for led in self._led.values() for entry in led.shard.entries.values())

    def _list(self) -> a.GroupList:
        """Raises CoordinatorLoadInProgress 14, or the error of a shard that failed: a part is no list."""
        found = []
        for led in self._partitions.all_or_raise():
            for group_id, entry in led.shard.entries.items():
                if entry.exists:
                    found.append(a.GroupListing(group_id, entry.state, entry.protocol_type, entry.kind))
        return a.GroupList(groups=tuple(sorted(found, key=lambda each: each.group)))

    # --- metadata -------------------------------------------------------------------------------------------

    def on_metadata(self, delta: MetadataDelta, image: MetadataImage) -> None:
        self._partitions.on_metadata(image)
        if delta.created_topics or delta.removed_topics or delta.changed_topics:
            for led in self._led.values():
                if led.shard.is_loaded:
                    led.consumers.membership.on_metadata()
                    _look_at_topics_again(led.shard, delta)
        if delta.removed_topics:
            self._forget_topics({topic.name for topic in delta.removed_topics.values()})
        if image.topic(OFFSETS_TOPIC) is not None and self._expiry is None and not self._partitions.is_stopped:
            self._expire_later()

    def _forget_topics(self, names: set[str]) -> None:
        """Offsets of a topic go with it: one that is made again under its name begins anew."""
        for led in self._partitions.loaded():
            for group_id, entry in list(led.shard.entries.items()):
                records = tombstones(group_id, [key for key in entry.partitions_with_offsets if key[0] in names])
                for at in range(0, len(records), EXPIRE_AT_ONCE):
                    led.shard.append_apart(records[at : at + EXPIRE_AT_ONCE])

    # --- expiry (G7) ----------------------------------------------------------------------------------------

    def _expire_later(self) -> None:
        interval_ms = self._around.settings().offsets_retention_check_interval_ms
        self._expiry = self._around.environment.clock.call_later(interval_ms, self.expire_offsets)

    def expire_offsets(self) -> None:
        settings = self._around.settings()
        retention_ms = settings.offsets_retention_minutes * MINUTE_MS
        for led in self._partitions.loaded():
            _expire(led.shard, retention_ms)
        if not self._partitions.is_stopped:
            self._expire_later()

    def stop(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._partitions.stop()


def _look_at_topics_again(shard: Shard, delta: MetadataDelta) -> None:
    """Groups of the consumer protocol do at their next heartbeat: they assign anew if one of theirs has changed."""
    has_grown = any(len(old.partitions) != len(new.partitions) for old, new in delta.changed_topics.values())
    if has_grown or delta.created_topics or delta.removed_topics:
        for entry in shard.entries.values():
            if entry.consumer is not None:
                entry.consumer.is_metadata_checked = False


def _expire(shard: Shard, retention_ms: int) -> None:
    for group_id, entry in list(shard.entries.items()):
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


def partition_of(group_id: str, image: MetadataImage) -> int:
    """Raises NotCoordinator 16 while the topic does not exist."""
    return named_partition_of(group_id, OFFSETS_TOPIC, image)
