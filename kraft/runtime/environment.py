"""The real environment of one event loop. The quorum's thread has a loop, and so an environment, of its own."""

from __future__ import annotations

import asyncio
import random

from kraft.runtime.files import DiskFiles
from kraft.runtime.network import CONNECTIONS_MAX, TcpNetwork
from kraft.runtime.workers import ThreadWorkers
from kraft.system_clock import SystemClock
from metadata.environment import Environment, Files

THREADS = 4
"""Default of background.threads."""


def system_environment(
    loop: asyncio.AbstractEventLoop | None = None,
    *,
    threads: int = THREADS,
    connections_max: int = CONNECTIONS_MAX,
    files: Files | None = None,
) -> Environment:
    """The environment of `loop`, or of the running one. `close_environment` ends its threads."""
    loop = loop or asyncio.get_running_loop()
    return Environment(
        clock=SystemClock(loop),
        files=files or DiskFiles(),
        network=TcpNetwork(loop, connections_max=connections_max),
        workers=ThreadWorkers(loop, threads=threads),
        rng=random.SystemRandom(),
    )


def resize_workers(environment: Environment, threads: int) -> None:
    """Change the number of worker threads of a system's environment (background.threads)."""
    assert isinstance(environment.workers, ThreadWorkers), environment
    environment.workers.resize(threads)


def close_environment(environment: Environment) -> None:
    assert isinstance(environment.workers, ThreadWorkers), environment
    environment.workers.close()
