"""One connection to the Kafka port, from its first request to its end: that of a client, or of a node once it has
proved that it has the cluster's secret.

A client's requests begin in their order and are answered in their order, as Kafka does. A request begins when it has
arrived, unless an earlier request that is not answered yet could change what it does or sees
(`kraft.wire.handler_table.Order`): produces overlap each other and nothing waits for a long poll, but a write has its
effect before anything behind it begins. The answer waits until all before it are sent: Java, franz-go, sarama and the
Python clients close a connection that answers in another order. Bounds: `IN_FLIGHT_MAX` requests and
`socket.request.max.bytes` of them, one fetch (its answer may be as large as `fetch.max.bytes`), nothing new while the
client leaves much unread, and what the whole listener lets produce requests hold; then the client is held back by TCP.

A node's requests begin in their order too, and each is answered when it is done, found by its correlation id: one
connection carries the forwarded requests of many clients, which must not wait for each other. A fetch is begun a turn
of the loop after it has come, and answered a turn after it was woken: what producers have sent meanwhile goes with it.
At once, followers would carry away batch by batch, in twice as many rounds, and no sooner. Bounds:
`NODE_IN_FLIGHT_MAX` requests, beside them `NODE_FETCHES_MAX` fetches, and the same bytes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from kraft.broker.answer_budget import AnswerBudget
from kraft.broker.client_quotas import OWNER, ClientQuotas, Owner
from kraft.broker.principal import NodePrincipal, UserPrincipal, ask_for, decode_user, node_principal_of
from kraft.broker.processor_time import ProcessorTime, Timed
from kraft.protocol import apis, codec
from kraft.protocol.codec import Malformed, RequestHeader
from kraft.protocol.encoding import TooManyItems, TopLevel, Written
from kraft.protocol.errors import KafkaError
from kraft.protocol.primitives import Buffer
from kraft.values import new
from kraft.wire.api_handler import ApiHandler, Call, ClientConnection, CloseConnection, Later, Waiting
from kraft.wire.api_versions import client_versions, node_versions
from kraft.wire.budget import Budget
from kraft.wire.client_counts import ClientCounts
from kraft.wire.handler_table import ROWS, ApiHandlers, Order
from kraft.wire.large_requests import LargeRequests, at_once_max, read
from kraft.wire.request_pieces import AT_ONCE_MAX_OF, PIECE_ITEMS, PIECES
from kraft.wire.throttle_time import wait_of, with_wait
from metadata.controller.decide.client_quotas import CONSUMER_BYTE_RATE, PRODUCER_BYTE_RATE, REQUEST_PERCENTAGE
from metadata.environment import Clock, FrameConnection

LOG = logging.getLogger(__name__)

IN_FLIGHT_MAX = 128
"""Requests of one client that have begun and are not answered; the next is read when the first of them is."""
NODE_IN_FLIGHT_MAX = 256
"""Requests of one connection of a node; the next is read when one is answered."""
NODE_FETCHES_MAX = 4_096
"""Fetches of one connection of a node, beside them: most of them wait, and waiting costs no more than a place."""
STARTED_MAX = 32
"""Requests of one client that begin one after the other; then it is the turn of others. A client may have sent
thousands, and each costs."""
UNSENT_BYTES_MAX = 64 * 1024
"""Bytes of unsent answers of one client, beyond which no request of it begins; a larger answer is alone."""
PRODUCE = 0
FETCH = 1
SHARE_FETCH = apis.BY_NAME["ShareFetch"].key
AUTHENTICATION = (apis.SASL_HANDSHAKE.key, apis.SASL_AUTHENTICATE.key)
"""A node has done it before its session begins."""
READ_ORDER, PRODUCE_ORDER, WRITE_ORDER = Order.READ, Order.PRODUCE, Order.WRITE
CHANGES = frozenset(apis.BY_NAME[name].key for name in ("CreateTopics", "DeleteTopics", "CreatePartitions"))
"""What they change is counted by the active controller; their handlers note the wait in the answer (KIP-599)."""
ORDERS = {key: row.order for key, row in ROWS.items()}
"""API key -> order. ApiVersions is not among them: its answer depends on nothing that a request changes."""


@dataclass(slots=True, eq=False)
class _Slot:
    """The place of one request and its answer in a connection."""

    size: int
    header: RequestHeader
    order: Order
    begun_us: int = 0
    counted_as: str = ""
    """The client, in the counts."""
    parts: Sequence[Buffer] | None = None
    answer_size: int = 0
    """Size of its answer, as long as that counts (`AnswerBudget`)."""
    is_done: bool = False
    waits: asyncio.Future[Any] | None = None
    """What its answer waits for; cancelled when the connection has ended."""
    answer: Waiting | None = None
    """What `waits` runs; closed with it, because a task that is cancelled before its first turn never begins it."""
    asker: UserPrincipal | None = None
    """The user for whom a node asks."""
    time: ProcessorTime | None = None
    """What the loop spends for it, where the client has a quota of that."""
    goes_on: bool = False
    """A fetch goes on with its session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What all sessions of a server have in common: the handlers and the limits."""

    clock: Clock
    handlers: ApiHandlers
    bytes_max: int
    """Limit of the requests of one connection that are being served."""
    produce_budget: Budget
    """Only produce requests count: a follower's fetch must never wait for the produce that waits for it."""
    answers: AnswerBudget
    large: LargeRequests
    counts: ClientCounts = field(default_factory=ClientCounts)


def authenticates_as_node(header: RequestHeader) -> bool:
    """A SaslHandshake whose client id names a node. Clients that are set up to authenticate send one, too."""
    return header.api_key == apis.SASL_HANDSHAKE.key and node_principal_of(header.client_id) is not None


def _asker(data: bytes) -> UserPrincipal:
    """Raises Malformed."""
    try:
        return decode_user(data)
    except ValueError as error:
        raise Malformed(f"the user of a forwarded request: {error}") from error


class Session:
    """One connection, from its first request to its end."""

    def __init__(
        self, shared: Shared, connection: FrameConnection, client: ClientConnection, *, takes_nodes: bool
    ) -> None:
        """`takes_nodes`: at this listener nodes authenticate."""
        self._shared = shared
        self._connection = connection
        self.client = client
        self._is_node = isinstance(client.principal, NodePrincipal)
        self._room = Budget(shared.bytes_max)
        self._unsent_size = 0
        """Bytes of answers that are done and wait for those before them."""
        self._started = 0
        """Since others had their turn."""
        self._slots: deque[_Slot] = deque()
        """Requests of a client, in their order."""
        self._node_slots: set[_Slot] = set()
        self._has_room = asyncio.Event()
        """A request is answered, so that another one may begin."""
        self._takes_nodes = takes_nodes
        self._has_asked = False
        """More than ApiVersions: a node authenticates before it asks for anything else."""
        self._has_caught_up = self._has_ended = False
        self._fetches = 0
        """Those that are not answered yet."""
        self._has_write = False
        """One that is not done yet: nothing begins meanwhile."""
        self._produces = 0
        """Those that are not done yet."""
        self._muted_until_ms = 0
        """Until then nothing is read of a client that is over its quota."""
        self._serving: asyncio.Task[Any] | None = None
        self.activity = 0
        """Requests begun and answers sent."""

    # --- what the listener asks (`kraft.wire.connection_watch`) ------------------------------------------------

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

    async def serve(self, first: memoryview | None = None) -> memoryview | None:
        """Serves the peer, whose first request is `first` if it has come. Raises ConnectionClosed when the connection
        breaks; returns None when the peer sent what no peer sends and has to be closed. When a client begins to
        authenticate as a node, where nodes come, before it has asked for anything else, its SaslHandshake is returned,
        and nothing has been served.
        """
        self._serving = asyncio.current_task()
        try:
            frame = first if first is not None else await self._connection.receive_while(self._starts_at_once)
            while True:
                header = codec.decode_request_head(frame)
                if self._authenticates(header):
                    return frame
                if not self._may_serve():
                    return None
                if self._started >= STARTED_MAX and not self._is_node:
                    await self._shared.clock.sleep(0)
                    self._started = 0
                await self._connection.drain()
                if self._muted_until_ms:
                    await self._wait_muted()
                await self._wait_for_room(header, len(frame))
                self._start(header, frame)
                frame = await self._connection.receive_while(self._starts_at_once)
        except (Malformed, CloseConnection) as error:
            LOG.warning("closing %s: %s", self._connection.peer, error)
            return None
        finally:
            await self._end()

    def _authenticates(self, header: RequestHeader) -> bool:
        """Whether the peer authenticates as a node: with its first request, apart from ApiVersions."""
        return self._takes_nodes and not (self._has_asked or self._slots) and authenticates_as_node(header)

    def _may_serve(self) -> bool:
        """Before its metadata has caught up with the quorum, a broker would tell clients what was true in an earlier
        life; Kafka's opens its port no sooner, and ours has to be open for nodes. The connection is reset, as at a port
        that is not open: franz-go takes one that is closed before its first answer for TLS, and gives up."""
        if not (self._has_caught_up or self._is_node):
            if awaited := self._shared.handlers.awaited():
                LOG.warning("resetting %s: clients are not served yet: %s", self._connection.peer, awaited)
                self._connection.abort()
                return False
            self._has_caught_up = True
        return not self._has_lost_login()

    def _has_lost_login(self) -> bool:
        """A login that was repeated has failed."""
        login = self.client.login
        return login is not None and login.has_failed

    def _starts_at_once(self, frame: memoryview) -> bool:
        """False: something has to be waited for first. Nothing was begun then."""
        if not self._connection.is_writable or (self._started >= STARTED_MAX and not self._is_node):
            return False
        if self._muted_until_ms or self._has_lost_login():
            return False
        header = codec.decode_request_head(frame)
        if self._authenticates(header) or self._has_to_wait(header) or not self._takes_room(header, len(frame)):
            return False
        self._start(header, frame)
        return True

    # --- one request ----------------------------------------------------------------------------------------

    def _start(self, header: RequestHeader, frame: memoryview) -> None:
        """There is room for it. Raises Malformed."""
        if self._is_node:
            self._start_of_node(header, frame)
        else:
            self._start_of_client(header, frame)

    def _start_of_node(self, header: RequestHeader, frame: memoryview) -> None:
        slot = _Slot(len(frame), header, READ_ORDER)
        self._node_slots.add(slot)
        if header.api_key == apis.API_VERSIONS.key:
            version, response = node_versions(header.api_version)
            self._answered(slot, type(response), response, version=version)
            return
        if header.api_key == FETCH:
            self._fetches += 1
        api = self._handler(header)
        message, timeout_ms, asked_for = codec.decode_request(api.request, header, frame)
        asker = None if asked_for is None else _asker(asked_for)
        if asker is not None or OWNER.get() is not None:
            OWNER.set(None if asker is None else Owner(asker.name, asker.client_id, asker.is_permissive))
        slot.asker = None if asker is None or asker.is_anonymous else asker
        call = self._call(header, message, timeout_ms, slot.asker)
        if header.api_key == FETCH:
            asyncio.get_running_loop().call_soon(self._handle, slot, api, call)
        else:
            self._handle(slot, api, call)

    def _start_of_client(self, header: RequestHeader, frame: memoryview) -> None:
        key, shared = header.api_key, self._shared
        time = None
        if (quotas := shared.handlers.quotas) is not None:
            owner = Owner(self.client.principal.name, header.client_id)
            OWNER.set(owner)
            time = ProcessorTime(shared.clock) if quotas.limits(REQUEST_PERCENTAGE, owner) else None
        slot = _Slot(
            len(frame),
            header,
            ORDERS.get(key, READ_ORDER),
            begun_us=shared.clock.monotonic_us(),
            counted_as=shared.counts.begun(key, header.client_id, len(frame)),
            time=time,
        )
        self._slots.append(slot)
        if slot.order is PRODUCE_ORDER:
            self._produces += 1
        elif slot.order is WRITE_ORDER:
            self._has_write = True
        self._started += 1
        self.activity += 1
        if key == FETCH:
            self._fetches += 1
        self._begin(slot, frame)
        if time is not None:
            time.pause()

    def _begin(self, slot: _Slot, frame: memoryview) -> None:
        header, key = slot.header, slot.header.api_key
        if key == apis.API_VERSIONS.key:
            self._answer_api_versions(slot, frame)
            return
        self._has_asked = True
        api = self._handler(header)
        try:
            message, items = read(api, header, frame, items_max=at_once_max(key, len(frame)))
        except TooManyItems:
            self._start_large(slot, api, frame)
            return
        if key == FETCH:
            slot.goes_on = cast(Any, message).session_epoch > 0
        self._handle(
            slot,
            api,
            self._call(header, message),
            is_cut=items > AT_ONCE_MAX_OF.get(key, PIECE_ITEMS) and key in PIECES,
        )

    def _start_large(self, slot: _Slot, api: ApiHandler, frame: memoryview) -> None:
        """Raises Malformed for a produce: what is behind it would be appended before it."""
        header = slot.header
        if slot.order is PRODUCE_ORDER:
            items = at_once_max(header.api_key, len(frame))
            raise Malformed(f"{apis.BY_KEY[header.api_key].name} has more than {items} items: send several requests")
        self._answer_later(slot, api, None, self._shared.large.answer(api, header, frame, self.client))

    def _call(
        self,
        header: RequestHeader,
        message: TopLevel,
        timeout_ms: int | None = None,
        asker: UserPrincipal | None = None,
    ) -> Call[Any]:
        call: Call[Any] = new(Call)
        Call.__init__(
            call,
            message=message,
            version=header.api_version,
            client_id=header.client_id,
            connection=self.client,
            timeout_ms=timeout_ms,
            asker=asker,
        )
        return call

    def _handler(self, header: RequestHeader) -> ApiHandler:
        """The one place that decides who may ask for what. Raises Malformed for an API or a version that the peer may
        not ask for: Kafka closes such a connection, too."""
        key = header.api_key
        api = apis.BY_KEY.get(key)
        if api is None:
            versions = range(0)
        elif self._is_node:
            versions = range(0) if key in AUTHENTICATION else api.nodes
        else:
            versions = api.clients
        if header.api_version not in versions:
            if api is None or not versions:
                raise Malformed(f"API key {key} is not served to {'nodes' if self._is_node else 'clients'}")
            raise Malformed(f"{api.name} version {header.api_version}; {versions[0]} to {versions[-1]} are served")
        handler = self._shared.handlers.get(key)
        assert handler is not None, key
        return handler

    def _handle(self, slot: _Slot, api: ApiHandler, call: Call[Any], *, is_cut: bool = False) -> None:
        if self._has_ended:
            return
        try:
            answer = self._shared.large.in_pieces(api, call) if is_cut else api.handle(call)
        except Exception as error:  # noqa: BLE001 - `_failed` has an answer for each kind
            self._failed(slot, api, call.message, error)
            return
        if answer is None or isinstance(answer, TopLevel):
            self._answered(slot, api.response, answer)
        else:
            self._answer_later(slot, api, call.message, answer)

    def _answer_later(self, slot: _Slot, api: ApiHandler, message: TopLevel | None, answer: Later | Waiting) -> None:
        if not isinstance(answer, Later):
            slot.answer = answer
            slot.waits = asyncio.ensure_future(self._wait(slot, api, message, answer))
            return
        slot.waits = answer.future
        has_come = partial(self._has_come, slot, api, message, answer.render)
        if self._is_node and slot.header.api_key == FETCH:
            answer.future.add_done_callback(partial(asyncio.get_running_loop().call_soon, has_come))
        else:
            answer.future.add_done_callback(has_come)

    async def _wait(self, slot: _Slot, api: ApiHandler, message: TopLevel | None, answer: Waiting) -> None:
        """The answer is counted in the turn of the loop in which it was made: a callback of its future would run a
        turn later, when other fetches have already read into the same room of `AnswerBudget`."""
        ask_for(slot.asker or self.client.principal)
        try:
            response = await (answer if slot.time is None else Timed(answer, slot.time))
        except Exception as error:  # noqa: BLE001 - `_failed` has an answer for each kind
            if not self._has_ended:
                self._failed(slot, api, message, error)
        else:
            if not self._has_ended:
                self._answered(slot, api.response, response)

    def _has_come(
        self,
        slot: _Slot,
        api: ApiHandler,
        message: TopLevel | None,
        render: Callable[[Any], TopLevel | None],
        future: asyncio.Future[Any],
    ) -> None:
        if future.cancelled() or self._has_ended:
            return
        if slot.time is not None:
            slot.time.resume()
        try:
            response = render(future.result())
        except Exception as error:  # noqa: BLE001 - `_failed` has an answer for each kind
            self._failed(slot, api, message, error)
        else:
            self._answered(slot, api.response, response)

    def _failed(self, slot: _Slot, api: ApiHandler, message: TopLevel | None, error: Exception) -> None:
        if isinstance(error, KafkaError):
            try:
                response: TopLevel | None = api.refuse(message, slot.header.api_version, error)
                if error.wait_ms and not self._is_node:
                    response = self._throttle(slot, api.response, response, error.wait_ms)
                self._answered(slot, api.response, response, refused=error if self._is_node else None)
                return
            except CloseConnection as reason:
                error = reason
        if isinstance(error, (Malformed, CloseConnection)):
            # To close it is the answer to a failed produce with acks=0. What is malformed nobody else reports.
            level = logging.WARNING if isinstance(error, Malformed) else logging.INFO
            LOG.log(level, "closing %s: %s", self._connection.peer, error)
            self._connection.close()
        else:
            self._end_after(slot, error)

    def _end_after(self, slot: _Slot, error: Exception) -> None:
        """A fault of ours, not the peer's: it learns that the outcome is unknown, the others are served on."""
        key, peer = slot.header.api_key, self._connection.peer
        LOG.error("%s of %s failed; closing that connection", apis.BY_KEY[key].name, peer, exc_info=error)
        self._connection.abort()

    def _answer_api_versions(self, slot: _Slot, frame: memoryview) -> None:
        offset = self._shared.handlers.metadata_offset
        version, response, software = client_versions(slot.header, frame, metadata_offset=offset)
        if software is not None:
            self.client.software_name, self.client.software_version = software
        self._answered(slot, type(response), response, version=version)

    # --- answers --------------------------------------------------------------------------------------------

    def _answered(
        self,
        slot: _Slot,
        kind: type[TopLevel],
        response: TopLevel | None,
        *,
        version: int | None = None,
        refused: KafkaError | None = None,
    ) -> None:
        quotas = None if self._is_node else self._shared.handlers.quotas
        if quotas is not None:
            response = self._count(quotas, slot, kind, response)
        if response is not None:
            asked = slot.header.api_version if version is None else version
            if slot.time is not None:
                slot.time.resume()
            try:
                slot.parts = codec.encode_response(kind, asked, slot.header.correlation_id, response, refused=refused)
            except Exception as error:  # noqa: BLE001 - ours: the others are served on
                self._end_after(slot, error)
        if self._is_node:
            self._node_slots.discard(slot)
            if slot.parts is not None:
                self._connection.send(slot.parts)
            self._release(slot)
            self._has_room.set()
            return
        if slot.time is not None and quotas is not None:  # Kafka also adds the time of the answer without a wait
            owner = Owner(self.client.principal.name, slot.header.client_id)
            quotas.used(REQUEST_PERCENTAGE, owner, slot.time.take_percent(), self._shared.clock.monotonic_ms())
            slot.time.pause()
        if slot.parts is not None:
            slot.answer_size = size = sum(map(len, slot.parts))
            self._unsent_size += size
            self._shared.answers.hold(size)
        slot.is_done = True
        if slot.order is PRODUCE_ORDER:
            self._produces -= 1
        elif slot.order is WRITE_ORDER:
            self._has_write = False
        self._send_what_is_done()

    def _count(
        self, quotas: ClientQuotas, slot: _Slot, kind: type[TopLevel], response: TopLevel | None
    ) -> TopLevel | None:
        """Count the bytes of a produce or a fetch, and the time of any request. Beyond its quota, a client learns from
        the answer how long it has to wait, and nothing more is read of it until then; the answer to a fetch is empty
        (KIP-219). A share fetch has acquired its records, and gets them."""
        key, time = slot.header.api_key, slot.time
        if time is None and key not in (PRODUCE, FETCH, SHARE_FETCH):
            if key in CHANGES and (noted_ms := wait_of(kind, slot.header.api_version, response)):
                return self._throttle(slot, kind, response, noted_ms)
            return response
        owner = Owner(self.client.principal.name, slot.header.client_id)
        now_ms = self._shared.clock.monotonic_ms()
        time_ms = 0 if time is None else quotas.worked(owner, time.take_percent(), now_ms)
        wait_ms, is_refused = time_ms, False
        if key == PRODUCE:
            wait_ms = quotas.used(PRODUCER_BYTE_RATE, owner, slot.size, now_ms)
        elif key == SHARE_FETCH:
            wait_ms = quotas.used(CONSUMER_BYTE_RATE, owner, _records_size(response), now_ms)
        elif key == FETCH:
            size = _records_size(response)
            is_refused = time_ms > 0 and size > 0
            if not is_refused:
                wait_ms, is_refused = quotas.fetched(owner, size, now_ms)
        wait_ms = max(wait_ms, time_ms)
        if is_refused:
            session_id = getattr(response, "session_id", 0) if slot.goes_on else 0
            response = cast(Any, kind).make(session_id=session_id)
        return self._throttle(slot, kind, response, wait_ms) if wait_ms else response

    def _throttle(self, slot: _Slot, kind: type[TopLevel], response: TopLevel | None, wait_ms: int) -> TopLevel | None:
        self._muted_until_ms = max(self._muted_until_ms, self._shared.clock.monotonic_ms() + wait_ms)
        return with_wait(kind, slot.header.api_version, response, wait_ms)

    async def _wait_muted(self) -> None:
        left_ms = self._muted_until_ms - self._shared.clock.monotonic_ms()
        if left_ms > 0:
            await self._shared.clock.sleep(left_ms)
        self._muted_until_ms = 0

    def _send_what_is_done(self) -> None:
        slots, answers = self._slots, self._shared.answers
        while slots and slots[0].is_done:
            slot = slots.popleft()
            parts, size = slot.parts, slot.answer_size
            self.activity += 1
            if parts is not None:
                took_us = self._shared.clock.monotonic_us() - slot.begun_us
                self._shared.counts.answered(slot.header.api_key, slot.counted_as, size, took_us)
                self._connection.send(parts)
                if not self._connection.is_writable:
                    slot.answer_size = 0
                    self._unsent_size -= size
                    self._connection.when_taken(partial(answers.give_back, size))
            self._release(slot)
        self._has_room.set()

    # --- room -------------------------------------------------------------------------------------------------

    async def _wait_for_room(self, header: RequestHeader, size: int) -> None:
        while self._has_to_wait(header):
            self._has_room.clear()
            await self._has_room.wait()
        await self._room.take(size)
        if header.api_key == PRODUCE:
            try:
                await self._shared.produce_budget.take(size)
            except asyncio.CancelledError:
                self._room.give_back(size)
                raise

    def _has_to_wait(self, header: RequestHeader) -> bool:
        """Whether a request waits for requests before it: a client's fetch for a fetch, as its answer may be large, and
        every request by the order of its API."""
        key = header.api_key
        if self._is_node:
            if key == FETCH:
                return self._fetches >= NODE_FETCHES_MAX
            return len(self._node_slots) - self._fetches >= NODE_IN_FLIGHT_MAX and key != apis.API_VERSIONS.key
        if len(self._slots) >= IN_FLIGHT_MAX or self._unsent_size > UNSENT_BYTES_MAX:
            return True
        if self._has_write:
            return key != apis.API_VERSIONS.key
        if self._fetches and key == FETCH:
            return True
        return self._produces > 0 and ORDERS.get(key, PRODUCE_ORDER) is not PRODUCE_ORDER

    def _takes_room(self, header: RequestHeader, size: int) -> bool:
        if not self._room.try_take(size):
            return False
        if header.api_key == PRODUCE and not self._shared.produce_budget.try_take(size):
            self._room.give_back(size)
            return False
        return True

    def _release(self, slot: _Slot) -> None:
        self._room.give_back(slot.size)
        if slot.answer_size:
            self._unsent_size -= slot.answer_size
            self._shared.answers.give_back(slot.answer_size)
        if slot.header.api_key == PRODUCE:
            self._shared.produce_budget.give_back(slot.size)
        elif slot.header.api_key == FETCH:
            self._fetches -= 1

    async def _end(self) -> None:
        self._has_ended = True
        waits = [slot.waits for slot in (*self._slots, *self._node_slots) if slot.waits is not None]
        for future in waits:
            future.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        for slot in (*self._slots, *self._node_slots):
            if slot.answer is not None:
                slot.answer.close()
            self._release(slot)
        for call in self.client.on_ended.values():
            call()
        self._slots.clear()
        self._node_slots.clear()


def _records_size(response: Any) -> int:
    """Bytes of records in the answer to a fetch."""
    if isinstance(response, Written):
        return sum(map(len, response.parts))
    topics = () if response is None else response.responses
    return sum(len(each.records) for topic in topics for each in topic.partitions if each.records)
