"""The clients of one scenario, by name: opened together, started at once or by a step, ended together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from kraft.chaos import model
from kraft.chaos.history import Operation
from kraft.chaos.workload.counts import Counts
from kraft.chaos.workload.producer import Producer, ProducerOptions
from kraft.chaos.workload.reader import Reader, ReaderOptions
from kraft.chaos.workload.targets import Surroundings
from kraft.chaos.worlds.spec import ScenarioError

Record: TypeAlias = Callable[[Operation], None]
FINISH_LIMIT_MS: Final = 30_000
"""Longest wait for the last answers; what is still open then is recorded by nobody, and so counts as never sent."""


class Cast:
    """Implements `Clients`."""

    def __init__(self, plans: tuple[model.Client, ...], *, around: Surroundings, record: Record) -> None:
        self._plans = plans
        self._clients: dict[str, Producer | Reader] = {plan.name: _client(plan, around, record) for plan in plans}
        self._started: set[str] = set()

    @property
    def counts(self) -> Mapping[str, Counts]:
        return {name: client.counts for name, client in self._clients.items()}

    async def open(self) -> None:
        """Make all links, and start those who begin at once."""
        for client in self._clients.values():
            await client.open()
        for plan in self._plans:
            if plan.starts == "at once":
                await self.start(plan.name)

    async def start(self, name: str) -> None:
        if name in self._started:
            raise ScenarioError(f"client {name} has been started before")
        self._started.add(name)
        await self._clients[name].start()

    async def finish(self, name: str) -> None:
        if name not in self._started:
            raise ScenarioError(f"client {name} was never started")
        await self._clients[name].finish()

    async def finish_producers(self) -> None:
        await self._finish(Producer)

    async def finish_all(self) -> None:
        await self._finish(Producer, Reader)

    async def close(self) -> None:
        await asyncio.gather(*(client.close() for client in self._clients.values()))

    async def _finish(self, *kinds: type[Producer | Reader]) -> None:
        chosen = [name for name in self._started if isinstance(self._clients[name], kinds)]
        try:
            async with asyncio.timeout(FINISH_LIMIT_MS / 1000):
                await asyncio.gather(*(self.finish(name) for name in chosen))
        except TimeoutError as error:
            open_ones = ", ".join(name for name in chosen if not self._clients[name].counts.is_done)
            raise ScenarioError(f"{open_ones} still waited for answers after {FINISH_LIMIT_MS} ms") from error


def _client(plan: model.Client, around: Surroundings, record: Record) -> Producer | Reader:
    match plan:
        case model.Producer():
            fields = plan.model_dump(exclude={"starts"})
            return Producer(ProducerOptions(**fields), around=around, record=record)
        case model.Reader():
            return Reader(ReaderOptions(**plan.model_dump(exclude={"starts"})), around=around, record=record)
