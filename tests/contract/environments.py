"""The implementations of `metadata.environment` on which the contract suite runs.

An implementation is a factory: given an empty folder of the test (a real path, which a simulated disk may take as
a mere name), it gives a `World` that runs one coroutine with an Environment and cleans up after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import uvloop

from kraft.runtime.environment import close_environment, system_environment
from kraft.runtime.files import DiskFiles
from kraft.runtime.open_files import CachedFiles
from metadata.environment import Environment, Files

T = TypeVar("T")


class World(Protocol):
    directory: str
    """An existing empty directory of its file system."""

    def run(self, main: Callable[[Environment], Awaitable[T]]) -> T: ...


class RealWorld:
    def __init__(
        self,
        directory: str,
        loop_factory: Callable[[], asyncio.AbstractEventLoop],
        files: Callable[[], Files] = DiskFiles,
    ) -> None:
        self.directory = directory
        self._loop_factory = loop_factory
        self._files = files

    def run(self, main: Callable[[Environment], Awaitable[T]]) -> T:
        async def inside() -> T:
            environment = system_environment(threads=2, files=self._files())
            try:
                async with asyncio.timeout(60):
                    return await main(environment)
            finally:
                close_environment(environment)

        with asyncio.Runner(loop_factory=self._loop_factory) as runner:
            return runner.run(inside())


def asyncio_world(directory: str) -> World:
    return RealWorld(directory, asyncio.new_event_loop)


def uvloop_world(directory: str) -> World:
    return RealWorld(directory, uvloop.new_event_loop)


def few_descriptors_world(directory: str) -> World:
    return RealWorld(directory, uvloop.new_event_loop, lambda: CachedFiles(DiskFiles(), open_max=1))


FACTORIES: dict[str, Callable[[str], World]] = {
    "asyncio": asyncio_world,
    "uvloop": uvloop_world,
    "few descriptors": few_descriptors_world,
}
"""Add the simulated environment here: every test of the suite then runs on it too."""
