"""Queues of the client: what is settled, renewed and given back, under virtual time at a small server."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest

from kraft.client.connection import Connection
from kraft.client.errors import ClientClosed, ConfigError, KraftError, NothingDone, ServerError
from kraft.client.queue import AsyncQueue, AsyncQueueRecord
from kraft.client.response import Request, Response, Unknown
from kraft.client.settings import QueueSettings, parse
from tests.unit.client.fake_cluster import FakeCluster, answer, run

LOCK_MS = 1_000
PATH = "/v3/clusters/c/share-groups/g/records:"


@dataclass
class _Held:
    """One record at the server."""

    value: bytes
    state: str = "available"
    deliveries: int = 0
    ack_id: str = ""
    until_ms: float = 0
    reasons: list[str] = field(default_factory=list)


class Server:
    """One queue, as the nodes serve it; an acknowledgement may come twice."""

    def __init__(self, cluster: FakeCluster, *values: str, lock_ms: int = LOCK_MS) -> None:
        self.records = [_Held(value.encode()) for value in values]
        self.lock_ms = lock_ms
        self.acks: list[list[dict[str, Any]]] = []
        self.along: list[int] = []
        """How many acknowledgements each receive brought."""
        self.instead: list[Callable[[Request], Response | None]] = []
        """What the next requests get; None: they are served, and their answer is lost."""
        self._cluster = cluster
        self._plain = cluster._serve
        self._settled: dict[str, str] = {}
        cluster._serve = self._serve  # type: ignore[method-assign]

    def states(self) -> list[str]:
        return [each.state for each in self.records]

    def _serve(self, request: Request) -> Response:
        if not request.path.startswith(PATH):
            return self._plain(request)
        serve = self._receive if request.path.endswith("receive") else self._acknowledge
        if not self.instead:
            return serve(json.loads(request.body))
        instead = self.instead.pop(0)(request)
        if instead is None:
            serve(json.loads(request.body))
            return Unknown(reason="the answer was lost")
        return instead

    def _receive(self, asked: dict[str, Any]) -> Response:
        now_ms, rows = self._cluster.clock.monotonic_ms(), []
        self.along.append(len(asked.get("acknowledge", ())))
        results = [self._settle(ack) for ack in asked.get("acknowledge", ())]
        for offset, each in enumerate(self.records):
            if each.state == "acquired" and each.until_ms <= now_ms:
                each.state = "available"
            if each.state == "available" and len(rows) < asked["max_records"]:
                each.state, each.until_ms = "acquired", now_ms + asked.get("lock_ms", self.lock_ms)
                each.deliveries += 1
                each.ack_id = f"{offset}-{each.deliveries}"
                rows.append(row(offset, each))
        return answer({"records": rows, "lock_ms": asked.get("lock_ms", self.lock_ms), "results": results})

    def _acknowledge(self, asked: dict[str, Any]) -> Response:
        self.acks.append(asked["acks"])
        return answer({"results": [self._settle(ack) for ack in asked["acks"]]}, status=207)

    def _settle(self, ack: dict[str, Any]) -> dict[str, Any]:
        now_ms, done = self._cluster.clock.monotonic_ms(), {"error_code": None, "kafka_code": None, "message": None}
        each = self.records[int(ack["ack_id"].partition("-")[0])]
        if self._settled.get(ack["ack_id"]) == ack["type"]:
            return done
        if each.state != "acquired" or each.ack_id != ack["ack_id"] or each.until_ms <= now_ms:
            return {"error_code": 40903, "kafka_code": 121, "message": "the lock has ended"}
        if ack["type"] == "renew":
            each.until_ms = now_ms + self.lock_ms
            return done | {"renewed_ack_id": ack["ack_id"]}
        self._settled[ack["ack_id"]] = ack["type"]
        each.state = {"accept": "accepted", "release": "available", "reject": "rejected"}[ack["type"]]
        each.reasons.append(ack.get("reason", ""))
        return done


def row(offset: int, each: _Held) -> dict[str, Any]:
    value = {"type": "BINARY", "data": encoded(each.value)}
    header = {"name": "h", "value": encoded(b"x")}
    return {
        "topic_name": "t", "partition_id": 0, "offset": offset, "timestamp": 5, "key": None, "value": value,
        "headers": [header], "delivery_count": each.deliveries, "ack_id": each.ack_id,
    }  # fmt: skip


def encoded(data: bytes) -> str:
    return b64encode(data).decode()


def opened(connection: Connection, *, follows: bool = False, on_error: Any = "release", **options: Any) -> AsyncQueue:
    settings = parse(QueueSettings, {"fetch_max_wait_ms": 10, **options})
    return AsyncQueue(["t"], group="g", on_error=on_error, follows=follows, connection=connection, settings=settings)


Story = Callable[[Server, AsyncQueue], Coroutine[Any, Any, None]]


def with_queue(story: Story, *values: str, lock_ms: int = LOCK_MS, connection: Any = None, **options: Any) -> None:
    async def whole(cluster: FakeCluster, connected: Connection) -> None:
        server = Server(cluster, *values, lock_ms=lock_ms)
        async with opened(connected, **options) as queue:
            await story(server, queue)

    run(whole, **(connection or {}))


def test_a_block_accepts_its_record_and_an_exception_releases_it() -> None:
    async def story(server: Server, queue: AsyncQueue) -> None:
        seen = []

        async def work() -> None:
            async for record in queue:
                async with record:
                    seen.append((record.text(), record.headers, record.delivery_count))
                    assert record.text() != "b" or 1 / 0

        with pytest.raises(ZeroDivisionError):
            await work()
        assert seen == [("a", (("h", b"x"),), 1), ("b", (("h", b"x"),), 1)]
        assert server.states() == ["accepted", "available", "acquired"]
        assert server.records[1].reasons == ["ZeroDivisionError: division by zero"]

    with_queue(story, "a", "b", "c")


def test_a_record_is_settled_inside_its_block_and_on_error_rejects() -> None:
    async def story(server: Server, queue: AsyncQueue) -> None:
        async def work() -> None:
            async for record in queue:
                async with record:
                    if record.text() == "b":
                        raise ValueError("bad")
                    await record.reject("unreadable")

        with pytest.raises(ValueError, match="bad"):
            await work()
        assert server.states() == ["rejected", "rejected"]
        assert [each.reasons for each in server.records] == [["unreadable"], ["ValueError: bad"]]

    with_queue(story, "a", "b", on_error="reject")


def test_locks_are_renewed_in_long_work_and_while_records_wait() -> None:
    async def story(server: Server, queue: AsyncQueue) -> None:
        async for record in queue:
            async with record:
                await asyncio.sleep(5 * LOCK_MS / 1_000)
        assert server.states() == ["accepted"] * 3
        assert [each.deliveries for each in server.records] == [1, 1, 1]
        assert queue.counts.renewed > 20

    with_queue(story, "a", "b", "c")


def test_a_worker_that_hangs_keeps_a_record_for_max_poll_interval_ms() -> None:
    async def story(server: Server, queue: AsyncQueue) -> None:
        (record,) = await queue.poll(1)
        with pytest.raises(ServerError) as raised:
            async with record:
                await asyncio.sleep(10)
        assert raised.value.code == 121
        assert 3_000 <= server.records[0].until_ms <= 4_500
        assert queue.counts.unsettled == 1

    with_queue(story, "a", max_poll_interval_ms=3_000)


def test_acknowledgements_share_requests_and_survive_lost_answers() -> None:
    async def story(server: Server, queue: AsyncQueue) -> None:
        records = await queue.poll(3)
        server.instead = [lambda _: None, lambda _: None]
        await asyncio.gather(*(record.accept() for record in records))
        assert server.states() == ["accepted"] * 3
        assert [len(acks) for acks in server.acks] == [3, 3, 3]
        assert queue.counts.accepted == 3

    with_queue(story, "a", "b", "c")


def test_what_no_leader_takes_now_is_sent_again_alone() -> None:
    async def story(server: Server, queue: AsyncQueue) -> None:
        records = await queue.poll(2)

        def one_is_refused(request: Request) -> Response:
            first, *_ = json.loads(request.body)["acks"]
            busy = {"error_code": 50302, "kafka_code": 5, "message": "there is no leader now"}
            return answer({"results": [server._settle(first), busy]}, status=207)

        server.instead = [one_is_refused]
        await asyncio.gather(*(record.accept() for record in records))
        assert server.states() == ["accepted"] * 2
        assert [[ack["ack_id"] for ack in acks] for acks in server.acks] == [["1-1"]]

    with_queue(story, "a", "b")


def test_without_any_node_a_receive_ends_by_its_deadline() -> None:
    async def whole(cluster: FakeCluster, connection: Connection) -> None:
        Server(cluster, "a")
        queue = opened(connection)
        await connection.v3()
        cluster.dead |= {1, 2, 3}
        began_ms = cluster.clock.monotonic_ms()
        with pytest.raises(NothingDone):
            await queue.poll()
        assert cluster.clock.monotonic_ms() - began_ms <= 6_000

    run(whole, default_api_timeout_ms=5_000)


def test_run_bounds_the_handlers_and_goes_on_after_one_that_raises() -> None:
    async def story(server: Server, queue: AsyncQueue) -> None:
        working, most = 0, 0

        async def handler(record: AsyncQueueRecord) -> None:
            nonlocal working, most
            working += 1
            most = max(most, working)
            await asyncio.sleep(0.1)
            working -= 1
            if record.text() == "4":
                raise ValueError("poison")

        await queue.run(handler, concurrency=3)
        assert most == 3
        assert server.states() == ["accepted"] * 4 + ["rejected"] + ["accepted"] * 5
        assert (queue.counts.accepted, queue.counts.rejected) == (9, 1)

    with_queue(story, *map(str, range(10)), on_error="reject")


def test_stop_finishes_what_is_handled_and_keeps_nothing_else() -> None:
    async def story(server: Server, queue: AsyncQueue) -> None:
        async def handler(record: AsyncQueueRecord) -> None:
            await asyncio.sleep(0.2)
            queue.stop()
            await asyncio.sleep(0.2)

        await queue.run(handler, concurrency=2)
        assert server.states() == ["accepted"] * 2 + ["available"] * 3

    with_queue(story, *"abcde", follows=True)


def test_run_sends_what_it_accepts_with_its_next_receive() -> None:
    async def story(server: Server, queue: AsyncQueue) -> None:
        async def handler(record: AsyncQueueRecord) -> None:
            await asyncio.sleep(0.1)

        await queue.run(handler)
        assert server.states() == ["accepted"] * 3
        assert (server.acks, server.along) == ([], [0, 1, 1, 1, 0])
        assert (queue.counts.accepted, queue.counts.unsettled) == (3, 0)

    with_queue(story, "a", "b", "c")


def test_acceptances_are_sent_alone_when_their_receive_is_lost() -> None:
    async def story(server: Server, queue: AsyncQueue) -> None:
        async def handler(record: AsyncQueueRecord) -> None:
            refused = answer({"error_code": 40403, "message": "no topic"}, status=404)
            server.instead = [lambda _: refused]

        with pytest.raises(ServerError, match="no topic"):
            await queue.run(handler, concurrency=2)
        assert server.states() == ["accepted"]
        assert (len(server.acks), server.along) == (1, [0])

    with_queue(story, "a")


def test_a_cancelled_run_releases_what_is_handled() -> None:
    async def story(server: Server, queue: AsyncQueue) -> None:
        async def handler(record: AsyncQueueRecord) -> None:
            await asyncio.sleep(60)

        running = asyncio.get_running_loop().create_task(queue.run(handler, concurrency=2))
        await asyncio.sleep(1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert server.states() == ["available"] * 2

    with_queue(story, "a", "b", on_error="reject", follows=True)


def test_run_raises_what_a_receive_does_after_its_handlers() -> None:
    async def story(server: Server, queue: AsyncQueue) -> None:
        async def handler(record: AsyncQueueRecord) -> None:
            server.instead = [lambda _: answer({"error_code": 40403, "message": "no topic"}, status=404)]
            await asyncio.sleep(0.5)

        with pytest.raises(ServerError, match="no topic"):
            await queue.run(handler, concurrency=2)
        assert server.states() == ["accepted"]

    with_queue(story, "a", follows=True)


def test_close_gives_back_what_was_not_handed_out() -> None:
    async def story(server: Server, queue: AsyncQueue) -> None:
        async for record in queue:
            async with record:
                break
        assert server.states() == ["accepted", "acquired", "acquired"]
        await queue.close()
        assert server.states() == ["accepted", "available", "available"]
        assert [record async for record in queue] == []
        with pytest.raises(ClientClosed):
            await queue.run(lambda record: record.accept())

    with_queue(story, "a", "b", "c")


def test_a_wait_that_is_cancelled_loses_nothing() -> None:
    async def story(server: Server, queue: AsyncQueue) -> None:
        waiting = asyncio.get_running_loop().create_task(queue.poll())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        (record,) = await queue.poll()
        assert record.delivery_count == 1
        await record.accept()

    with_queue(story, "a")


def test_bad_options_are_refused_in_words() -> None:
    async def story(server: Server, queue: AsyncQueue) -> None:
        connection = queue._connection
        for options, words in (
            ({"max_poll_records": 501}, "max.poll.records=501"),
            ({"share_record_lock_duration_ms": 1}, "share.record.lock.duration.ms=1"),
            ({"on_error": "accept"}, "it is release or reject"),
        ):
            with pytest.raises(ConfigError, match=words):
                opened(connection, **options)
        with pytest.raises(KraftError, match="at least 1"):
            await queue.run(lambda record: record.accept(), concurrency=0)

    with_queue(story)
