"""The runner's side of the proxy process: start it, send commands, end it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kraft.chaos.worlds.processes.proxy import helper
from kraft.chaos.worlds.processes.proxy.rules import (
    Command,
    Counts,
    Fired,
    OpenLink,
    Reply,
    RequestRule,
    Rules,
)
from kraft.chaos.worlds.spec import ScenarioError
from kraft.launcher.helper_process import Helper, HelperFailed


class ProxyProcess:
    """Has one owner; commands are answered in order. Raises ScenarioError if the process is gone, or refuses."""

    def __init__(self, *, seed: int) -> None:
        self._helper = Helper(helper.__name__, str(seed), name="the proxy process", reply=Reply)

    @property
    def pid(self) -> int:
        return self._helper.pid

    async def open(self, links: Sequence[OpenLink], *, reserved: Iterable[int] = ()) -> Mapping[str, int]:
        """Open links; returns the port of each link by name, none of them in `reserved`."""
        command = Command(id=self._helper.next_id(), open=tuple(links), reserved=tuple(reserved))
        return (await self._ask(command)).ports

    async def set_rules(self, rules: Mapping[str, Rules]) -> None:
        """The change is active when this returns."""
        await self._ask(Command(id=self._helper.next_id(), rules=dict(rules)))

    async def guard(self, pids: Iterable[int]) -> None:
        await self._ask(Command(id=self._helper.next_id(), guard=tuple(pids)))

    async def check(self, targets: Iterable[tuple[str, int]]) -> None:
        """Processes have started or ended: when this returns, their proxies listen or refuse."""
        await self._ask(Command(id=self._helper.next_id(), check=tuple(targets)))

    async def counts(self) -> Mapping[str, Counts]:
        return (await self._ask(Command(id=self._helper.next_id(), wants_counts=True))).counts

    async def begin(self, rule: RequestRule) -> None:
        """The change is active when this returns."""
        await self._ask(Command(id=self._helper.next_id(), begin=(rule,)))

    async def end(self, numbers: Iterable[int]) -> None:
        await self._ask(Command(id=self._helper.next_id(), end=tuple(numbers)))

    async def fired(self) -> Sequence[Fired]:
        """The applications of rules since the last call."""
        return (await self._ask(Command(id=self._helper.next_id(), wants_fired=True))).fired

    async def load_certificates(self) -> None:
        """Files of certificates have changed: new connections get the new ones when this returns."""
        await self._ask(Command(id=self._helper.next_id(), loads_certificates=True))

    async def _ask(self, command: Command) -> Reply:
        try:
            return await self._helper.ask(command)
        except HelperFailed as error:
            raise ScenarioError(str(error)) from error

    def close(self) -> None:
        """End the proxy process, which kills the processes that it guards. Nothing is left when this returns."""
        self._helper.close()
