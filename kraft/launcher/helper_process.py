"""The owner's side of a helper process: one JSON command a line in, a reply with its id a line out, in order.

The helper ends with its input, so it never outlives the process that started it. One owner; one event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

from kraft.launcher.python import PYTHON, environment

END_LIMIT_S: Final = 5.0
READ_BYTES: Final = 1024 * 1024


class HelperFailed(Exception):
    """The helper refused a command, or has ended."""


class Reply(Protocol):
    @property
    def id(self) -> int: ...
    @property
    def error(self) -> str: ...


ReplyT = TypeVar("ReplyT", bound=Reply)


class Helper(Generic[ReplyT]):
    def __init__(self, module: str, *arguments: str, name: str, reply: type[ReplyT]) -> None:
        """Start `python -P -m module arguments...`; `name` is its name in error messages."""
        command = [*PYTHON, "-m", module, *arguments]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
            env=environment(),
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._name = name
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[ReplyT]] = {}
        self._received = b""
        self._has_ended = False
        self._decode = msgspec.json.Decoder(reply).decode
        self._encode = msgspec.json.Encoder().encode
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._stdout.fileno(), self._read)

    @property
    def pid(self) -> int:
        return self._process.pid

    def next_id(self) -> int:
        return next(self._ids)

    async def ask(self, command: Any) -> ReplyT:
        """Send a command; return its reply. Raises HelperFailed."""
        if self._has_ended:  # a write may still succeed: the ends of its two pipes close one after the other
            raise self._gone()
        answer: asyncio.Future[ReplyT] = self._loop.create_future()
        self._waiting[command.id] = answer
        try:
            self._stdin.write(self._encode(command) + b"\n")
        except BrokenPipeError as error:
            raise self._gone() from error
        reply = await answer
        if reply.error:
            raise HelperFailed(reply.error)
        return reply

    def _gone(self) -> HelperFailed:
        return HelperFailed(f"{self._name} has ended")

    def _read(self) -> None:
        data = os.read(self._stdout.fileno(), READ_BYTES)
        if not data:
            self._has_ended = True
            self._loop.remove_reader(self._stdout.fileno())
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(self._gone())
            return
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            reply = self._decode(line)
            waiting = self._waiting.pop(reply.id)
            if not waiting.done():
                waiting.set_result(reply)

    def close(self) -> None:
        """End the helper. Nothing of it is left when this returns."""
        self._loop.remove_reader(self._stdout.fileno())
        self._stdin.close()
        try:
            self._process.wait(END_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stdout.close()
