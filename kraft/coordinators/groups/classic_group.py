"""One group of the classic protocol: its members and where its rebalance stands. Frozen; `classic_rebalance` makes the
next one.

    Empty ──join──► PreparingRebalance ──all joined, or time over──► CompletingRebalance ──leader's sync──► Stable
      ▲                    ▲  │ nobody joined                              │ join, leave, lost member         │
      │                    │  └──────────► Empty                           └──────────► PreparingRebalance ◄──┘
      └── delete ──► Dead

Facts (in the log): generation, protocol, leader, members with subscription and assignment. Soft: deadlines,
members that wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from kraft.coordinators.groups.records import GroupKey, GroupRecord, StoredGroup, StoredMember
from kraft.coordinators.groups.subscriptions import Protocols
from metadata.persistent_map import text_map

NEVER_MS = 2**62


class Phase(StrEnum):
    """Kafka's names of the states."""

    EMPTY = "Empty"
    PREPARING = "PreparingRebalance"
    COMPLETING = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


class Member(NamedTuple):
    """A rebalance makes the next one of each: a named tuple needs a third of the time that a data class needs."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocols: Protocols
    assignment: bytes = b""
    deadline_ms: int = NEVER_MS
    """When its session is over unless it is heard of."""
    joining: int | None = None
    """Ticket of its join that waits."""
    syncing: int | None = None
    is_new: bool = False
    """Its first join waits: nobody could beat its heart yet, so that join itself has a time limit."""
    is_sync_due: bool = False
    """It has the answer of this generation and has not asked for its assignment yet."""

    def followed(self, *, assignment: bytes, deadline_ms: int, is_new: bool, is_sync_due: bool) -> Member:
        """It waits for nothing more. In a tenth of the time of `_replace`: a rebalance does it with each member."""
        changed = assignment, deadline_ms, None, None, is_new, is_sync_due
        return tuple.__new__(Member, self[:ASSIGNMENT] + changed)

    @property
    def can_expire(self) -> bool:
        """Whether its session can end: a member that waits for an answer of the group counts as alive."""
        return self.is_new or (self.joining is None and self.syncing is None)

    def metadata(self, protocol: str | None) -> bytes:
        protocols = self.protocols
        if protocols[0][0] == protocol:  # as of nearly all members
            return protocols[0][1]
        return dict(protocols).get(protocol or "", b"")


ASSIGNMENT = Member._fields.index("assignment")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassicGroup:
    group_id: str
    phase: Phase = Phase.EMPTY
    generation: int = 0
    protocol_type: str | None = None
    protocol: str | None = None
    leader: str | None = None
    members: Mapping[str, Member] = field(default_factory=lambda: MappingProxyType({}))
    pending: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """Ids given out and not yet joined with (KIP-394), and when they are forgotten."""
    deadline_ms: int = NEVER_MS
    """Deadline of the rebalance: of all joins while preparing, of all syncs while completing."""
    opened_ms: int = NEVER_MS
    """While a new group waits for more members: when its wait began."""
    state_timestamp: int = -1
    """Wall time of the last change of phase; offsets of an empty group expire from it (G7)."""
    tally: Tally | None = None
    """Counts of the members, kept up to date by `ClassicDraft`; None: not counted yet."""

    @property
    def is_opening(self) -> bool:
        return self.opened_ms != NEVER_MS

    @property
    def counted(self) -> Tally:
        return self.tally or tally_of(self)

    @property
    def has_all_joined(self) -> bool:
        return not self.pending and self.counted.joined == len(self.members)

    def static_member(self, instance_id: str) -> Member | None:
        member_id = self.counted.static.get(instance_id)
        return None if member_id is None else self.members[member_id]

    @property
    def common_protocols(self) -> frozenset[str]:
        return common_of(self.counted.offers)

    def next_deadline_ms(self) -> int:
        """When something is due, at the soonest: sessions may have become longer since they were counted."""
        return min(self.deadline_ms, self.counted.due_ms)


def common_protocols(members: Iterable[Member]) -> frozenset[str]:
    return common_of({offer_of(member) for member in members})


def common_of(offers: Iterable[tuple[str, ...]]) -> frozenset[str]:
    """The protocols that all offers have."""
    offered = list(map(frozenset, offers))
    return frozenset.intersection(*offered) if offered else frozenset()


def offer_of(member: Member) -> tuple[str, ...]:
    """The names of its protocols."""
    return tuple([name for name, _ in member.protocols])


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What of all members is asked at each request, so that a request costs the same in a group of any size."""

    joined: int
    """Members whose join waits."""
    offers: Mapping[tuple[str, ...], int]
    """Names of protocols -> how many members offer just these."""
    rebalance_timeouts_ms: Mapping[int, int]
    """Timeout -> how many members have it."""
    due_ms: int
    """No session, and no id that was given out, ends sooner."""
    syncs_due: int
    """Members that have the answer of the generation and have not asked for their assignments yet."""
    static: Mapping[str, str]
    """Instance id -> member id."""


def tally_of(group: ClassicGroup) -> Tally:
    """Looks at each member."""
    members = group.members.values()
    return Tally(
        joined=sum(member.joining is not None for member in members),
        offers=Counter(map(offer_of, members)),
        rebalance_timeouts_ms=Counter(member.rebalance_timeout_ms for member in members),
        due_ms=due_of(group),
        syncs_due=sum(member.is_sync_due for member in members),
        static=text_map({member.instance_id: member.member_id for member in members if member.instance_id is not None}),
    )


def due_of(group: ClassicGroup) -> int:
    sessions = [member.deadline_ms for member in group.members.values() if member.can_expire]
    return min([NEVER_MS, *group.pending.values(), *sessions])


def group_record(group: ClassicGroup) -> GroupRecord:
    """The facts of a group, as the log keeps them."""
    protocol = group.protocol
    members = tuple([_stored(member, protocol) for member in group.members.values()])
    stored = StoredGroup(
        protocol_type=group.protocol_type or "",
        generation=group.generation,
        protocol=group.protocol,
        leader=group.leader,
        state_timestamp=group.state_timestamp,
        members=members,
    )
    return GroupRecord(GroupKey(group.group_id), stored)


def _stored(member: Member, protocol: str | None) -> StoredMember:
    member_id, instance_id, client_id, client_host, session_ms, rebalance_ms, _, assignment, _, _, _, _, _ = member
    metadata = member.metadata(protocol)
    stored = member_id, instance_id, client_id, client_host, rebalance_ms, session_ms, metadata, assignment
    return tuple.__new__(StoredMember, stored)


def restored(group_id: str, stored: StoredGroup, *, now_ms: int) -> ClassicGroup:
    """A group from its record: stable with its members, each with a whole session to be heard of; or empty."""
    members = {
        each.member_id: Member(
            member_id=each.member_id,
            instance_id=each.instance_id,
            client_id=each.client_id,
            client_host=each.client_host,
            session_timeout_ms=each.session_timeout_ms,
            rebalance_timeout_ms=each.rebalance_timeout_ms,
            protocols=((stored.protocol or "", each.subscription),),
            assignment=each.assignment,
            deadline_ms=now_ms + each.session_timeout_ms,
        )
        for each in stored.members
    }
    return ClassicGroup(
        group_id=group_id,
        phase=Phase.STABLE if members else Phase.EMPTY,
        generation=stored.generation,
        protocol_type=stored.protocol_type or None,
        protocol=stored.protocol,
        leader=stored.leader,
        members=text_map(members),
        state_timestamp=stored.state_timestamp,
    )


def with_protocols(
    member: Member, *, protocols: Protocols, session_timeout_ms: int, rebalance_timeout_ms: int
) -> Member:
    return member._replace(
        protocols=protocols,
        session_timeout_ms=session_timeout_ms,
        rebalance_timeout_ms=rebalance_timeout_ms,
    )
