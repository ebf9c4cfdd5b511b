"""The process whose forks are nodes: `python -P -m kraft.launcher.fork_server node`.

One JSON command a line in, one reply a line out. "node" is in its command line so that its forks are known as nodes.

It has one thread and no event loop, so that a fork is as good as a new process. The end of its input is the end of
whoever started it: it kills its nodes, and ends.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Iterator
from typing import Final

import msgspec

import kraft.node.process  # noqa: F401 - what a node needs is loaded before the first one is forked
from kraft.launcher.foreground import run_in_foreground
from kraft.launcher.node_starter import Command, Reply, StartNode

READ_BYTES: Final = 65_536
STDIN, STDOUT, STDERR = 0, 1, 2


def main() -> int:
    """The exit code: ours, or in a fork that of its node."""
    gc.collect()
    gc.freeze()  # pages that no collection writes to are shared by all nodes
    decode, encode = msgspec.json.Decoder(Command).decode, msgspec.json.Encoder().encode
    nodes: set[int] = set()
    for line in _lines():
        command = decode(line)
        reply = Reply(id=command.id)
        if command.start is not None:
            pid = os.fork()
            if pid == 0:
                return _be_node(command.start)
            nodes.add(pid)
            reply = Reply(id=command.id, pid=pid)
        for ended in nodes.intersection(command.reap):
            os.waitpid(ended, 0)
            nodes.discard(ended)
        os.write(STDOUT, encode(reply) + b"\n")
    for pid in nodes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return 0


def _lines() -> Iterator[bytes]:
    """Read without a buffer of Python's, which the forks would share."""
    received = b""
    while data := os.read(STDIN, READ_BYTES):
        *lines, received = (received + data).split(b"\n")
        yield from lines


def _be_node(start: StartNode) -> int:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(start.variables)
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(start.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(nothing, STDIN)
    os.dup2(log, STDOUT)
    os.dup2(log, STDERR)
    os.close(nothing)
    os.close(log)
    return run_in_foreground(start.config, node_id=start.node_id, data=start.data, parent_pid=None)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started us, whose end is ours
    sys.exit(main())
