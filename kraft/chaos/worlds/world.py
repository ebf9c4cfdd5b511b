"""The world of a story: a cluster with faults and questions. Real processes, or a simulation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from kraft.chaos.nemesis.actions import Action
from kraft.chaos.questions import Now

NOT_KNOWN: Final = -1


class ClientCounts(Protocol):
    """Counts of records of one client: readers count read records, others sent records."""

    @property
    def sent(self) -> int: ...
    @property
    def acked(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def unknown(self) -> int: ...
    @property
    def read(self) -> int: ...
    @property
    def uncommitted(self) -> int: ...
    @property
    def committed(self) -> int: ...
    @property
    def aborted(self) -> int: ...
    @property
    def is_done(self) -> bool: ...
    def with_code(self, kafka_code: int) -> int: ...


class Clients(Protocol):
    """The clients of a scenario, by name."""

    @property
    def counts(self) -> Mapping[str, ClientCounts]: ...
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
