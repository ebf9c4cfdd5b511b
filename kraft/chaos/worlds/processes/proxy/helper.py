"""The proxy process: `python -m kraft.chaos.worlds.processes.proxy.helper`.

Each line of input is a JSON command, each line of output a reply. The end of the input means that the runner has ended:
the proxy process kills the processes that it guards, and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import ssl
import sys
from typing import TYPE_CHECKING, Final

import msgspec
import uvloop

from kraft.chaos.worlds.processes.proxy.connection import Connection
from kraft.chaos.worlds.processes.proxy.link import Link, NewConnection
from kraft.chaos.worlds.processes.proxy.messages import NoMessages, messages_of
from kraft.chaos.worlds.processes.proxy.rules import Command, OpenLink, Reply
from kraft.chaos.worlds.processes.proxy.target import Target

if TYPE_CHECKING:
    from kraft.chaos.worlds.processes.proxy.certificates import LinkCertificate
    from kraft.chaos.worlds.processes.proxy.client_connection import ClientRules

PORT_FIRST: Final = 10_000
PORT_LAST: Final = 32_000
"""Ports below those of outgoing connections, so that a cut link can open its port again."""
PORT_TRIES_MAX: Final = 1_000
LINE_BYTES_MAX: Final = 4 * 1024 * 1024


class Proxies:
    def __init__(self, loop: asyncio.AbstractEventLoop, rng: random.Random) -> None:
        self._loop = loop
        self._rng = rng
        self._links: dict[str, Link] = {}
        self._targets: dict[tuple[str, int], Target] = {}
        self._guarded: tuple[int, ...] = ()
        self._clients: ClientRules | None = None
        """The rules, loaded with the first link of clients."""
        self._certificates: dict[str, LinkCertificate] = {}
        """File -> the certificate of links that end TLS."""
        self._tls: ssl.SSLContext | None = None
        self._ports: set[int] = set()
        """Ports of all links and nodes: while a target is down, its port and those of its links are free, and no other
        link may take them."""

    async def obey(self, command: Command) -> Reply:
        self._ports.update(command.reserved)
        ports = {wanted.name: await self._open(wanted) for wanted in command.open}
        for name, rules in command.rules.items():
            await self._links[name].set_rules(rules)
        await asyncio.gather(*(self._targets[address].check() for address in command.check if address in self._targets))
        if command.guard is not None:
            self._guarded = command.guard
        for certificate in self._certificates.values() if command.loads_certificates else ():
            certificate.load()
        await self._change_requests(command)
        counts = {name: link.counts() for name, link in self._links.items()} if command.wants_counts else {}
        fired = self._rules_of_clients().table.take_fired() if command.wants_fired else ()
        return Reply(id=command.id, ports=ports, counts=counts, fired=fired)

    async def _change_requests(self, command: Command) -> None:
        for rule in command.begin:
            # What renders answers is much to load: links stand still for as long as the loop does.
            await asyncio.to_thread(self._rules_of_clients().load_for, rule)
            self._rules_of_clients().begin(rule)
        for number in command.end:
            self._rules_of_clients().table.end(number)

    def _rules_of_clients(self) -> ClientRules:
        if self._clients is None:
            from kraft.chaos.worlds.processes.proxy.client_connection import ClientRules

            self._clients = ClientRules()
        return self._clients

    def _connections(self, wanted: OpenLink) -> NewConnection:
        if wanted.tls == "passed":
            return lambda link: Connection(self._loop, link, NoMessages(), self._rng)
        tls = self._client_context() if wanted.tls == "ended" else None
        if wanted.kind != "clients":
            return lambda link: Connection(self._loop, link, messages_of(wanted.kind), self._rng, tls=tls)
        from kraft.chaos.worlds.processes.proxy.client_connection import ClientConnection

        shared = self._rules_of_clients()
        return lambda link: ClientConnection(self._loop, link, shared, self._rng, node=wanted.node, tls=tls)

    def _client_context(self) -> ssl.SSLContext:
        if self._tls is None:
            from kraft.chaos.worlds.processes.proxy.certificates import client_context

            self._tls = client_context()
        return self._tls

    def _certificate(self, wanted: OpenLink) -> LinkCertificate | None:
        if wanted.tls != "ended":
            return None
        found = self._certificates.get(wanted.keystore)
        if found is None:
            from kraft.chaos.worlds.processes.proxy.certificates import LinkCertificate

            found = self._certificates[wanted.keystore] = LinkCertificate(wanted.keystore)
        return found

    def kill_guarded(self) -> None:
        for pid in self._guarded:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def _open(self, wanted: OpenLink) -> int:
        address = (wanted.target_host, wanted.target_port)
        target = self._targets.get(address)
        if target is None:
            target = self._targets[address] = Target(self._loop, *address)
        connections, certificate = self._connections(wanted), self._certificate(wanted)
        for _ in range(PORT_TRIES_MAX):
            port = self._rng.randint(PORT_FIRST, PORT_LAST)
            if port in self._ports:
                continue
            link = Link(self._loop, wanted, target, connections, certificate)
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
        except (OSError, LookupError) as error:
            reply = Reply(id=command.id, error=f"{type(error).__name__}: {error}")
        os.write(sys.stdout.fileno(), encode(reply) + b"\n")
    proxies.kill_guarded()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the runner, whose end is ours
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1])))
