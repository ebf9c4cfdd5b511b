"""A REST consumer of the v2 dialect: the handlers of the HTTP listener, called without HTTP, on any node.

Reads with tokens: an answer that was lost is asked for again, and is the same batch. Commits what it has read, and
reads no more before that is answered. Pauses past its timeout, crashes and deletes come by chance, as for all members.
"""

from __future__ import annotations

import asyncio
import random
from base64 import b64decode
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import msgspec
from aiohttp import web

from kraft.coordinators.groups import answers as a
from kraft.http.context import Context
from kraft.http.endpoint import Call
from kraft.http.errors import HttpError, from_kafka
from kraft.http.host_origin_check import Origins
from kraft.http.limits import BodyBudget, Connections, Limits, Slots
from kraft.http.metrics import Metrics
from kraft.http.partitioner import Partitioner
from kraft.http.revocations import Revocations
from kraft.http.slow_clients import SlowClients
from kraft.http.streaming.streams import Streams
from kraft.http.v2.consumers import NEXT_TOKEN, ConsumerHandlers
from kraft.node.assembly import Node
from kraft.protocol.errors import KafkaError
from kraft.protocol.primitives import TopicPartition
from replication.record_workers import RecordWorkers
from tests.simulation.clients import READ_BYTES, RETRY_PAUSE_S
from tests.simulation.group_members import ANSWER_S
from tests.simulation.group_oracle import GroupOracle
from tests.simulation.node_request import Unanswered, ask
from tests.simulation.stateful_plan import GroupPlan, MemberPlan

WAIT_MS = 100
GONE, EXISTS, WRONG_TOKEN, BAD_REQUEST = 40403, 40902, 40904, 40002
REPEATS = 0.1
"""Share of answered reads that are asked for once more."""
PLENTY = 1_000

Records = Mapping[TopicPartition, list[tuple[int, bytes]]]
Handler = Callable[[ConsumerHandlers], Callable[[Call], Awaitable[web.StreamResponse]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """The part of an aiohttp request that the handlers use."""

    match_info: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str] = field(default_factory=dict)
    scheme: str = "http"
    host: str = "simulated"
    protocol: None = None
    """No connection holds the answer."""


class HttpListener:
    """What the HTTP listener of one life of a node would have."""

    def __init__(self, node: Node) -> None:
        self.node = node
        gateway, clock, limits = node.gateway, node.environment.clock, Limits()
        polls = Slots(lambda: PLENTY, what="waiting reads")
        self.context = Context(
            gateway=gateway,
            clock=clock,
            limits=limits,
            answers=node.answers,
            bodies=BodyBudget(lambda: 1 << 30),
            connections=Connections(lambda: PLENTY),
            long_polls=polls,
            streams=Streams(slots=polls, unsent_bytes_max=1 << 30),
            produce_streams=Slots(lambda: PLENTY, what="produce streams"),
            partitioner=Partitioner(),
            metrics=Metrics(dict),
            patience=SlowClients(clock, limits),
            awaiting=node.awaiting,
            origins=Origins((), lambda: gateway.settings),
            revocations=Revocations(clock),
            record_workers=RecordWorkers(node.environment.workers),
        )
        self.handlers = ConsumerHandlers(node.groups, node.environment.rng)


class HttpListeners:
    def __init__(self) -> None:
        self._listeners: dict[int, HttpListener] = {}

    def of(self, node: Node) -> HttpListener:
        listener = self._listeners.get(node.node.id)
        if listener is None or listener.node is not node:
            listener = self._listeners[node.node.id] = HttpListener(node)
        return listener


class _Gone(Exception):
    """The instance is there no longer, or is not this client's to go on with."""


class RestMember:
    def __init__(
        self, plan: MemberPlan, group: GroupPlan, topics: tuple[str, ...], judge: GroupOracle, listeners: HttpListeners
    ) -> None:
        self._plan = plan
        self._group = group
        self._topics = topics
        self._judge = judge
        self._listeners = listeners
        self._oracle = judge.oracle
        self._rng: random.Random = self._oracle.cluster.world.rng(f"rest member {plan.name}")
        self._instances = 0
        self._token = 1
        self._has_read = False
        """Since its last commit."""
        self._misses_answer = False
        """A read was not answered: a commit now would commit what it may have held, too."""
        self.is_calm = False
        self.is_stopping = False

    async def run(self) -> None:
        while not self.is_stopping:
            try:
                await self._live()
            except (_Gone, HttpError, Unanswered) as error:
                self._oracle.count(f"REST consumer: {getattr(error, 'code', type(error).__name__)}")
                self._oracle.note(f"{self._name}: {type(error).__name__} {error}")
                await asyncio.sleep(RETRY_PAUSE_S)
        await self._delete()

    # --- requests -----------------------------------------------------------------------------------------------

    async def _call(
        self, handler: Handler, body: Mapping[str, Any] | None = None, query: Mapping[str, str] | None = None
    ) -> web.Response:
        """Raises HttpError, Unanswered."""
        node = self._judge.choose_node(self._rng)
        if node is None:
            raise Unanswered("no node runs")
        assert node.node is not None
        listener = self._listeners.of(node.node)
        names = {"group": self._group.name, "instance": self._name}
        request = cast(web.Request, _Request(match_info=names, query=query or {}))
        call = Call(listener.context, request, b"" if body is None else msgspec.json.encode(body))
        try:
            work = partial(handler(listener.handlers), call)
            response = await ask(self._oracle, node, work, within_s=ANSWER_S, what="a REST consumer's request")
        except KafkaError as error:
            raise from_kafka(error) from error
        assert isinstance(response, web.Response), response
        return response

    async def _until_known(self, handler: Handler, body: Mapping[str, Any] | None = None) -> web.Response:
        """Again until there is an answer other than that the cluster is busy."""
        while not self.is_stopping:
            try:
                return await self._call(handler, body)
            except HttpError as error:
                if error.status < 500:
                    raise
                self._oracle.count(f"REST consumer: {error.code}")
            except Unanswered:
                self._oracle.count("REST consumer asks again")
            await asyncio.sleep(RETRY_PAUSE_S)
        raise Unanswered("the consumer ends")

    @property
    def _name(self) -> str:
        return f"{self._plan.name}-{self._instances}"

    # --- life ---------------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        await self._create()
        while not self.is_stopping:
            self._has_read |= await self._read()
            is_commit_due = self._has_read and (self.is_calm or self._rng.random() < self._plan.commits)
            if is_commit_due and not self._misses_answer:
                await self._commit()
                self._has_read = False
            if not self.is_calm and self._rng.random() < self._plan.mishaps:
                await self._mishap()
            await asyncio.sleep(self._rng.uniform(0.02, 0.1))

    async def _create(self) -> None:
        self._instances += 1
        self._token, self._has_read, self._misses_answer = 1, False, False
        body = {
            "name": self._name,
            "format": "binary",
            "auto.offset.reset": "earliest",
            "auto.commit.enable": "false",
            "consumer.instance.timeout.ms": self._plan.session_ms,
            "consumer.request.timeout.ms": WAIT_MS,
        }
        try:
            await self._until_known(lambda handlers: handlers.create_consumer, body)
        except HttpError as error:
            if error.code != EXISTS:  # it is this client's own, whose answer was lost
                raise
        await self._until_known(lambda handlers: handlers.subscribe_consumer, {"topics": list(self._topics)})

    async def _delete(self) -> None:
        try:
            await self._call(lambda handlers: handlers.delete_consumer)
        except (HttpError, Unanswered):
            self._oracle.count("leave failed")

    async def _mishap(self) -> None:
        kind = self._rng.choice(("pause", "pause", "crash", "leave"))
        self._oracle.count(f"REST consumer mishap: {kind}")
        self._oracle.note(f"{self._name}: {kind}")
        if kind == "leave":
            await self._delete()
            raise _Gone
        await asyncio.sleep(self._rng.uniform(0.5, 2) * self._plan.session_ms / 1000)
        if kind == "crash":
            raise _Gone

    # --- records ------------------------------------------------------------------------------------------------

    async def _read(self) -> bool:
        """Has something come?"""
        asked = self._token
        self._misses_answer = True
        try:
            first, next_token = await self._batch(asked)
        except HttpError as error:
            if error.code == BAD_REQUEST:  # what an answer that was lost held is in the log no longer
                self._token += 1
                self._misses_answer = False
            elif error.code == WRONG_TOKEN:
                self._oracle.check(not self._judge.is_certain(self._group.name), f"{self._name}: {error.message}")
                raise _Gone from error
            elif error.status < 500:
                raise
            return False
        except Unanswered:
            return False
        self._misses_answer = False
        self._take(first)
        if first and next_token == asked + 1 and self._rng.random() < REPEATS:
            await self._read_again(asked, first)
        self._token = next_token
        return bool(first)

    async def _batch(self, token: int) -> tuple[Records, int]:
        query = {"token": str(token), "timeout": str(WAIT_MS), "max_bytes": str(READ_BYTES)}
        response = await self._call(lambda handlers: handlers.read_consumer_records, query=query)
        found: dict[TopicPartition, list[tuple[int, bytes]]] = defaultdict(list)
        body = response.body
        assert isinstance(body, bytes), body
        for record in msgspec.json.decode(body):
            value = b64decode(record["value"] or "")
            found[record["topic"], record["partition"]].append((record["offset"], value))
        return found, int(response.headers[NEXT_TOKEN])

    def _take(self, found: Records) -> None:
        for partition, records in found.items():
            which = self._judge.which(partition)
            if which is not None:
                self._judge.saw(self._group.name, which, records)

    async def _read_again(self, token: int, first: Records) -> None:
        """The same, but for partitions that have moved meanwhile."""
        try:
            again, _ = await self._batch(token)
        except (HttpError, Unanswered):
            return
        self._oracle.count("REST batch read again")
        for partition, records in again.items():
            which = self._judge.which(partition)
            if (
                which is not None
                and not self._oracle.promise.may_lose(which)
                and self._judge.is_certain(self._group.name)
            ):
                self._oracle.check(
                    records == first.get(partition, []),
                    f"batch {token} of {self._name} has {records} of {partition}; at first {first.get(partition)}",
                )

    async def _commit(self) -> None:
        await self._until_known(lambda handlers: handlers.commit_consumer_offsets)
        since = self._judge.moment(self._group.name)
        response = await self._call(lambda handlers: handlers.get_consumer_offsets)
        body = response.body
        assert isinstance(body, bytes), body
        rows = [
            a.OffsetOfGroup(each["topic"], each["partition"], each["offset"], each["metadata"], -1)
            for each in msgspec.json.decode(body)["offsets"]
        ]
        self._judge.fetched(self._group.name, rows, since)
