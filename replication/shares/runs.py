"""The offsets of a share partition that are in flight: runs of offsets with one state, in order and without overlaps.

A run is cut where an event concerns a part of it, and joined with its neighbour where the two are alike again. So a
batch of 500 records that are accepted together is one run all the time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from operator import attrgetter

from replication.shares.states import TERMINAL, DeliveryState

_LAST = attrgetter("last")


@dataclass(slots=True, eq=False, kw_only=True)
class Run:
    """Offsets that follow each other, of which the same is known."""

    first: int
    last: int
    state: DeliveryState
    delivery_count: int
    batch: int
    """The first offset of the acquisition that it came in by; bad records are isolated within one."""
    batch_size: int
    member: str = ""
    """The member that holds the lock; empty unless the state is ACQUIRED."""
    lock_until_ms: int = 0
    not_before_ms: int = 0
    """While it is available, or released by an acknowledgement that is not written yet: nobody gets it before."""
    target: DeliveryState | None = None
    """The state that an acknowledgement gives it once it is written. Until then nobody else may touch it."""
    reason: str = ""
    """Why it goes to the dead letter topic."""
    is_saved: bool = True
    """Whether the share coordinator knows this state; it never knows ACQUIRED."""

    @property
    def size(self) -> int:
        return self.last - self.first + 1

    @property
    def is_available(self) -> bool:
        return self.state is DeliveryState.AVAILABLE and not self.not_before_ms

    @property
    def is_delayed(self) -> bool:
        return self.state is DeliveryState.AVAILABLE and self.not_before_ms > 0

    @property
    def is_terminal(self) -> bool:
        return self.state in TERMINAL

    def is_locked_by(self, member: str) -> bool:
        """Whether the member may acknowledge it: not twice."""
        return self.state is DeliveryState.ACQUIRED and self.target is None and self.member == member

    def is_like(self, other: Run) -> bool:
        """Whether the two differ in nothing but their offsets. It does not matter how done records came in."""
        return (
            self.state is other.state
            and self.delivery_count == other.delivery_count
            and self.is_saved == other.is_saved
            and (self.batch == other.batch or self.state in TERMINAL)
            and (self.state is not DeliveryState.ACQUIRED)
            and self.reason == other.reason
            and self.not_before_ms == other.not_before_ms
        )


class Runs:
    """The runs of one share partition."""

    def __init__(self) -> None:
        self._runs: list[Run] = []

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def index(self, offset: int) -> int:
        """The place of the run that has the offset, else of the next one."""
        return bisect_left(self._runs, offset, key=_LAST)

    def since(self, offset: int) -> Iterator[Run]:
        """From the run that has the offset on; nothing may change meanwhile."""
        return islice(self._runs, self.index(offset), None)

    def within(self, first: int, last: int) -> list[Run]:
        """All runs that have an offset of the range, whole."""
        at = end = self.index(first)
        runs = self._runs
        while end < len(runs) and runs[end].first <= last:
            end += 1
        return runs[at:end]

    def cut(self, first: int, last: int) -> list[Run]:
        """The runs of the range and of nothing beside it: those that go beyond its ends are cut there."""
        self._cut_at(first)
        self._cut_at(last + 1)
        return self.within(first, last)

    def _cut_at(self, offset: int) -> None:
        at = self.index(offset)
        if at < len(self._runs) and self._runs[at].first < offset:
            run = self._runs[at]
            self._runs.insert(at + 1, replace(run, first=offset))
            run.last = offset - 1

    def add(self, run: Run) -> None:
        """A run behind all others."""
        assert not self._runs or self._runs[-1].last < run.first, (self._runs[-1], run)
        self._runs.append(run)

    def remove(self, run: Run) -> None:
        at = self.index(run.first)
        assert self._runs[at] is run, run
        del self._runs[at]

    def taken_out(self, count: int, at: int) -> list[Run]:
        """Removes that many runs, from a place on, and returns them."""
        removed = self._runs[at : at + count]
        del self._runs[at : at + count]
        return removed

    def join(self, first: int, last: int) -> None:
        """Joins what is alike in the range, and at both of its ends."""
        runs = self._runs
        at = max(self.index(first) - 1, 0)
        while at + 1 < len(runs) and runs[at].first <= last:
            here, following = runs[at], runs[at + 1]
            if here.last + 1 == following.first and here.is_like(following):
                here.last = following.last
                del runs[at + 1]
            else:
                at += 1
