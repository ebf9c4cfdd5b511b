"""Who appends to a leader's log, which says what it may write and what is checked (Kafka's AppendOrigin).

A client writes plain batches. One whose transaction the coordinator knows writes transactional ones, too: it has an
open transaction in the partition, or the guard of a verification that is still the partition's (KIP-890). A coordinator
writes what it likes, and says of a marker to which transaction version it belongs (KIP-1228).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(slots=True, eq=False)
class Verification:
    """A producer of whom the coordinator is being asked, or has said, that the partition is in its transaction: the
    guard of the first append (ProducerStateManager's VerificationStateEntry). A marker or an append ends it; so what
    was verified before an abort is not appended after it."""

    epoch: int
    lowest_sequence: int
    """Of the batches that asked: none with a later one may come first (KAFKA-15653)."""
    raises_epoch: bool
    """By transaction version 2: each transaction has an epoch of its own, which begins at sequence 0."""
    begun_ms: int

    def asked_again(self, *, epoch: int, sequence: int) -> None:
        if epoch > self.epoch:
            self.epoch, self.lowest_sequence = epoch, sequence
        elif epoch == self.epoch:
            self.lowest_sequence = min(self.lowest_sequence, sequence)


class Origin(NamedTuple):
    is_coordinator: bool = False
    is_transactional: bool = False
    """A client's request with a transactional id."""
    verification: Verification | None = None
    """None where the partition has the transaction open already."""
    marker_version: int = 0
    """Transaction version of a marker: 2, and its epoch is above that of the transaction's batches."""
    compares_records: bool = False
    """A program without a client library counts the sequences: one that was used is a repetition only of the same
    records."""


CLIENT = Origin()
COORDINATOR = Origin(is_coordinator=True)
MARKER_ABOVE_EPOCH = 2
"""The first transaction version that raises the epoch with each transaction."""
