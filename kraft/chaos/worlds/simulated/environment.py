"""The simulated world: one seed, one virtual time, one network, and a machine for each node.

The same seed gives the same trace in every process. A world fails if an exception was not caught.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from kraft.chaos.worlds.simulated.clock import SimulatedClock
from kraft.chaos.worlds.simulated.disk import Disk, SimulatedFiles
from kraft.chaos.worlds.simulated.loop import Process, VirtualLoop
from kraft.chaos.worlds.simulated.network import HostNetwork, SimulatedNetwork
from kraft.runtime.open_files import CachedFiles
from metadata.environment import Environment

P = ParamSpec("P")
T = TypeVar("T")

OPEN_FILES_MAX = (1_000, 1_000, 6)
"""The limits of open files: enough, or so few that files are closed and opened again all the time, as with thousands of
partitions. Files are synced before they are closed, so a power loss then loses less."""
DIGESTED_LINES = 500
"""The lines of the trace that one update of the fingerprint takes."""


class Machine:
    """A host with a disk and a clock that outlive the processes that run on it, one at a time."""

    def __init__(self, world: SimulatedWorld, name: str, *, rate: float, offset_ms: int) -> None:
        self._world = world
        self.name = name
        self.disk = Disk(world.rng(f"{name} disk"))
        self.clock = SimulatedClock(world.loop, rate=rate, offset_ms=offset_ms)
        self.process = Process(name)
        self.pauses = 0
        self._busy_us = 0
        self._computes_since_us: int | None = None
        self._starts = 0
        self._open_files_max = world.rng(f"{name} descriptors").choice(OPEN_FILES_MAX)
        self.environment = self._new_environment()

    def _new_environment(self) -> Environment:
        self._starts += 1
        return Environment(
            clock=self.clock,  # type: ignore[arg-type]  # its timeout is awaited as a context manager is
            files=CachedFiles(SimulatedFiles(self.disk), open_max=self._open_files_max),
            network=HostNetwork(self._world.network, self.name),
            workers=SimulatedWorkers(self.disk, self._world.rng(f"{self.name} workers {self._starts}")),
            rng=self._world.rng(f"{self.name} node {self._starts}"),
        )

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run in the process of this machine: its tasks, timers and connections end with the process."""
        task = self._world.loop.spawn(self.process, coroutine)
        # Not `await task`: a task of a dead process takes no cancellation, and its caller must be able to give up.
        done: asyncio.Future[None] = self._world.loop.create_future()
        task.add_done_callback(lambda _: None if done.done() else done.set_result(None))
        try:
            await done
        except asyncio.CancelledError:
            task.cancel()
            raise
        result: T = task.result()
        return result

    def kill(self) -> None:
        """SIGKILL: no code of the process runs after it; the page cache survives."""
        self._world.trace("kill", self.name)
        self._world.loop.kill(self.process)
        self._world.network.kill(self.process)
        self.disk.release_locks(self.process)
        self._renew()

    def lose_power(self) -> None:
        """The machine stops without closing connections, and unsynced data is lost, completely or in part."""
        self._world.trace("lose power", self.name)
        self._world.loop.kill(self.process)
        self._world.network.power_off(self.name)
        self.disk.lose_power()
        self._renew()

    def _renew(self) -> None:
        self._busy_us, self._computes_since_us = self.busy_us(), None
        self.process = Process(self.name)
        self.environment = self._new_environment()

    def power_on(self) -> None:
        self._world.network.power_on(self.name)

    def pause(self) -> None:
        self._world.trace("pause", self.name)
        self.pauses += 1
        self._world.loop.pause(self.process)

    def hang(self, *, computes: bool = True) -> None:
        """The main loop of its process hangs, because it computes or waits; the thread of the quorum continues."""
        self._world.trace("hang", self.name)
        self.pauses += 1
        self._world.loop.hang(self.process)
        self._computes_since_us = self._world.loop.now_us if computes else None

    def busy_us(self) -> int:
        """The processor time of its processes in hanging steps; other steps take no time."""
        since_us = self._computes_since_us
        return self._busy_us + (0 if since_us is None else self._world.loop.now_us - since_us)

    def resume(self) -> None:
        self._world.trace("resume", self.name)
        self._busy_us, self._computes_since_us = self.busy_us(), None
        self._world.loop.resume(self.process)


class SimulatedWorld:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.loop = VirtualLoop()
        self.network = SimulatedNetwork(self.loop, self.rng("network"), self.trace)
        self.machines: dict[str, Machine] = {}
        self._digest = hashlib.sha256()
        self._undigested: list[str] = []
        self.events = 0
        self.lines: list[str] | None = None
        """The trace as text, if requested."""

    def rng(self, purpose: str) -> random.Random:
        """Each purpose has its own generator: a change in one does not change the numbers of the others."""
        return random.Random(f"{self.seed} {purpose}")

    def machine(self, name: str, *, rate: float = 1.0, offset_ms: int = 0) -> Machine:
        assert name not in self.machines, name
        self.machines[name] = Machine(self, name, rate=rate, offset_ms=offset_ms)
        return self.machines[name]

    def trace(self, *event: object) -> None:
        line = f"{self.loop.now_us} {event!r}\n"
        self.events += 1
        self._undigested.append(line)
        if len(self._undigested) >= DIGESTED_LINES:
            self._digest_lines()
        if self.lines is not None:
            self.lines.append(line)

    def _digest_lines(self) -> None:
        self._digest.update("".join(self._undigested).encode())
        self._undigested.clear()

    @property
    def fingerprint(self) -> str:
        self._digest_lines()
        return self._digest.hexdigest()

    def run(self, scenario: Coroutine[Any, Any, T]) -> T:
        """Run to the end and close the world. Fails if an exception was not caught."""
        try:
            result = self.loop.run_until_complete(scenario)
        finally:
            try:
                self._cancel_rest()
            finally:
                self.loop.close()
        assert not self.loop.failures, (self.seed, self.loop.failures)
        return result

    def _cancel_rest(self) -> None:
        """Processes still running are killed; the scenario's own tasks are cancelled."""
        for machine in self.machines.values():
            self.loop.kill(machine.process)
        self.loop.cancel_outside()


class SimulatedWorkers:
    """Worker threads without threads: the work runs inline, at some moment of a virtual delay.

    The delay is the `sync_us` of the disk; the effect is at any moment in it, so that only the end proves it.
    """

    def __init__(self, disk: Disk, rng: random.Random) -> None:
        self._disk = disk
        self._rng = rng

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        delay = self._rng.uniform(*self._disk.sync_us) / 1_000_000
        share = self._rng.random()
        await asyncio.sleep(delay * share)
        try:
            return function(*args, **kwargs)
        finally:
            await asyncio.sleep(delay * (1 - share))
