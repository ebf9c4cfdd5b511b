"""A group of the classic protocol while one event is decided: changed freely, then frozen. It never outlives the
decision. `Decision` is what a decision about a group of either protocol returns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from kraft.coordinators.groups.classic_group import (
    NEVER_MS,
    ClassicGroup,
    Member,
    Phase,
    Tally,
    common_of,
    due_of,
    group_record,
    offer_of,
)
from kraft.coordinators.groups.classic_requests import Answer, Joined, Replies, Reply, Synced
from kraft.coordinators.groups.consumer_group import ConsumerGroup
from kraft.coordinators.groups.records import GroupRecord
from kraft.coordinators.groups.share_group import ShareGroup
from kraft.coordinators.groups.share_requests import InitializeStates
from kraft.protocol.errors import RebalanceInProgress, UnknownMemberId
from metadata.persistent_map import MapDraft, text_draft


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
    share: ShareGroup | None = None
    """What the group is if it is a share group; `group` is empty then."""
    records: tuple[GroupRecord, ...] = ()
    replies: Sequence[Reply] = ()
    """To be given once the records are replicated."""
    to_initialize: InitializeStates | None = None
    """Also once the records are replicated."""


def _itself(answer: Answer) -> Answer:
    return answer


class ClassicDraft:
    def __init__(self, group: ClassicGroup, rules: ClassicRules, *, now_ms: int, wall_ms: int) -> None:
        self.group = group
        self.rules = rules
        self.now_ms = now_ms
        self._wall_ms = wall_ms
        self._replies: list[Reply] = []
        self._replies_of_each: tuple[Sequence[tuple[int, Any]], Callable[[Any], Answer]] = (), _itself
        self._is_fact_changed = False
        self._members: MapDraft[str, Member] | None = None
        """The members of this draft, once one has changed: `group.members` shows them."""
        self._pending: MapDraft[str, int] | None = None
        tally = group.counted
        self._joined, self._due_ms, self.syncs_due = tally.joined, tally.due_ms, tally.syncs_due
        self._static = text_draft(tally.static)
        self._offers, self._timeouts_ms = tally.offers, tally.rebalance_timeouts_ms

    def decision(self) -> Decision:
        tally = Tally(
            joined=self._joined,
            offers=self._offers,
            rebalance_timeouts_ms=self._timeouts_ms,
            due_ms=self._due_ms,
            syncs_due=self.syncs_due,
            static=self._static.frozen().resized(),
        )
        members = self.group.members if self._members is None else self._members.frozen().resized()
        pending = self.group.pending if self._pending is None else self._pending.frozen().resized()
        self.group = replace(self.group, members=members, pending=pending, tally=tally)
        records = (group_record(self.group),) if self._is_fact_changed else ()
        return Decision(group=self.group, records=records, replies=Replies(self._replies, *self._replies_of_each))

    def reply(self, ticket: int | None, answer: Answer) -> None:
        if ticket is not None:
            self._replies.append(Reply(ticket, answer))

    def reply_to_each(self, of_each: Sequence[tuple[int, Any]], answer_of: Callable[[Any], Answer]) -> None:
        """Reply to each of many, see `Replies`."""
        self._replies += Replies((), *self._replies_of_each)
        self._replies_of_each = of_each, answer_of

    def change(self, **fields: Any) -> None:
        if "phase" in fields and fields["phase"] is not self.group.phase:
            fields["state_timestamp"] = self._wall_ms
        self.group = replace(self.group, **fields)

    def record(self) -> None:
        self._is_fact_changed = True

    # --- members --------------------------------------------------------------------------------------------

    @property
    def joined_members(self) -> int:
        """Members whose join waits."""
        return self._joined

    def put(self, member: Member) -> None:
        members = self._own_members()
        self._count(members.get(member.member_id), member)
        members[member.member_id] = member

    def change_each(self, change: Callable[[Member], Member]) -> None:
        """`put` for all members at once; none gets another name, other protocols or another rebalance timeout."""
        members = self._own_members()
        members.change_each(change)
        self._joined = self.syncs_due = 0
        for member in members.values():
            self._joined += member.joining is not None
            self.syncs_due += member.is_sync_due
            if member.deadline_ms < self._due_ms and member.can_expire:
                self._due_ms = member.deadline_ms

    def _own_members(self) -> MapDraft[str, Member]:
        if self._members is None:
            self._members = text_draft(self.group.members)
            self.group = replace(self.group, members=self._members, tally=None)
        return self._members

    def _count(self, before: Member | None, after: Member | None) -> None:
        """What of the tally changes as `before` becomes `after`; None: it is not in the group."""
        self._joined += (after is not None and after.joining is not None) - (
            before is not None and before.joining is not None
        )
        self.syncs_due += (after is not None and after.is_sync_due) - (before is not None and before.is_sync_due)
        if before is None or after is None:
            self._count_static(before, after)
        if before is None or after is None or before.protocols is not after.protocols:
            offers = (None if each is None else offer_of(each) for each in (before, after))
            self._offers = _moved(self._offers, *offers)
        old_ms, new_ms = (None if each is None else each.rebalance_timeout_ms for each in (before, after))
        if old_ms != new_ms:
            self._timeouts_ms = _moved(self._timeouts_ms, old_ms, new_ms)
        if after is not None and after.deadline_ms < self._due_ms and after.can_expire:
            self._due_ms = after.deadline_ms

    def _count_static(self, before: Member | None, after: Member | None) -> None:
        if before is not None and self._static.get(before.instance_id or "") == before.member_id:
            del self._static[before.instance_id or ""]
        if after is not None and after.instance_id is not None:
            self._static[after.instance_id] = after.member_id

    def look_at_all_deadlines(self) -> None:
        """After what was due: sessions have become longer since they were counted."""
        self._due_ms = due_of(self.group)

    def drop(self, member: Member, answer: Answer | None = None) -> None:
        """Take a member out; a request of it that waits gets the answer."""
        gone = answer or UnknownMemberId(f"member {member.member_id!r} was removed from {self.group.group_id!r}")
        self.reply(member.joining, gone)
        self.reply(member.syncing, gone)
        left = self._own_members()
        self._count(left.pop(member.member_id, None), None)
        if self.group.leader == member.member_id:
            self.change(leader=next(iter(left), None))

    def expect(self, member_id: str, due_ms: int) -> None:
        """The id is given out, and forgotten unless its member joins until then (KIP-394)."""
        self._own_pending()[member_id] = due_ms
        self._due_ms = min(self._due_ms, due_ms)

    def forget_pending(self, member_id: str) -> None:
        self._own_pending().pop(member_id, None)

    def _own_pending(self) -> MapDraft[str, int]:
        if self._pending is None:
            self._pending = text_draft(self.group.pending)
            self.change(pending=self._pending)
        return self._pending

    def heard_of(self, member: Member, **changes: Any) -> Member:
        deadline_ms = self.now_ms + member.session_timeout_ms
        if changes.get("is_new", member.is_new):
            deadline_ms = max(deadline_ms, member.deadline_ms)
        heard = member._replace(deadline_ms=deadline_ms, **changes)
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
        return max(self._timeouts_ms, default=0)

    def _interrupt_syncs(self) -> None:
        def interrupted(member: Member) -> Member:
            self.reply(member.syncing, RebalanceInProgress("the group is rebalancing: join again"))
            return member._replace(syncing=None, is_sync_due=False, assignment=b"")

        self.change_each(interrupted)

    def maybe_complete_join(self) -> None:
        group = self.group
        is_complete = not group.pending and self._joined == len(group.members)
        if group.phase is Phase.PREPARING and not group.is_opening and is_complete:
            self.complete_join()

    def complete_join(self) -> None:
        """A new generation of those who have joined; a static member that has not keeps its place until its session
        ends."""
        for member in list(self.group.members.values()):
            if member.joining is None and member.instance_id is None:
                self.drop(member)
        members = self.group.members
        if members and not self._joined:
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
        self._reply_to_members(leader)

    def _reply_to_members(self, leader: str) -> None:
        """Reply to each member with the new generation."""
        of_leader, now_ms = self.joined(leader), self.now_ms
        waiting: list[tuple[int, str]] = []

        def in_generation(member: Member) -> Member:
            deadline_ms = member.deadline_ms
            if member.joining is not None:
                waiting.append((member.joining, member.member_id))
                deadline_ms = now_ms + member.session_timeout_ms
            return member.followed(
                assignment=member.assignment, deadline_ms=deadline_ms, is_new=False, is_sync_due=True
            )

        self.change_each(in_generation)
        of_another = of_leader._replace(members=())
        self.reply_to_each(waiting, lambda name: of_leader if name == leader else of_another._replace(member_id=name))

    @property
    def common_protocols(self) -> frozenset[str]:
        """What all members can do."""
        return common_of(self._offers)

    def _become_empty(self) -> None:
        self.change(phase=Phase.EMPTY, protocol=None, leader=None, deadline_ms=NEVER_MS)
        self.record()

    def voted(self) -> str:
        """Each member votes for the first of its protocols that all can do."""
        common = self.common_protocols
        votes = Counter[str]()
        for offer, count in self._offers.items():
            votes[next(name for name in offer if name in common)] += count
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

    def synced(self, assignment: bytes) -> Synced:
        return Synced(
            protocol_type=self.group.protocol_type or "",
            protocol=self.group.protocol or "",
            assignment=assignment,
        )


K = TypeVar("K", bound=Hashable)


def _moved(counts: Mapping[K, int], before: K | None, after: K | None) -> Mapping[K, int]:
    """The counts after one that was `before` has become `after`; None: it was not, or is no more, among them."""
    if before == after:
        return counts
    moved = dict(counts)
    if before is not None:
        moved[before] -= 1
        if not moved[before]:
            del moved[before]
    if after is not None:
        moved[after] = moved.get(after, 0) + 1
    return moved
