"""The client of a member of a group: its requests to the nodes, in any protocol.

`poll` joins the group if needed, and returns records of the assigned partitions. `RestGroupClient` is a REST consumer,
`KafkaGroupClient` is aiokafka; a simulated world has its own. A client that is closed without leaving is silent, as a
killed process is.
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
"""Errors of checks before the append. A coordinator that gives up its partition may have appended before."""


def of_commit(kafka_code: int | None) -> Outcome:
    """The outcome of a commit with this error code, or 0."""
    return "fail" if kafka_code in REFUSED_COMMITS else "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    group: str
    topic: str
    session_ms: int
    batch: int
    """The most records of one poll, of all partitions together."""
    instance: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRecords:
    """Records of one partition that a member received."""

    partition: int
    records: Sequence[tuple[int, str]]
    next_offset: int
    """The offset to commit after processing."""
    since_us: int
    """The earliest time at which the member requested the committed offset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PollResult:
    """The result of one poll."""

    outcome: Outcome
    given: Sequence[MemberRecords] = ()
    generation: int | None = None
    is_new: bool = False
    """The member has joined, or has other partitions now: it may not commit earlier records."""
    kafka_code: int | None = None
    error: str | None = None
    cannot_now: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitResult:
    """The result of one commit."""

    outcome: Outcome
    generation: int | None = None
    """The generation in which the commit was certainly sent."""
    kafka_code: int | None = None
    error: str | None = None
    cannot_now: bool = False


class GroupClient(Protocol):
    async def open(self, nodes: Sequence[int]) -> None:
        """Open links to these nodes, so that faults can break them before the first request."""
        ...

    async def poll(self, node: int, *, wait_ms: int) -> PollResult: ...
    async def commit(self, node: int, offsets: Mapping[int, int]) -> CommitResult: ...
    async def leave(self, node: int) -> None:
        """Leave the group. The outcome is unknown."""
        ...

    async def close(self) -> None:
        """Close the connections at once, without a request."""
        ...
