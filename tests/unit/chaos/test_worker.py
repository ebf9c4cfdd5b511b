"""A worker of a queue: what it repeats, what it concludes from answers, and what it writes into the history."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from kraft.chaos.history import Acknowledge, Delivered, Operation, Receive, Word
from kraft.chaos.workload.queue_client import AcknowledgeResult, Held, QueuePlan, ReceiveResult
from kraft.chaos.workload.rest_queue_client import RestQueueClient
from kraft.chaos.workload.worker import QueueProgress, Worker, WorkerOptions
from kraft.chaos.worlds.processes.timeline import now_us
from kraft.client.response import Answer, Refused, Response, Unknown

OK = AcknowledgeResult(outcome="ok", kafka_code=0)
NO_ANSWER = AcknowledgeResult(outcome="info", error="connection reset")
REFUSED = AcknowledgeResult(outcome="fail", kafka_code=121)
GONE = AcknowledgeResult(outcome="fail", error="connection refused", cannot_now=True)


class FakeQueue:
    """Hands out the records once, and answers acknowledgements as the script has it, the last answer for ever."""

    def __init__(self, values: Sequence[str], script: Sequence[AcknowledgeResult]) -> None:
        self._records = [Delivered(0, offset, 1, value) for offset, value in enumerate(values)]
        self._script = list(script)
        self.words: list[list[Word]] = []
        self.ids: list[list[str]] = []
        self.has_ended = asyncio.Event()

    async def open(self, nodes: Sequence[int]) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def receive(self, node: int, *, wait_ms: int) -> ReceiveResult:
        if not self._records:
            self.has_ended.set()
            await asyncio.sleep(0.01)
        held = [Held(record=record, ack_id=str(record.offset)) for record in self._records]
        self._records = []
        return ReceiveResult(outcome="ok", kafka_code=0, held=held)

    async def acknowledge(self, node: int, items: Sequence[tuple[Held, Word]]) -> Sequence[AcknowledgeResult]:
        self.words.append([word for _, word in items])
        self.ids.append([held.ack_id for held, _ in items])
        result = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        if result.outcome != "ok":
            return [result] * len(items)
        return [
            replace(result, renewed=replace(held, ack_id=f"{held.ack_id}+")) if word == "renew" else result
            for held, word in items
        ]


def worked(
    values: Sequence[str], script: Sequence[AcknowledgeResult], *, lock_ms: int = 3_000, work_ms: int = 0, **more: Any
) -> tuple[Worker, FakeQueue, list[Operation], QueueProgress]:
    """A worker that has acknowledged all that there was, or given it up."""

    async def run() -> tuple[Worker, FakeQueue, list[Operation], QueueProgress]:
        queue, history, progress = FakeQueue(values, script), list[Operation](), QueueProgress()
        world: Any = SimpleNamespace(brokers=(1, 2), latest=None, now_us=now_us, queue_client=lambda name, plan: queue)
        options = WorkerOptions(name="w", topic="t", work_ms=work_ms, lock_ms=lock_ms, **more)
        worker = Worker(options, client_world=world, record=history.append, progress=progress)
        await worker.open()
        await worker.start()
        async with asyncio.timeout(10):
            await queue.has_ended.wait()
            await worker.finish()
        await worker.close()
        return worker, queue, history, progress

    return asyncio.run(run())


def acknowledged(history: Sequence[Operation]) -> list[Acknowledge]:
    return [each for each in history if isinstance(each, Acknowledge)]


def test_accepts_what_it_receives() -> None:
    worker, queue, history, progress = worked(["p:0", "p:1"], [OK])
    received, ack = history
    assert isinstance(received, Receive)
    assert isinstance(ack, Acknowledge)
    assert [record.value for record in received.records] == ["p:0", "p:1"]
    assert (ack.receive, ack.word, ack.records, ack.outcome) == (received.index, "accept", ((0, 0), (0, 1)), "ok")
    assert (worker.counts.read, worker.counts.accepted, worker.counts.uncommitted) == (2, 2, 0)
    assert (progress.done, queue.words) == ({0: {0, 1}}, [["accept", "accept"]])


def test_releases_what_it_cannot_handle() -> None:
    worker, _, history, progress = worked(["p:0", "p:1"], [OK], cannot_handle="p:1")
    assert [(ack.word, ack.records) for ack in acknowledged(history)] == [("accept", ((0, 0),)), ("release", ((0, 1),))]
    assert (worker.counts.accepted, progress.done) == (1, {0: {0}})


def test_renews_its_locks_while_it_works() -> None:
    worker, queue, history, progress = worked(["p:0", "p:1"], [OK], lock_ms=100, work_ms=170, renews=True)
    assert [words[0] for words in queue.words] == ["renew", "renew", "renew", "accept"]
    assert queue.ids[-1] == ["0+++", "1+++"], "an id of the last renewal"
    assert [(ack.word, ack.records) for ack in acknowledged(history)] == [
        *[("renew", ((0, 0), (0, 1)))] * 3,
        ("accept", ((0, 0), (0, 1))),
    ]
    assert (worker.counts.accepted, progress.done) == (2, {0: {0, 1}})


def test_goes_on_with_the_id_that_it_has_when_a_renewal_is_refused() -> None:
    worker, queue, history, _ = worked(["p:0"], [REFUSED], lock_ms=100, work_ms=60, renews=True)
    assert [(ack.word, ack.outcome) for ack in acknowledged(history)] == [("renew", "fail"), ("accept", "fail")]
    assert (queue.ids, worker.counts.with_code(121)) == ([["0"], ["0"]], 2)


@pytest.mark.parametrize("first", [NO_ANSWER, GONE])
def test_repeats_what_may_still_succeed(first: AcknowledgeResult) -> None:
    _, queue, history, _ = worked(["p:0"], [first, OK])
    (ack,) = acknowledged(history)
    assert (ack.outcome, ack.attempts, len(queue.words)) == ("ok", 2, 2)


def test_refusal_ends_it_at_once() -> None:
    worker, _, history, _ = worked(["p:0"], [REFUSED, OK])
    (ack,) = acknowledged(history)
    assert (ack.outcome, ack.kafka_code, ack.attempts) == ("fail", 121, 1)
    assert (worker.counts.with_code(121), worker.counts.accepted) == (1, 0)


def test_refusal_after_a_lost_answer_proves_nothing() -> None:
    (ack,) = acknowledged(worked(["p:0"], [NO_ANSWER, REFUSED])[2])
    assert (ack.outcome, ack.kafka_code) == ("info", 121)


@pytest.mark.parametrize(("last", "outcome"), [(NO_ANSWER, "info"), (GONE, "fail")])
def test_gives_up_when_the_lock_has_ended(last: AcknowledgeResult, outcome: str) -> None:
    (ack,) = acknowledged(worked(["p:0"], [last], lock_ms=200)[2])
    assert ack.outcome == outcome
    assert 200_000 <= ack.complete_us - ack.invoke_us + 50_000 < 2_000_000


# --- over REST --------------------------------------------------------------------------------------------------------

HELD = [(Held(record=Delivered(0, offset, 1, "p:0"), ack_id=str(offset)), "accept") for offset in (4, 5)]


def rest(answer: Response, ask: Callable[[RestQueueClient], Any]) -> Any:
    async def address(name: str, node: int) -> str:
        return "http://127.0.0.1:1"

    async def run() -> Any:
        plan = QueuePlan(group="q", topic="t", batch=10, lock_ms=1_000)
        client = RestQueueClient("w", address, plan, cluster_id="c")

        async def send(*_: Any, **__: Any) -> Response:
            return answer

        client._transport = SimpleNamespace(send=send)  # type: ignore[assignment]
        await client.open([1])
        return await ask(client)

    return asyncio.run(run())


def answered(status: int, document: object) -> Answer:
    return Answer(status=status, headers={}, body=msgspec.json.encode(document))


def row(code: int | None, **more: str) -> dict[str, Any]:
    return {"ack_id": "4", "error_code": None if code is None else 40903, "message": "no", "kafka_code": code} | more


@pytest.mark.parametrize(
    ("answer", "outcomes"),
    [
        (answered(200, {"results": [row(None), row(None)]}), [("ok", 0), ("ok", 0)]),
        (answered(207, {"results": [row(None), row(121)]}), [("ok", 0), ("fail", 121)]),
        (answered(409, {"error_code": 40903, "results": [row(121), row(121)]}), [("fail", 121), ("fail", 121)]),
        (answered(503, {"results": [row(15), row(5)]}), [("info", 15), ("info", 5)]),
        (answered(503, {"error_code": 50302, "message": "not ready"}), [("info", None)] * 2),
        (answered(404, {"error_code": 40405, "kafka_code": 69}), [("fail", 69)] * 2),
        (Refused(reason="refused"), [("fail", None)] * 2),
        (Unknown(reason="broken"), [("info", None)] * 2),
    ],
)
def test_result_of_each_record_over_rest(answer: Response, outcomes: list[tuple[str, int | None]]) -> None:
    results = rest(answer, lambda client: client.acknowledge(1, HELD))
    assert [(each.outcome, each.kafka_code) for each in results] == outcomes


def test_renewed_record_has_its_new_id() -> None:
    answer = answered(207, {"results": [row(None, renewed_ack_id="later"), row(121)]})
    renewed, refused = rest(answer, lambda client: client.acknowledge(1, HELD))
    assert (renewed.renewed.record, renewed.renewed.ack_id, refused.renewed) == (HELD[0][0].record, "later", None)


def test_records_of_a_receive_over_rest() -> None:
    found = {"partition_id": 2, "offset": 7, "delivery_count": 3, "ack_id": "x", "value": {"data": "p:0  "}}
    result = rest(answered(200, {"records": [found]}), lambda client: client.receive(1, wait_ms=0))
    assert [(held.record, held.ack_id) for held in result.held] == [(Delivered(2, 7, 3, "p:0"), "x")]


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [(answered(503, {}), "info"), (Refused(reason="refused"), "fail"), (Unknown(reason="broken"), "info")],
)
def test_failed_receive_over_rest(answer: Response, outcome: str) -> None:
    result = rest(answer, lambda client: client.receive(1, wait_ms=0))
    assert (result.outcome, list(result.held)) == (outcome, [])
