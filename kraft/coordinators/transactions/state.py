"""One transactional id: its producer, and where its transaction stands. Frozen; `decide` makes the next one.

                    ┌──────────── init ────────────┐
    Empty ──add──► Ongoing ──commit──► PrepareCommit ──markers──► CompleteCommit ──add──► Ongoing
      ▲               │                                                 │
      │ init          └─abort, fence, time over─► PrepareAbort ──markers──► CompleteAbort
      └───────────────────────────────────────────────────────────────────────┘
    Empty, CompleteCommit, CompleteAbort ──long unused──► Dead (a tombstone)

Under transaction version 2 an abort is legal without a transaction, too: it goes from there to PrepareAbort (KIP-890).
To fence a producer is to raise the epoch and to abort in one step, so PrepareEpochFence stands in no log of ours, as
in none of Kafka's. Source: org.apache.kafka.coordinator.transaction.TransactionMetadata, TransactionState.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from kraft.protocol.primitives import TopicPartition

NO_PRODUCER_ID = -1
NO_EPOCH = -1
NO_TIMESTAMP = -1
EPOCH_MAX = 2**15 - 1
LAST_CLIENT_EPOCH = EPOCH_MAX - 1
"""The last epoch that a client is given: one more is kept for fencing it."""


class Phase(IntEnum):
    """The status byte in the log."""

    EMPTY = 0
    ONGOING = 1
    PREPARE_COMMIT = 2
    PREPARE_ABORT = 3
    COMPLETE_COMMIT = 4
    COMPLETE_ABORT = 5
    DEAD = 6
    PREPARE_EPOCH_FENCE = 7

    @property
    def kafka_name(self) -> str:
        return self.name.title().replace("_", "")

    @classmethod
    def named(cls, kafka_name: str) -> Phase:
        """Raises KeyError."""
        return _BY_NAME[kafka_name]

    @property
    def is_preparing(self) -> bool:
        """Decided, and markers have yet to be written."""
        return self in (Phase.PREPARE_COMMIT, Phase.PREPARE_ABORT)

    @property
    def is_complete(self) -> bool:
        return self in (Phase.COMPLETE_COMMIT, Phase.COMPLETE_ABORT)


_BY_NAME = {phase.kafka_name: phase for phase in Phase}


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """How an id was taken over by a request that may be repeated: its key, and the producer that it was answered."""

    key: bytes
    producer_id: int
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    transactional_id: str
    producer_id: int
    epoch: int
    """-1 for an id that no producer has been given yet."""
    timeout_ms: int
    phase: Phase = Phase.EMPTY
    partitions: frozenset[TopicPartition] = frozenset()
    updated_ms: int
    """Wall time, as the next one."""
    started_ms: int = NO_TIMESTAMP
    last_epoch: int = NO_EPOCH
    """Before the last raise, which a repeated request names; none if that gave the id to a new instance. Not in the
    log."""
    previous_producer_id: int = NO_PRODUCER_ID
    """Whose epochs were used up (KIP-360)."""
    next_producer_id: int = NO_PRODUCER_ID
    """What takes its place once the transaction is complete (KIP-890)."""
    client_version: int = 0
    """Transaction version of its client: 2 raises the epoch with each transaction."""
    owner: str = ""
    """The user who took the id over over REST, `User:alice`; empty without one, and for Kafka's clients."""
    begun: Begun | None = None
    """None where the last one that took the id over sent no key, as Kafka's clients."""

    @property
    def is_exhausted(self) -> bool:
        return self.epoch >= LAST_CLIENT_EPOCH
