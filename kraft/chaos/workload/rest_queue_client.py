"""A worker of a queue over REST (v3 `records:receive` and `records:acknowledge`), through links of its own to real
nodes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote

import msgspec

from kraft.chaos.history import Delivered, Word
from kraft.chaos.workload.queue_client import (
    ACKNOWLEDGE_TIMEOUT_MS,
    RECEIVE_SLACK_MS,
    AcknowledgeResult,
    Held,
    QueuePlan,
    ReceiveResult,
    of_acknowledgement,
)
from kraft.chaos.workload.requests import cannot_now, value_of
from kraft.client.outcome import of_broken_connection, of_refused_connection
from kraft.client.response import Answer, Refused, Request, Response, document_of
from kraft.client.transport import Transport

JSON: Final = "application/json"


class RestQueueClient:
    """Implements `QueueClient`."""

    def __init__(
        self, name: str, address: Callable[[str, int], Awaitable[str]], plan: QueuePlan, *, cluster_id: str
    ) -> None:
        """`address`: the base URL of this client's link to a node."""
        self._name = name
        self._address = address
        self._plan = plan
        self._path = f"/v3/clusters/{quote(cluster_id)}/share-groups/{quote(plan.group)}/records"
        self._addresses: dict[int, str] = {}
        self._transport: Transport | None = None

    async def open(self, nodes: Sequence[int]) -> None:
        for node in nodes:
            self._addresses[node] = await self._address(self._name, node)

    async def close(self) -> None:
        if self._transport is not None:
            await self._transport.close()

    async def receive(self, node: int, *, wait_ms: int) -> ReceiveResult:
        plan = self._plan
        body = {
            "topics": [plan.topic],
            "max_records": plan.batch,
            "max_wait_ms": wait_ms,
            "lock_ms": plan.lock_ms,
            "format": "STRING",
        }
        answer = await self._send(node, ":receive", body, timeout_ms=wait_ms + RECEIVE_SLACK_MS)
        if not isinstance(answer, Answer) or not answer.is_success:
            failed = _failed(answer)
            return ReceiveResult(
                outcome=failed.outcome,
                kafka_code=failed.kafka_code,
                error=failed.error,
                cannot_now=failed.cannot_now,
            )
        return ReceiveResult(outcome="ok", kafka_code=0, held=[_held(row) for row in document_of(answer)["records"]])

    async def acknowledge(self, node: int, items: Sequence[tuple[Held, Word]]) -> Sequence[AcknowledgeResult]:
        body = {"acks": [{"ack_id": held.ack_id, "type": word} for held, word in items]}
        answer = await self._send(node, ":acknowledge", body, timeout_ms=ACKNOWLEDGE_TIMEOUT_MS)
        rows = document_of(answer).get("results") if isinstance(answer, Answer) else None
        if rows is None:
            return [_failed(answer)] * len(items)
        return [_result(held, row) for (held, _), row in zip(items, rows, strict=True)]

    async def _send(self, node: int, path: str, body: Any, *, timeout_ms: int) -> Response:
        headers = {"Accept": JSON, "Content-Type": JSON}
        data = msgspec.json.encode(body)
        request = Request(method="POST", path=self._path + path, body=data, headers=headers, timeout_ms=timeout_ms)
        if self._transport is None:
            self._transport = Transport(connections_max=1)
        return await self._transport.send(self._addresses[node], request)


def _held(row: dict[str, Any]) -> Held:
    value = value_of((row["value"] or {}).get("data") or "")
    record = Delivered(row["partition_id"], row["offset"], row["delivery_count"], value)
    return Held(record=record, ack_id=row["ack_id"])


def _result(held: Held, row: dict[str, Any]) -> AcknowledgeResult:
    if row["error_code"] is None:
        renewed = row.get("renewed_ack_id")
        again = None if renewed is None else replace(held, ack_id=renewed)
        return AcknowledgeResult(outcome="ok", kafka_code=0, renewed=again)
    code = row["kafka_code"]
    return AcknowledgeResult(outcome=of_acknowledgement(code), kafka_code=code, error=row["message"])


def _failed(answer: Response) -> AcknowledgeResult:
    """Nothing is known of single records."""
    if isinstance(answer, Refused):
        return AcknowledgeResult(outcome=of_refused_connection(), error=answer.reason, cannot_now=True)
    if not isinstance(answer, Answer):
        return AcknowledgeResult(outcome=of_broken_connection(), error=answer.reason)
    document = document_of(answer)
    return AcknowledgeResult(
        outcome="fail" if 400 <= answer.status < 500 else "info",
        kafka_code=document.get("kafka_code"),
        error=document.get("message") or f"HTTP status {answer.status}",
        cannot_now=cannot_now(answer),
    )
