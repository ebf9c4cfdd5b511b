"""A server on loopback with fake replicas and a fake controller behind it, and peers that talk to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import uvloop

from kraft.broker.gateway import NodeInfo
from kraft.broker.node_facts import NodeFacts, Scope
from kraft.protocol.encoding import TopLevel
from kraft.protocol.errors import KafkaError, NotController
from kraft.protocol.primitives import Buffer
from kraft.runtime.environment import close_environment, system_environment
from kraft.runtime.network import CONNECTIONS_MAX
from kraft.wire.handler_table import ApiHandlers
from kraft.wire.metadata_fetches import MetadataFetches
from kraft.wire.node_parts import NodeParts
from kraft.wire.peers import Peers
from kraft.wire.server import ClientListener, WireServer
from metadata.controller.requests import ReplicaLogEnd
from metadata.environment import Environment
from metadata.image import MetadataImage, TopicIdPartition
from metadata.settings import BrokerSettings
from replication.manager.fetch import DeferredFetch
from replication.partition.log import EpochEnd
from replication.requests import FetchRequest, FetchResponse, OffsetAnswer, ProduceOptions, ProduceOutcome
from tests.support.node_call import node_call
from tests.support.node_parts import node_parts_of

CLUSTER = "test-cluster"
SECRET = "a long and random cluster secret"
TOPIC = UUID(int=0xABC)
T0 = TopicIdPartition(TOPIC, 0)
T1 = TopicIdPartition(TOPIC, 1)


class FakeController:
    def __init__(self) -> None:
        self.asked: list[tuple[Any, int]] = []
        self.answer: Any = None

    async def submit(self, request: Any, *, timeout_ms: int) -> Any:
        self.asked.append((request, timeout_ms))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class FakeReplicas:
    def __init__(self) -> None:
        self.fetched: list[FetchRequest] = []
        self.produced: list[tuple[Mapping[TopicIdPartition, Buffer], ProduceOptions]] = []
        self.on_fetch: Callable[[FetchRequest], Coroutine[Any, Any, FetchResponse]] | None = None
        self.fetch_answer = FetchResponse()
        self.outcomes: Mapping[TopicIdPartition, ProduceOutcome] = {}
        self.error: KafkaError | None = None
        self.ends: Sequence[ReplicaLogEnd] = ()
        self.epoch_end: EpochEnd | None = None
        self.asked: list[Any] = []
        self.offsets = self
        self.produce = SimpleNamespace(begin=self._begin_produce)
        self.fetch = SimpleNamespace(begin=self._begin_fetch)

    def _maybe_raise(self) -> None:
        if self.error is not None:
            raise self.error

    def _begin_fetch(self, request: FetchRequest) -> FetchResponse | DeferredFetch:
        self.fetched.append(request)
        self._maybe_raise()
        if self.on_fetch is None:
            return self.fetch_answer
        task = asyncio.get_running_loop().create_task(self.on_fetch(request))
        return DeferredFetch(task, task.result)

    def _begin_produce(
        self, batches: Mapping[TopicIdPartition, Buffer], options: ProduceOptions
    ) -> Mapping[TopicIdPartition, ProduceOutcome]:
        self.produced.append((batches, options))
        self._maybe_raise()
        return self.outcomes

    async def list_offset(
        self, partition: TopicIdPartition, timestamp: int, *, is_read_committed: bool = False, leader_epoch: int = -1
    ) -> OffsetAnswer:
        self.asked.append((partition, timestamp, is_read_committed))
        self._maybe_raise()
        return OffsetAnswer(offset=7, timestamp=8, leader_epoch=9)

    async def delete_records(self, partition: TopicIdPartition, *, offset: int, timeout_ms: int) -> int:
        self.asked.append((partition, offset, timeout_ms))
        self._maybe_raise()
        return offset + 1

    def offset_for_leader_epoch(
        self, partition: TopicIdPartition, epoch: int, *, current_leader_epoch: int
    ) -> EpochEnd | None:
        self.asked.append((partition, current_leader_epoch, epoch))
        self._maybe_raise()
        return self.epoch_end

    def log_ends(self, partitions: Sequence[TopicIdPartition]) -> Sequence[ReplicaLogEnd]:
        self.asked.append(tuple(partitions))
        return self.ends


@dataclass
class Loopback:
    environment: Environment
    server: WireServer
    replicas: FakeReplicas
    controller: FakeController
    lost: list[int] = field(default_factory=list)

    def peers(self, *, node_id: int = 2, password: str = SECRET, **options: Any) -> Peers:
        port = self.server.port
        return Peers(
            self.environment,
            node_id=node_id,
            password=password,
            address=lambda node, purpose: ("127.0.0.1", port),
            **options,
        )


class FakeGateway:
    """Of a node that knows of no topics and of no nodes."""

    authorizer = None
    quotas = None

    def __init__(self) -> None:
        self.node_id = 1
        self.image = MetadataImage()
        self.nodes: Mapping[int, NodeInfo] = {}
        self.settings = BrokerSettings()


def handlers_of(**parts: Any) -> ApiHandlers:
    """Handlers of a node that has these parts."""
    return ApiHandlers(parts_of(**parts))


class NobodyKnows:
    """In the place of what a node knows."""

    def facts(self, scope: Scope) -> NodeFacts:
        raise NotController


def parts_of(**parts: Any) -> NodeParts:
    return node_parts_of(**{"gateway": FakeGateway(), "facts": NobodyKnows(), **parts})


def answered(handlers: ApiHandlers, message: TopLevel, version: int) -> TopLevel:
    """What a handler answers a node, when nothing has to be waited for."""
    handler = handlers.get(message.API_KEY)
    assert handler is not None, message
    answer = handler.handle(node_call(message, version=version))
    return asyncio.run(answer) if asyncio.iscoroutine(answer) else cast(TopLevel, answer)


@asynccontextmanager
async def loopback(
    *,
    metadata: Callable[[Environment], MetadataFetches] | None = None,
    port: int = 0,
    clients: ApiHandlers | None = None,
    client_listeners: Sequence[ClientListener] = (),
    connections_max: int = CONNECTIONS_MAX,
    parts: Mapping[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[Loopback]:
    environment = system_environment(threads=1, connections_max=connections_max)
    replicas, controller, lost = FakeReplicas(), FakeController(), list[int]()
    fetches = None if metadata is None else metadata(environment)
    handlers = clients or handlers_of()
    handlers._parts = parts_of(
        environment=environment, controller=controller, metadata_fetches=fetches, replicas=replicas, **(parts or {})
    )
    server = WireServer(
        environment,
        host="127.0.0.1",
        port=port,
        cluster_id=CLUSTER,
        password=SECRET,
        handlers=handlers,
        serves_clients=clients is not None,
        settings=BrokerSettings(**settings),
        client_listeners=client_listeners,
        on_broker_connection_lost=lost.append,
    )
    await server.start()
    try:
        yield Loopback(environment, server, replicas, controller, lost)
    finally:
        await server.stop()
        close_environment(environment)


def run(main: Awaitable[None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await main

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bounded())


async def until(condition: Callable[[], bool], *, ms: int = 20_000) -> None:
    async with asyncio.timeout(ms / 1_000):
        while not condition():  # noqa: ASYNC110 - the condition is anything at all
            await asyncio.sleep(0.002)
