"""What the members of a classic group ask, and what they are answered. Plain frozen data.

`ticket` names who waits for the answer: a join waits until all have joined, a sync until the leader has assigned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from kraft.coordinators.groups.consumer_requests import Beaten, ConsumerHeartbeat
from kraft.coordinators.groups.subscriptions import Protocols
from kraft.protocol.errors import KafkaError


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    ticket: int
    member_id: str = ""
    instance_id: str | None = None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocol_type: str
    protocols: Protocols
    new_member_id: str
    """The id that a new member gets; drawn by the shell, so that deciding stays pure."""
    is_known_required: bool = True
    """KIP-394: a new dynamic member is first told its id, and comes again with it."""
    can_skip_assignment: bool = True
    """KIP-814: a static leader that comes back understands that it has nothing to assign."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    ticket: int
    member_id: str
    generation: int
    instance_id: str | None = None
    protocol_type: str | None = None
    protocol: str | None = None
    assignments: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    ticket: int
    member_id: str
    generation: int
    instance_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    ticket: int
    member_id: str = ""
    instance_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time has passed: sessions, rebalances and given-out ids may be over."""


Event: TypeAlias = Join | Sync | Heartbeat | Leave | Tick
GroupEvent: TypeAlias = Event | ConsumerHeartbeat
"""What happens to a group, whichever protocol it speaks."""


class Joined(NamedTuple):
    generation: int
    protocol_type: str
    protocol: str
    leader: str
    member_id: str
    members: tuple[tuple[str, str | None, bytes], ...] = ()
    """(member id, instance id, metadata) of all, to the leader alone."""
    skips_assignment: bool = False
    """KIP-814: the leader came back under the same instance id; the group keeps what it assigned."""


class Synced(NamedTuple):
    protocol_type: str
    protocol: str
    assignment: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A heartbeat or a leave was taken."""


Answer: TypeAlias = Joined | Synced | Done | Beaten | KafkaError


class Reply(NamedTuple):
    ticket: int
    answer: Answer
