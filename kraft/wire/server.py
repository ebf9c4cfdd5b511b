"""The node's Kafka listeners: one session per connection; a bad one costs only itself.

Nodes and clients share the first listener: a peer that begins to authenticate is a node, if it has the cluster's
secret. The other listeners are for clients alone. Each has a name, so that its clients get addresses that they can
reach.
When the last authenticated `controller` connection of a broker ends, the server calls back at once: the active
controller then probes the broker's port and fences it if nobody listens there, long before its session times out.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from kraft.broker.answer_budget import AnswerBudget
from kraft.broker.client_events import ClientEvents
from kraft.broker.measures import Measure
from kraft.broker.principal import NodePrincipal, host_of
from kraft.protocol import codec, scram
from kraft.protocol.codec import Malformed
from kraft.wire.api_handler import ClientConnection
from kraft.wire.budget import Budget
from kraft.wire.client_authentication import LOGIN_FRAME_BYTES_MAX, ClientAuthentication
from kraft.wire.connection_quotas import ConnectionQuotas, connection_quotas
from kraft.wire.connection_watch import ClientWatch
from kraft.wire.handler_table import ApiHandlers
from kraft.wire.large_requests import LargeRequests
from kraft.wire.listener_security import PLAINTEXT, ListenerSecurity
from kraft.wire.node_authentication import NodeAuthentication
from kraft.wire.session import UNSENT_BYTES_MAX, Session, Shared, authenticates_as_node
from metadata.environment import Environment, FrameConnection, FrameListener, OnConnection
from metadata.image import DEFAULT_LISTENER
from metadata.settings import BrokerSettings
from metadata.unauthenticated import KAFKA_LISTENER

LOG = logging.getLogger(__name__)

NODE_PLACES = 64
"""Connections that clients leave to nodes, however many clients come: each node has several to each other."""

OnBrokerLost = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class ClientListener:
    """A listener for Kafka clients alone: nodes authenticate at the first one. Its name chooses the addresses
    that its clients get.
    """

    name: str
    host: str
    port: int
    security: ListenerSecurity = PLAINTEXT


class WireServer:
    """The Kafka port of a node and its further listeners for clients."""

    def __init__(
        self,
        environment: Environment,
        *,
        host: str,
        port: int,
        cluster_id: str,
        password: str,
        handlers: ApiHandlers,
        serves_clients: bool,
        settings: BrokerSettings,
        answers: AnswerBudget | None = None,
        client_listeners: Sequence[ClientListener] = (),
        security: ListenerSecurity = PLAINTEXT,
        on_broker_connection_lost: OnBrokerLost | None = None,
        client_events: ClientEvents | None = None,
    ) -> None:
        """A node without the broker role serves no clients: it takes nodes only. `answers` is the node's memory for
        answers, of its own where none is given. `security` is that of the first listener.
        `on_broker_connection_lost` gets the id of a broker when its last authenticated `controller` connection ends.
        """
        self._environment = environment
        self._serves_clients = serves_clients
        first = ClientListener(DEFAULT_LISTENER, host, port, security)
        self._by_name = {each.name: each for each in (first, *client_listeners)}
        places = environment.network.connections_max
        self._client_places = min(settings.max_connections, places - min(NODE_PLACES, places // 2))
        self._places = min(self._client_places + NODE_PLACES, places) if serves_clients else settings.max_connections
        memory = settings.queued_max_request_bytes
        self._arriving_bytes_max = memory // 2 if serves_clients else None
        self._send_buffer_bytes = settings.socket_send_buffer_bytes
        answers = answers or AnswerBudget(settings.queued_max_response_bytes)
        credential = scram.credential(password, salt=scram.salt_of(cluster_id))
        frame_max = settings.socket_request_max_bytes
        self._nodes = NodeAuthentication(environment, credential, handlers, frame_bytes_max=frame_max)
        self._clients = ClientAuthentication(environment, handlers, self._nodes.unauthenticated)
        self._shared = Shared(
            clock=environment.clock,
            handlers=handlers,
            bytes_max=frame_max,
            produce_budget=Budget(memory // 2 if serves_clients else memory),
            answers=answers,
            large=LargeRequests(environment, items_max=settings.socket_request_max_items),
        )
        self.watch = ClientWatch(environment.clock, idle_ms_max=settings.connections_max_idle_ms, answers=answers)
        self.counts = self._shared.counts
        self._on_broker_connection_lost, self._client_events = on_broker_connection_lost, client_events
        self._listeners: list[FrameListener] = []
        self._open, self._is_stopping = 0, False
        self._controller_connections: Counter[int] = Counter()

    @cached_property
    def _by_address(self) -> ConnectionQuotas:
        return connection_quotas(self._environment.clock, self._shared.handlers)

    @property
    def port(self) -> int:
        """The port of the first listener, which the system has chosen where 0 was asked for."""
        return self.ports[DEFAULT_LISTENER]

    @property
    def ports(self) -> Mapping[str, int]:
        """The port of each listener, by the listener's name."""
        assert self._listeners, "not started"
        return {name: listener.port for name, listener in zip(self._by_name, self._listeners, strict=True)}

    def measures(self) -> Sequence[Measure]:
        """Counters of clients' requests for /metrics; there are none on a node that serves no clients."""
        return self.counts.measures(self.watch.clients) if self._serves_clients else ()

    @property
    def connections(self) -> int:
        """Connections that are open now, those of nodes, clients and unauthenticated ones together."""
        return self._open

    async def start(self) -> None:
        """Listens. Raises OSError when a port is taken."""
        for name, each in self._by_name.items():
            await self._listen(
                each, self._serve if name == DEFAULT_LISTENER else partial(self._serve_clients_only, name)
            )

    async def _listen(self, listener: ClientListener, serve: OnConnection) -> None:
        first = self._nodes.frame_bytes_max if self._serves_clients else KAFKA_LISTENER.frame_bytes_max
        if listener.security.login is not None:
            first = min(first, LOGIN_FRAME_BYTES_MAX)
        self._listeners.append(
            await self._environment.network.listen(
                listener.host,
                listener.port,
                serve,
                frame_bytes_max=first,
                arriving_bytes_max=self._arriving_bytes_max,
                tls=listener.security.tls,
            )
        )

    async def stop(self) -> None:
        """Closes the listeners and their connections; requests under way are cancelled."""
        self._is_stopping = True
        for listener in self._listeners:
            await listener.close()

    async def _serve(self, connection: FrameConnection) -> None:
        if not self._has_place(connection):
            return
        self._open += 1
        try:
            first = await self._nodes.first_frame(connection)
            if first is not None and self._serves_clients:
                first = await self._serve_client(DEFAULT_LISTENER, connection, first)
            needs_tls = self._by_name[DEFAULT_LISTENER].security.nodes_need_tls
            if first is not None and needs_tls and not connection.is_encrypted:
                LOG.warning("refusing %s: a node without TLS (tls_mode)", connection.peer)
                return
            if first is not None and (principal := await self._nodes.principal(connection, first)) is not None:
                await self._serve_node(connection, principal)
        finally:
            self._open -= 1

    async def _serve_clients_only(self, listener: str, connection: FrameConnection) -> None:
        if not self._has_place(connection):
            return
        self._open += 1
        try:
            first = await self._nodes.first_frame(connection)
            if first is not None:
                await self._serve_client(listener, connection, first)
        finally:
            self._open -= 1

    def _has_place(self, connection: FrameConnection) -> bool:
        """Whether a place is free. When all are taken, a connection that has not authenticated loses its place."""
        if self._open < self._places or self._nodes.unauthenticated.end_one(connection):
            return True
        self._refuse(connection, f"{self._open} connections are open (max.connections)")
        return False

    def _refuse(self, connection: FrameConnection, why: str) -> None:
        LOG.warning("refusing %s: %s", connection.peer, why)
        self.counts.refused += 1
        if self._client_events is not None:
            self._client_events.refused(host=host_of(connection.peer), reason=why)
        connection.abort()

    async def _serve_client(self, listener: str, connection: FrameConnection, first: memoryview) -> memoryview | None:
        """What is left of it, if it turns out to be a node that authenticates."""
        takes_nodes = listener == DEFAULT_LISTENER
        if takes_nodes and _authenticates(first):
            return first
        if self._by_name[listener].security.clients_need_tls and not connection.is_encrypted:
            self._refuse(connection, "a client without TLS at a port that needs it")
            return None
        if len(self.watch) >= self._client_places:
            self._refuse(connection, f"{len(self.watch)} clients are connected (max.connections)")
            return None
        host = host_of(connection.peer)
        if why := self._by_address.refusal(host):
            self._refuse(connection, why)
            return None
        with self._by_address.counting(host):
            if delay_ms := self._by_address.delay_ms():
                await self._environment.clock.sleep(delay_ms)
            return await self._serve_admitted(listener, connection, first, takes_nodes=takes_nodes)

    async def _serve_admitted(
        self, listener: str, connection: FrameConnection, first: memoryview, *, takes_nodes: bool
    ) -> memoryview | None:
        if self._send_buffer_bytes >= 0:
            connection.bound_send_buffer(self._send_buffer_bytes)
        connection.bound_unsent(UNSENT_BYTES_MAX)
        security = self._by_name[listener].security
        principal = security.principal(connection)
        if principal is None:
            self._refuse(connection, "ssl.principal.mapping.rules makes no user of its certificate")
            return None
        client = ClientConnection(peer=connection.peer, listener=listener, principal=principal)
        if security.login is not None:
            node = await self._clients.log_in(security.login, connection, first, client, takes_nodes=takes_nodes)
            if client.login is None or client.login.login is None:
                return node
            connection.take_frames(bytes_max=self._nodes.frame_bytes_max, is_trusted=False)
            first = await connection.receive()
        session = Session(self._shared, connection, client, takes_nodes=takes_nodes)
        with self.watch.watching(session):
            return await session.serve(first)

    async def _serve_node(self, connection: FrameConnection, principal: NodePrincipal) -> None:
        node = ClientConnection(peer=connection.peer, listener=DEFAULT_LISTENER, principal=principal)
        session = Session(self._shared, connection, node, takes_nodes=False)
        if principal.purpose != "controller":
            await session.serve()
            return
        broker_id = principal.node_id
        self._controller_connections[broker_id] += 1
        try:
            await session.serve()
        finally:
            self._controller_connections[broker_id] -= 1
            if self._controller_connections[broker_id] == 0:
                del self._controller_connections[broker_id]
                self._tell_lost(broker_id)

    def _tell_lost(self, broker_id: int) -> None:
        if self._on_broker_connection_lost is not None and not self._is_stopping:
            self._on_broker_connection_lost(broker_id)


def _authenticates(first: memoryview) -> bool:
    """Whether the first request authenticates a node. Clients may send ApiVersions first."""
    try:
        return authenticates_as_node(codec.decode_request_head(first))
    except Malformed:
        return False  # the session answers it
