"""The runner's side of the proxy process: start it, tell it what to do, end it."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from kraft.scenarios.proxy import helper
from kraft.scenarios.proxy.rules import Command, Counts, OpenLink, Reply, Rules
from kraft.scenarios.spec import ScenarioError

END_LIMIT_S: Final = 5.0
READ_BYTES: Final = 1024 * 1024


class ProxyFailed(ScenarioError):
    """The proxy process refused a command, or is gone."""


class ProxyProcess:
    """One owner; commands are answered in order."""

    def __init__(self, *, seed: int) -> None:
        command = [sys.executable, "-m", helper.__name__, str(seed)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, bufsize=0
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._received = b""
        self._decode = msgspec.json.Decoder(Reply).decode
        self._encode = msgspec.json.Encoder().encode
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._stdout.fileno(), self._read)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def open(self, links: Sequence[OpenLink], *, reserved: Iterable[int] = ()) -> Mapping[str, int]:
        """The port of each link, by its name; none of them is one of the `reserved`."""
        return (await self._ask(Command(id=next(self._ids), open=tuple(links), reserved=tuple(reserved)))).ports

    async def set_rules(self, rules: Mapping[str, Rules]) -> None:
        """In force when this returns."""
        await self._ask(Command(id=next(self._ids), rules=dict(rules)))

    async def guard(self, pids: Iterable[int]) -> None:
        await self._ask(Command(id=next(self._ids), guard=tuple(pids)))

    async def check(self, targets: Iterable[tuple[str, int]]) -> None:
        """Their processes have started or ended: proxies in front of them listen, or refuse, when this returns."""
        await self._ask(Command(id=next(self._ids), check=tuple(targets)))

    async def counts(self) -> Mapping[str, Counts]:
        return (await self._ask(Command(id=next(self._ids), wants_counts=True))).counts

    async def _ask(self, command: Command) -> Reply:
        answer: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting[command.id] = answer
        try:
            self._stdin.write(self._encode(command) + b"\n")
        except BrokenPipeError as error:
            raise ProxyFailed("the proxy process has ended") from error
        reply = await answer
        if reply.error:
            raise ProxyFailed(reply.error)
        return reply

    def _read(self) -> None:
        data = os.read(self._stdout.fileno(), READ_BYTES)
        if not data:
            self._loop.remove_reader(self._stdout.fileno())
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(ProxyFailed("the proxy process has ended"))
            return
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            reply = self._decode(line)
            waiting = self._waiting.pop(reply.id)
            if not waiting.done():
                waiting.set_result(reply)

    def close(self) -> None:
        """It kills what it guards, and ends. Nothing is left when this returns."""
        self._loop.remove_reader(self._stdout.fileno())
        self._stdin.close()
        try:
            self._process.wait(END_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()
