"""The result of a soak. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from kraft.chaos.checkers.verdict import Verdict
from kraft.chaos.result import AS_EXPECTED, COULD_NOT_RUN, NOT_AS_EXPECTED
from kraft.chaos.soak.leaks import Growth
from kraft.chaos.soak.members import GroupCounts
from kraft.chaos.soak.plan import SoakOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakResult:
    options: SoakOptions
    elapsed_ms: int
    faults: Mapping[str, int]
    """Kind of fault -> count."""
    whole_ms: tuple[int, ...] = ()
    """For each round: the time from healing until all replicas were in sync."""
    group: GroupCounts
    growth: tuple[Growth, ...] = ()
    verdict: Verdict | None = None
    failures: tuple[str, ...] = ()
    """Problems other than the verdict."""
    directory: Path | None = None
    """The folder with all files of the run; None: removed."""

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        yield from self.failures
        for growth in self.growth:
            yield from growth.problems
        if self.verdict is not None:
            yield from self.verdict.problems

    @property
    def exit_code(self) -> int:
        if self.verdict is None:
            return COULD_NOT_RUN
        return NOT_AS_EXPECTED if self.problems else AS_EXPECTED

    def to_document(self) -> dict[str, Any]:
        return {
            **asdict(self.options),
            "elapsed_ms": self.elapsed_ms,
            "faults": dict(self.faults),
            "whole_ms": list(self.whole_ms),
            "group": asdict(self.group),
            "growth": [asdict(growth) for growth in self.growth],
            "problems": list(self.problems),
            "directory": str(self.directory) if self.directory else None,
            "verdict": msgspec.to_builtins(self.verdict) if self.verdict else None,
        }
