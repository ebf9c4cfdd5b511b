"""One authenticated connection to a peer: requests are pipelined and answers found by correlation id (KIP-43, KIP-152).

Nothing is ever sent twice. `NotConnected` and ConnectionRefusedError say that a request was surely not sent;
`ConnectionClosed` and TimeoutError that nobody knows whether the peer carried it out.
"""

from __future__ import annotations

import asyncio
import logging
from base64 import b64encode
from typing import Any

from kraft.wire import apis, codec, schemas, scram
from kraft.wire.apis import Api
from kraft.wire.codec import Malformed, RequestHeader
from kraft.wire.principal import Principal
from metadata.environment import ConnectionClosed, Environment, FrameConnection, NotConnected
from metadata.errors import for_code

LOG = logging.getLogger(__name__)

IN_FLIGHT_MAX = 256
"""Unanswered requests of one connection; one more waits, within its timeout."""
CONNECT_TIMEOUT_MS = 2_000
AUTHENTICATE_TIMEOUT_MS = 5_000
_INT32_MASK = 0x7FFFFFFF


class RpcConnection:
    """Made by `open_connection`; owned by the task that reads the answers."""

    def __init__(
        self,
        environment: Environment,
        connection: FrameConnection,
        principal: Principal,
        *,
        address: tuple[str, int],
        in_flight_max: int = IN_FLIGHT_MAX,
    ) -> None:
        self.address = address
        self._clock = environment.clock
        self._connection = connection
        self._client_id = principal.client_id
        self._next_id = 0
        self._in_flight: dict[int, asyncio.Future[memoryview]] = {}
        self._slots = asyncio.Semaphore(in_flight_max)
        self._received_ms = self._clock.monotonic_ms()
        self._reader: asyncio.Task[None] | None = None

    @property
    def is_closed(self) -> bool:
        return self._connection.is_closed

    def start(self) -> None:
        self._reader = asyncio.get_running_loop().create_task(self._read())

    async def call(self, api: Api, body: Any, *, timeout_ms: int, tells_timeout: bool = False) -> Any:
        """The response body. Raises ConnectionClosed, TimeoutError, or the KafkaError of a refusal."""
        started_ms = self._clock.monotonic_ms()
        try:
            async with self._clock.timeout(timeout_ms), self._slots:
                frame = await self._exchange(api, body, timeout_ms=timeout_ms if tells_timeout else None)
        except TimeoutError:
            self._close_if_silent_since(started_ms)
            raise TimeoutError(f"{api.name}: no answer from {self._connection.peer} within {timeout_ms} ms") from None
        return self._decoded(api, frame)

    async def send(self, api: Api, body: Any) -> None:
        """Send a request that is never answered (acks=0, P8). Raises ConnectionClosed."""
        self._connection.send(self._encoded(api, body, self._take_id(), timeout_ms=None))
        await self._connection.drain()

    async def _exchange(self, api: Api, body: Any, *, timeout_ms: int | None) -> memoryview:
        if self._connection.is_closed:
            raise ConnectionClosed(f"{self._connection.peer}: closed")
        correlation_id = self._take_id()
        answer: asyncio.Future[memoryview] = asyncio.get_running_loop().create_future()
        self._in_flight[correlation_id] = answer
        try:
            self._connection.send(self._encoded(api, body, correlation_id, timeout_ms=timeout_ms))
            return await answer
        finally:
            self._in_flight.pop(correlation_id, None)

    def _take_id(self) -> int:
        correlation_id = self._next_id
        self._next_id = (correlation_id + 1) & _INT32_MASK
        return correlation_id

    def _encoded(self, api: Api, body: Any, correlation_id: int, *, timeout_ms: int | None) -> list[Any]:
        header = RequestHeader(
            api_key=api.key,
            api_version=api.version,
            correlation_id=correlation_id,
            client_id=self._client_id,
            timeout_ms=timeout_ms,
        )
        return codec.encode_request(api, header, body)

    def _decoded(self, api: Api, frame: memoryview) -> Any:
        try:
            header, offset = codec.decode_response_head(api, api.version, frame)
            if header.refusal is not None:
                raise for_code(*header.refusal)
            return codec.decode_body(schemas.response_class(api, api.version), frame, offset)
        except Malformed as error:
            LOG.warning("closing %s: %s", self._connection.peer, error)
            self._connection.abort()
            raise ConnectionClosed(f"{self._connection.peer} sent a malformed answer: {error}") from error

    def _close_if_silent_since(self, started_ms: int) -> None:
        """A peer that said nothing since we asked is taken for dead, as Kafka does; a slow answer alone is not."""
        if self._received_ms < started_ms:
            self._connection.abort()

    async def _read(self) -> None:
        reason = "closed"
        try:
            while True:
                frame = await self._connection.receive()
                self._received_ms = self._clock.monotonic_ms()
                answer = self._in_flight.get(codec.correlation_id_of(frame))
                # None: the caller stopped waiting.
                if answer is not None and not answer.done():
                    answer.set_result(frame)
        except (ConnectionClosed, Malformed) as error:
            reason = str(error)
        finally:
            self._connection.abort()
            self._fail_all(reason)

    def _fail_all(self, reason: str) -> None:
        for answer in self._in_flight.values():
            if not answer.done():
                answer.set_exception(ConnectionClosed(f"{reason}; the outcome of requests in flight is unknown"))

    async def close(self) -> None:
        self._connection.close()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)


async def open_connection(
    environment: Environment,
    principal: Principal,
    *,
    address: tuple[str, int],
    secret: str,
    frame_bytes_max: int,
    connect_timeout_ms: int = CONNECT_TIMEOUT_MS,
    in_flight_max: int = IN_FLIGHT_MAX,
) -> RpcConnection:
    """Raises ConnectionRefusedError, NotConnected (timeouts too), or the KafkaError of a refused authentication."""
    host, port = address
    try:
        frames = await environment.network.connect(
            host, port, frame_bytes_max=frame_bytes_max, timeout_ms=connect_timeout_ms
        )
    except ConnectionRefusedError:
        raise
    except OSError as error:
        raise NotConnected(f"{host}:{port}: {type(error).__name__} {error}".rstrip()) from error
    connection = RpcConnection(environment, frames, principal, address=address, in_flight_max=in_flight_max)
    connection.start()
    try:
        await _authenticate(environment, connection, secret=secret)
    except BaseException as error:
        await connection.close()
        if isinstance(error, ConnectionClosed | TimeoutError | scram.ScramFailed):
            raise NotConnected(f"{host}:{port}: authentication: {error}") from error
        raise
    return connection


async def _authenticate(environment: Environment, connection: RpcConnection, *, secret: str) -> None:
    handshake = schemas.request_class(apis.SASL_HANDSHAKE, apis.SASL_HANDSHAKE.version)(mechanism=scram.MECHANISM)
    answer = await connection.call(apis.SASL_HANDSHAKE, handshake, timeout_ms=AUTHENTICATE_TIMEOUT_MS)
    _raise_refusal(answer, "")
    nonce = b64encode(environment.rng.randbytes(scram.NONCE_BYTES)).decode()
    client = scram.ScramClient(user=scram.CLUSTER_USER, password=secret, nonce=nonce)
    server_first = await _token(connection, client.first())
    client.verify(await _token(connection, client.final(server_first)))


async def _token(connection: RpcConnection, token: bytes) -> bytes:
    request = schemas.request_class(apis.SASL_AUTHENTICATE, apis.SASL_AUTHENTICATE.version)(auth_bytes=token)
    answer = await connection.call(apis.SASL_AUTHENTICATE, request, timeout_ms=AUTHENTICATE_TIMEOUT_MS)
    _raise_refusal(answer, answer.error_message or "")
    return bytes(answer.auth_bytes)


def _raise_refusal(answer: Any, message: str) -> None:
    if answer.error_code:
        raise for_code(answer.error_code, message)
