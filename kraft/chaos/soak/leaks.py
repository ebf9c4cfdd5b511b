"""Memory and open files of nodes over time, and whether they grow. Pure.

The median of the first quarter is compared with that of the last: a working node needs more than a starting one, and
sometimes more than usual, but must not need more and more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

SAMPLES_MIN: Final = 20
"""The least samples of a node; fewer are not judged."""
MEMORY_FACTOR_MAX: Final = 1.5
MEMORY_SLACK_BYTES: Final = 64 * 1024 * 1024
FILES_FACTOR_MAX: Final = 1.5
FILES_SLACK: Final = 200
FILES_PER_REPLICA: Final = 3
"""Files of logs and indexes: a node opens them when needed and closes them for others. Their number is no leak."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Memory and open files of one node at one moment."""

    at_ms: int
    memory_bytes: int
    """The resident memory."""
    open_files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Medians of the first and of the last quarter."""

    node: int
    samples: int
    replicas: int
    """The files that the node has open."""
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
