"""A transactional producer that speaks HTTP, through links of its own: five requests, each to any node.

Each request has the producer id and epoch, and a produce has its sequence, so a repeated request changes nothing. This
client never retries: the history contains the result of each attempt.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec

from kraft.chaos.workload.client import Batch, ProduceResult
from kraft.chaos.workload.requests import ANSWER_SLACK_MS, TEXT, cannot_now, produce_result
from kraft.chaos.workload.transaction_client import StepResult, TransactionPlan, of_end
from kraft.client.outcome import Outcome
from kraft.client.response import Answer, Refused, Request, Response, document_of
from kraft.client.transport import Transport

V2: Final = "application/vnd.kafka.v2+json"
NEXT_SEQUENCE: Final = "x-next-sequence"


class RestTransactionClient:
    """Implements `TransactionClient`."""

    def __init__(self, name: str, address: Callable[[str, int], Awaitable[str]], plan: TransactionPlan) -> None:
        """`address`: the base URL of this client's link to a node."""
        self._name = name
        self._address = address
        self._plan = plan
        self._addresses: dict[int, str] = {}
        self._transport: Transport | None = None
        self._producer: tuple[int, int] | None = None
        """Producer id and epoch."""
        self._sequences: dict[str, str] = {}
        """Topic -> the next sequences of its partitions, from the last answer."""

    async def open(self, nodes: Sequence[int]) -> None:
        for node in nodes:
            self._addresses[node] = await self._address(self._name, node)

    async def close(self) -> None:
        if self._transport is not None:
            await self._transport.close()

    async def begin(self, node: int) -> StepResult:
        if self._producer is None:
            body = {"transaction.timeout.ms": self._plan.transaction_timeout_ms}
            answer = await self._send(node, "", body)
            if not _is_done(answer):
                return _outcome_of(answer)
            self._take(answer)
        assert self._producer is not None
        return StepResult(outcome="ok", producer_id=self._producer[0], epoch=self._producer[1])

    async def produce(self, node: int, batch: Batch) -> ProduceResult:
        body = {"records": [{"value": value} for _, value in batch.records]}
        path = f"/topics/{quote(batch.topic)}/partitions/{batch.partition}"
        sequence = self._sequences.get(batch.topic, "")
        answer = await self._send(node, path, body, media=TEXT, sequence=sequence, acks="all")
        if isinstance(answer, Answer) and NEXT_SEQUENCE in answer.headers:
            self._sequences[batch.topic] = answer.headers[NEXT_SEQUENCE]
        return produce_result(answer, acks="all")

    async def add_offsets(self, node: int, group: str, topic: str, offsets: Mapping[int, int]) -> StepResult:
        rows = [{"topic": topic, "partition": partition, "offset": offset} for partition, offset in offsets.items()]
        answer = await self._send(node, "/offsets", {"group": group, "partitions": rows})
        return StepResult(outcome="ok") if _is_done(answer) else _outcome_of(answer)

    async def end(self, node: int, *, is_commit: bool) -> StepResult:
        answer = await self._send(node, "/commit" if is_commit else "/abort")
        if not _is_done(answer):
            self._producer = None
            return _outcome_of(answer)
        self._take(answer)
        return StepResult(outcome="ok")

    def _take(self, answer: Response) -> None:
        assert isinstance(answer, Answer), answer
        found = msgspec.json.decode(answer.body)
        self._producer = (found["producer_id"], found["producer_epoch"])
        self._sequences.clear()

    async def _send(self, node: int, path: str, body: Any = None, *, media: str = V2, **query: object) -> Response:
        data = b"" if body is None else msgspec.json.encode(body)
        if self._producer is not None:
            query |= {"producer_id": self._producer[0], "producer_epoch": self._producer[1]}
        asked = f"?{urlencode(query)}" if query else ""
        request = Request(
            method="POST",
            path=f"/transactions/{quote(self._plan.transactional_id)}{path}{asked}",
            body=data,
            headers={"Content-Type": media} if data else {},
            timeout_ms=2 * self._plan.timeout_ms + ANSWER_SLACK_MS,
        )
        if self._transport is None:
            self._transport = Transport(connections_max=1)
        return await self._transport.send(self._addresses[node], request)


def _is_done(answer: Response) -> bool:
    return isinstance(answer, Answer) and answer.is_success


def _outcome_of(answer: Response) -> StepResult:
    if not isinstance(answer, Answer):
        outcome: Outcome = "fail" if isinstance(answer, Refused) else "info"
        return StepResult(outcome=outcome, error=answer.reason, cannot_now=cannot_now(answer))
    document = document_of(answer)
    code = document.get("kafka_code")
    message = str(document.get("message") or f"HTTP status {answer.status}")
    return StepResult(outcome=of_end(code), kafka_code=code, error=message, cannot_now=cannot_now(answer))
