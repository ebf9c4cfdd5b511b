"""A cluster as a client sees it, under virtual time: metadata, produce, reads; nodes die and answers get lost.

It remembers Idempotency-Keys as the real one does, unless told not to.
"""

from __future__ import annotations

import json
import random
import re
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from kraft.chaos.worlds.simulated.clock import SimulatedClock
from kraft.chaos.worlds.simulated.loop import VirtualLoop
from kraft.client.connection import Connection, World
from kraft.client.response import Answer, Refused, Request, Response, Unknown
from kraft.client.settings import ClientSettings, parse
from kraft.protocol.batches.records import NewRecord, build_batch, read_batches
from kraft.protocol.errors import for_code

T = TypeVar("T")
LATENCY_MS = 1
URLS = {1: "http://one:1", 2: "http://two:2", 3: "http://three:3"}
Fault = Callable[["FakeCluster", Request], Response | None]
"""Instead of the next produce; None: after it, its answer is lost."""


@dataclass
class FakeCluster:
    clock: SimulatedClock
    topics: dict[str, list[int]] = field(default_factory=lambda: {"t": [1, 2, 3]})
    """Leaders by partition."""
    dead: set[int] = field(default_factory=set)
    faults: deque[Fault] = field(default_factory=deque)
    logs: dict[tuple[str, int], list[bytes | None]] = field(default_factory=dict)
    requests: list[tuple[int, Request]] = field(default_factory=list)
    busy: int = 0
    busiest: dict[tuple[int, str], int] = field(default_factory=dict)
    """Most requests under way at once, by node and path."""
    remembers_keys: bool = True
    max_message_bytes: int = 1_048_588
    latency_ms: int = LATENCY_MS
    _under_way: dict[tuple[int, str], int] = field(default_factory=dict)
    _answers: dict[str, Answer] = field(default_factory=dict)

    async def send(self, base_url: str, request: Request) -> Response:
        node = next(number for number, url in URLS.items() if url == base_url)
        self.requests.append((node, request))
        place = (node, urlsplit(request.path).path)
        self._under_way[place] = self._under_way.get(place, 0) + 1
        self.busiest[place] = max(self.busiest.get(place, 0), self._under_way[place])
        try:
            if node in self.dead:
                return Refused(reason=f"{base_url}: connection refused")
            await self.clock.sleep(self.latency_ms)
            if self.latency_ms > request.timeout_ms:
                return Unknown(reason="no answer in time")
            return Unknown(reason="the connection broke") if node in self.dead else self._serve(request)
        finally:
            self._under_way[place] -= 1

    @property
    def produces(self) -> list[tuple[int, Request]]:
        return [(node, request) for node, request in self.requests if request.method == "POST"]

    def log(self, topic: str, partition: int) -> list[bytes | None]:
        return self.logs.setdefault((topic, partition), [])

    def _serve(self, request: Request) -> Response:
        url = urlsplit(request.path)
        if url.path == "/v3/clusters":
            return answer({"data": [{"cluster_id": "c"}]})
        if url.path == "/v3/clusters/c/brokers":
            return answer({"data": [broker(number) for number in URLS]})
        matched = re.fullmatch(r"/topics/([^/]+)/partitions(?:/(\d+)(/records|/offsets)?)?", url.path)
        if matched is None:
            return answer({"error_code": 404, "message": f"no {url.path}"}, status=404)
        topic, partition, what = matched.groups()
        if topic not in self.topics:
            return refusal(404, 40401, 3)
        if partition is None:
            leaders = enumerate(self.topics[topic])
            return answer([{"partition": number, "leader": leader} for number, leader in leaders])
        if request.method == "POST":
            return self._produce_or_fault(topic, int(partition), request)
        if what == "/offsets":
            return answer({"beginning_offset": 0, "end_offset": len(self.log(topic, int(partition)))})
        return self._read(topic, int(partition), parse_qs(url.query))

    def _produce_or_fault(self, topic: str, partition: int, request: Request) -> Response:
        if not self.faults:
            return self._produce(topic, partition, request)
        instead = self.faults.popleft()(self, request)
        if instead is not None:
            return instead
        self._produce(topic, partition, request)
        return Unknown(reason="the answer was lost")

    def _produce(self, topic: str, partition: int, request: Request) -> Answer:
        key = request.headers.get("Idempotency-Key")
        if key is not None and key in self._answers:
            return self._answers[key]
        if len(request.body) > self.max_message_bytes:
            return entry_refusal(10)
        log = self.log(topic, partition)
        base = len(log)
        log += [record.value for record in read_batches(request.body)]
        result = answer({"offsets": [{"partition": partition, "offset": base, "error_code": None, "error": None}]})
        if key is not None and self.remembers_keys:
            self._answers[key] = result
        return result

    def _read(self, topic: str, partition: int, query: dict[str, list[str]]) -> Answer:
        log, offset = self.log(topic, partition), int(query["offset"][0])
        if offset > len(log):
            return refusal(400, 40002, 1)
        records = [NewRecord(None, value, [], 0) for value in log[offset:]]
        body = build_batch(records, base_offset=offset) if records else b""
        headers = {"x-next-offset": str(len(log)), "x-high-watermark": str(len(log)), "x-log-start-offset": "0"}
        return Answer(status=200, headers=headers, body=body)


def answer(document: Any, *, status: int = 200) -> Answer:
    return Answer(status=status, headers={}, body=json.dumps(document).encode())


def refusal(status: int, error_code: int, kafka_code: int, **headers: str) -> Answer:
    error = for_code(kafka_code)
    document = {"error_code": error_code, "message": error.name, "kafka_code": kafka_code, "retriable": error.retriable}
    return Answer(status=status, headers=headers, body=json.dumps(document).encode())


def entry_refusal(kafka_code: int) -> Answer:
    entry = {"partition": 0, "offset": None, "error_code": 50003, "error": "no", "kafka_code": kafka_code}
    return answer({"offsets": [entry]})


def broker(number: int) -> dict[str, Any]:
    rest = URLS[number].removeprefix("http://")
    return {"broker_id": number, "rest": rest, "rack": None, "is_fenced": False}


def run(story: Callable[[FakeCluster, Connection], Coroutine[Any, Any, T]], **options: Any) -> T:
    """Under virtual time, from one address."""
    loop = VirtualLoop()
    clock = SimulatedClock(loop)
    cluster = FakeCluster(clock)
    world = World(clock=clock, rng=random.Random(7), sender=cluster)
    connection = Connection(["one:1"], settings=parse(ClientSettings, options), world=world)

    async def whole() -> T:
        try:
            return await story(cluster, connection)
        finally:
            await connection.close()

    try:
        return loop.run_until_complete(whole())
    finally:
        loop.close()
