"""Acknowledgements of records that a queue has handed out: joined into requests, and sent until each has its result.

One request is on its way at a time while the next one grows, so workers that finish together share a request. An
acknowledgement whose answer was lost is sent again, to any node: the same one has the same answer while its lock would
last.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from kraft.client.connection import Connection
from kraft.client.errors import KraftError, OutcomeUnknown, ServerError
from kraft.client.response import Answer, document_of, segment, server_error
from kraft.client.retries import Failure, RetryAfter
from kraft.protocol.errors import for_code

ACKS_MAX: Final = 1_000
"""Acknowledgements that one request may have."""
Word: TypeAlias = Literal["accept", "release", "reject", "renew"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """What becomes of one record."""

    ack_id: str
    type: Word
    reason: str = ""
    lock_ms: int | None = None
    delay_ms: int | None = None


@dataclass(slots=True, eq=False)
class _Waiting:
    ack: Ack
    result: asyncio.Future[Mapping[str, Any]]
    deadline_ms: float
    attempts: int = 0


class Acknowledgements:
    """Those of one group. Not more wait than the program holds records."""

    def __init__(self, group: str, connection: Connection) -> None:
        self._path = f"/share-groups/{segment(group)}/records:acknowledge"
        self._connection = connection
        self._waiting: deque[_Waiting] = deque()
        self._sending: asyncio.Task[None] | None = None

    async def send(self, ack: Ack) -> Mapping[str, Any]:
        """Its row of the answer, once it is done. Raises ServerError (code 121: the lock had ended), NothingDone,
        OutcomeUnknown."""
        loop = asyncio.get_running_loop()
        deadline_ms = self._now_ms() + self._connection.settings.default_api_timeout_ms
        waiting = _Waiting(ack, loop.create_future(), deadline_ms)
        waiting.result.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._waiting.append(waiting)
        if self._sending is None:
            self._sending = loop.create_task(self._send_all())
        return await asyncio.shield(waiting.result)

    async def drain(self) -> None:
        """Wait until each has its result."""
        if self._sending is not None:
            await asyncio.wait([self._sending])

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(0)  # those that are acknowledged in the same turn go together
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), ACKS_MAX))]
                wait_ms = await self._send(batch)
                if wait_ms:
                    await self._connection.world.clock.sleep(wait_ms)
        finally:
            self._sending = None

    async def _send(self, batch: Sequence[_Waiting]) -> float:
        """Sends them once, at any node. Returns the wait before those that have to be sent again."""
        acks = [_document(each.ack) for each in batch]
        try:
            path = await self._connection.v3(self._path)
            answer = await self._connection.ask(self._connection.request("POST", path, {"acks": acks}))
        except KraftError as error:
            self._fail(batch, error)
            return 0
        rows = document_of(answer).get("results")
        if rows is None:
            self._fail(batch, _without_results(answer))
            return 0
        return max((self._got(each, row) for each, row in zip(batch, rows, strict=True)), default=0)

    def _got(self, each: _Waiting, row: Mapping[str, Any]) -> float:
        if row["error_code"] is None:
            if not each.result.done():
                each.result.set_result(row)
            return 0
        error = _row_error(row)
        each.attempts += 1
        failure = Failure(reason=error.message, may_retry=error.retriable)
        step = self._connection.next_step(failure, attempts=each.attempts, deadline_ms=each.deadline_ms)
        if isinstance(step, RetryAfter):
            self._waiting.append(each)
            return step.wait_ms
        self._fail([each], error)
        return 0

    def _fail(self, those: Sequence[_Waiting], error: KraftError) -> None:
        for each in those:
            if not each.result.done():
                each.result.set_exception(error)

    def _now_ms(self) -> float:
        return self._connection.world.clock.monotonic_ms()


def _document(ack: Ack) -> Mapping[str, Any]:
    document: dict[str, Any] = {"ack_id": ack.ack_id, "type": ack.type}
    if ack.reason:
        document["reason"] = ack.reason
    if ack.lock_ms is not None:
        document["lock_ms"] = ack.lock_ms
    if ack.delay_ms is not None:
        document["delay_ms"] = ack.delay_ms
    return document


def _row_error(row: Mapping[str, Any]) -> ServerError:
    code: int | None = row["kafka_code"]
    return ServerError(
        str(row["message"]),
        status=int(str(row["error_code"])[:3]),
        error_code=row["error_code"],
        code=code,
        retriable=code is not None and for_code(code).retriable,
    )


def _without_results(answer: Answer) -> KraftError:
    if answer.is_success:
        return OutcomeUnknown("an answer to acknowledgements has no results")
    return server_error(answer)
