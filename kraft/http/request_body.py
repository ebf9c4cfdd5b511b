"""Reading request bodies: within the limit, within the budget, with one copy."""

from __future__ import annotations

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.streams import StreamReader

from kraft.http.context import Context
from kraft.http.errors import HttpError
from kraft.http.problems import unreadable
from kraft.http.slow_clients import BodyWatch, SlowBody, too_slow


class BodyLease:
    """A body and the bytes of the budget that it holds. `release` is called exactly once."""

    __slots__ = ("_context", "_reserved")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._reserved = 0

    async def read(self, request: web.Request) -> bytes | bytearray:
        """The body. Raises HttpError 413 (before reading, when Content-Length is too large), 503, 408 and 400.

        What came in pieces is put together where a leader may stamp it (a bytearray), so that it is not copied again.
        """
        length = check_length(request, self._context.limits.body_bytes_max)
        if length is not None:
            self._reserve(length)
        if request.content.is_eof() and request.content.exception() is None:
            return self._arrived(request.content)
        watch = self._context.patience.watch(request)
        try:
            return await self._parts(request, watch)
        except SlowBody as error:
            raise too_slow(self._context.limits, watch.received) from error
        except (web.RequestPayloadError, BadHttpMessage) as error:
            raise HttpError(400, unreadable(error), closes=True) from error
        finally:
            self._context.patience.bodies.discard(watch)

    def _arrived(self, content: StreamReader) -> bytes:
        """A body that came with its header, as most small ones do: there is nothing to wait for."""
        if content.total_bytes > self._reserved:
            self._grow_to(content.total_bytes)
        return content.read_nowait()

    async def _parts(self, request: web.Request, watch: BodyWatch) -> bytes | bytearray:
        first, rest, content = b"", bytearray(), request.content
        while not content.at_eof():
            part = await content.readany()
            watch.received += len(part)
            # A compressed body is longer than its Content-Length.
            self._grow_to(watch.received)
            if not first:
                first = part
                continue
            if not rest:
                rest += first
            rest += part
        return rest or first

    def _grow_to(self, total: int) -> None:
        limit = self._context.limits.body_bytes_max
        if total > limit:
            raise too_large(limit)
        if total > self._reserved:
            self._reserve(total - self._reserved)

    def _reserve(self, size: int) -> None:
        self._context.bodies.reserve(size)
        self._reserved += size

    def release(self) -> None:
        """Gives the bytes back to the budget."""
        self._context.bodies.release(self._reserved)
        self._reserved = 0


def check_length(request: web.Request, limit: int) -> int | None:
    """The announced length of the body in bytes, None where nothing is announced. Raises HttpError 413 beyond
    `limit`.
    """
    length = request.content_length
    if length is not None and length > limit:
        raise too_large(limit, length)
    return length


def too_large(limit: int, length: int | None = None) -> HttpError:
    """The 413 for a body of more than `limit` bytes; `length` is what was announced."""
    size = "the body" if length is None else f"a body of {length} bytes"
    return HttpError(
        413, f"{size} is longer than the {limit} bytes that one request may have (socket.request.max.bytes)"
    )
