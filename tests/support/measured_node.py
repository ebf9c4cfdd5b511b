"""A whole node in this process, whose event loop measures the processor time between two turns."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from pydantic import SecretStr

from kraft.config.models import ClusterConfig, NodeConfig
from kraft.http.server import HttpServer
from kraft.node.assembly import Node
from kraft.node.process import YOUNG_OBJECTS, http_door
from kraft.runtime.environment import close_environment, system_environment
from kraft.runtime.quorum_thread import QuorumThread
from metadata.controller.requests import CreateTopics, NewTopic, Request
from tests.support.dense_frames import KNOWN
from tests.support.ports import free_ports

HOST = "127.0.0.1"
READY_S = 30
ANSWER_S = 120
ReplyT = TypeVar("ReplyT")


class MeasuredLoop(asyncio.SelectorEventLoop):
    longest_s = 0.0

    def _run_once(self) -> None:
        begun = time.thread_time()
        super()._run_once()  # type: ignore[misc]
        self.longest_s = max(self.longest_s, time.thread_time() - begun)


@dataclass(frozen=True)
class Cost:
    """The longest turn of the loop during one request, and the most memory held."""

    turn_ms: float
    memory_bytes: int
    answer_bytes: int
    """0: the connection was closed."""


class MeasuredNode:
    """A context manager; the node runs in a thread of its own."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        rest, kafka, quorum = free_ports(3, host=HOST)
        self._config = ClusterConfig(
            cluster_id="measured",
            secret=SecretStr("a secret of the measured node"),
            data=str(folder),
            settings={"offsets.topic.num.partitions": 1, "transaction.state.log.num.partitions": 1, **settings},
            nodes=(
                NodeConfig(
                    id=1,
                    rest_port=rest,
                    kafka_port=kafka,
                    quorum_port=quorum,
                    data=str(folder / "node-1"),
                    log_dirs=(str(folder / "logs"),),
                ),
            ),
        )
        self.port, self.rest_port = kafka, rest
        self.loop = MeasuredLoop()
        self.node: Node | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._ending: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> MeasuredNode:
        self._thread.start()
        assert self._ready.wait(READY_S), "the node has not started"
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._ending is not None and self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(READY_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self._serve())
        except BaseException as error:  # noqa: BLE001 - raised where the test waits
            self._failure = error
        finally:
            self._ready.set()
            self.loop.close()

    async def _serve(self) -> None:
        self._ending = asyncio.Event()
        thresholds = gc.get_threshold()
        environment = system_environment()
        node = self.node = Node(
            self._config, 1, environment=environment, quorum=QuorumThread(), door=_door, on_fatal=self._fail
        )
        try:
            await node.start()
            async with asyncio.timeout(READY_S):
                while node.awaiting.service():  # noqa: ASYNC110 - it has no event
                    await asyncio.sleep(0.02)
                request = CreateTopics(topics=(NewTopic(name=KNOWN, partitions=2, replication_factor=1),))
                await node.gateway.control(request, timeout_ms=10_000)
                await node.groups.coordinator_of(KNOWN)
                await node.transactions.coordinator_of(KNOWN)
                while not _has_loaded(node):  # noqa: ASYNC110 - it has no event
                    await asyncio.sleep(0.02)
            gc.collect()
            gc.freeze()  # as a node does: what a collection finds is what the request made
            gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
            self._ready.set()
            await self._ending.wait()
        finally:
            gc.set_threshold(*thresholds)
            gc.unfreeze()
            await node.stop()
            close_environment(environment)

    def _fail(self, error: BaseException) -> None:
        self._failure = error

    def control(self, request: Request[ReplyT]) -> ReplyT:
        """Asks the active controller, and waits until this node's metadata has the change."""
        node = self.node
        assert node is not None

        async def asked() -> ReplyT:
            return await node.gateway.control(request, timeout_ms=10_000)

        return asyncio.run_coroutine_threadsafe(asked(), self.loop).result(READY_S)

    # --- measuring ----------------------------------------------------------------------------------------------

    def turn_ms(self, frame: bytes) -> tuple[float, int]:
        """The longest turn of the loop while the request was served, and the bytes of its answer."""
        with self._connected() as connection:
            self.loop.longest_s = 0.0
            answered = _asked(connection, frame)
        self._has_turned()
        return self.loop.longest_s * 1_000, answered

    def memory_bytes(self, frame: bytes) -> int:
        """The most that was held at one time for the request, its frame among it."""
        with self._connected() as connection:
            gc.collect()
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            _asked(connection, frame)
            _, peak = tracemalloc.get_traced_memory()
        self._has_turned()
        return peak - before

    def http_turn_ms(self, request: bytes) -> tuple[float, bytes]:
        """The same for an HTTP request that asks for its connection to be closed; with the beginning of the answer."""
        with socket.create_connection((HOST, self.rest_port), timeout=ANSWER_S) as connection:
            self.loop.longest_s = 0.0
            begin = _asked_http(connection, request)
        self._has_turned()
        return self.loop.longest_s * 1_000, begin

    def http_memory_bytes(self, request: bytes) -> int:
        with socket.create_connection((HOST, self.rest_port), timeout=ANSWER_S) as connection:
            gc.collect()
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            _asked_http(connection, request)
            _, peak = tracemalloc.get_traced_memory()
        self._has_turned()
        return peak - before

    @contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        with socket.create_connection((HOST, self.port), timeout=ANSWER_S) as connection:
            assert _asked(connection, struct.pack(">hhih", 18, 0, 1, -1)), "no answer to ApiVersions"
            yield connection

    def _has_turned(self) -> None:
        """What the request left for the next turns has been done."""
        for _ in range(3):
            turned = threading.Event()
            self.loop.call_soon_threadsafe(turned.set)
            assert turned.wait(ANSWER_S), "the loop does not turn"


def _has_loaded(node: Node) -> bool:
    """Both coordinators have read their partitions, so that a request is not answered with an error of loading."""
    assert node.broker is not None
    coordinators = (node.broker.group_coordinator, node.broker.transaction_coordinator)
    return all(any(True for _ in each.shards.loaded()) for each in coordinators)


def _door(node: Node) -> HttpServer:
    return http_door(node, connections_max=1_000, gauges=dict)


def _asked_http(connection: socket.socket, request: bytes) -> bytes:
    """The beginning of the answer, of which nothing else is kept."""
    begin = b""
    with suppress(ConnectionError):  # it was answered before it was read
        connection.sendall(request)
    try:
        while part := connection.recv(65_536):
            begin = begin or part[:512]
    except ConnectionError:
        pass
    return begin


def _asked(connection: socket.socket, frame: bytes) -> int:
    """The bytes of the answer, none of which is kept; 0 when the connection ends instead."""
    buffer = bytearray(65_536)
    try:
        connection.sendall(struct.pack(">i", len(frame)))
        connection.sendall(frame)
        head = connection.recv(4, socket.MSG_WAITALL)
        if len(head) < 4:
            return 0
        (size,) = struct.unpack(">i", head)
        left = size
        while left:
            taken = connection.recv_into(buffer, min(left, len(buffer)))
            if not taken:
                return 0
            left -= taken
    except ConnectionError:
        return 0
    return int(size)
