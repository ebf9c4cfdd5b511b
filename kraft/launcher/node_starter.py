"""Nodes that a program starts by the dozen: forks of the fork server where the system can watch them, else programs.

Loading Python's modules is most of the cost of a node's start: a second of processor time for each. The fork server
(`kraft.launcher.fork_server`) pays it once. After the fork the same code runs as in `kraft node`.

The caller that made a `NodeStarter` closes it; clusters that run at the same time may share one.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Iterable
from typing import Protocol

from kraft.launcher.fork_messages import Command, Reply, StartNode
from kraft.launcher.fork_start import CAN_WATCH_FORKS, FORK_SERVER, ROOM_FOR_NAMES
from kraft.launcher.helper_process import Helper
from kraft.launcher.processes import start_node


class NodeProcess(Protocol):
    @property
    def pid(self) -> int: ...

    @property
    def is_running(self) -> bool: ...

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal; no effect when the process has ended."""
        ...


class NodeStarter(Protocol):
    async def start(self, node: StartNode) -> NodeProcess:
        """Start a node. Raises HelperFailed, or OSError when the system starts no process."""
        ...

    async def reap(self, ended: Iterable[NodeProcess]) -> None:
        """Release ended processes, of which no state is requested any more. Raises HelperFailed."""
        ...

    def close(self) -> None: ...


def node_starter() -> NodeStarter:
    return Forks() if CAN_WATCH_FORKS else Programs()


class ForkedNode:
    """Implements `NodeProcess`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._descriptor = os.pidfd_open(pid)
        self._ended = select.poll()
        self._ended.register(self._descriptor, select.POLLIN)

    @property
    def is_running(self) -> bool:
        return not self._ended.poll(0)

    def send_signal(self, number: signal.Signals) -> None:
        if self.is_running:
            signal.pidfd_send_signal(self._descriptor, number)

    def close(self) -> None:
        os.close(self._descriptor)


class Forks:
    """Implements `NodeStarter`."""

    def __init__(self) -> None:
        self._helper = Helper(FORK_SERVER, "node", ROOM_FOR_NAMES, name="the fork server", reply=Reply)

    async def start(self, node: StartNode) -> ForkedNode:
        os.makedirs(os.path.dirname(node.log), mode=0o700, exist_ok=True)
        reply = await self._helper.ask(Command(id=self._helper.next_id(), start=node))
        return ForkedNode(reply.pid)

    async def reap(self, ended: Iterable[NodeProcess]) -> None:
        forks = [node for node in ended if isinstance(node, ForkedNode)]
        for node in forks:
            node.close()
        await self._helper.ask(Command(id=self._helper.next_id(), reap=tuple(node.pid for node in forks)))

    def close(self) -> None:
        self._helper.close()


class Program:
    """Implements `NodeProcess`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)


class Programs:
    """Implements `NodeStarter`: each node is a program of its own, as `kraft up` starts them."""

    async def start(self, node: StartNode) -> Program:
        return Program(
            start_node(
                config=node.config,
                node_id=node.node_id,
                data=node.data,
                log=node.log,
                parent_pid=None,
                variables=node.variables,
            )
        )

    async def reap(self, ended: Iterable[NodeProcess]) -> None:
        """Nothing to do: `is_running` has waited for them."""

    def close(self) -> None:
        """Nothing to do: it holds nothing."""
