"""The group coordinator of one broker: a shard for each partition of `__consumer_offsets` that it leads.

Follows metadata: a partition led anew is loaded, one led no longer is given up. A shard that failed is loaded again
while this broker leads its partition.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any
from uuid import UUID

from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.consumer_group import ConsumerGroup
from kraft.coordinators.groups.consumer_requests import Beaten, ConsumerHeartbeat
from kraft.coordinators.groups.consumers import Consumers
from kraft.coordinators.groups.offsets import consumer_expired, expired, is_deletable, tombstones
from kraft.coordinators.groups.request_handlers import RequestHandlers, Verify
from kraft.coordinators.groups.shard import Shard
from kraft.coordinators.java import abs_hash
from kraft.coordinators.leadership_check import LeadershipCheck
from kraft.coordinators.led_partition import Surroundings
from kraft.protocol.batches.markers import Marker
from kraft.protocol.errors import CoordinatorLoadInProgress, GroupIdNotFound, InvalidGroupId, KafkaError, NotCoordinator
from metadata.delta import MetadataDelta
from metadata.environment import TimerHandle
from metadata.events import Events
from metadata.image import MetadataImage, PartitionImage, TopicIdPartition
from metadata.internal_topics import OFFSETS_TOPIC

RELOAD_MS = 100
"""Wait before a partition whose shard failed is loaded again."""
SKIPPED_EVENTS_MAX = 100
"""Records that a load could not read and says so of each; `groups_loaded` counts them all."""
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
        self._events = events
        self._led: dict[int, _Led] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._expiry: TimerHandle | None = None
        self._knows_its_partitions = False
        """Since the first metadata, which is told to a broker when it has caught up with the quorum."""
        self._is_stopped = False

    # --- requests -------------------------------------------------------------------------------------------

    async def ask(self, request: r.Request) -> a.Answer:
        """Raises NotCoordinator 16, CoordinatorLoadInProgress 14, CoordinatorNotAvailable 15, or a refusal."""
        if isinstance(request, r.ListGroups):
            return self._list()
        if not request.group and not isinstance(request, NAMELESS):
            raise InvalidGroupId("a group has a name")
        return await self._led_of(request.group).handle(request)

    def _led_of(self, group: str) -> _Led:
        """Raises NotCoordinator 16."""
        number = partition_of(group, self._around.image())
        led = self._led.get(number)
        if led is None:
            raise NotCoordinator(f"this broker does not lead partition {number} of {OFFSETS_TOPIC}")
        return led

    async def beat(self, group: str, event_of: Callable[[int, str], ConsumerHeartbeat]) -> Beaten:
        """A heartbeat of the consumer protocol; `event_of` gets its ticket, and an id for a member that has none yet.

        Raises NotCoordinator 16, CoordinatorLoadInProgress 14, CoordinatorNotAvailable 15, or a refusal."""
        led = self._led_of(group)
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
        led = self._led_of(group)
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
        led = self._led.get(partition)
        if led is None:
            raise NotCoordinator(f"this broker does not lead partition {partition} of {OFFSETS_TOPIC}")
        await led.shard.end_transaction(producer_id, producer_epoch, marker, transaction_version=transaction_version)

    def count_instances(self) -> int:
        """REST consumers of all groups that are coordinated here."""
        return sum(len(entry.instances) for led in self._led.values() for entry in led.shard.entries.values())

    def _list(self) -> a.GroupList:
        """Raises CoordinatorLoadInProgress 14, or the error of a shard that failed: a part is no list."""
        if not self._knows_its_partitions:
            raise CoordinatorLoadInProgress("this broker has just started, and does not know which groups are its own")
        found = []
        for led in self._led.values():
            led.shard.check()
            for group_id, entry in led.shard.entries.items():
                if entry.exists:
                    found.append(a.GroupListing(group_id, entry.state, entry.protocol_type, entry.kind))
        return a.GroupList(groups=tuple(sorted(found, key=lambda each: each.group)))

    # --- metadata -------------------------------------------------------------------------------------------

    def on_metadata(self, delta: MetadataDelta, image: MetadataImage) -> None:
        self._knows_its_partitions = True
        topic = image.topic(OFFSETS_TOPIC)
        partitions: Mapping[int, PartitionImage] = {} if topic is None else topic.partitions
        for number in list(self._led):
            if number not in partitions or not self._leads(partitions[number]):
                self._give_up(number)
        for number, partition in partitions.items():
            if self._leads(partition):
                self._lead(number, TopicIdPartition(partition.topic_id, number), partition.leader_epoch)
        if delta.created_topics or delta.removed_topics or delta.changed_topics:
            for led in self._led.values():
                if led.shard.is_loaded:
                    led.consumers.membership.on_metadata()
                    _look_at_topics_again(led.shard, delta)
        if delta.removed_topics:
            self._forget_topics({topic.name for topic in delta.removed_topics.values()})
        if topic is not None and self._expiry is None and not self._is_stopped:
            self._expire_later()

    def _forget_topics(self, names: set[str]) -> None:
        """Offsets of a topic go with it: one that is made again under its name begins anew."""
        for led in self._led.values():
            if led.shard.is_loaded and not led.shard.has_ended:
                for group_id, entry in list(led.shard.entries.items()):
                    records = tombstones(group_id, [key for key in entry.partitions_with_offsets if key[0] in names])
                    for at in range(0, len(records), EXPIRE_AT_ONCE):
                        led.shard.append_apart(records[at : at + EXPIRE_AT_ONCE])

    def _leads(self, partition: PartitionImage) -> bool:
        return partition.leader == self._around.node_id and not self._is_stopped

    def _lead(self, number: int, key: TopicIdPartition, leader_epoch: int) -> None:
        known = self._led.get(number)
        if known is not None and known.shard.leader_epoch == leader_epoch:
            return
        if known is not None:
            self._give_up(number)
        self._start(number, key, leader_epoch)

    def _start(self, number: int, key: TopicIdPartition, leader_epoch: int) -> None:
        shard = Shard(key, leader_epoch, self._around, on_failed=self._failed)
        self._led[number] = _Led(shard, self.count_instances, self._verify)
        self._run(self._load(shard))

    def _give_up(self, number: int) -> None:
        self._led.pop(number).shard.end(NotCoordinator(f"partition {number} of {OFFSETS_TOPIC} has moved"))

    async def _load(self, shard: Shard) -> None:
        started_ms, number = shard.now_ms, shard.partition.partition
        skipped = 0

        def skip(offset: int, reason: str) -> None:
            nonlocal skipped
            skipped += 1
            if skipped <= SKIPPED_EVENTS_MAX:
                self._events.emit("group_record_skipped", partition=number, offset=offset, reason=reason)

        try:
            count = await shard.load(skip)
        except KafkaError as error:
            shard.end(NotCoordinator(f"the groups of this partition cannot be loaded: {error.message}"))
            self._failed(shard)
            return
        took_ms = shard.now_ms - started_ms
        self._events.emit("groups_loaded", partition=number, records=count, skipped=skipped, took_ms=took_ms)

    def _failed(self, shard: Shard) -> None:
        """What the shard decided may not be in the log: forget it and read what is."""
        number = shard.partition.partition
        led = self._led.get(number)
        if led is not None and led.shard is shard and not self._is_stopped:
            self._run(self._reload(number, shard))

    async def _reload(self, number: int, failed: Shard) -> None:
        await self._around.environment.clock.sleep(RELOAD_MS)
        led = self._led.get(number)
        if led is not None and led.shard is failed and not self._is_stopped:
            self._start(number, failed.partition, failed.leader_epoch)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            task.get_loop().call_exception_handler({"message": "loading groups failed", "exception": error})

    # --- expiry (G7) ----------------------------------------------------------------------------------------

    def _expire_later(self) -> None:
        interval_ms = self._around.settings().offsets_retention_check_interval_ms
        self._expiry = self._around.environment.clock.call_later(interval_ms, self.expire_offsets)

    def expire_offsets(self) -> None:
        settings = self._around.settings()
        retention_ms = settings.offsets_retention_minutes * MINUTE_MS
        for led in self._led.values():
            if led.shard.is_loaded and not led.shard.has_ended:
                _expire(led.shard, retention_ms)
        if not self._is_stopped:
            self._expire_later()

    def stop(self) -> None:
        self._is_stopped = True
        if self._expiry is not None:
            self._expiry.cancel()
        for number in list(self._led):
            self._give_up(number)
        for task in self._tasks:
            task.cancel()


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
    """Kafka's: abs(String.hashCode) modulo the partitions of the topic. Raises NotCoordinator while there is none."""
    topic = image.topic(OFFSETS_TOPIC)
    if topic is None:
        raise NotCoordinator(f"{OFFSETS_TOPIC} does not exist yet")
    return abs_hash(group_id) % len(topic.partitions)
