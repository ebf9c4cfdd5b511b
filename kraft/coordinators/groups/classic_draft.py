"""A group of the classic protocol while one event is decided: changed freely, then frozen. It never outlives the
decision. `Decision` is what a decision about a group of either protocol returns."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from kraft.coordinators.groups.classic_group import NEVER_MS, ClassicGroup, Member, Phase, group_record
from kraft.coordinators.groups.classic_requests import Answer, Joined, Reply, Synced
from kraft.coordinators.groups.consumer_group import ConsumerGroup
from kraft.coordinators.groups.records import GroupRecord
from kraft.protocol.errors import RebalanceInProgress, UnknownMemberId


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassicRules:
    """The settings that a decision about a classic group needs."""

    session_ms_min: int
    session_ms_max: int
    initial_delay_ms: int
    members_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    group: ClassicGroup
    consumer: ConsumerGroup | None = None
    """What the group is while it speaks the consumer protocol; `group` is empty then."""
    records: tuple[GroupRecord, ...] = ()
    replies: tuple[Reply, ...] = ()
    """To be given once the records are replicated."""


class ClassicDraft:
    def __init__(self, group: ClassicGroup, rules: ClassicRules, *, now_ms: int, wall_ms: int) -> None:
        self.group = group
        self.rules = rules
        self.now_ms = now_ms
        self._wall_ms = wall_ms
        self._replies: list[Reply] = []
        self._is_fact_changed = False

    def decision(self) -> Decision:
        records = (group_record(self.group),) if self._is_fact_changed else ()
        return Decision(group=self.group, records=records, replies=tuple(self._replies))

    def reply(self, ticket: int | None, answer: Answer) -> None:
        if ticket is not None:
            self._replies.append(Reply(ticket, answer))

    def change(self, **fields: Any) -> None:
        if "phase" in fields and fields["phase"] is not self.group.phase:
            fields["state_timestamp"] = self._wall_ms
        self.group = replace(self.group, **fields)

    def record(self) -> None:
        self._is_fact_changed = True

    # --- members --------------------------------------------------------------------------------------------

    def put(self, member: Member) -> None:
        self.change(members=MappingProxyType({**self.group.members, member.member_id: member}))

    def drop(self, member: Member, answer: Answer | None = None) -> None:
        """Take a member out; whoever waits in its name gets the answer."""
        gone = answer or UnknownMemberId(f"member {member.member_id!r} was removed from {self.group.group_id!r}")
        self.reply(member.joining, gone)
        self.reply(member.syncing, gone)
        left = {key: each for key, each in self.group.members.items() if key != member.member_id}
        leader = self.group.leader
        if leader == member.member_id:
            leader = next(iter(left), None)
        self.change(members=MappingProxyType(left), leader=leader)

    def forget_pending(self, member_id: str) -> None:
        left = {key: due for key, due in self.group.pending.items() if key != member_id}
        self.change(pending=MappingProxyType(left))

    def heard_of(self, member: Member) -> Member:
        deadline_ms = self.now_ms + member.session_timeout_ms
        heard = replace(member, deadline_ms=max(deadline_ms, member.deadline_ms) if member.is_new else deadline_ms)
        self.put(heard)
        return heard

    # --- rebalancing ----------------------------------------------------------------------------------------

    def prepare_rebalance(self) -> None:
        group = self.group
        if group.phase is Phase.PREPARING:
            return
        if group.phase is Phase.COMPLETING:
            self._interrupt_syncs()
        is_new = group.phase is Phase.EMPTY
        if is_new and self.rules.initial_delay_ms:
            deadline_ms, opened_ms = self.now_ms + self.rules.initial_delay_ms, self.now_ms
        else:
            deadline_ms, opened_ms = self.now_ms + self.longest_rebalance_ms(), NEVER_MS
        self.change(phase=Phase.PREPARING, deadline_ms=deadline_ms, opened_ms=opened_ms)

    def longest_rebalance_ms(self) -> int:
        return max((member.rebalance_timeout_ms for member in self.group.members.values()), default=0)

    def _interrupt_syncs(self) -> None:
        for member in self.group.members.values():
            self.reply(member.syncing, RebalanceInProgress("the group is rebalancing: join again"))
            self.put(replace(member, syncing=None, is_sync_due=False, assignment=b""))

    def maybe_complete_join(self) -> None:
        group = self.group
        if group.phase is Phase.PREPARING and not group.is_opening and group.has_all_joined:
            self.complete_join()

    def complete_join(self) -> None:
        """A new generation of those who have joined; a static member that has not keeps its place until its session
        ends."""
        for member in list(self.group.members.values()):
            if member.joining is None and member.instance_id is None:
                self.drop(member)
        members = self.group.members
        if members and not any(member.joining is not None for member in members.values()):
            self.change(deadline_ms=self.now_ms + self.longest_rebalance_ms(), opened_ms=NEVER_MS)
            return
        self.change(generation=self.group.generation + 1, opened_ms=NEVER_MS)
        if not members:
            self._become_empty()
            return
        leader = self.group.leader
        if leader is None or leader not in members or members[leader].joining is None:
            leader = next(key for key, member in members.items() if member.joining is not None)
        deadline_ms = self.now_ms + self.longest_rebalance_ms()
        self.change(phase=Phase.COMPLETING, protocol=self.voted(), leader=leader, deadline_ms=deadline_ms)
        for member in list(members.values()):
            told = replace(member, joining=None, is_new=False, is_sync_due=True)
            if member.joining is None:
                self.put(told)
            else:
                self.reply(member.joining, self.joined(member.member_id))
                self.heard_of(told)

    def _become_empty(self) -> None:
        self.change(phase=Phase.EMPTY, protocol=None, leader=None, deadline_ms=NEVER_MS)
        self.record()

    def voted(self) -> str:
        """Each member votes for the first of its protocols that all can do."""
        common = self.group.common_protocols
        votes = Counter(
            next(name for name, _ in member.protocols if name in common) for member in self.group.members.values()
        )
        return max(sorted(votes), key=lambda name: votes[name])

    def joined(self, member_id: str) -> Joined:
        group = self.group
        members: tuple[tuple[str, str | None, bytes], ...] = ()
        if member_id == group.leader:
            members = tuple(
                (key, each.instance_id, each.metadata(group.protocol)) for key, each in group.members.items()
            )
        return Joined(
            generation=group.generation,
            protocol_type=group.protocol_type or "",
            protocol=group.protocol or "",
            leader=group.leader or "",
            member_id=member_id,
            members=members,
        )

    def synced(self, member: Member) -> Synced:
        return Synced(
            protocol_type=self.group.protocol_type or "",
            protocol=self.group.protocol or "",
            assignment=member.assignment,
        )
