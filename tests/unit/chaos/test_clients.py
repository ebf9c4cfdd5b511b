"""What clients make of answers, and producers against a cluster that is only a web server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest

from kraft.chaos.history import Operation, Produce
from kraft.chaos.workload.producer import Producer, ProducerOptions
from kraft.chaos.workload.requests import fetched, produce_request, produce_result, value_of, value_text
from kraft.chaos.workload.rest_client import RestClient
from kraft.chaos.workload.targets import Targets
from kraft.chaos.worlds.processes.timeline import now_us
from kraft.chaos.worlds.snapshot import Snapshot
from kraft.client.response import Answer, Refused, Unknown


def answer(status: int, document: object, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status=status, headers=named, body=msgspec.json.encode(document))


def written(*offsets: int) -> dict[str, Any]:
    return {"offsets": [{"partition": 0, "offset": o, "error_code": None, "error": None} for o in offsets]}


def refused(code: int) -> dict[str, Any]:
    return {"offsets": [{"partition": 0, "offset": None, "error_code": 1, "error": "no", "kafka_code": code}] * 2}


@pytest.mark.parametrize(
    ("reported", "acks", "outcome", "code", "again"),
    [
        (answer(200, written(4, 5)), "all", "ok", 0, False),
        (answer(200, refused(19)), "all", "fail", 19, True),
        (answer(200, refused(10)), "all", "fail", 10, False),
        (answer(200, refused(20)), "all", "info", 20, True),
        (answer(200, refused(7)), "1", "info", 7, True),
        (answer(202, {"offsets": []}), "0", "ok", None, False),
        (answer(503, {"error_code": 503, "message": "full"}), "all", "fail", None, True),
        (answer(404, {"error_code": 40401, "kafka_code": 3}), "all", "fail", 3, True),
        (Refused(reason="refused"), "all", "fail", None, True),
        (Unknown(reason="broken"), "all", "info", None, True),
        (Unknown(reason="broken"), "0", "ok", None, True),
    ],
)
def test_outcome_of_an_answer(reported: Any, acks: Any, outcome: str, code: int | None, again: bool) -> None:
    found = produce_result(reported, acks=acks)
    assert (found.outcome, found.kafka_code, found.may_try_again) == (outcome, code, again)


def test_offsets_are_kept() -> None:
    assert produce_result(answer(200, written(4, 5)), acks="1").offsets == (4, 5)


def test_values_are_filled_up_and_read_without_the_filling() -> None:
    request = produce_request(
        "t", 2, [("k", value_text("p", 7))], acks="1", timeout_ms=50, value_bytes=9
    )  # short: text
    assert request.path == "/topics/t/partitions/2?acks=1&timeout=50"
    assert msgspec.json.decode(request.body) == {"records": [{"key": "k", "value": "p:7      "}]}
    assert value_of("p:7      ") == "p:7"


def test_read_result_has_next_offset() -> None:
    found = fetched(
        answer(
            200,
            [{"offset": 4, "value": "p:0 "}],
            x_next_offset="5",
            x_high_watermark="9",
            x_log_start_offset="0",
        )
    )
    assert (found.next_offset, found.high_watermark, found.records) == (5, 9, ((4, "p:0"),))
    assert fetched(answer(404, {"kafka_code": 1})).kafka_code == 1
    assert fetched(Refused(reason="")).outcome == "fail"


Handle = Callable[[bytes], Awaitable[bytes | None]]


class FakeCluster:
    """One door per broker; `script` says what each request of a producer is told, None closes the connection."""

    brokers = (1, 2)
    latest: Snapshot | None = None

    def __init__(self, script: Sequence[tuple[int, object] | None]) -> None:
        self.script = list(script)
        self.asked: list[list[str]] = []
        self._servers: dict[int, asyncio.Server] = {}

    def client(self, name: str, *, in_flight_max: int) -> RestClient:
        return RestClient(name, self.client_address, connections_max=in_flight_max)

    def now_us(self) -> int:
        return now_us()

    async def client_address(self, client: str, node: int) -> str:
        if node not in self._servers:
            self._servers[node] = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._servers[node].sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length")
                )
                body = msgspec.json.decode(await reader.readexactly(length))
                self.asked.append([record["value"] for record in body["records"]])
                reported = self.script.pop(0) if self.script else (200, written(*range(len(body["records"]))))
                if reported is None:
                    return
                text = msgspec.json.encode(reported[1])
                writer.write(f"HTTP/1.1 {reported[0]} X\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text)
        except asyncio.IncompleteReadError:
            return
        finally:
            writer.close()

    def close(self) -> None:
        for server in self._servers.values():
            server.close()


def produce(options: ProducerOptions, script: Sequence[tuple[int, object] | None] = ()) -> tuple[Producer, Any, Any]:
    """Run a producer to its limit: itself, its operations, and what arrived."""
    recorded: list[Operation] = []

    async def main() -> tuple[Producer, list[Operation], list[list[str]]]:
        client_world = FakeCluster(script)
        producer = Producer(options, client_world=client_world, record=recorded.append)
        await producer.open()
        await producer.start()
        async with asyncio.timeout(30):
            await producer.wait()
        await producer.close()
        client_world.close()
        return producer, recorded, client_world.asked

    return asyncio.run(main())


def test_each_value_is_sent_once_in_order() -> None:
    producer, operations, asked = produce(ProducerOptions(name="p", topic="t", limit=25, batch=10, rate=1000))
    assert [value for batch in asked for value in batch] == [f"p:{n}" for n in range(25)]
    assert [len(each.records) for each in operations] == [10, 10, 5]
    assert (producer.counts.sent, producer.counts.acked) == (25, 25)


def test_several_in_flight_never_share_a_value() -> None:
    _, _, asked = produce(ProducerOptions(name="p", topic="t", limit=200, in_flight=8, rate=5000))
    values = [value for batch in asked for value in batch]
    assert len(values) == len(set(values)) == 200


def test_attempts_of_an_operation_carry_the_same_records() -> None:
    script = [(200, refused(19)), None, (200, written(3, 4))]
    producer, operations, asked = produce(
        ProducerOptions(name="p", topic="t", limit=2, batch=2, retries=5, rate=1000), script
    )
    assert asked == [["p:0", "p:1"]] * 3
    (operation,) = operations
    assert isinstance(operation, Produce)
    assert [attempt.outcome for attempt in operation.attempts] == ["fail", "info", "ok"]
    assert (operation.outcome, operation.offsets) == ("ok", (3, 4))
    assert producer.counts.acked == 2


def test_an_operation_with_an_unknown_attempt_stays_unknown() -> None:
    producer, operations, _ = produce(
        ProducerOptions(name="p", topic="t", limit=1, retries=1, rate=1000), [None, (200, refused(19))]
    )
    assert operations[0].outcome == "info"
    assert (producer.counts.unknown, producer.counts.with_code(19)) == (1, 1)


def test_what_cannot_succeed_is_not_tried_again() -> None:
    producer, operations, asked = produce(
        ProducerOptions(name="p", topic="t", limit=1, retries=9), [(200, refused(10))]
    )
    assert len(asked) == len(operations) == 1
    assert producer.counts.failed == 1


def test_a_node_that_refused_is_left_alone_for_a_while() -> None:
    async def main() -> None:
        client_world = FakeCluster(())
        targets = Targets(client_world, target="any")
        targets.refused(1)
        assert {targets.choose("t", 0) for _ in range(6)} == {2}
        targets.refused(2)
        assert {targets.choose("t", 0) for _ in range(6)} == {1, 2}, "somebody has to be asked"
        client_world.close()

    asyncio.run(main())
