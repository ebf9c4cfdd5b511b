"""The client of a worker of a queue: its requests to the nodes, in any protocol.

A receive locks records for this worker, an acknowledgement ends the locks. `RestQueueClient` speaks HTTP to real nodes;
a simulated world has its own. A client that is closed releases nothing, as a killed process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from kraft.chaos.history import Delivered, Word
from kraft.client.outcome import Outcome
from kraft.protocol.errors import GroupIdNotFound, InvalidRecordState, InvalidRequest

REFUSED: Final = frozenset(error.code for error in (GroupIdNotFound, InvalidRecordState, InvalidRequest))
"""Errors of checks before the write of the state. After any other error the state may have been written."""
ACKNOWLEDGE_TIMEOUT_MS: Final = 12_000
"""A node repeats an acknowledgement for ten seconds while there is no leader."""
RECEIVE_SLACK_MS: Final = 5_000
"""Time beyond the wait of a receive."""


def of_acknowledgement(kafka_code: int) -> Outcome:
    """The outcome of an acknowledgement with this error code, or 0."""
    if kafka_code == 0:
        return "ok"
    return "fail" if kafka_code in REFUSED else "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePlan:
    group: str
    topic: str
    batch: int
    """The most records of one receive."""
    lock_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A record that is locked for this worker."""

    record: Delivered
    ack_id: Any
    """Names the record in an acknowledgement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiveResult:
    """The result of one receive."""

    outcome: Outcome
    held: Sequence[Held] = ()
    kafka_code: int | None = None
    error: str | None = None
    cannot_now: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AcknowledgeResult:
    """The result for one record."""

    outcome: Outcome
    kafka_code: int | None = None
    error: str | None = None
    cannot_now: bool = False
    renewed: Held | None = field(default=None, compare=False)
    """The record as it is locked after a renewal."""


class QueueClient(Protocol):
    async def open(self, nodes: Sequence[int]) -> None:
        """Open links to these nodes, so that faults can break them before the first request."""
        ...

    async def receive(self, node: int, *, wait_ms: int) -> ReceiveResult: ...

    async def acknowledge(self, node: int, items: Sequence[tuple[Held, Word]]) -> Sequence[AcknowledgeResult]:
        """A result for each record, in the same order."""
        ...

    async def close(self) -> None:
        """Close the connections at once, without a request."""
        ...
