"""The connections of this node to the others: one per node, purpose and lane, opened when first needed, never shared.

Lanes keep requests of one purpose out of each other's queue: reads out of that of produces, and waits out of both.

A connection that broke is opened again by the next request, `RECONNECT_BACKOFF_MS` after the last try at the
earliest. No request is ever sent again here; the caller gets a refused connection as an error at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Literal

from kraft import __version__
from kraft.broker.principal import NodePrincipal, Purpose
from kraft.protocol.apis import API_VERSIONS
from kraft.protocol.codec import Malformed
from kraft.protocol.encoding import TopLevel
from kraft.protocol.errors import KafkaError, for_code
from kraft.protocol.messages.api_versions_request import ApiVersionsRequestData
from kraft.protocol.messages.api_versions_response import ApiVersionsResponseData
from kraft.wire.connection import CONNECT_TIMEOUT_MS, IN_FLIGHT_MAX, RpcConnection, open_connection
from kraft.wire.rpc import ReplyT, RequestData, RequestT, ResponseData, Rpc
from metadata.environment import ConnectionClosed, Environment, NotConnected, Tls
from metadata.retries import RECONNECT_BACKOFF_MS

LOOK_MS_MAX = 30_000
"""No less than a follower's fetch may take: a connection is closed when a request on it has timed out in silence."""
WAITS_IN_FLIGHT_MAX = 4_096
"""Unanswered requests of the lane `waits`: fetches that wait for records, which cost next to nothing."""
FRAME_BYTES_MAX = 128 * 1024 * 1024
"""Largest answer taken from a peer: above fetch.max.bytes and one oversized first batch (F3)."""

Lane = Literal["", "reads", "waits", "groups", "transactions", "markers", "shares", "facts"]

Address = Callable[[int, Purpose], tuple[str, int]]
"""Host and port of a node. Raises a KafkaError (BrokerNotAvailable) when it is not known."""


class Peers:
    """All connections of this node to other nodes, by node, purpose and lane."""

    def __init__(
        self,
        environment: Environment,
        *,
        node_id: int,
        password: str,
        address: Address,
        frame_bytes_max: int = FRAME_BYTES_MAX,
        connect_timeout_ms: int = CONNECT_TIMEOUT_MS,
        tls: Callable[[int], Tls | None] = lambda node_id: None,
    ) -> None:
        """`tls` returns that of connections to a node."""
        self.environment = environment
        self.node_id = node_id
        self.address = address
        self._password = password
        self._frame_bytes_max = frame_bytes_max
        self._connect_timeout_ms = connect_timeout_ms
        self._tls = tls
        self._ways: dict[tuple[int, Purpose, Lane], _Way] = {}

    async def call(
        self,
        node_id: int,
        purpose: Purpose,
        rpc: Rpc[RequestT, ReplyT, RequestData, ResponseData],
        request: RequestT,
        *,
        timeout_ms: int,
        sends_timeout: bool = False,
        lane: Lane = "",
    ) -> ReplyT:
        """Sends one request and returns its answer; it is never sent again. `timeout_ms` bounds connecting and
        answering together; with `sends_timeout` the receiver learns how long the sender waits. Raises
        ConnectionRefusedError or NotConnected (the request was not sent), ConnectionClosed or TimeoutError (the outcome
        is unknown), or the KafkaError that the peer answered.
        """
        connection = self._current(node_id, purpose, lane)
        if connection is None:
            deadline_ms = self.environment.clock.monotonic_ms() + timeout_ms
            connection = await self.connection(node_id, purpose, timeout_ms=timeout_ms, lane=lane)
            timeout_ms = max(deadline_ms - self.environment.clock.monotonic_ms(), 1)
        body = rpc.to_request(request, timeout_ms)
        answer = await connection.call(rpc.api, body, rpc.response, timeout_ms=timeout_ms, sends_timeout=sends_timeout)
        if not rpc.has_error_in_reply:
            _raise_top_level(answer)
        try:
            return rpc.replied(request, answer)
        except Malformed as error:
            raise connection.distrusted(error) from error

    async def connection(self, node_id: int, purpose: Purpose, *, timeout_ms: int, lane: Lane = "") -> RpcConnection:
        """The open connection to the node, made if there is none. Raises ConnectionRefusedError, NotConnected, or the
        KafkaError of a refused authentication.
        """
        current = self._current(node_id, purpose, lane)
        if current is not None:
            return current
        key = (node_id, purpose, lane)
        way = self._ways.get(key)
        if way is None:
            way = self._ways[key] = _Way(self.environment, lambda: self._open(node_id, purpose, lane))
        try:
            async with self.environment.clock.timeout(timeout_ms):
                return await way.reopened()
        except TimeoutError as error:
            raise NotConnected(f"node {node_id}: no connection within {timeout_ms} ms") from error

    def _current(self, node_id: int, purpose: Purpose, lane: Lane) -> RpcConnection | None:
        """The open connection, unless the node has moved. Raises the KafkaError of an unknown node."""
        address = self.address(node_id, purpose)
        way = self._ways.get((node_id, purpose, lane))
        return None if way is None else way.current(address)

    async def _open(self, node_id: int, purpose: Purpose, lane: Lane) -> RpcConnection:
        return await open_connection(
            self.environment,
            NodePrincipal(self.node_id, purpose),
            address=self.address(node_id, purpose),
            password=self._password,
            frame_bytes_max=self._frame_bytes_max,
            connect_timeout_ms=self._connect_timeout_ms,
            tls=self._tls(node_id),
            in_flight_max=WAITS_IN_FLIGHT_MAX if lane == "waits" else IN_FLIGHT_MAX,
        )

    def lost(self, since_ms: int) -> set[int]:
        """The nodes that this one fetches from, whose connection broke at that time or later and is not open again."""
        return {
            node_id
            for (node_id, purpose, _), way in self._ways.items()
            if purpose == "fetch" and way.lost_ms is not None and way.lost_ms >= since_ms
        }

    def open_now(self) -> dict[int, dict[str, bool]]:
        """Node -> purpose -> whether a connection is open. A connection that broke and that nobody has wanted again is
        neither open nor closed."""
        found: dict[int, dict[str, bool]] = {}
        for (node_id, purpose, _), way in self._ways.items():
            purposes = found.setdefault(node_id, {})
            if way.is_open or way.is_refused:
                purposes[purpose] = purposes.get(purpose, False) or way.is_open
        return found

    async def look(self, node_id: int) -> None:
        """Returns when a node that this one fetches from has answered a small request, when the connection has broken
        (which `lost` shows), or after `LOOK_MS_MAX`; at once when there is no connection."""
        body = ApiVersionsRequestData.make(client_software_name="kraft", client_software_version=__version__)
        with suppress(ConnectionClosed, TimeoutError, KafkaError):
            connection = self._current(node_id, "fetch", "")
            if connection is not None:
                await connection.call(API_VERSIONS, body, ApiVersionsResponseData, timeout_ms=LOOK_MS_MAX)

    async def close(self) -> None:
        """Closes all connections; calls that wait for answers end with ConnectionClosed."""
        ways, self._ways = self._ways, {}
        for way in ways.values():
            await way.close()


class _Way:
    """The current connection to one node for one purpose, or the one attempt to get it that all callers share."""

    def __init__(self, environment: Environment, open_: Callable[[], Coroutine[object, object, RpcConnection]]) -> None:
        self._clock = environment.clock
        self._open = open_
        self._current: RpcConnection | None = None
        self._opening: asyncio.Task[RpcConnection] | None = None
        self._tried_ms: int | None = None
        self._lost_ms: int | None = None

    @property
    def lost_ms(self) -> int | None:
        """When the last connection ended; None while there is one, and before the first."""
        return self._lost_ms if self._current is None else self._current.ended_ms

    @property
    def is_open(self) -> bool:
        return self._current is not None and not self._current.is_closed

    @property
    def is_refused(self) -> bool:
        """The last attempt to open it has failed, or goes on."""
        opening = self._opening
        return opening is not None and (not opening.done() or opening.cancelled() or opening.exception() is not None)

    def current(self, address: tuple[str, int]) -> RpcConnection | None:
        """The open connection, unless the node has moved."""
        current = self._current
        if current is not None and not current.is_closed and current.address == address:
            return current
        return None

    async def reopened(self) -> RpcConnection:
        if self._opening is None or self._opening.done():
            self._opening = asyncio.get_running_loop().create_task(self._reopen())
            self._opening.add_done_callback(_retrieve)
        return await asyncio.shield(self._opening)

    async def _reopen(self) -> RpcConnection:
        if self._current is not None:
            self._lost_ms = self._current.ended_ms
            await self._current.close()
            self._current = None
        if self._tried_ms is not None:
            waited_ms = self._clock.monotonic_ms() - self._tried_ms
            if waited_ms < RECONNECT_BACKOFF_MS:
                await self._clock.sleep(RECONNECT_BACKOFF_MS - waited_ms)
        self._tried_ms = self._clock.monotonic_ms()
        self._current = await self._open()
        return self._current

    async def close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        if self._current is not None:
            await self._current.close()


def _retrieve(task: asyncio.Task[RpcConnection]) -> None:
    """Every caller may have gone by the time an attempt fails; asyncio wants its error looked at."""
    if not task.cancelled():
        task.exception()


def _raise_top_level(answer: TopLevel) -> None:
    """An error of the request as a whole from a peer that sends no refusal in the header."""
    code = getattr(answer, "error_code", None)
    if code:
        raise for_code(code, getattr(answer, "error_message", None) or "")
