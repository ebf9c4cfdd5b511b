"""The world of a story: a cluster with faults and questions. Real processes, or a simulation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from kraft.chaos.nemesis.actions import Action
from kraft.chaos.questions import Now
from kraft.chaos.workload.counts import Counts

NOT_KNOWN: Final = -1


class Clients(Protocol):
    """The clients of a scenario, by name."""

    @property
    def counts(self) -> Mapping[str, Counts]: ...
    async def start(self, name: str) -> None: ...
    async def finish(self, name: str) -> None:
        """Stop sending; returns when no request waits for an answer."""
        ...

    async def silence(self, name: str) -> None:
        """End at once, without a request."""
        ...


class World(Protocol):
    async def look(self) -> Now:
        """A snapshot of the cluster."""
        ...

    async def group_members(self, group: str) -> int:
        """The number of members at the coordinator; NOT_KNOWN: no answer."""
        ...

    async def act(self, action: Action) -> None:
        """Carry out an action. Raises ScenarioError if it is impossible."""
        ...

    async def sleep(self, ms: int) -> None: ...

    def now_ms(self) -> int:
        """The time of a monotonic clock."""
        ...
