"""What a member of a group needs of its way to the nodes, whatever protocol it speaks.

`poll` joins when it has to, and gives records of partitions that the member has now. `RestGroupClient` is a REST
consumer, `KafkaGroupClient` another's library; a simulated world has one of its own. Whoever is closed without leaving
has fallen silent, as a process that was killed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from kraft.client.outcome import Outcome
from kraft.protocol.errors import (
    CoordinatorLoadInProgress,
    FencedInstanceId,
    IllegalGeneration,
    RebalanceInProgress,
    UnknownMemberId,
)

REFUSED_COMMITS: Final = frozenset(
    error.code
    for error in (CoordinatorLoadInProgress, FencedInstanceId, IllegalGeneration, RebalanceInProgress, UnknownMemberId)
)
"""Checked before the append. A coordinator that gives up its partition may have appended before."""


def of_commit(kafka_code: int | None) -> Outcome:
    """Of a commit that was answered with this error, or with none."""
    return "fail" if kafka_code in REFUSED_COMMITS else "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    group: str
    topic: str
    session_ms: int
    batch: int
    """Records that one poll gives at most, of all partitions together."""
    instance: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRecords:
    """Records of one partition that a member was given."""

    partition: int
    records: Sequence[tuple[int, str]]
    next_offset: int
    """To commit when they have been processed."""
    since_us: int
    """The group's committed offset was asked for at this moment or later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PollResult:
    """What one poll came to."""

    outcome: Outcome
    given: Sequence[MemberRecords] = ()
    generation: int | None = None
    is_new: bool = False
    """The member has joined, or was given other partitions: what it had processed before is no longer its to commit."""
    kafka_code: int | None = None
    error: str | None = None
    cannot_now: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitResult:
    """What one commit came to."""

    outcome: Outcome
    generation: int | None = None
    """In which it was certainly sent."""
    kafka_code: int | None = None
    error: str | None = None
    cannot_now: bool = False


class GroupClient(Protocol):
    async def open(self, nodes: Sequence[int]) -> None:
        """Make its links to these nodes, so that they can be broken before it has sent anything."""
        ...

    async def poll(self, node: int, *, wait_ms: int) -> PollResult: ...
    async def commit(self, node: int, offsets: Mapping[int, int]) -> CommitResult: ...
    async def leave(self, node: int) -> None:
        """In order. Whether it was heard nobody knows."""
        ...

    async def close(self) -> None:
        """At once, and without a word."""
        ...
