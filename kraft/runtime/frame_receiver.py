"""The receiving half of a connection with frames, for any source: the network, or a simulated one."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable

from metadata.environment import ConnectionClosed


class FrameReceiver(ABC):
    """Implements `receive` and `receive_while` of `FrameConnection`. `_frames` has the frames that arrived and were not
    taken yet; a subclass adds them, and calls `_wake` when a receiver waits."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, peer: str = "?") -> None:
        self._loop = loop
        self._peer = peer
        self._frames: deque[memoryview] = deque()
        self._take: Callable[[memoryview], bool] = take_nothing
        """The receiver's function for a frame as it arrives."""
        self._receiver: asyncio.Future[bool] | None = None
        """The receiver that waits for a frame that `_take` refuses (True) or for the end (False)."""
        self._is_closed = False
        self._reason = "closed here"

    @property
    def peer(self) -> str:
        return self._peer

    @property
    def certificate_name(self) -> str:
        return ""

    @property
    def is_encrypted(self) -> bool:
        return False

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    async def receive(self) -> memoryview:
        return await self.receive_while(take_nothing)

    async def receive_while(self, take: Callable[[memoryview], bool]) -> memoryview:
        assert self._receiver is None, f"two receivers on the connection with {self._peer}"
        self._take = take
        is_refused = self._hand_over()
        while not is_refused:
            if self._is_closed:
                raise self._closed_error()
            self._receiver = self._loop.create_future()
            try:
                is_refused = await self._receiver or self._hand_over()
            finally:
                self._receiver = None
        return self._next_frame()

    @abstractmethod
    def _next_frame(self) -> memoryview:
        """Remove the next frame from `_frames`; the sender may continue."""

    def _hand_over(self) -> bool:
        """Pass the arrived frames to the receiver; True when it refused one, which is then the next."""
        while self._frames:
            if not self._take(self._frames[0]):
                return True
            self._next_frame()
        return False

    def _wake(self, receiver: asyncio.Future[bool], is_refused: bool) -> None:
        if not receiver.done():
            receiver.set_result(is_refused)

    def _mark_closed(self, reason: str) -> None:
        self._is_closed = True
        self._reason = reason
        if self._receiver is not None:
            self._wake(self._receiver, False)

    def _closed_error(self) -> ConnectionClosed:
        return ConnectionClosed(f"{self._peer}: {self._reason}")


def take_nothing(_: memoryview) -> bool:
    return False
