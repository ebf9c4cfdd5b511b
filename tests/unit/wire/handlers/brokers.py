"""Three brokers with real logs in virtual time, and a client of each: requests and answers go through their bytes."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Any, TypeVar, cast

from kraft.broker.answer_budget import AnswerBudget
from kraft.broker.transactional_produce import TransactionalProduce
from kraft.chaos.worlds.simulated.disk import Disk, SimulatedFiles
from kraft.protocol import codec
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.encoding import TopLevel
from kraft.protocol.errors import KafkaError
from kraft.wire.api_handler import ApiHandler, Call, ClientConnection, Later
from kraft.wire.handler_table import ApiHandlers
from metadata.environment import Files
from metadata.settings import BrokerSettings
from replication.storage.log_manager import LogManager
from tests.support.admin_client import NothingLost
from tests.support.node_parts import node_parts_of
from tests.unit.replication.harness.cluster import Cluster, Recorder
from tests.unit.replication.harness.virtual import environment

NOW_MS = 1_700_000_000_000
Response = TypeVar("Response", bound=TopLevel)


class ProducerIds:
    def __init__(self) -> None:
        self._next = 1_000

    async def next_id(self) -> int:
        self._next += 1
        return self._next


class Brokers(Cluster):
    """Its brokers have numbers from 1 on and listen, on paper, at `k:1` and so on."""

    def __init__(self, nodes: int = 3, **settings: Any) -> None:
        super().__init__(nodes, logs_of=self._logs, **settings)
        self.clients = {node_id: Client(self, node_id) for node_id in self.nodes}

    def _logs(self, node_id: int) -> LogManager:
        disk = Disk(random.Random(node_id))
        files = SimulatedFiles(disk)
        files.make_directories("/data")
        return LogManager(
            replace(environment(node_id), files=cast(Files, files)),
            directories=["/data"],
            cluster_id="c",
            node_id=node_id,
            events=Recorder(),
            settings=lambda: self.settings,
        )

    async def __aenter__(self) -> Brokers:
        for node in self.nodes.values():
            await cast(LogManager, node.logs).start()
        await super().__aenter__()
        return self


class Client:
    """Of one broker."""

    def __init__(self, cluster: Brokers, node_id: int) -> None:
        self.connection = ClientConnection(peer="192.0.2.1:50000", listener="PLAINTEXT")
        self._node = cluster.nodes[node_id]
        self.gateway = gateway = _Gateway(cluster, node_id)
        self._apis = ApiHandlers(
            node_parts_of(
                environment=environment(node_id),
                gateway=gateway,
                replicas=self._node.manager,
                lost=NothingLost(),
                producer_ids=ProducerIds(),
                transactional_produce=TransactionalProduce(
                    self._node.manager, cast(Any, None), environment(node_id).clock
                ),
                answers=AnswerBudget(BrokerSettings().queued_max_response_bytes),
            )
        )

    async def ask(self, request: TopLevel, kind: type[Response], version: int) -> Response:
        answer = await self.send(request, version)
        assert isinstance(answer, kind), answer
        return answer

    async def send(self, request: TopLevel, version: int) -> TopLevel | None:
        """None: nothing is answered."""
        api = self._apis.get(type(request).API_KEY)
        assert api is not None, request
        message = _through_bytes(request, version)
        answer = await self._answered(api, message, version)
        return None if answer is None else _through_bytes(answer, version, api.response)

    async def _answered(self, api: ApiHandler, message: TopLevel, version: int) -> TopLevel | None:
        call: Call[Any] = Call(message=message, version=version, client_id="t", connection=self.connection)
        try:
            answer = api.handle(call)
            if answer is None or isinstance(answer, TopLevel):
                return answer
            if isinstance(answer, Later):
                return answer.render(await answer.future)
            return await asyncio.ensure_future(cast(Any, answer))
        except KafkaError as error:
            return api.refuse(message, version, error)


class _Gateway:
    authorizer = None
    quotas = None

    def __init__(self, cluster: Brokers, node_id: int) -> None:
        self._node = cluster.nodes[node_id]
        self.node_id = node_id
        self.changes: list[tuple[str, list[str], list[str]]] = []

    def note_change(self, _principal: Any, what: str, names: Any, errors: Any = ()) -> None:
        self.changes.append((what, list(names), list(errors)))

    @property
    def image(self) -> Any:
        return self._node.manager.image


def _through_bytes(message: TopLevel, version: int, kind: type[TopLevel] | None = None) -> TopLevel:
    """`kind`: where the message may be one that was written before."""
    frame = memoryview(b"".join(codec.encode_body(message, version)))
    return codec.decode_body(kind or type(message), version, frame, 0)


def records(*values: bytes, timestamp_ms: int = NOW_MS, **options: Any) -> bytes:
    new = [NewRecord(None, value, [], timestamp_ms + number) for number, value in enumerate(values)]
    return build_batch(new, **options)
