"""One group of the classic protocol: its members and where its rebalance stands. Frozen; `classic_rebalance` makes the
next one.

    Empty ──join──► PreparingRebalance ──all joined, or time over──► CompletingRebalance ──leader's sync──► Stable
      ▲                    ▲  │ nobody joined                              │ join, leave, lost member         │
      │                    │  └──────────► Empty                           └──────────► PreparingRebalance ◄──┘
      └── delete ──► Dead

Facts (in the log): generation, protocol, leader, members with subscription and assignment. Soft: deadlines, who waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from kraft.coordinators.groups.records import GroupKey, GroupRecord, StoredGroup, StoredMember
from kraft.coordinators.groups.subscriptions import Protocols

NEVER_MS = 2**62


class Phase(StrEnum):
    """Kafka's names of the states."""

    EMPTY = "Empty"
    PREPARING = "PreparingRebalance"
    COMPLETING = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
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
    """It was told of this generation and has not asked for its assignment yet."""

    @property
    def can_expire(self) -> bool:
        """Who waits for an answer of the group is alive as far as anyone can tell."""
        return self.is_new or (self.joining is None and self.syncing is None)

    def metadata(self, protocol: str | None) -> bytes:
        return next((data for name, data in self.protocols if name == protocol), b"")


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
    """Of the rebalance: of all joins while preparing, of all syncs while completing."""
    opened_ms: int = NEVER_MS
    """While a new group waits for more members: when its wait began."""
    state_timestamp: int = -1
    """Wall time of the last change of phase; offsets of an empty group expire from it (G7)."""

    @property
    def is_opening(self) -> bool:
        return self.opened_ms != NEVER_MS

    @property
    def has_all_joined(self) -> bool:
        return not self.pending and all(member.joining is not None for member in self.members.values())

    def static_member(self, instance_id: str) -> Member | None:
        return next((member for member in self.members.values() if member.instance_id == instance_id), None)

    @property
    def common_protocols(self) -> frozenset[str]:
        return common_protocols(self.members.values())

    def next_deadline_ms(self) -> int:
        sessions = (member.deadline_ms for member in self.members.values() if member.can_expire)
        return min([self.deadline_ms, *self.pending.values(), *sessions])


def common_protocols(members: Iterable[Member]) -> frozenset[str]:
    offered = {tuple([name for name, _ in member.protocols]) for member in members}
    return frozenset.intersection(*map(frozenset, offered)) if offered else frozenset()


def group_record(group: ClassicGroup) -> GroupRecord:
    """The facts of a group, as the log keeps them."""
    members = tuple(
        StoredMember(
            member_id=member.member_id,
            instance_id=member.instance_id,
            client_id=member.client_id,
            client_host=member.client_host,
            rebalance_timeout_ms=member.rebalance_timeout_ms,
            session_timeout_ms=member.session_timeout_ms,
            subscription=member.metadata(group.protocol),
            assignment=member.assignment,
        )
        for member in group.members.values()
    )
    stored = StoredGroup(
        protocol_type=group.protocol_type or "",
        generation=group.generation,
        protocol=group.protocol,
        leader=group.leader,
        state_timestamp=group.state_timestamp,
        members=members,
    )
    return GroupRecord(GroupKey(group.group_id), stored)


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
        members=MappingProxyType(members),
        state_timestamp=stored.state_timestamp,
    )


def with_protocols(
    member: Member, *, protocols: Protocols, session_timeout_ms: int, rebalance_timeout_ms: int
) -> Member:
    return replace(
        member,
        protocols=protocols,
        session_timeout_ms=session_timeout_ms,
        rebalance_timeout_ms=rebalance_timeout_ms,
    )
