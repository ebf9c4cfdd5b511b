"""One client's connection: requests are begun in their order and answered in their order, as Kafka does.

A request begins when it has arrived, so a client that pipelines is not held up by its own long polls; its answer waits
until all before it are sent. Java, franz-go, sarama and the Python clients close a connection that answers in another
order. Bounds: `IN_FLIGHT_MAX` requests and `socket.request.max.bytes` of them, one fetch (its answer may be as large as
`fetch.max.bytes`), nothing new while the client leaves much unread, and what the whole listener lets produce requests
hold; then the client is held back by TCP.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from kraft.protocol.errors import KafkaError
from kraft.protocol.primitives import Buffer
from kraft.wire import apis, codec
from kraft.wire.budget import Budget
from kraft.wire.clients.api_versions import client_versions
from kraft.wire.clients.counting import ClientCounts
from kraft.wire.clients.served import ClientApi, ClientCall, ClientConnection
from kraft.wire.clients.table import ROWS, ClientApis
from kraft.wire.codec import Malformed, RequestHeader
from kraft.wire.handlers.served import CloseConnection, Later
from kraft.wire.primitives import TopLevel
from kraft.wire.principal import principal_of
from metadata.environment import Clock, FrameConnection

LOG = logging.getLogger(__name__)

IN_FLIGHT_MAX = 128
"""Requests of one connection that have begun and are not answered; the next is read when the first of them is."""
STARTED_MAX = 32
"""Requests of one connection that begin one after the other; then it is the turn of others. A client may have sent
thousands, and each costs."""
PRODUCE = 0
FETCH = 1


@dataclass(slots=True, eq=False)
class _Slot:
    """The place of one answer in the order of a connection."""

    size: int
    api_key: int
    counted_as: str
    """The client, in the counts."""
    begun_us: int
    parts: Sequence[Buffer] | None = None
    is_done: bool = False
    waits: asyncio.Future[Any] | None = None
    """What its answer waits for; cancelled when the client has gone."""


def authenticates_as_node(header: RequestHeader) -> bool:
    """A SaslHandshake whose client id names a node. Clients that are set up to authenticate send one, too."""
    return header.api_key == apis.SASL_HANDSHAKE.key and principal_of(header.client_id) is not None


class ClientSession:
    """One client's connection, from its first request to its end."""

    def __init__(
        self,
        served: ClientApis,
        connection: FrameConnection,
        client: ClientConnection,
        *,
        bytes_max: int,
        produce_budget: Budget,
        clock: Clock,
        counts: ClientCounts,
        takes_nodes: bool,
    ) -> None:
        self._served = served
        self._connection = connection
        self.client = client
        self._room = Budget(bytes_max)
        self._produce_budget = produce_budget
        self._clock = clock
        self._counts = counts
        self._started = 0
        """Since others had their turn."""
        self._slots: deque[_Slot] = deque()
        self._head_done = asyncio.Event()
        self._takes_nodes = takes_nodes
        self._has_asked = False
        """More than ApiVersions: a node authenticates before it asks for anything else."""
        self._has_caught_up = False
        self._has_fetch = False
        """One that is not answered yet."""
        self._serving: asyncio.Task[Any] | None = None
        self.activity = 0
        """Requests begun and answers sent."""

    # --- what the listener asks (`kraft.wire.clients.watch`) ------------------------------------------------

    @property
    def peer(self) -> str:
        return self._connection.peer

    @property
    def is_closed(self) -> bool:
        return self._connection.is_closed

    @property
    def waits(self) -> bool:
        return bool(self._slots)

    @property
    def unread_bytes(self) -> int:
        return self._connection.unsent_bytes

    def close(self) -> None:
        self._connection.close()

    def abort(self) -> None:
        self._connection.abort()

    def give_up(self) -> None:
        """Ends what waits for room: the client has gone, and as nobody receives meanwhile, nobody has noticed."""
        if self._serving is not None:
            self._serving.cancel()

    # --- the connection -------------------------------------------------------------------------------------

    async def serve(self, first: memoryview) -> memoryview | None:
        """Serves the client, whose first request is `first`. Raises ConnectionClosed when the connection breaks;
        returns None when it sent what no client sends and has to be closed. When the peer begins to authenticate as a
        node, where nodes come, before it has asked for anything else, its SaslHandshake is returned, and nothing has
        been served.
        """
        frame = first
        self._serving = asyncio.current_task()
        try:
            while True:
                header = codec.decode_request_head(frame)
                if self._is_of_a_node(header):
                    return frame
                if not self._may_serve():
                    return None
                if self._started >= STARTED_MAX:
                    await self._clock.sleep(0)
                    self._started = 0
                await self._connection.drain()
                await self._wait_for_room(header, len(frame))
                self._start(header, frame)
                frame = await self._connection.receive_while(self._starts_at_once)
        except (Malformed, CloseConnection) as error:
            LOG.warning("closing %s: %s", self._connection.peer, error)
            return None
        finally:
            await self._end()

    def _is_of_a_node(self, header: RequestHeader) -> bool:
        """It authenticates, as its first request but for ApiVersions, and by its client id it is one."""
        return self._takes_nodes and authenticates_as_node(header) and not self._has_asked and not self._slots

    def _may_serve(self) -> bool:
        """Before its metadata has caught up with the quorum, a broker would tell clients what was true in an earlier
        life; Kafka's opens its port no sooner, and ours has to be open for nodes. The connection is reset, as at a port
        that is not open: franz-go takes one that is closed before its first answer for TLS, and gives up."""
        if not self._has_caught_up and (awaited := self._served.awaited()):
            LOG.warning("resetting %s: clients are not served yet: %s", self._connection.peer, awaited)
            self._connection.abort()
            return False
        self._has_caught_up = True
        return True

    def _starts_at_once(self, frame: memoryview) -> bool:
        if not self._connection.is_writable or len(self._slots) >= IN_FLIGHT_MAX or self._started >= STARTED_MAX:
            return False
        header = codec.decode_request_head(frame)
        if self._is_of_a_node(header) or not self._takes_room(header, len(frame)):
            return False
        self._start(header, frame)
        return True

    # --- one request ----------------------------------------------------------------------------------------

    def _start(self, header: RequestHeader, frame: memoryview) -> None:
        slot = _Slot(
            size=len(frame),
            api_key=header.api_key,
            counted_as=self._counts.begun(header.api_key, header.client_id, len(frame)),
            begun_us=self._clock.monotonic_us(),
        )
        self._slots.append(slot)
        self._started += 1
        self.activity += 1
        if header.api_key == FETCH:
            self._has_fetch = True
        if header.api_key == apis.API_VERSIONS.key:
            self._answer_api_versions(slot, header, frame)
            return
        self._has_asked = True
        api = self._api_of(header)
        message = _decoded(api, header, frame)
        call = ClientCall(
            message=message, version=header.api_version, client_id=header.client_id, connection=self.client
        )
        try:
            answer = api.handle(call)
        except Exception as error:  # noqa: BLE001 - each kind is told apart there
            self._failed(slot, api, header, message, error)
            return
        if answer is None or isinstance(answer, TopLevel):
            self._answered(slot, header, api.response, answer)
        elif isinstance(answer, Later):
            slot.waits = answer.future
            answer.future.add_done_callback(partial(self._has_come, slot, api, header, message, answer.render))
        else:
            slot.waits = asyncio.get_running_loop().create_task(self._wait(slot, api, header, message, answer))

    def _api_of(self, header: RequestHeader) -> ClientApi:
        """Raises Malformed for an API or a version that clients are not served: Kafka closes such a connection, too."""
        row = ROWS.get(header.api_key)
        api = self._served.get(header.api_key)
        if row is None or api is None:
            raise Malformed(f"API key {header.api_key} is not served to clients")
        if not row.oldest <= header.api_version <= row.newest:
            raise Malformed(f"{row.name} version {header.api_version}; {row.oldest} to {row.newest} are served")
        return api

    async def _wait(self, slot: _Slot, api: ClientApi, header: RequestHeader, message: TopLevel, answer: Any) -> None:
        try:
            response = await answer
        except Exception as error:  # noqa: BLE001 - each kind is told apart there
            self._failed(slot, api, header, message, error)
        else:
            self._answered(slot, header, api.response, response)

    def _has_come(
        self,
        slot: _Slot,
        api: ClientApi,
        header: RequestHeader,
        message: TopLevel,
        render: Callable[[Any], TopLevel | None],
        future: asyncio.Future[Any],
    ) -> None:
        if future.cancelled():
            return
        try:
            response = render(future.result())
        except Exception as error:  # noqa: BLE001 - each kind is told apart there
            self._failed(slot, api, header, message, error)
        else:
            self._answered(slot, header, api.response, response)

    def _failed(self, slot: _Slot, api: ClientApi, header: RequestHeader, message: TopLevel, error: Exception) -> None:
        if isinstance(error, KafkaError):
            try:
                self._answered(slot, header, api.response, api.refuse(message, header.api_version, error))
                return
            except CloseConnection as reason:
                error = reason
        if isinstance(error, (Malformed, CloseConnection)):
            LOG.info("closing %s: %s", self._connection.peer, error)
            self._connection.close()
        else:
            # Ours, not the client's: it learns that the outcome is unknown, the others are served on.
            name = ROWS[header.api_key].name
            LOG.error("%s of %s failed; closing that connection", name, self._connection.peer, exc_info=error)
            self._connection.abort()

    def _answer_api_versions(self, slot: _Slot, header: RequestHeader, frame: memoryview) -> None:
        offset = self._served.metadata_offset
        version, response, software = client_versions(header, frame, metadata_offset=offset)
        if software is not None:
            self.client.software_name, self.client.software_version = software
        self._answered(slot, header, type(response), response, version=version)

    def _answered(
        self,
        slot: _Slot,
        header: RequestHeader,
        kind: type[TopLevel],
        response: TopLevel | None,
        *,
        version: int | None = None,
    ) -> None:
        if response is not None:
            asked = header.api_version if version is None else version
            slot.parts = codec.encode_client_response(kind, asked, header.correlation_id, response)
        slot.is_done = True
        self._send_what_is_done()

    def _send_what_is_done(self) -> None:
        slots = self._slots
        while slots and slots[0].is_done:
            slot = slots.popleft()
            self._release(slot)
            self.activity += 1
            if slot.parts is not None:
                took_us = self._clock.monotonic_us() - slot.begun_us
                self._counts.answered(slot.api_key, slot.counted_as, sum(map(len, slot.parts)), took_us)
                self._connection.send(slot.parts)
        self._head_done.set()

    # --- room -------------------------------------------------------------------------------------------------

    async def _wait_for_room(self, header: RequestHeader, size: int) -> None:
        while len(self._slots) >= IN_FLIGHT_MAX or (header.api_key == FETCH and self._has_fetch):
            self._head_done.clear()
            await self._head_done.wait()
        await self._room.take(size)
        if header.api_key == PRODUCE:
            try:
                await self._produce_budget.take(size)
            except asyncio.CancelledError:
                self._room.give_back(size)
                raise

    def _takes_room(self, header: RequestHeader, size: int) -> bool:
        if (header.api_key == FETCH and self._has_fetch) or not self._room.try_take(size):
            return False
        if header.api_key == PRODUCE and not self._produce_budget.try_take(size):
            self._room.give_back(size)
            return False
        return True

    def _release(self, slot: _Slot) -> None:
        self._room.give_back(slot.size)
        if slot.api_key == PRODUCE:
            self._produce_budget.give_back(slot.size)
        elif slot.api_key == FETCH:
            self._has_fetch = False

    async def _end(self) -> None:
        waits = [slot.waits for slot in self._slots if slot.waits is not None]
        for future in waits:
            future.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        while self._slots:
            self._release(self._slots.popleft())


def _decoded(api: ClientApi, header: RequestHeader, frame: memoryview) -> TopLevel:
    offset = codec.body_offset(header, frame, is_flexible=header.api_version >= api.request.FLEXIBLE_FROM)
    return codec.decode_client_body(api.request, header.api_version, frame, offset)
