"""Requests of REST consumers, on the shard of their group: create, subscribe, seek, poll, commit, delete."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.classic_group import Phase
from kraft.coordinators.groups.group_metadata import GroupMetadata
from kraft.coordinators.groups.instance import Instance
from kraft.coordinators.groups.membership import PREFERENCE, Membership
from kraft.coordinators.groups.offsets import commit_records
from kraft.coordinators.groups.records import GroupRecord
from kraft.coordinators.groups.shard import GroupShard
from kraft.protocol.errors import (
    GroupMaxSizeReached,
    IllegalGeneration,
    InconsistentGroupProtocol,
    KafkaError,
    UnknownMemberId,
)
from kraft.protocol.primitives import TopicPartition

NOT_FOUND = 40403
EXISTS = 40902
ILLEGAL_STATE = 40903
TOKEN = 40904
"""A batch was asked for that is neither the last one nor the next."""
UNAVAILABLE = 50302
TOPICS_MAX = 10_000
"""Topics that one REST consumer may name in its subscription."""


_NamesInstance: TypeAlias = r.InstanceRequest | r.CommitInstanceInTransaction


class _Refusal(Exception):
    def __init__(self, code: int, message: str, *, error: type[KafkaError] | None = None) -> None:
        super().__init__(message)
        self.answer = a.Refused(code=code, message=message, kafka_code=None if error is None else error.code)


class Consumers:
    """The REST consumers of one shard."""

    def __init__(self, shard: GroupShard, count_instances: Callable[[], int]) -> None:
        self._shard = shard
        self._count_instances = count_instances
        self.membership = Membership(shard)
        self._handlers: Mapping[type, Callable[[GroupMetadata, Any], Any]] = {
            r.CreateInstance: self._create,
            r.DeleteInstance: self._delete,
            r.DescribeInstance: self._describe,
            r.Subscribe: self._subscribe,
            r.AssignInstance: self._assign,
            r.Seek: self._seek,
            r.BeginPoll: self._begin_poll,
            r.EndPoll: self._end_poll,
            r.CommitInstance: self._commit,
        }

    async def handle(self, request: r.CreateInstance | r.InstanceRequest) -> a.Answer:
        """Raises KafkaError."""
        try:
            answer: a.Answer = await self._handlers[type(request)](self._shard.entry(request.group), request)
            return answer
        except _Refusal as refusal:
            return refusal.answer

    def _find(self, entry: GroupMetadata, request: _NamesInstance) -> Instance:
        name = request.instance
        instance = entry.instances.get(name)
        if instance is None or instance.owner not in ("", request.owner):
            raise _Refusal(
                NOT_FOUND,
                f"Consumer instance not found: {name!r} in group {entry.group.group_id!r}; it was deleted, or expired",
                error=UnknownMemberId,
            )
        self.membership.touch(entry, instance)
        return entry.instances[name]

    async def _put(self, entry: GroupMetadata, *records: GroupRecord) -> None:
        """Write, let the members take their steps, and wait until all of it is replicated."""
        self._shard.append(records)
        self._shard.changed(entry)
        await self._shard.settle()

    # --- life ---------------------------------------------------------------------------------------------

    async def _create(self, entry: GroupMetadata, request: r.CreateInstance) -> a.Answer:
        known = entry.instances.get(request.instance)
        if known is not None and (known.nonce, known.owner) != (request.nonce, request.owner):
            raise _Refusal(
                EXISTS,
                "Consumer with specified consumer ID already exists in the specified consumer group. "
                f"It is {request.instance!r} in {request.group!r}; DELETE it, or choose another name",
            )
        if entry.share is not None:
            raise _Refusal(
                ILLEGAL_STATE,
                f"{request.group!r} is a share group, which REST consumers cannot join",
                error=InconsistentGroupProtocol,
            )
        if known is None:
            limit = self._shard.context.settings().consumer_instances_max
            if self._count_instances() >= limit:
                raise _Refusal(UNAVAILABLE, f"this node keeps {limit} REST consumers already: consumer.instances.max")
            instance = Instance(
                group=request.group,
                name=request.instance,
                nonce=request.nonce,
                owner=request.owner,
                host=request.host,
                config=request.config,
                member_id=f"{request.instance}-{request.nonce}",
            )
            self._shard.append([instance.record()])
            self._shard.changed(entry)
        await self._shard.settle()
        return a.Taken()

    async def _delete(self, entry: GroupMetadata, request: r.DeleteInstance) -> a.Answer:
        instance = self._find(entry, request)
        records: list[GroupRecord] = []
        if instance.config.auto_commit:
            records += self._commits(entry, instance, instance.position_of)
        self._shard.append([*records, *self.membership.remove(entry, instance)])
        self.membership.leave(entry, instance)
        self._shard.changed(entry)
        await self._shard.settle()
        return a.Taken()

    async def _describe(self, entry: GroupMetadata, request: r.DescribeInstance) -> a.Answer:
        instance = self._find(entry, request)
        await self._shard.settle()
        return a.InstanceDescription(
            config=instance.config, topics=instance.topics, pattern=instance.pattern, partitions=instance.partitions
        )

    # --- what it reads ------------------------------------------------------------------------------------

    async def _subscribe(self, entry: GroupMetadata, request: r.Subscribe) -> a.Answer:
        instance = self._find(entry, request)
        if request.topics or request.pattern is not None:
            if instance.manual is not None:
                raise _Refusal(ILLEGAL_STATE, "partitions are assigned by hand; delete the subscription first")
            self._check_subscription(entry, instance, request)
            await self._put(entry, instance.changed(topics=request.topics, pattern=request.pattern).record())
            return a.Taken()
        records = self._commits(entry, instance, instance.acknowledged) if instance.config.auto_commit else []
        cleared = instance.changed(
            topics=(), pattern=None, manual=None, owned=(), positions=(), batch=(), generation=instance.generation + 1
        )
        self._shard.append([*records, cleared.record()])
        self.membership.leave(entry, instance)
        await self._put(entry, cleared.record())
        return a.Taken()

    def _check_subscription(self, entry: GroupMetadata, instance: Instance, request: r.Subscribe) -> None:
        """Refuses at once what would keep the instance from ever becoming a member. Raises _Refusal."""
        if len(request.topics) > TOPICS_MAX:
            raise _Refusal(ILLEGAL_STATE, f"{len(request.topics)} topics; a subscription names at most {TOPICS_MAX}")
        if instance.member_id in entry.member_ids:
            return
        group_id, settings = entry.group.group_id, self._shard.context.settings()
        is_classic = entry.consumer is None
        setting = "group.max.size" if is_classic else "group.consumer.max.size"
        limit = settings.group_max_size if is_classic else settings.group_consumer_max_size
        if len(entry.member_ids) >= limit:
            message = f"group {group_id!r} has {len(entry.member_ids)} members: {setting}"
            raise _Refusal(ILLEGAL_STATE, message, error=GroupMaxSizeReached)
        common = entry.common_protocols
        if common is not None and not common & set(PREFERENCE):
            message = f"members of {group_id!r} use {sorted(common)}, which REST consumers cannot"
            raise _Refusal(ILLEGAL_STATE, message, error=InconsistentGroupProtocol)

    async def _assign(self, entry: GroupMetadata, request: r.AssignInstance) -> a.Answer:
        instance = self._find(entry, request)
        if instance.is_subscribed:
            raise _Refusal(ILLEGAL_STATE, "the instance is subscribed; delete the subscription first")
        kept = instance.with_partitions(request.partitions)
        await self._put(entry, kept.changed(manual=tuple(sorted(set(request.partitions))), owned=()).record())
        return a.Taken()

    async def _seek(self, entry: GroupMetadata, request: r.Seek) -> a.Answer:
        instance = self._find(entry, request)
        positions = {(topic, partition): offset for topic, partition, offset in request.positions}
        foreign = sorted(set(positions) - set(instance.partitions))
        if foreign:
            topic, partition = foreign[0]
            raise _Refusal(ILLEGAL_STATE, f"partition {topic}-{partition} is not assigned to this instance")
        await self._put(entry, instance.with_positions(positions).record())
        return a.Taken()

    # --- polls --------------------------------------------------------------------------------------------

    async def _begin_poll(self, entry: GroupMetadata, request: r.BeginPoll) -> a.Answer:
        instance = self._find(entry, request)
        longest_ms = instance.config.request_timeout_ms
        self.membership.touch(
            entry, instance, reads_ms=longest_ms if request.reads_ms < 0 else min(request.reads_ms, longest_ms)
        )
        if not instance.is_subscribed and instance.manual is None:
            raise _Refusal(ILLEGAL_STATE, "the instance is neither subscribed to topics nor assigned partitions")
        deadline_ms = self._shard.now_ms + request.wait_ms
        while self._is_rebalancing(entry, instance) and await self._shard.wait_changed(deadline_ms=deadline_ms):
            self._shard.check()
            instance = self._find(entry, request)
        number = instance.served + 1 if request.number is None else request.number
        if number not in (instance.served, instance.served + 1):
            if number > instance.served:
                # It may have been served a later batch by a coordinator that is newer than this one, who does not know
                # yet that it is none any more: only one that can still write may call the token wrong.
                await self._put(entry, instance.record())
            raise _Refusal(TOKEN, f"batch {number} was asked for; {instance.served} is the last and can be repeated")
        is_repeat = number == instance.served and number > 0
        if not is_repeat and instance.batch:
            instance = self._acknowledge(entry, instance)
        plan = self._plan(entry, instance, number=number, is_repeat=is_repeat)
        if is_repeat:
            await self._shard.settle()  # it is served as it is, and its number has to be known to the next coordinator
        return plan

    def _is_rebalancing(self, entry: GroupMetadata, instance: Instance) -> bool:
        if instance.manual is not None:
            return False
        is_waiting = entry.consumer is None and entry.group.phase is not Phase.STABLE
        return is_waiting or instance.member_id not in entry.member_ids

    def _acknowledge(self, entry: GroupMetadata, instance: Instance) -> Instance:
        """The client went on, so it has what it was served."""
        settled = instance.changed(batch=())
        records = self._commits(entry, instance, instance.position_of) if instance.config.auto_commit else []
        self._shard.append([*records, settled.record()])
        return entry.instances[instance.name]

    def _plan(self, entry: GroupMetadata, instance: Instance, *, number: int, is_repeat: bool) -> a.PollPlan:
        """KIP-447: a reader of committed records does not begin where an open transaction may yet change the offset."""
        ranges: tuple[r.Range, ...] = instance.batch
        epochs = instance.epoch_of
        for key in instance.partitions:
            if key in entry.offsets:
                epochs.setdefault(key, entry.offsets[key].leader_epoch)
        if not is_repeat:
            known = instance.position_of
            committed = entry.offsets
            ranges = tuple(
                (*key, known.get(key, committed[key].offset if key in committed else -1), -1)
                for key in ([] if self._is_rebalancing(entry, instance) else instance.partitions)
                if key in known or not (instance.config.is_read_committed and key in entry.pending)
            )
        return a.PollPlan(
            config=instance.config,
            number=number,
            generation=instance.generation,
            is_repeat=is_repeat,
            ranges=ranges,
            epochs=tuple((*key, epoch) for key, epoch in epochs.items() if epoch >= 0),
        )

    async def _end_poll(self, entry: GroupMetadata, request: r.EndPoll) -> a.Answer:
        instance = self._find(entry, request)
        if request.number == instance.served:
            await self._shard.settle()
            return a.PollEnded(ranges=instance.batch)
        if request.number != instance.served + 1:
            raise _Refusal(TOKEN, f"batch {request.number} came too late; {instance.served} was served meanwhile")
        owned = set(instance.partitions)
        is_current = request.generation == instance.generation and not self._is_rebalancing(entry, instance)
        ranges = tuple(each for each in request.ranges if each[:2] in owned) if is_current else ()
        if ranges:
            await self._put(entry, instance.with_batch(request.number, ranges, request.epochs).record())
        else:
            await self._shard.settle()
        return a.PollEnded(ranges=ranges)

    # --- commits ------------------------------------------------------------------------------------------

    async def _commit(self, entry: GroupMetadata, request: r.CommitInstance) -> a.Answer:
        instance = self._find(entry, request)
        if request.offsets is None:
            records = self._commits(entry, instance, instance.position_of)
        else:
            _check_assigned(instance, request.offsets)
            asked = {(o.topic, o.partition): (o.offset, o.leader_epoch, o.metadata) for o in request.offsets}
            records = self._records(entry, asked)
        if records:
            await self._shard.write(records)
        else:
            await self._shard.settle()
        return a.Taken()

    def commit_in_transaction(self, request: r.CommitInstanceInTransaction) -> r.CommitInTransaction | a.Refused:
        """What a member of the group would ask. It is checked again when the transaction coordinator has answered, by
        the generation of now: the partitions may be another's then."""
        entry = self._shard.entry(request.group)
        try:
            instance = self._find(entry, request)
            if request.offsets is not None:
                _check_assigned(instance, request.offsets)
        except _Refusal as refusal:
            return refusal.answer
        offsets = request.offsets
        if offsets is None:
            owned, epochs = set(instance.partitions), instance.epoch_of
            offsets = tuple(
                r.OffsetToCommit(*key, offset, leader_epoch=epochs.get(key, -1))
                for key, offset in sorted(instance.position_of.items())
                if key in owned
            )
        member_id, generation = "", -1
        if instance.is_subscribed and instance.member_id:
            member_id, generation = instance.member_id, entry.group.generation
            if entry.consumer is not None:
                member = entry.consumer.members.get(member_id)
                generation = -1 if member is None else member.member_epoch
        return r.CommitInTransaction(
            group=request.group,
            transactional_id=request.transactional_id,
            producer_id=request.producer_id,
            producer_epoch=request.producer_epoch,
            adds_partition=True,
            member_id=member_id,
            generation=generation,
            offsets=offsets,
        )

    def _commits(
        self, entry: GroupMetadata, instance: Instance, positions: Mapping[TopicPartition, int]
    ) -> list[GroupRecord]:
        """Positions that are not committed yet."""
        owned, epochs = set(instance.partitions), instance.epoch_of
        moved = {
            key: (offset, epochs.get(key, -1), "")
            for key, offset in positions.items()
            if key in owned and (key not in entry.offsets or entry.offsets[key].offset != offset)
        }
        return self._records(entry, moved)

    def _records(
        self, entry: GroupMetadata, offsets: Mapping[TopicPartition, tuple[int, int, str]]
    ) -> list[GroupRecord]:
        return commit_records(
            entry.group.group_id,
            offsets,
            metadata_bytes_max=self._shard.context.settings().offset_metadata_max_bytes,
            wall_ms=self._shard.wall_ms,
        )


def _check_assigned(instance: Instance, offsets: tuple[r.OffsetToCommit, ...]) -> None:
    foreign = [each for each in offsets if (each.topic, each.partition) not in instance.partitions]
    if foreign and instance.is_subscribed:
        raise _Refusal(
            ILLEGAL_STATE,
            f"partition {foreign[0].topic}-{foreign[0].partition} is not assigned to this instance (any more)",
            error=IllegalGeneration,
        )
