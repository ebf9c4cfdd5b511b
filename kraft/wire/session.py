"""One accepted connection: first it authenticates, then its requests are served.

Requests begin in the order in which they came, and each is answered when it is done, found by its correlation id: a
long poll or an acks=all produce holds up nothing behind it. Kafka answers one connection strictly in order; here one
connection carries the forwarded requests of many clients, which must not wait for each other.
A fetch is begun a turn of the loop after it has come, and answered a turn after it was woken: what producers have sent
meanwhile goes with it. At once, followers would carry away batch by batch, in twice as many rounds, and no sooner.
Bounds: `IN_FLIGHT_MAX` requests, `FETCHES_IN_FLIGHT_MAX` fetches, `connection_bytes_max` bytes; then the peer is
held back by TCP.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from kraft.protocol.errors import ClusterAuthorizationFailed, KafkaError
from kraft.values import maker
from kraft.wire import apis, codec
from kraft.wire.api_versions import api_versions_response
from kraft.wire.apis import Api
from kraft.wire.budget import Budget
from kraft.wire.codec import Malformed, RequestHeader
from kraft.wire.generated.sasl_authenticate_request import SaslAuthenticateRequestData
from kraft.wire.generated.sasl_handshake_request import SaslHandshakeRequestData
from kraft.wire.handlers.served import Call, CloseConnection, Later, NoResponse, Served
from kraft.wire.primitives import TopLevel
from kraft.wire.principal import Principal
from kraft.wire.sasl import Authentication
from kraft.wire.scram import Credential
from metadata.environment import Environment, FrameConnection
from metadata.strangers import Strangers

LOG = logging.getLogger(__name__)

IN_FLIGHT_MAX = 256
"""Requests of one connection being served; the next is read when one is done."""
FETCHES_IN_FLIGHT_MAX = 4_096
"""Fetches of one connection being served, beside them: most of them wait, and waiting costs no more than a place."""


_call = maker(Call)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What all sessions of a server have in common: the handlers, the proof of the secret, and the limits."""

    environment: Environment
    credential: Credential
    handlers: Mapping[int, Served]
    connection_bytes_max: int
    produce_budget: Budget
    """Only produce requests count: a follower's fetch must never wait for the produce that waits for it."""
    strangers: Strangers
    frame_bytes_max: int
    """Of a request after authentication."""


class Session:
    """One connection of a node or, until it has said who it is, of a stranger."""

    def __init__(self, shared: Shared, connection: FrameConnection) -> None:
        self._shared = shared
        self._connection = connection
        self._slots = Budget(IN_FLIGHT_MAX)
        self._fetch_slots = Budget(FETCHES_IN_FLIGHT_MAX)
        self._bytes = Budget(shared.connection_bytes_max)
        self._numbers = itertools.count()
        self._has_ended = False
        self._serving: dict[int, tuple[asyncio.Future[Any], Api, int]] = {}
        """Requests that wait: for what, and for which API and how many bytes they hold room."""

    async def first_frame(self) -> memoryview | None:
        """The first request of the connection; None when it did not come in time. Raises ConnectionClosed."""
        limits = self._shared.strangers.limits
        try:
            with self._shared.strangers.waiting(self._connection):
                async with self._shared.environment.clock.timeout(limits.wait_ms):
                    return await self._connection.receive()
        except TimeoutError:
            LOG.info("closing %s: it sent no request in %d ms", self._connection.peer, limits.wait_ms)
            return None

    async def authenticate(self, first: memoryview) -> Principal | None:
        """Who the peer is, after SaslHandshake and SaslAuthenticate; None when the connection has to be closed. Raises
        ConnectionClosed.
        """
        limits = self._shared.strangers.limits
        authentication = Authentication(self._shared.credential, self._shared.environment.rng)
        try:
            with self._shared.strangers.waiting(self._connection):
                async with self._shared.environment.clock.timeout(limits.wait_ms):
                    await self._authenticate(authentication, first, frames_max=limits.frames_max)
        except TimeoutError:
            LOG.info("closing %s: not authenticated in %d ms", self._connection.peer, limits.wait_ms)
            return None
        except Malformed as error:
            LOG.warning("closing %s: %s", self._connection.peer, error)
            return None
        return authentication.principal

    async def serve(self, principal: Principal) -> None:
        """Serves requests until the connection breaks (ConnectionClosed) or sends what no peer sends (returns)."""
        begins_at_once = partial(self._begins_at_once, principal)
        try:
            while True:
                frame = await self._connection.receive_while(begins_at_once)
                await self._connection.drain()
                await self._begin(principal, frame)
        except Malformed as error:
            LOG.warning("closing %s: %s", self._connection.peer, error)
        finally:
            await self._end()

    # --- before authentication ----------------------------------------------------------------------------

    async def _authenticate(self, authentication: Authentication, first: memoryview, *, frames_max: int) -> None:
        """Until it has a principal, or the connection is to be closed."""
        frame = first
        for _ in range(frames_max):
            if not self._authentication_step(authentication, frame) or authentication.principal is not None:
                return
            frame = await self._connection.receive()
        raise Malformed(f"{frames_max} requests, and not authenticated")

    def _authentication_step(self, authentication: Authentication, frame: memoryview) -> bool:
        header = codec.decode_request_head(frame)
        if header.api_key == apis.API_VERSIONS.key:
            self._answer_api_versions(header)
            return True
        api = _api_of(header)
        message, _ = codec.decode_request(api, header, frame)
        if isinstance(message, SaslHandshakeRequestData):
            step = authentication.handshake(message)
        elif isinstance(message, SaslAuthenticateRequestData):
            step = authentication.authenticate(message, header.client_id)
            if authentication.principal is not None:
                self._connection.take_frames(bytes_max=self._shared.frame_bytes_max)
        else:
            return self._refuse_unauthenticated(api, header, message)
        self._send(api, header, step.response)
        if step.is_last:
            LOG.warning("closing %s: %s", self._connection.peer, authentication.reason)
        return not step.is_last

    def _refuse_unauthenticated(self, api: Api, header: RequestHeader, message: TopLevel) -> bool:
        served = self._shared.handlers.get(api.key)
        if served is None:
            return False
        error = ClusterAuthorizationFailed("authenticate first: SaslHandshake, then SaslAuthenticate (SCRAM-SHA-256)")
        self._send(api, header, served.refuse(message, error.code), refused=error)
        return True

    # --- after authentication -----------------------------------------------------------------------------

    def _begins_at_once(self, principal: Principal, frame: memoryview) -> bool:
        """False: something has to be waited for first. Nothing was begun then."""
        if not self._connection.is_writable:
            return False
        header = codec.decode_request_head(frame)
        served = self._served(header)
        if served is not None:
            if not self._takes_room(served.api, len(frame)):
                return False
            self._start(served, header, frame, principal)
        return True

    async def _begin(self, principal: Principal, frame: memoryview) -> None:
        header = codec.decode_request_head(frame)
        served = self._served(header)
        if served is not None:
            await self._wait_for_room(served.api, len(frame))
            self._start(served, header, frame, principal)

    def _served(self, header: RequestHeader) -> Served | None:
        """None: it is answered."""
        if header.api_key == apis.API_VERSIONS.key:
            self._answer_api_versions(header)
            return None
        api = _api_of(header)
        served = self._shared.handlers.get(api.key)
        if served is None:
            raise Malformed(f"{api.name} is not served here after authentication")
        return served

    def _start(self, served: Served, header: RequestHeader, frame: memoryview, principal: Principal) -> None:
        """There is room for it."""
        api, size = served.api, len(frame)
        try:
            message, timeout_ms = codec.decode_request(api, header, frame)
        except Malformed:
            self._release(api, size)
            raise
        call = _call(message=message, principal=principal, timeout_ms=timeout_ms)
        if api is apis.FETCH:
            asyncio.get_running_loop().call_soon(self._handle, served, header, call, size)
        else:
            self._handle(served, header, call, size)

    def _handle(self, served: Served, header: RequestHeader, call: Call[Any], size: int) -> None:
        api = served.api
        if self._has_ended:
            self._release(api, size)
            return
        try:
            reply = served.handle(call)
        except Exception as error:  # noqa: BLE001 - each kind is told apart there
            self._release(api, size)
            self._failed(served, header, call, error)
            return
        if isinstance(reply, (TopLevel, NoResponse)):
            self._release(api, size)
            self._reply(served, header, call, lambda: reply)
            return
        if isinstance(reply, Later):
            future, render = reply.future, reply.render
        else:
            future, render = asyncio.get_running_loop().create_task(reply), _as_it_is
        number = next(self._numbers)
        self._serving[number] = (future, api, size)
        come = partial(self._has_come, number, served, header, call, render)
        if api is apis.FETCH:
            future.add_done_callback(partial(asyncio.get_running_loop().call_soon, come))
        else:
            future.add_done_callback(come)

    async def _end(self) -> None:
        self._has_ended = True
        waits = [future for future, _, _ in self._serving.values()]
        for future in waits:
            future.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    def _finished(self, number: int) -> None:
        _, api, size = self._serving.pop(number)
        self._release(api, size)

    # --- room for a request: a slot, its bytes, and for a produce its bytes of the whole server ------------------

    def _slots_of(self, api: Api) -> Budget:
        return self._fetch_slots if api is apis.FETCH else self._slots

    def _takes_room(self, api: Api, size: int) -> bool:
        slots = self._slots_of(api)
        if not slots.try_take(1):
            return False
        if not self._bytes.try_take(size):
            slots.give_back(1)
            return False
        if api is apis.PRODUCE and not self._shared.produce_budget.try_take(size):
            slots.give_back(1)
            self._bytes.give_back(size)
            return False
        return True

    async def _wait_for_room(self, api: Api, size: int) -> None:
        slots = self._slots_of(api)
        await slots.take(1)
        try:
            await self._bytes.take(size)
            if api is apis.PRODUCE:
                try:
                    await self._shared.produce_budget.take(size)
                except asyncio.CancelledError:
                    self._bytes.give_back(size)
                    raise
        except asyncio.CancelledError:
            slots.give_back(1)
            raise

    def _release(self, api: Api, size: int) -> None:
        self._slots_of(api).give_back(1)
        self._bytes.give_back(size)
        if api is apis.PRODUCE:
            self._shared.produce_budget.give_back(size)

    def _has_come(
        self,
        number: int,
        served: Served,
        header: RequestHeader,
        call: Call[Any],
        render: Callable[[Any], TopLevel | NoResponse],
        future: asyncio.Future[Any],
    ) -> None:
        self._finished(number)
        if not future.cancelled():
            self._reply(served, header, call, lambda: render(future.result()))

    def _reply(
        self, served: Served, header: RequestHeader, call: Call[Any], respond: Callable[[], TopLevel | NoResponse]
    ) -> None:
        try:
            response = respond()
            if not isinstance(response, NoResponse):
                self._send(served.api, header, response)
        except Exception as error:  # noqa: BLE001 - each kind is told apart there
            self._failed(served, header, call, error)

    def _failed(self, served: Served, header: RequestHeader, call: Call[Any], error: Exception) -> None:
        match error:
            case KafkaError():
                self._send(served.api, header, served.refuse(call.message, error.code), refused=error)
            case Malformed():
                LOG.warning("closing %s: %s", self._connection.peer, error)
                self._connection.abort()
            case CloseConnection():
                LOG.info("closing %s: %s", self._connection.peer, error)
                self._connection.close()
            case _:
                # Ours, not the peer's: it learns that the outcome is unknown, we keep serving the others.
                name = served.api.name
                LOG.error("%s from %s failed; closing that connection", name, self._connection.peer, exc_info=error)
                self._connection.abort()

    # --- both ---------------------------------------------------------------------------------------------

    def _answer_api_versions(self, header: RequestHeader) -> None:
        version, response = api_versions_response(header.api_version)
        self._connection.send(codec.encode_response(apis.API_VERSIONS, version, header.correlation_id, response))

    def _send(self, api: Api, header: RequestHeader, response: TopLevel, *, refused: KafkaError | None = None) -> None:
        parts = codec.encode_response(api, header.api_version, header.correlation_id, response, refused=refused)
        self._connection.send(parts)


def _as_it_is(response: TopLevel | NoResponse) -> TopLevel | NoResponse:
    return response


def _api_of(header: RequestHeader) -> Api:
    """Raises Malformed for an API or a version that we do not speak: Kafka closes such a connection too."""
    api = apis.BY_KEY.get(header.api_key)
    if api is None:
        raise Malformed(f"unknown API key {header.api_key}")
    if not api.takes(header.api_version):
        raise Malformed(f"{api.name} version {header.api_version}; {api.version_min} to {api.version} are taken")
    return api
