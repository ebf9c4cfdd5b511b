"""Delivers one batch at a time: to its leader or any live node, again after failures, until each record has a result.

A batch is one RecordBatch v2 as it will be in the log, so no node encodes it again. All attempts carry the same bytes
and, with enable.idempotence, the same Idempotency-Key: what an attempt wrote whose answer was lost stays single.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, cast

from kraft.client.connection import Connection
from kraft.client.errors import DeliveryFailed, RecordRefused, RecordUnknown
from kraft.client.outcome import FAIL, OK, Outcome, of_attempts
from kraft.client.records import Sent
from kraft.client.response import (
    NO_OFFSET,
    Answer,
    ProduceResponse,
    Request,
    read_produce_response,
    segment,
)
from kraft.client.retries import Done, Failure, RetryAfter, Step, Why
from kraft.client.settings import ProducerSettings
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.errors import RequestTimedOut
from kraft.protocol.media_types import RECORD_BATCH

ANSWER_SLACK_MS: Final = 500
"""Beyond request.timeout.ms, which the node keeps too: its own verdict arrives first."""
SLOT_NODES_MAX: Final = 10_000
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Counts:
    """Records by their result, since the producer was made; and requests, with the repeated ones."""

    acknowledged: int = 0
    refused: int = 0
    unknown: int = 0
    batches: int = 0
    attempts: int = 0


class BatchKeys:
    """An Idempotency-Key for each batch, never the same twice: a random name and a count."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._count = 0

    def next(self) -> str:
        self._count += 1
        return f"{self._name}-{self._count}"


class Sender:
    def __init__(self, connection: Connection, settings: ProducerSettings) -> None:
        self._connection = connection
        self._settings = settings
        self._clock = connection.world.clock
        self._keys = BatchKeys(connection.world.rng.randbytes(16).hex())
        self._slots: dict[str, asyncio.Semaphore] = {}
        self.counts = Counts()

    async def deliver(self, batch: Sequence[Sent]) -> None:
        """Until all records have their result. Cancelled, they get one too: unknown once an attempt was made."""
        self.counts.batches += 1
        seen: Outcome = FAIL
        attempts = 0
        where = (batch[0].topic, batch[0].partition)
        request = self._request(where, batch)
        deadline_ms = batch[0].created_ms + self._settings.delivery_timeout_ms
        avoid: str | None = None
        try:
            while True:
                attempts += 1
                response, avoid = await self._attempt(where, request, deadline_ms, avoid)
                match self._step_after(response, seen, attempts, len(batch), deadline_ms):
                    case Done():
                        return self._acknowledge(batch, response.base_offset, response.leader_epoch)
                    case Failed(failure=failure):
                        return self.fail(batch, failure)
                    case Halve():
                        break
                    case RetryAfter(wait_ms=wait_ms):
                        seen = of_attempts((seen, response.outcome))
                        await self._clock.sleep(wait_ms)
            middle = len(batch) // 2
            await self.deliver(batch[:middle])
            await self.deliver(batch[middle:])
        except asyncio.CancelledError:
            self.fail([record for record in batch if not record.is_done], _closed(attempts))
            raise

    def fail(self, batch: Sequence[Sent], failure: DeliveryFailed) -> None:
        if not batch:
            return
        if isinstance(failure, RecordUnknown):
            self.counts.unknown += len(batch)
        else:
            self.counts.refused += len(batch)
        where = f"{batch[0].topic}-{batch[0].partition}"
        _log.warning("%d records of %s %s", len(batch), where, failure)
        for record in batch:
            record.fail(failure)

    def _acknowledge(self, batch: Sequence[Sent], base_offset: int, leader_epoch: int | None) -> None:
        self.counts.acknowledged += len(batch)
        if base_offset == NO_OFFSET:
            for record in batch:
                record.acknowledge(NO_OFFSET, leader_epoch)
            return
        for offset, record in enumerate(batch, base_offset):
            record.acknowledge(offset, leader_epoch)

    def _request(self, where: tuple[str, int], batch: Sequence[Sent]) -> Request:
        settings = self._settings
        headers = {"Content-Type": RECORD_BATCH}
        if settings.enable_idempotence:
            headers["Idempotency-Key"] = self._keys.next()
        # Only attributes are read, and a record has those of a NewRecord.
        body = build_batch(cast(Sequence[NewRecord], batch), compression=settings.compression_type)
        topic, partition = where
        path = f"/topics/{segment(topic)}/partitions/{partition}?acks={settings.acks}"
        return Request(method="POST", path=path, body=body, headers=headers)

    async def _attempt(
        self, where: tuple[str, int], request: Request, deadline_ms: float, avoid: str | None
    ) -> tuple[ProduceResponse, str | None]:
        """What it came to, and the node that is not to be asked next."""
        leader = await self._connection.leader(*where)
        now_ms = self._clock.monotonic_ms()
        nodes = self._connection.nodes
        url = nodes.choose(now_ms, prefer=leader, avoid=avoid)
        await self._clock.sleep(nodes.wait_ms(url, now_ms))
        async with self._slot(url):
            left_ms = int(deadline_ms - self._clock.monotonic_ms())
            if left_ms <= 0:
                return ProduceResponse(outcome=FAIL, reason="it was not sent in time", may_retry=True), avoid
            self.counts.attempts += 1
            answer = await self._connection.world.sender.send(url, self._timed(request, left_ms))
        response = read_produce_response(answer, acks=self._settings.acks)
        if isinstance(answer, Answer):
            nodes.answered(url)
        if response.outcome == OK:
            return response, None
        self._connection.doubt(url if response.is_node_gone else None, topic=where[0])
        return response, url

    def _timed(self, request: Request, left_ms: int) -> Request:
        timeout_ms = min(self._settings.request_timeout_ms, left_ms)
        return Request(
            method=request.method,
            path=f"{request.path}&timeout={timeout_ms}",
            body=request.body,
            headers=request.headers,
            timeout_ms=min(timeout_ms + ANSWER_SLACK_MS, left_ms),
        )

    def _step_after(
        self, response: ProduceResponse, seen: Outcome, attempts: int, records: int, deadline_ms: float
    ) -> ProduceStep:
        failure = None
        if response.outcome != OK:
            # The node that is gone is left for another one at once, but not one after the other.
            is_node_gone = response.is_node_gone and attempts == 1
            failure = Failure(reason=response.reason, may_retry=response.may_retry, is_node_gone=is_node_gone)
        retries = self._settings.retries
        step = self._connection.next_step(failure, attempts=attempts, deadline_ms=deadline_ms, retries=retries)
        return produce_step(step, response, earlier=seen, attempts=attempts, records=records, retries=retries)

    def _slot(self, url: str) -> asyncio.Semaphore:
        slot = self._slots.get(url)
        if slot is None:
            if len(self._slots) >= SLOT_NODES_MAX:
                self._slots.clear()
            slot = self._slots[url] = asyncio.Semaphore(self._settings.max_in_flight_requests_per_connection)
        return slot


def _closed(attempts: int) -> DeliveryFailed:
    if attempts:
        return RecordUnknown("may have been written: the producer was closed while it was on its way")
    return RecordRefused("surely not written: the producer was closed before it was sent")


def expired(delivery_timeout_ms: int) -> RecordRefused:
    return RecordRefused(
        f"surely not written: it waited for delivery.timeout.ms={delivery_timeout_ms} behind others and was never sent",
        code=RequestTimedOut.code,
        retriable=True,
    )


def never_sent() -> RecordRefused:
    return RecordRefused("surely not written: the producer was closed before it was sent")


@dataclass(frozen=True, slots=True)
class Halve:
    """The batch is too large for its topic; nothing of it was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """No further attempt is made."""

    failure: DeliveryFailed


ProduceStep: TypeAlias = Done | RetryAfter | Halve | Failed


def produce_step(
    step: Step, response: ProduceResponse, *, earlier: Outcome, attempts: int, records: int, retries: int
) -> ProduceStep:
    """The next step after an attempt to deliver a batch; `step` is what the retry policy allows.

    `earlier`: of all attempts before this one, `fail` when there was none. `attempts`: with this one.
    """
    if isinstance(step, Done):
        return step
    whole = of_attempts((earlier, response.outcome))
    if response.is_too_large and records > 1 and whole == FAIL:
        return Halve()
    if isinstance(step, RetryAfter):
        return step
    match step.why:
        case Why.FINAL:
            why = f"after {attempts} attempts" if attempts > 1 else ""
        case Why.RETRIES:
            why = f"and retries={retries}"
        case Why.TIME:
            why = f"and delivery.timeout.ms is over, after {attempts} attempts"
    return Failed(failure=failure(whole, response, why))


def failure(outcome: Outcome, response: ProduceResponse, why: str) -> DeliveryFailed:
    text = f"{response.reason} ({why})" if why else response.reason
    if outcome == FAIL:
        return RecordRefused(f"surely not written: {text}", code=response.code, retriable=response.may_retry)
    return RecordUnknown(f"may have been written: {text}", code=response.code)
