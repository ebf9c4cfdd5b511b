"""What the members of a classic group ask, and what they are answered. Plain frozen data.

`ticket` names the request that waits for the answer: a join waits until all have joined, a sync until the leader has
assigned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, overload

from kraft.coordinators.groups.consumer_requests import ConsumerHeartbeat, ConsumerHeartbeatAnswer, TargetsComputed
from kraft.coordinators.groups.share_requests import (
    InitializeStates,
    ShareEvent,
    ShareHeartbeatAnswer,
    ShareTopicsDeleted,
    StatesDeleted,
    StatesInitialized,
)
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
    """KIP-394: a new dynamic member first gets its id, and joins again with it."""
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
GroupEvent: TypeAlias = Event | ConsumerHeartbeat | TargetsComputed | ShareEvent
"""What happens to a group, whichever protocol it speaks."""
Untold: TypeAlias = Tick | TargetsComputed | StatesInitialized | ShareTopicsDeleted | StatesDeleted
"""Events that nobody waits for."""


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

    def of(self, assignment: bytes) -> Synced:
        """The same with another member's assignment."""
        return self._replace(assignment=assignment)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A heartbeat or a leave was taken."""


Answer: TypeAlias = (
    Joined | Synced | Done | ConsumerHeartbeatAnswer | ShareHeartbeatAnswer | InitializeStates | KafkaError
)


class Reply(NamedTuple):
    ticket: int
    answer: Answer


class Replies(Sequence[Reply]):
    """Those that are made, and those of a rebalance, each of which is made when it is handed out: to make them all
    with the decision would take a fourth of its time."""

    __slots__ = ("_answer_of", "_made", "_of_each")

    def __init__(
        self, made: Sequence[Reply], of_each: Sequence[tuple[int, Any]], answer_of: Callable[[Any], Answer]
    ) -> None:
        """`of_each`: ticket, and of what `answer_of` makes the answer."""
        self._made, self._of_each, self._answer_of = made, of_each, answer_of

    def __len__(self) -> int:
        return len(self._made) + len(self._of_each)

    @overload
    def __getitem__(self, index: int) -> Reply: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Reply]: ...
    def __getitem__(self, index: int | slice) -> Reply | Sequence[Reply]:
        places = range(len(self))[index]
        return self._at(places) if isinstance(places, int) else [self._at(place) for place in places]

    def _at(self, place: int) -> Reply:
        if place < len(self._made):
            return self._made[place]
        ticket, of = self._of_each[place - len(self._made)]
        return Reply(ticket, self._answer_of(of))
