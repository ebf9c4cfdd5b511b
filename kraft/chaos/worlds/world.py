"""What a story is told on: something that can be broken and looked at. Real processes, or a simulation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from kraft.chaos.nemesis.actions import Action
from kraft.chaos.questions import Now

NOT_KNOWN: Final = -1


class ClientCounts(Protocol):
    """Of records: one client's. Those who read count what they have read, the others what they have sent."""

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
        """Send no more; returns when nothing waits for an answer."""
        ...

    async def silence(self, name: str) -> None:
        """End at once, and tell nobody."""
        ...


class World(Protocol):
    async def look(self) -> Now:
        """The cluster as it is now."""
        ...

    async def group_members(self, group: str) -> int:
        """How many its coordinator counts; NOT_TOLD: nobody answers."""
        ...

    async def act(self, action: Action) -> None:
        """Raises ScenarioError when it cannot be done."""
        ...

    async def sleep(self, ms: int) -> None: ...

    def now_ms(self) -> int:
        """Of a clock that only goes forward."""
        ...
