"""The features of this version (KIP-584), as clients and tools know them by Kafka's names and levels. Pure.

There is no upgrade to finalize: all nodes of a cluster run one version, so each feature is final at its highest level.
Levels are those of Kafka 4.4: `MetadataVersion`, `GroupVersion`, `TransactionVersion`. A feature that is not named is
one that this cluster lacks. With share.version 2 there are share groups, and dead letters (KIP-1191). With
transaction.version 2 producers leave it to the leaders that they write to to add partitions, and each transaction has
an epoch of its own (KIP-890).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Feature:
    name: str
    oldest: int
    """Lowest level that it could have."""
    newest: int
    final: int
    """The level it has."""


FEATURES = (
    Feature("group.version", 0, 1, 1),
    Feature("metadata.version", 33, 33, 33),  # 4.4-IV2
    Feature("share.version", 0, 2, 2),
    Feature("transaction.version", 0, 2, 2),
)
"""Feature name -> feature."""
