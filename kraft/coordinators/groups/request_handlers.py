"""What is done with each request about a group, on the shard of the group: membership of the classic protocol, offsets,
administration.

A handler turns a request (`requests`) into an event for the group or into records, and the outcome into an answer
(`answers`). It decides nothing about members: `group_protocols` does. Requests of REST consumers are in `consumers`.
Source: org.apache.kafka.coordinator.group.GroupCoordinatorService.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias
from uuid import UUID

from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.awaited import awaited_of_classic, awaited_of_consumer
from kraft.coordinators.groups.classic_group import Phase
from kraft.coordinators.groups.classic_members import names_of, partitions_of
from kraft.coordinators.groups.classic_requests import Heartbeat, Join, Joined, Leave, Sync, Synced
from kraft.coordinators.groups.consumer_group import ConsumerGroup
from kraft.coordinators.groups.consumer_records import Partitions
from kraft.coordinators.groups.group_metadata import GroupMetadata
from kraft.coordinators.groups.modern_group import JOIN_EPOCH, LEAVE_EPOCH
from kraft.coordinators.groups.offsets import (
    NO_RETENTION,
    check_commit,
    check_commit_in_transaction,
    check_consumer_commit,
    check_consumer_commit_in_transaction,
    check_consumer_epoch,
    check_delete_group,
    check_follows,
    commit_records,
    tombstones,
    topics_in_use,
)
from kraft.coordinators.groups.records import GroupRecord, TransactionOf
from kraft.coordinators.groups.shard import GroupShard
from kraft.coordinators.groups.share_group import ShareGroup
from kraft.coordinators.groups.share_offsets import ShareOffsetRequests, check_no_members
from kraft.coordinators.groups.share_protocol import ASSIGNOR
from kraft.coordinators.groups.share_requests import Persister, ShareHeartbeat
from kraft.coordinators.groups.subscriptions import decode_assignment
from kraft.protocol.errors import GroupIdNotFound, NonEmptyGroup
from kraft.protocol.primitives import TopicPartition
from metadata.internal_topics import OFFSETS_TOPIC

Verify: TypeAlias = Callable[[r.CommitInTransaction, TopicPartition], Awaitable[None]]
"""Asks the transaction coordinator whether a partition of `__consumer_offsets` is in the transaction (KIP-890), or adds
it. Raises InvalidProducerEpoch 47, InvalidTxnState 48, TransactionAbortable 120 and what else it is refused with."""


class RequestHandlers:
    """The handlers of the requests of one shard."""

    def __init__(self, shard: GroupShard, verify: Verify, persister: Persister) -> None:
        self._shard = shard
        self._verify = verify
        self._shares = ShareOffsetRequests(shard, persister)
        self._handlers: Mapping[type, Callable[[Any], Any]] = {
            r.JoinShareGroup: self._join_share_group,
            r.JoinGroup: self._join,
            r.SyncGroup: self._sync,
            r.HeartbeatGroup: self._beat,
            r.LeaveGroup: self._leave,
            r.CommitOffsets: self._commit,
            r.CommitInTransaction: self._commit_in_transaction,
            r.FetchOffsets: self._fetch,
            r.DescribeGroup: self._describe,
            r.DeleteGroup: self._delete,
            r.DeleteOffsets: self._delete_offsets,
            r.ResetOffsets: self._reset,
            r.DescribeShareOffsets: self._shares.describe,
            r.ResetShareOffsets: self._shares.reset,
            r.DeleteShareOffsets: self._shares.delete,
        }

    async def handle(self, request: r.Request) -> a.Answer:
        """Raises KafkaError."""
        answer: a.Answer = await self._handlers[type(request)](request)
        return answer

    # --- share groups ---------------------------------------------------------------------------------------

    async def _join_share_group(self, request: r.JoinShareGroup) -> a.Answer:
        entry = self._shard.entry(request.group)

        async def beat(member_epoch: int, topics: frozenset[str] | None) -> None:
            await self._shard.ask(
                entry,
                lambda ticket: ShareHeartbeat(
                    ticket=ticket,
                    member_id=request.member_id,
                    member_epoch=member_epoch,
                    client_id="rest",
                    client_host="",
                    topics=topics,
                ),
            )

        await beat(JOIN_EPOCH, frozenset(request.topics))
        await beat(LEAVE_EPOCH, None)
        return a.Taken()

    # --- membership -----------------------------------------------------------------------------------------

    async def _join(self, request: r.JoinGroup) -> a.Answer:
        rng = self._shard.context.environment.rng
        new_member_id = f"{request.instance_id or request.client_id}-{UUID(bytes=rng.randbytes(16), version=4)}"
        answer = await self._shard.ask(
            self._shard.entry(request.group),
            lambda ticket: Join(
                ticket=ticket,
                member_id=request.member_id,
                instance_id=request.instance_id,
                client_id=request.client_id,
                client_host=request.client_host,
                session_timeout_ms=request.session_timeout_ms,
                rebalance_timeout_ms=request.rebalance_timeout_ms,
                protocol_type=request.protocol_type,
                protocols=request.protocols,
                new_member_id=new_member_id,
                is_known_required=request.is_known_required,
                can_skip_assignment=request.can_skip_assignment,
            ),
        )
        assert isinstance(answer, Joined), answer
        return a.GroupJoined(
            generation=answer.generation,
            protocol_type=answer.protocol_type,
            protocol=answer.protocol,
            leader=answer.leader,
            member_id=answer.member_id,
            members=answer.members,
            skips_assignment=answer.skips_assignment,
        )

    async def _sync(self, request: r.SyncGroup) -> a.Answer:
        answer = await self._shard.ask(
            self._shard.entry(request.group),
            lambda ticket: Sync(
                ticket=ticket,
                member_id=request.member_id,
                generation=request.generation,
                instance_id=request.instance_id,
                protocol_type=request.protocol_type,
                protocol=request.protocol,
                assignments=request.assignments,
            ),
        )
        assert isinstance(answer, Synced), answer
        return a.GroupSynced(protocol_type=answer.protocol_type, protocol=answer.protocol, assignment=answer.assignment)

    async def _beat(self, request: r.HeartbeatGroup) -> a.Answer:
        await self._shard.ask(
            self._shard.entry(request.group),
            lambda ticket: Heartbeat(
                ticket=ticket,
                member_id=request.member_id,
                generation=request.generation,
                instance_id=request.instance_id,
            ),
        )
        return a.Taken()

    async def _leave(self, request: r.LeaveGroup) -> a.Answer:
        await self._shard.ask(
            self._shard.entry(request.group),
            lambda ticket: Leave(ticket=ticket, member_id=request.member_id, instance_id=request.instance_id),
        )
        return a.Taken()

    # --- offsets --------------------------------------------------------------------------------------------

    async def _commit(self, request: r.CommitOffsets) -> a.Answer:
        entry = self._shard.entry(request.group)
        _check_keeps_offsets(entry)
        if entry.consumer is not None:
            check_consumer_commit(
                entry.consumer,
                request.member_id,
                request.generation,
                partitions=self._partitions_of(request),
                knows_epochs=request.knows_epochs,
            )
        else:
            check_commit(
                entry.group,
                exists=entry.exists,
                member_id=request.member_id,
                generation=request.generation,
                instance_id=request.instance_id,
            )
        if request.follows is not None:
            check_follows(entry.offsets, request.offsets[0], request.follows)
        self._beat_with(request, entry)
        await self._write_offsets(request.group, request.offsets, retention_ms=request.retention_ms)
        return a.Taken()

    def _partitions_of(self, request: r.CommitOffsets | r.CommitInTransaction) -> Partitions:
        named = ((each.topic, each.partition) for each in request.offsets)
        return partitions_of(named, self._shard.context.image())

    def _beat_with(self, request: r.CommitOffsets | r.CommitInTransaction, entry: GroupMetadata) -> None:
        """A commit of a classic member is a heartbeat, too."""
        if request.member_id in entry.group.members:
            beat = Heartbeat(ticket=0, member_id=request.member_id, generation=request.generation)
            self._shard.submit(entry, beat)

    async def _commit_in_transaction(self, request: r.CommitInTransaction) -> a.Answer:
        shard, producers = self._shard, self._shard.producers
        asking = None
        try:
            while not producers.is_open(request.producer_id, request.producer_epoch):
                asking = producers.ask_again(request.producer_id, asking)
                await self._verify(request, (OFFSETS_TOPIC, shard.partition.partition))
                shard.check()
                if not asking.is_void:
                    break  # else the marker of the transaction before has come meanwhile: the yes may be older
            self._check_in_transaction(request)
            records = self._offset_records(request.group, request.offsets)
            transaction = TransactionOf(request.producer_id, request.producer_epoch)
            appended = shard.append_in_transaction(records, transaction, asking) if records else None
        finally:
            if asking is not None:
                producers.asked(asking)
        await (shard.settle() if appended is None else asyncio.shield(appended))
        return a.Taken()

    def _check_in_transaction(self, request: r.CommitInTransaction) -> None:
        entry = self._shard.entry(request.group)
        _check_keeps_offsets(entry)
        if entry.consumer is not None:
            check_consumer_commit_in_transaction(
                entry.consumer,
                member_id=request.member_id,
                epoch=request.generation,
                instance_id=request.instance_id,
                partitions=self._partitions_of(request),
            )
            return
        check_commit_in_transaction(
            entry.group,
            exists=entry.exists,
            member_id=request.member_id,
            generation=request.generation,
            instance_id=request.instance_id,
        )
        self._beat_with(request, entry)

    async def _write_offsets(
        self, group: str, offsets: tuple[r.OffsetToCommit, ...], *, retention_ms: int = NO_RETENTION
    ) -> None:
        records = self._offset_records(group, offsets, retention_ms=retention_ms)
        if records:
            await self._shard.write(records)

    def _offset_records(
        self, group: str, offsets: tuple[r.OffsetToCommit, ...], *, retention_ms: int = NO_RETENTION
    ) -> list[GroupRecord]:
        return commit_records(
            group,
            {(o.topic, o.partition): (o.offset, o.leader_epoch, o.metadata) for o in offsets},
            metadata_bytes_max=self._shard.context.settings().offset_metadata_max_bytes,
            wall_ms=self._shard.wall_ms,
            retention_ms=retention_ms,
        )

    async def _fetch(self, request: r.FetchOffsets) -> a.Answer:
        """What there is now, once it is replicated: commits that come during the wait may still be lost."""
        entry = self._shard.entries.get(request.group)
        if entry is not None:
            _check_keeps_offsets(entry)
        is_member = request.member_id is not None or request.member_epoch >= 0
        if entry is not None and entry.consumer is not None and is_member:
            check_consumer_epoch(entry.consumer, request.member_id or "", request.member_epoch)
        if entry is None:
            rows = tuple(a.OffsetOfGroup(*key, -1, "", -1) for key in request.partitions or ())
        else:
            rows = entry.offset_rows(request.partitions, requires_stable=request.requires_stable)
        await self._shard.settle()
        return a.GroupOffsets(offsets=rows)

    # --- administration -------------------------------------------------------------------------------------

    async def _describe(self, request: r.DescribeGroup) -> a.Answer:
        described = self._description(request)
        await self._shard.settle()
        return described

    def _description(self, request: r.DescribeGroup) -> a.GroupDescription:
        entry = self._shard.entries.get(request.group)
        if entry is None or not entry.exists:
            raise GroupIdNotFound(f"there is no group {request.group!r}")
        if entry.consumer is not None:
            return self._consumer_description(entry, entry.consumer)
        if entry.share is not None:
            return self._share_description(entry, entry.share)
        group = entry.group
        members = tuple(
            a.MemberDescription(
                member_id=member.member_id,
                instance_id=member.instance_id,
                client_id=member.client_id,
                client_host=member.client_host,
                partitions=_partitions(member.assignment) if group.phase is Phase.STABLE else (),
                metadata=member.metadata(group.protocol),
                assignment=member.assignment,
            )
            for member in group.members.values()
        )
        return a.GroupDescription(
            group=group.group_id,
            state=group.phase,
            protocol_type=group.protocol_type or "",
            protocol=group.protocol or "",
            generation=group.generation,
            coordinator=self._shard.context.node_id,
            members=members,
            offsets=entry.offset_rows(),
            awaited=awaited_of_classic(group),
        )

    def _consumer_description(self, entry: GroupMetadata, group: ConsumerGroup) -> a.GroupDescription:
        image = self._shard.context.image()
        members = tuple(
            a.MemberDescription(
                member_id=member.member_id,
                instance_id=member.instance_id,
                client_id=member.client_id,
                client_host=member.client_host,
                partitions=tuple(names_of(member.assigned, image)),
            )
            for member in group.members.values()
        )
        return a.GroupDescription(
            group=group.group_id,
            state=group.state,
            protocol_type=entry.protocol_type,
            protocol=group.preferred_assignor(self._shard.rules(group.group_id).assignors),
            generation=group.epoch,
            coordinator=self._shard.context.node_id,
            members=members,
            offsets=entry.offset_rows(),
            group_type=entry.kind,
            is_mixed=len({member.classic is None for member in group.members.values()}) == 2,
            awaited=awaited_of_consumer(group, image),
        )

    def _share_description(self, entry: GroupMetadata, group: ShareGroup) -> a.GroupDescription:
        image = self._shard.context.image()
        members = tuple(
            a.MemberDescription(
                member_id=member.member_id,
                instance_id=None,
                client_id=member.client_id,
                client_host=member.client_host,
                partitions=tuple(names_of(member.assigned, image)),
            )
            for member in group.members.values()
        )
        return a.GroupDescription(
            group=group.group_id,
            state=group.state,
            protocol_type=entry.protocol_type,
            protocol=ASSIGNOR,
            generation=group.epoch,
            coordinator=self._shard.context.node_id,
            members=members,
            offsets=(),
            group_type=entry.kind,
        )

    async def _delete(self, request: r.DeleteGroup) -> a.Answer:
        entry = self._shard.entries.get(request.group)
        known = entry is not None and entry.exists
        if entry is not None and entry.modern is not None:
            check_no_members(entry)
            if entry.share is not None:
                await self._shares.delete_states(entry, entry.share)
        else:
            check_delete_group(entry.group if entry is not None and known else None, request.group, has_offsets=False)
        assert entry is not None, request
        gone = tombstones(request.group, entry.partitions_with_offsets)
        gone += [instance.tombstone() for instance in entry.instances.values()]
        await self._shard.write([*gone, *entry.group_tombstones()])
        self._shard.forget_idle()
        return a.Taken()

    async def _delete_offsets(self, request: r.DeleteOffsets) -> a.Answer:
        entry = self._shard.entries.get(request.group)
        if entry is None or not entry.exists:
            raise GroupIdNotFound(f"there is no group {request.group!r}")
        _check_keeps_offsets(entry)
        topics = frozenset(topic for topic, _ in request.partitions)
        if entry.consumer is None:
            taken = topics_in_use(entry.group, topics)
        else:
            taken = topics & entry.consumer.subscribed_topics
        known = set(entry.partitions_with_offsets)
        gone = [key for key in request.partitions if key in known and key[0] not in taken]
        if gone:
            await self._shard.write(tombstones(request.group, gone))
        return a.OffsetsDeleted(refused=tuple(key for key in request.partitions if key[0] in taken))

    async def _reset(self, request: r.ResetOffsets) -> a.Answer:
        entry = self._shard.entry(request.group)
        _check_keeps_offsets(entry)
        if not entry.is_empty:
            raise NonEmptyGroup(
                f"group {request.group!r} has {len(entry.member_ids)} members ({entry.state}): its offsets can be "
                "reset when they have left"
            )
        await self._write_offsets(request.group, request.offsets)
        return a.Taken()


def _check_keeps_offsets(entry: GroupMetadata) -> None:
    """A share group has states of share partitions instead, which the share coordinator keeps."""
    if entry.share is not None:
        raise GroupIdNotFound(f"Group {entry.group.group_id} is not a consumer group.")


def _partitions(assignment: bytes) -> tuple[tuple[str, int], ...]:
    try:
        return decode_assignment(assignment)
    except ValueError:
        return ()
