"""Memory and open files of nodes over time, and whether they grow. Pure.

The median of the first quarter is held against that of the last: a node that works needs more than one that starts,
and now and then more than usual, but not more and more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

SAMPLES_MIN: Final = 20
"""Of a node: fewer say nothing."""
MEMORY_FACTOR_MAX: Final = 1.5
MEMORY_SLACK_BYTES: Final = 64 * 1024 * 1024
FILES_FACTOR_MAX: Final = 1.5
FILES_SLACK: Final = 200
FILES_PER_REPLICA: Final = 3
"""A log and its two indexes: opened when they are needed, and closed when others are. However many of them a node has
open, it is no leak."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Of one node at one moment."""

    at_ms: int
    memory_bytes: int
    """Resident."""
    open_files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Medians of the first and of the last quarter."""

    node: int
    samples: int
    replicas: int
    """That the node has."""
    memory_bytes: tuple[float, float]
    open_files: tuple[float, float]

    @property
    def problems(self) -> Iterator[str]:
        if self.samples < SAMPLES_MIN:
            return
        first, last = self.memory_bytes
        if last > first * MEMORY_FACTOR_MAX + MEMORY_SLACK_BYTES:
            yield f"node {self.node} needs more and more memory: {first / 1e6:.0f} MB first, {last / 1e6:.0f} MB last"
        first, last = self.open_files
        if last > max(first * FILES_FACTOR_MAX, self.replicas * FILES_PER_REPLICA) + FILES_SLACK:
            yield f"node {self.node} opens more and more files: {first:.0f} first, {last:.0f} last"


def growth_of(usages: Mapping[int, Sequence[Usage]], *, replicas: int) -> tuple[Growth, ...]:
    return tuple(_growth(node, samples, replicas) for node, samples in sorted(usages.items()) if samples)


def _growth(node: int, samples: Sequence[Usage], replicas: int) -> Growth:
    quarter = max(1, len(samples) // 4)
    first, last = samples[:quarter], samples[-quarter:]
    return Growth(
        node=node,
        samples=len(samples),
        replicas=replicas,
        memory_bytes=(median(each.memory_bytes for each in first), median(each.memory_bytes for each in last)),
        open_files=(median(each.open_files for each in first), median(each.open_files for each in last)),
    )
