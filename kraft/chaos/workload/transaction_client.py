"""The client of a transactional producer: its requests to the nodes, in any protocol.

The client knows its producer id and epoch. Without them, or after an end with an unknown outcome, it requests new ones,
which fences older instances. A client that is closed in a transaction ends as a killed process does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from kraft.chaos.workload.client import Batch, ProduceResult
from kraft.client.outcome import Outcome
from kraft.protocol.errors import (
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    InvalidTxnState,
    ProducerFenced,
    TransactionAbortable,
    TransactionalIdAuthorizationFailed,
)

Flow: TypeAlias = Literal["old", "new"]
"""`old`: partitions are added before they are written to, the epoch stays. `new` (KIP-890): the first batch adds its
partition, each transaction has an epoch of its own."""
REFUSED_ENDS: Final = frozenset(
    error.code
    for error in (
        InvalidProducerEpoch,
        InvalidProducerIdMapping,
        InvalidTxnState,
        ProducerFenced,
        TransactionAbortable,
        TransactionalIdAuthorizationFailed,
    )
)
"""Errors of EndTxn after which nothing was decided."""
FENCED: Final = frozenset((InvalidProducerEpoch.code, ProducerFenced.code))
"""Errors that mean: another instance has the transactional id, or the coordinator has aborted the transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionPlan:
    transactional_id: str
    transaction_timeout_ms: int
    timeout_ms: int
    flow: Flow


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """The result of a step of a transaction, other than a produce."""

    outcome: Outcome
    producer_id: int = -1
    epoch: int = -1
    attempts: int = 1
    """The number of attempts."""
    kafka_code: int | None = None
    error: str | None = None
    cannot_now: bool = False


def of_end(kafka_code: int | None) -> Outcome:
    """The result of an EndTxn with this error code, or without an answer."""
    return "fail" if kafka_code in REFUSED_ENDS else "info"


class TransactionClient(Protocol):
    async def open(self, nodes: Sequence[int]) -> None:
        """Open links to these nodes, so that faults can break them before the first request."""
        ...

    async def begin(self, node: int) -> StepResult:
        """Begin a transaction; requests a producer id and epoch if needed."""
        ...

    async def produce(self, node: int, batch: Batch) -> ProduceResult: ...
    async def add_offsets(self, node: int, group: str, topic: str, offsets: Mapping[int, int]) -> StepResult: ...
    async def end(self, node: int, *, is_commit: bool) -> StepResult: ...

    async def close(self) -> None:
        """Close the connections at once, without a request."""
        ...
