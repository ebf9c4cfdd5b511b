"""The node's Kafka listener: one session per connection; a bad one costs only itself.

When the last authenticated `controller` connection of a broker ends, whoever listens is told at once: the active
controller then probes the broker's port and fences it if nobody listens there, long before its session times out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from kraft.wire import scram
from kraft.wire.budget import Budget
from kraft.wire.clients.served import ClientConnection
from kraft.wire.clients.session import ClientSession
from kraft.wire.clients.table import ClientApis
from kraft.wire.handlers.served import Served
from kraft.wire.principal import Principal
from kraft.wire.session import Session, Shared
from metadata.environment import Environment, FrameConnection, FrameListener
from metadata.image import DEFAULT_LISTENER
from metadata.settings import BrokerSettings
from metadata.strangers import KAFKA_LISTENER, Strangers

OnBrokerLost = Callable[[int], None]


class WireServer:
    def __init__(
        self,
        environment: Environment,
        *,
        host: str,
        port: int,
        cluster_id: str,
        password: str,
        handlers: Mapping[int, Served],
        settings: BrokerSettings,
        clients: ClientApis | None = None,
        on_broker_connection_lost: OnBrokerLost | None = None,
    ) -> None:
        """`clients` is None on a node without the broker role: it takes nodes only."""
        self._environment = environment
        self._host = host
        self._asked_port = port
        self._connections_max = settings.max_connections
        self._shared = Shared(
            environment=environment,
            credential=scram.credential(password, salt=scram.salt_of(cluster_id)),
            handlers=handlers,
            connection_bytes_max=settings.socket_request_max_bytes,
            produce_budget=Budget(settings.queued_max_request_bytes),
            strangers=Strangers(KAFKA_LISTENER),
            frame_bytes_max=settings.socket_request_max_bytes,
        )
        self._clients = clients
        self._on_broker_connection_lost = on_broker_connection_lost
        self._listener: FrameListener | None = None
        self._open = 0
        self._controller_connections: Counter[int] = Counter()
        self._is_stopping = False

    @property
    def port(self) -> int:
        assert self._listener is not None, "not started"
        return self._listener.port

    @property
    def connections(self) -> int:
        return self._open

    async def start(self) -> None:
        """Raises OSError when the port is taken."""
        self._listener = await self._environment.network.listen(
            self._host, self._asked_port, self._serve, frame_bytes_max=KAFKA_LISTENER.frame_bytes_max
        )

    async def stop(self) -> None:
        self._is_stopping = True
        if self._listener is not None:
            await self._listener.close()

    async def _serve(self, connection: FrameConnection) -> None:
        if self._open >= self._connections_max:
            connection.abort()
            return
        self._open += 1
        try:
            session = Session(self._shared, connection)
            first = await session.first_frame()
            if first is not None and self._clients is not None:
                first = await self._serve_client(connection, first)
            if first is not None and (principal := await session.authenticate(first)) is not None:
                await self._serve_principal(session, principal)
        finally:
            self._open -= 1

    async def _serve_client(self, connection: FrameConnection, first: memoryview) -> memoryview | None:
        """What is left of it, if it turns out to be a node that authenticates."""
        assert self._clients is not None, self
        connection.take_frames(bytes_max=self._shared.frame_bytes_max)
        session = ClientSession(
            self._clients,
            connection,
            ClientConnection(peer=connection.peer, listener=DEFAULT_LISTENER),
            bytes_max=self._shared.connection_bytes_max,
            produce_budget=self._shared.produce_budget,
        )
        return await session.serve(first)

    async def _serve_principal(self, session: Session, principal: Principal) -> None:
        if principal.purpose != "controller":
            await session.serve(principal)
            return
        broker_id = principal.node_id
        self._controller_connections[broker_id] += 1
        try:
            await session.serve(principal)
        finally:
            self._controller_connections[broker_id] -= 1
            if self._controller_connections[broker_id] == 0:
                del self._controller_connections[broker_id]
                self._tell_lost(broker_id)

    def _tell_lost(self, broker_id: int) -> None:
        if self._on_broker_connection_lost is not None and not self._is_stopping:
            self._on_broker_connection_lost(broker_id)
