"""An event loop on a thread of its own, for callers that have none; and methods that wait for its coroutines.

The thread is a daemon: a program that forgets to close its client still ends. A caller that is interrupted
(Ctrl-C) cancels what it waited for.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from kraft.client.errors import ClientClosed

P = ParamSpec("P")
T = TypeVar("T")
TwinT = TypeVar("TwinT")


class LoopThread:
    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def call(self, coroutine: Coroutine[Any, Any, T], *, timeout_s: float | None = None) -> T:
        """Its result. Raises what it raises, ClientClosed once stopped, TimeoutError after `timeout_s`."""
        future = self.begin(coroutine)
        try:
            return future.result(timeout_s)
        except BaseException:
            future.cancel()
            raise

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Runs it on the loop. Raises ClientClosed once stopped."""
        if self._loop.is_closed() or not self._thread.is_alive():
            coroutine.close()
            raise ClientClosed("the client is closed; make another")
        assert threading.current_thread() is not self._thread, "a blocking call on the client's own thread never ends"
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def stop(self) -> None:
        """Cancel what still runs, and end the thread. A second time: nothing."""
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))


class Facade(Generic[TwinT]):
    """Runs an async object, its twin, on the thread of a loop, for callers that wait."""

    def __init__(self, thread: LoopThread, twin: TwinT) -> None:
        self._thread = thread
        self._twin = twin


class Entered(Facade[TwinT]):
    """A facade whose twin is an async context manager."""

    def __enter__(self) -> Self:
        twin: Any = self._twin
        self._thread.call(twin.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        twin: Any = self._twin
        self._thread.call(twin.__aexit__(kind, error, traceback))


class Blocking(Generic[P, T]):
    """`method = Blocking(AsyncThing.method)`: the same arguments, waiting for the result."""

    def __init__(self, method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __get__(self, instance: Facade[Any], owner: object = None) -> Callable[P, T]:
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            return instance._thread.call(self._method(instance._twin, *args, **kwargs))

        return call


class Making(Generic[P, T]):
    """`method = Making(AsyncThing.method, Thing)`: the same arguments, and a Thing around what the twin makes."""

    def __init__(self, method: Callable[Concatenate[Any, P], object], facade: Callable[[LoopThread, Any], T]) -> None:
        self._method = method
        self._facade = facade
        self.__doc__ = method.__doc__

    def __get__(self, instance: Facade[Any], owner: object = None) -> Callable[P, T]:
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            return self._facade(instance._thread, self._method(instance._twin, *args, **kwargs))

        return call
