"""One authenticated connection to a peer: requests are pipelined and answers found by correlation id (KIP-43, KIP-152).

Nothing is ever sent twice. `NotConnected` and ConnectionRefusedError say that a request was surely not sent;
`ConnectionClosed` and TimeoutError that nobody knows whether the peer carried it out.
"""

from __future__ import annotations

import asyncio
import logging
from base64 import b64encode
from typing import TypeVar

from kraft.broker.principal import NodePrincipal, asker_bytes
from kraft.protocol import apis, codec, scram
from kraft.protocol.apis import Api
from kraft.protocol.codec import Malformed
from kraft.protocol.encoding import TopLevel
from kraft.protocol.errors import KafkaError, for_code
from kraft.protocol.messages.sasl_authenticate_request import SaslAuthenticateRequestData
from kraft.protocol.messages.sasl_authenticate_response import SaslAuthenticateResponseData
from kraft.protocol.messages.sasl_handshake_request import SaslHandshakeRequestData
from kraft.protocol.messages.sasl_handshake_response import SaslHandshakeResponseData
from kraft.protocol.primitives import Buffer
from kraft.values import new
from kraft.wire.budget import Budget
from metadata.environment import ConnectionClosed, Environment, FrameConnection, NotConnected, TimerHandle, Tls
from metadata.unauthenticated import KAFKA_LISTENER

LOG = logging.getLogger(__name__)

IN_FLIGHT_MAX = 256
"""Unanswered requests of one connection; one more waits, within its timeout."""
CONNECT_TIMEOUT_MS = 2_000
AUTHENTICATE_TIMEOUT_MS = 5_000
TIMER_MS_MIN = 1
"""A timer may come a moment early; the next one must not be set for the same instant again and again."""
_INT32_MASK = 0x7FFFFFFF

ResponseData = TypeVar("ResponseData", bound=TopLevel)


class RpcConnection:
    """Requests to one peer, pipelined on one authenticated connection. `open_connection` makes it.

    A task of its own waits for its end, each answer wakes only its caller. One timer serves all calls: it is set for
    the earliest deadline, and most calls end long before theirs. At most `in_flight_max` calls are under way; the next
    one waits.
    """

    def __init__(
        self,
        environment: Environment,
        connection: FrameConnection,
        principal: NodePrincipal,
        *,
        address: tuple[str, int],
        in_flight_max: int = IN_FLIGHT_MAX,
    ) -> None:
        self.address = address
        self._clock = environment.clock
        self._connection = connection
        self._client_id = principal.client_id
        self._next_id = 0
        self._in_flight: dict[int, tuple[asyncio.Future[memoryview], int]] = {}
        """Correlation id -> the answer, and the end of the wait for it in microseconds of the clock."""
        self._slots = Budget(in_flight_max)
        self._timer: TimerHandle | None = None
        self._timer_us = 0
        self._received_us = self._clock.monotonic_us()
        self._reader: asyncio.Task[None] | None = None
        self.ended_ms: int | None = None
        """When the peer had gone; None before."""

    @property
    def is_closed(self) -> bool:
        return self._connection.is_closed

    def start(self) -> None:
        """Begins to receive answers; `open_connection` has called it."""
        self._reader = asyncio.get_running_loop().create_task(self._read())

    async def call(
        self,
        api: Api,
        body: TopLevel,
        answer: type[ResponseData],
        *,
        timeout_ms: int,
        sends_timeout: bool = False,
    ) -> ResponseData:
        """The body of the response. `timeout_ms` counts from now. Raises ConnectionClosed or TimeoutError (the outcome
        is unknown), or the KafkaError of a request that was refused as a whole.
        """
        started_us = self._clock.monotonic_us()
        correlation_id, reported_ms = self._take_id(), timeout_ms if sends_timeout else None
        try:
            if not self._slots.try_take(1):
                await self._wait_for_slot(timeout_ms)
            try:
                deadline_us = started_us + timeout_ms * 1_000
                frame = await self._sent(api, body, correlation_id, timeout_ms=reported_ms, deadline_us=deadline_us)
            finally:
                self._in_flight.pop(correlation_id, None)
                self._slots.give_back(1)
        except TimeoutError:
            self._close_if_silent_since(started_us)
            raise TimeoutError(f"{api.name}: no answer from {self._connection.peer} within {timeout_ms} ms") from None
        return self._decoded(api, answer, frame)

    async def send(self, api: Api, body: TopLevel) -> None:
        """Sends a request that is never answered (Produce with acks=0, P8). Raises ConnectionClosed."""
        self._connection.send(self._encoded(api, body, self._take_id(), timeout_ms=None))
        await self._connection.drain()

    async def _wait_for_slot(self, timeout_ms: int) -> None:
        async with self._clock.timeout(timeout_ms):
            await self._slots.take(1)

    def _sent(
        self, api: Api, body: TopLevel, correlation_id: int, *, timeout_ms: int | None, deadline_us: int
    ) -> asyncio.Future[memoryview]:
        """The answer to come."""
        if self._connection.is_closed:
            raise ConnectionClosed(f"{self._connection.peer}: closed")
        answer: asyncio.Future[memoryview] = asyncio.get_running_loop().create_future()
        self._in_flight[correlation_id] = (answer, deadline_us)
        self._connection.send(self._encoded(api, body, correlation_id, timeout_ms=timeout_ms))
        if self._timer is None or deadline_us < self._timer_us:
            self._set_timer(deadline_us)
        return answer

    def _set_timer(self, deadline_us: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_us = deadline_us
        left_ms = (deadline_us - self._clock.monotonic_us()) / 1_000
        self._timer = self._clock.call_later(max(left_ms, TIMER_MS_MIN), self._end_overdue)

    def _end_overdue(self) -> None:
        self._timer = None
        now_us = self._clock.monotonic_us()
        for answer, deadline_us in self._in_flight.values():
            if deadline_us <= now_us and not answer.done():
                answer.set_exception(TimeoutError())
        waiting = [deadline_us for answer, deadline_us in self._in_flight.values() if not answer.done()]
        if waiting:
            self._set_timer(min(waiting))

    def _take_id(self) -> int:
        correlation_id = self._next_id
        self._next_id = (correlation_id + 1) & _INT32_MASK
        return correlation_id

    def _encoded(self, api: Api, body: TopLevel, correlation_id: int, *, timeout_ms: int | None) -> list[Buffer]:
        header = new(codec.RequestHeader)
        codec.RequestHeader.__init__(
            header,
            api_key=api.key,
            api_version=api.version,
            correlation_id=correlation_id,
            client_id=self._client_id,
            timeout_ms=timeout_ms,
            asker=asker_bytes(),
        )
        return codec.encode_request(api, header, body)

    def _decoded(self, api: Api, answer: type[ResponseData], frame: memoryview) -> ResponseData:
        try:
            header, offset = codec.decode_response_head(api, api.version, frame)
            if header.refusal is not None:
                raise _refused(*header.refusal)
            return codec.decode_body(answer, api.version, frame, offset)
        except Malformed as error:
            raise self.distrusted(error) from error

    def distrusted(self, error: Malformed) -> ConnectionClosed:
        """Ends the connection with a peer that answers what no peer answers; what it meant is unknown."""
        LOG.warning("closing %s: %s", self._connection.peer, error)
        self._connection.abort()
        return ConnectionClosed(f"{self._connection.peer} sent a malformed answer: {error}")

    def _close_if_silent_since(self, started_us: int) -> None:
        """A peer that said nothing since we asked is taken for dead, as Kafka does; a slow answer alone is not."""
        if self._received_us < started_us:
            self._connection.abort()

    async def _read(self) -> None:
        reason = "closed"
        try:
            await self._connection.receive_while(self._take)
        except (ConnectionClosed, Malformed) as error:
            reason = str(error)
        finally:
            self._connection.abort()
            self.ended_ms = self._clock.monotonic_ms()
            self._fail_all(reason)

    def _take(self, frame: memoryview) -> bool:
        self._received_us = self._clock.monotonic_us()
        answer, _ = self._in_flight.get(codec.correlation_id_of(frame), (None, 0))
        # None: the caller stopped waiting.
        if answer is not None and not answer.done():
            answer.set_result(frame)
        return True

    def _fail_all(self, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for answer, _ in self._in_flight.values():
            if not answer.done():
                answer.set_exception(ConnectionClosed(f"{reason}; the outcome of requests in flight is unknown"))

    async def close(self) -> None:
        """Ends the connection. Calls that wait for answers end with ConnectionClosed."""
        self._connection.close()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)


async def open_connection(
    environment: Environment,
    principal: NodePrincipal,
    *,
    address: tuple[str, int],
    password: str,
    frame_bytes_max: int,
    connect_timeout_ms: int = CONNECT_TIMEOUT_MS,
    in_flight_max: int = IN_FLIGHT_MAX,
    tls: Tls | None = None,
) -> RpcConnection:
    """Connects and authenticates as `principal`. Raises ConnectionRefusedError when nobody listens, NotConnected for
    anything else that kept it from connecting (a timeout, too), or the KafkaError of a refused authentication.
    """
    host, port = address
    try:
        frames = await environment.network.connect(
            host, port, frame_bytes_max=KAFKA_LISTENER.frame_bytes_max, timeout_ms=connect_timeout_ms, tls=tls
        )
    except ConnectionRefusedError:
        raise
    except OSError as error:
        raise NotConnected(f"{host}:{port}: {type(error).__name__} {error}".rstrip()) from error
    connection = RpcConnection(environment, frames, principal, address=address, in_flight_max=in_flight_max)
    connection.start()
    try:
        await _authenticate(environment, connection, password=password)
        frames.take_frames(bytes_max=frame_bytes_max)
    except BaseException as error:
        await connection.close()
        if isinstance(error, ConnectionClosed | TimeoutError | scram.ScramFailed):
            raise NotConnected(f"{host}:{port}: authentication: {error}") from error
        raise
    return connection


async def _authenticate(environment: Environment, connection: RpcConnection, *, password: str) -> None:
    handshake = SaslHandshakeRequestData.make(mechanism=scram.MECHANISM)
    answer = await connection.call(
        apis.SASL_HANDSHAKE, handshake, SaslHandshakeResponseData, timeout_ms=AUTHENTICATE_TIMEOUT_MS
    )
    _raise_refusal(answer.error_code, "")
    nonce = b64encode(environment.rng.randbytes(scram.NONCE_BYTES)).decode()
    client = scram.ScramClient(user=scram.CLUSTER_USER, password=password, nonce=nonce)
    server_first = await _token(connection, client.first())
    client.verify(await _token(connection, client.final(server_first)))


async def _token(connection: RpcConnection, token: bytes) -> bytes:
    request = SaslAuthenticateRequestData.make(auth_bytes=token)
    answer = await connection.call(
        apis.SASL_AUTHENTICATE, request, SaslAuthenticateResponseData, timeout_ms=AUTHENTICATE_TIMEOUT_MS
    )
    _raise_refusal(answer.error_code, answer.error_message or "")
    return bytes(answer.auth_bytes)


def _refused(code: int, message: str) -> KafkaError:
    """The error, and how long its client has to wait, where that stands behind the message."""
    text, _, wait_ms = message.partition("\0")
    error = for_code(code, text)
    error.wait_ms = int(wait_ms) if wait_ms.isdecimal() else 0
    return error


def _raise_refusal(code: int, message: str) -> None:
    if code:
        raise for_code(code, message)
