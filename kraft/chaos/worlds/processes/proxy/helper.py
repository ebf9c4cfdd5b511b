"""The proxy process: `python -m kraft.chaos.worlds.processes.proxy.helper`.

One JSON command a line in, one reply a line out. The end of its input is the end of the runner: it kills the processes
that it was told to guard, and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from typing import Final

import msgspec
import uvloop

from kraft.chaos.worlds.processes.proxy.link import Link
from kraft.chaos.worlds.processes.proxy.rules import Command, OpenLink, Reply
from kraft.chaos.worlds.processes.proxy.target import Target

PORT_FIRST: Final = 10_000
PORT_LAST: Final = 32_000
"""Below the ports that systems hand to outgoing connections, so that a cut link finds its port again."""
PORT_TRIES_MAX: Final = 1_000
LINE_BYTES_MAX: Final = 4 * 1024 * 1024


class Proxies:
    def __init__(self, loop: asyncio.AbstractEventLoop, rng: random.Random) -> None:
        self._loop = loop
        self._rng = rng
        self._links: dict[str, Link] = {}
        self._targets: dict[tuple[str, int], Target] = {}
        self._guarded: tuple[int, ...] = ()
        self._ports: set[int] = set()
        """Of all links and nodes: while a target is down nobody holds its port, nor those of its links, and no other
        link must take them."""

    async def obey(self, command: Command) -> Reply:
        self._ports.update(command.reserved)
        ports = {wanted.name: await self._open(wanted) for wanted in command.open}
        for name, rules in command.rules.items():
            await self._links[name].set_rules(rules)
        await asyncio.gather(*(self._targets[address].check() for address in command.check if address in self._targets))
        if command.guard is not None:
            self._guarded = command.guard
        counts = {name: link.counts() for name, link in self._links.items()} if command.wants_counts else {}
        return Reply(id=command.id, ports=ports, counts=counts)

    def kill_guarded(self) -> None:
        for pid in self._guarded:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def _open(self, wanted: OpenLink) -> int:
        address = (wanted.target_host, wanted.target_port)
        target = self._targets.get(address)
        if target is None:
            target = self._targets[address] = Target(self._loop, *address)
        for _ in range(PORT_TRIES_MAX):
            port = self._rng.randint(PORT_FIRST, PORT_LAST)
            if port in self._ports:
                continue
            link = Link(self._loop, wanted, target, self._rng)
            with contextlib.suppress(OSError):
                await link.open(port)
                self._links[wanted.name] = link
                self._ports.add(port)
                return port
        raise OSError(f"no free port on {wanted.host} in {PORT_TRIES_MAX} tries")


async def main(seed: int) -> None:
    loop = asyncio.get_running_loop()
    proxies = Proxies(loop, random.Random(seed))
    commands = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    decode, encode = msgspec.json.Decoder(Command).decode, msgspec.json.Encoder().encode
    while line := await commands.readline():
        command = decode(line)
        try:
            reply = await proxies.obey(command)
        except (OSError, KeyError) as error:
            reply = Reply(id=command.id, error=f"{type(error).__name__}: {error}")
        os.write(sys.stdout.fileno(), encode(reply) + b"\n")
    proxies.kill_guarded()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the runner, whose end is ours
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1])))
