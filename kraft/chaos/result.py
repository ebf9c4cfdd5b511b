"""The result of one run: a verdict, or the reason why the scenario could not be run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from kraft.chaos.checkers.verdict import Verdict

AS_EXPECTED: Final = 0
NOT_AS_EXPECTED: Final = 1
COULD_NOT_RUN: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    scenario: str
    seed: int
    elapsed_ms: int
    start_ms: int = 0
    """The time until the cluster was ready."""
    verdict: Verdict | None = None
    failure: str = ""
    """The reason why there is no verdict, or why the story broke off."""
    directory: Path | None = None
    """The folder with all files of the run; None: removed."""

    @property
    def exit_code(self) -> int:
        if self.failure or self.verdict is None:
            return COULD_NOT_RUN
        return AS_EXPECTED if self.verdict.as_expected else NOT_AS_EXPECTED

    @property
    def outcome(self) -> str:
        return ("as expected", "NOT as expected", "could not be run")[self.exit_code]

    @property
    def problems(self) -> tuple[str, ...]:
        failures = [self.failure] if self.failure else []
        return (*failures, *(self.verdict.problems if self.verdict else ()))

    def to_document(self) -> dict[str, Any]:
        return {
            "scenario": self.scenario,
            "seed": self.seed,
            "outcome": self.outcome,
            "elapsed_ms": self.elapsed_ms,
            "start_ms": self.start_ms,
            "failure": self.failure or None,
            "directory": str(self.directory) if self.directory else None,
            "verdict": msgspec.to_builtins(self.verdict) if self.verdict else None,
        }
