"""Nodes as forks of one process for each process of the test run: to start Python costs more than most tests do.

What runs after the fork is what `kraft node` runs; `kraft.launcher.fork_server` is the product's own, of scenarios.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Mapping
from typing import Final

import msgspec

from kraft.launcher.fork_messages import Command, Reply, StartNode
from kraft.launcher.fork_start import FORK_SERVER, ROOM_FOR_NAMES
from kraft.launcher.python import PYTHON

END_S: Final = 10.0


class ForkServer:
    """Implements `StartProcess`, and waits for each answer."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._ids = itertools.count(1)

    def __call__(
        self,
        *,
        config: str,
        node_id: int,
        data: str,
        log: str,
        parent_pid: int | None,
        variables: Mapping[str, str],
    ) -> int:
        assert parent_pid is None, "a fork ends with the process that forked it"
        os.makedirs(os.path.dirname(log), mode=0o700, exist_ok=True)
        start = StartNode(config=config, node_id=node_id, data=data, log=log, variables=dict(variables))
        return self._ask(Command(id=next(self._ids), start=start)).pid

    def close(self) -> None:
        """It kills what it has forked, and ends."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(END_S)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
            self._process = None

    def _ask(self, command: Command) -> Reply:
        if self._process is None:
            self._process = subprocess.Popen(
                [*PYTHON, "-m", FORK_SERVER, "node", ROOM_FOR_NAMES],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
                bufsize=0,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(command) + b"\n")
        reply = msgspec.json.decode(self._process.stdout.readline(), type=Reply)
        assert reply.id == command.id, (command, reply)
        return reply


FORKS: Final = ForkServer()
"""Of this process of the test run; closed by a fixture in `tests/integration/conftest.py`."""
