"""The invariants that hold throughout: one leader a term, leader completeness, agreement on every applied index."""

from __future__ import annotations

from tests.simulation.quorum.plan import Violation


class Checks:
    def __init__(self) -> None:
        self.applied: dict[int, bytes] = {}
        self.acked: dict[bytes, int] = {}
        """The index at which a command was acknowledged."""
        self._applied_terms: dict[int, int] = {}
        self._leaders: dict[int, int] = {}

    def on_leader(self, i: int, *, term: int, held: dict[int, bytes]) -> None:
        if self._leaders.setdefault(term, i) != i:
            raise Violation(f"two leaders in term {term}: {self._leaders[term]} and {i}")
        first = min(held)
        for index, command in self.applied.items():
            if index >= first and self._applied_terms[index] < term and held.get(index, b"")[1:] != command:
                raise Violation(f"leader {i} of term {term} lacks committed entry {index}")

    def on_apply(self, i: int, *, term: int, index: int, command: bytes) -> None:
        known = self.applied.setdefault(index, command)
        if known != command:
            raise Violation(f"{i} applies {command[:20]!r} at {index}, where {known[:20]!r} was applied")
        self._applied_terms.setdefault(index, term)

    def on_caught_up(self, i: int, *, applied_index: int, committed: int) -> None:
        if applied_index < committed:
            raise Violation(f"{i} has caught up at {applied_index}; {committed} was acknowledged before it began")

    def on_end(self, i: int, *, applied_index: int, commands: dict[int, bytes]) -> None:
        for command, index in self.acked.items():
            if index <= applied_index and commands.get(index) != command:
                raise Violation(f"{i} has lost {command[:20]!r}, acknowledged at {index}")
