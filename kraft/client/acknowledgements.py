"""Acknowledgements of records that a queue has handed out: joined into requests, and sent until each has its result.

One request is on its way at a time while the next one grows, so workers that finish together share a request. An
acknowledgement whose answer was lost is sent again, to any node: the same one has the same answer while its lock would
last. Those that may wait go with the next receive, if there is one within LINGER_MS.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from kraft.client.clock import Timer
from kraft.client.connection import Connection
from kraft.client.errors import KraftError, OutcomeUnknown, ServerError
from kraft.client.response import Answer, document_of, segment, server_error
from kraft.client.retries import Failure, RetryAfter
from kraft.protocol.errors import for_code

ACKS_MAX: Final = 1_000
"""Acknowledgements that one request may have."""
LINGER_MS: Final = 5
"""How long an acknowledgement waits for a receive that takes it along."""
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
class Waiting:
    """An acknowledgement without its result."""

    ack: Ack
    result: asyncio.Future[Mapping[str, Any]]
    deadline_ms: float
    attempts: int = 0


class Acknowledgements:
    """Those of one group. Not more wait than the program holds records."""

    def __init__(self, group: str, connection: Connection) -> None:
        self._path = f"/share-groups/{segment(group)}/records:acknowledge"
        self._connection = connection
        self._waiting: deque[Waiting] = deque()
        self._sending: asyncio.Task[None] | None = None
        self._timer: Timer | None = None

    async def send(self, ack: Ack, *, may_wait: bool = False) -> Mapping[str, Any]:
        """Its row of the answer, once it is done; `may_wait`: for a receive that takes it along. Raises ServerError
        (code 121: the lock had ended), NothingDone, OutcomeUnknown."""
        loop = asyncio.get_running_loop()
        deadline_ms = self._now_ms() + self._connection.settings.default_api_timeout_ms
        waiting = Waiting(ack, loop.create_future(), deadline_ms)
        waiting.result.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._waiting.append(waiting)
        if not may_wait:
            self._begin()
        elif self._sending is None and self._timer is None:
            self._timer = self._connection.world.clock.call_later(LINGER_MS, self._begin)
        return await asyncio.shield(waiting.result)

    def _begin(self) -> None:
        self._stop_timer()
        if self._sending is None and self._waiting:
            self._sending = asyncio.get_running_loop().create_task(self._send_all())

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def take(self) -> Sequence[Waiting]:
        """Those that a receive takes along, in the order of its body; `answered` or `alone` has to follow."""
        if self._sending is not None:
            return ()
        self._stop_timer()
        return self._next()

    def _next(self) -> Sequence[Waiting]:
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), ACKS_MAX))]

    async def drain(self) -> None:
        """Wait until each has its result."""
        self._begin()
        if self._sending is not None:
            await asyncio.wait([self._sending])

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(0)  # those that are acknowledged in the same turn go together
                wait_ms = await self._send(self._next())
                if wait_ms:
                    await self._connection.world.clock.sleep(wait_ms)
        finally:
            self._sending = None

    async def _send(self, batch: Sequence[Waiting]) -> float:
        """Sends them once, at any node. Returns the wait before those that have to be sent again."""
        acks = documents(batch)
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

    def _got(self, each: Waiting, row: Mapping[str, Any]) -> float:
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

    def answered(self, batch: Sequence[Waiting], rows: Sequence[Mapping[str, Any]]) -> None:
        """The results of those that a receive took along. What has to be sent again goes alone."""
        waits_ms = [self._got(each, row) for each, row in zip(batch, rows, strict=True)]
        if self._waiting and self._timer is None:
            wait_ms = max(waits_ms, default=LINGER_MS)
            self._timer = self._connection.world.clock.call_later(wait_ms, self._begin)

    def alone(self, batch: Sequence[Waiting]) -> None:
        """The receive that took them along has failed: they may be done, and are sent without one."""
        self._waiting.extendleft(reversed(batch))
        self._begin()

    def _fail(self, those: Sequence[Waiting], error: KraftError) -> None:
        for each in those:
            if not each.result.done():
                each.result.set_exception(error)

    def _now_ms(self) -> float:
        return self._connection.world.clock.monotonic_ms()


def documents(batch: Sequence[Waiting]) -> Sequence[Mapping[str, Any]]:
    """The acknowledgements as a request has them."""
    return [_document(each.ack) for each in batch]


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
