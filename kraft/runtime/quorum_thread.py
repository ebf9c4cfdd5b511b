"""The quorum's own thread with an event loop of its own, so that its fsyncs delay no request, and that it survives a
main loop that hangs.

The thread is joined when the quorum stops. With a short switch interval a busy main loop cannot starve it: with
Python's default of 5 ms, elections were missed for over a second under load.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from kraft.runtime.descriptors import QUORUM_CONNECTIONS
from kraft.runtime.environment import close_environment, system_environment
from kraft.runtime.main_thread import MainThread
from kraft.runtime.network import TcpNetwork
from metadata.environment import Environment, Files

SWITCH_INTERVAL_S = 0.0005
WORKER_THREADS = 1


class QuorumThread:
    """A `QuorumHost`. Its `environment` is bound to its loop and ends with it."""

    def __init__(self, *, files: Files | None = None) -> None:
        self._loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self.environment: Environment = system_environment(
            self._loop, threads=WORKER_THREADS, files=files, connections_max=QUORUM_CONNECTIONS
        )
        self.process = MainThread()
        self._main_loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None] | None = None
        self._thread: threading.Thread | None = None

    def start(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        assert self._thread is None, "a host is started once"
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._main_loop = asyncio.get_running_loop()
        self._ended = self._main_loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(main,), name="quorum", daemon=False)
        self._thread.start()

    def call(self, function: Callable[..., object], *args: object) -> None:
        _call_soon(self._loop, function, *args)

    def call_main(self, function: Callable[..., object], *args: object) -> None:
        if self._main_loop is not None:
            _call_soon(self._main_loop, function, *args)

    async def stop(self) -> None:
        """Stop the loop. Raises the error of `main`."""
        if self._thread is None or self._ended is None:
            self._close()
            return
        try:
            await self._ended
        finally:
            self._thread.join()

    def _run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        assert self._ended is not None
        try:
            self._loop.run_until_complete(main())
        except BaseException as error:  # noqa: BLE001 - it must not die with this thread: `stop` raises it
            self.call_main(_fail, self._ended, error)
        else:
            self.call_main(_finish, self._ended)
        finally:
            self._close()

    def _close(self) -> None:
        if not self._loop.is_closed():
            close_environment(self.environment)
            assert isinstance(self.environment.network, TcpNetwork)
            self._loop.run_until_complete(self.environment.network.close())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: object) -> None:
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        if not loop.is_closed():
            raise


def _finish(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)


def _fail(ended: asyncio.Future[None], error: BaseException) -> None:
    if not ended.done():
        ended.set_exception(error)
