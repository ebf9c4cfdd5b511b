"""Worker threads without threads: the work runs inline, at some moment of a virtual delay."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from kraft.chaos.worlds.simulated.disk import Disk

P = ParamSpec("P")
T = TypeVar("T")


class SimulatedWorkers:
    """The delay is the disk's `sync_us`; the effect falls anywhere in it, so that only the end proves anything."""

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
