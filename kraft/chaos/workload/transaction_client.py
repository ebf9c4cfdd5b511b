"""What a transactional producer needs of its way to the nodes, whatever protocol it speaks.

The client knows its producer id and epoch, and begins anew (fencing whatever has its transactional id) when it has none
or an end came to nothing known. Whoever is closed in mid-transaction is gone, as a process that was killed.
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
"""Of EndTxn: nothing was decided."""
FENCED: Final = frozenset((InvalidProducerEpoch.code, ProducerFenced.code))
"""Another instance has the transactional id, or the coordinator has ended the transaction by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionPlan:
    transactional_id: str
    transaction_timeout_ms: int
    timeout_ms: int
    flow: Flow


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What a step of a transaction came to, other than a produce."""

    outcome: Outcome
    producer_id: int = -1
    epoch: int = -1
    attempts: int = 1
    """How often it was sent."""
    kafka_code: int | None = None
    error: str | None = None
    cannot_now: bool = False


def of_end(kafka_code: int | None) -> Outcome:
    """Of an EndTxn that was answered with this error, or not at all."""
    return "fail" if kafka_code in REFUSED_ENDS else "info"


class TransactionClient(Protocol):
    async def open(self, nodes: Sequence[int]) -> None:
        """Make its links to these nodes, so that they can be broken before it has sent anything."""
        ...

    async def begin(self, node: int) -> StepResult:
        """With a producer id and epoch of its own, which it asks for if need be."""
        ...

    async def produce(self, node: int, batch: Batch) -> ProduceResult: ...
    async def add_offsets(self, node: int, group: str, topic: str, offsets: Mapping[int, int]) -> StepResult: ...
    async def end(self, node: int, *, is_commit: bool) -> StepResult: ...

    async def close(self) -> None:
        """At once, and without a word."""
        ...
