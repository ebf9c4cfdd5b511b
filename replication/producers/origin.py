"""Origin of an append to a leader's log, which decides what is allowed and checked (Kafka's AppendOrigin).

A client writes plain batches. It also writes transactional ones if the coordinator knows its transaction: the
transaction is open in the partition, or the append has the guard of a verification that is still valid (KIP-890). A
coordinator writes without restriction, and states the transaction version of a marker (KIP-1228).
"""

from __future__ import annotations

from dataclasses import dataclass

from kraft.values import value


@dataclass(slots=True, eq=False)
class Verification:
    """The guard of a producer's first append: the coordinator is asked, or has confirmed, that the partition is in its
    transaction (ProducerStateManager's VerificationStateEntry). A marker or an append ends it; so a batch that was
    verified before an abort is not appended after it."""

    epoch: int
    lowest_sequence: int
    """Lowest sequence of the batches that were checked: none with a later one may be appended first (KAFKA-15653)."""
    raises_epoch: bool
    """Transaction version 2: each transaction has an epoch of its own, which begins at sequence 0."""
    begun_ms: int

    def asked_again(self, *, epoch: int, sequence: int) -> None:
        if epoch > self.epoch:
            self.epoch, self.lowest_sequence = epoch, sequence
        elif epoch == self.epoch:
            self.lowest_sequence = min(self.lowest_sequence, sequence)


@value()
class Origin:
    is_coordinator: bool = False
    is_transactional: bool = False
    """True for a client's request with a transactional id."""
    verification: Verification | None = None
    """None where the transaction is already open in the partition."""
    marker_version: int = 0
    """Transaction version of a marker: with 2 its epoch is above that of the transaction's batches."""
    compares_records: bool = False
    """True if a program without a client library counts the sequences: a used one is a repetition only with the same
    records."""


CLIENT = Origin()
COORDINATOR = Origin(is_coordinator=True)
MARKER_ABOVE_EPOCH = 2
"""The first transaction version that raises the epoch with each transaction."""
