"""A producer: sends records with unique values at a rate, retries by its options, and records every operation.

One operation is one request for one partition; its attempts carry the same records. Two requests in flight never share
a connection, and no layer below repeats a request.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from kraft.chaos.history import Acks, Attempt, Operation, Produce
from kraft.chaos.workload.client import Batch, KeyValue, ProduceResult
from kraft.chaos.workload.client_life import ClientLife
from kraft.chaos.workload.requests import value_text
from kraft.chaos.workload.targets import ClientWorld, Target, Targets
from kraft.client.outcome import of_attempts
from kraft.client.retries import Failure, RetryAfter, RetryPolicy, next_step
from kraft.protocol.partitioner import partition_of_key

RETRY_BACKOFF_MS: Final = 100
"""Kafka's default of retry.backoff.ms."""
REPEATED: Final = "sent again by the client's library"
BEHIND_S_MAX: Final = 0.5
"""A delayed producer catches up by at most so much of its rate."""

Record = Callable[[Operation], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerOptions:
    name: str
    topic: str
    partition: int | None = None
    """None: by key, or round robin."""
    acks: Acks = "all"
    rate: int = 100
    """Records per second."""
    limit: int | None = None
    keys: int = 0
    retries: int = 0
    idempotent: bool = False
    """All attempts of an operation have the same Idempotency-Key."""
    in_flight: int = 1
    batch: int = 1
    value_bytes: int = 0
    timeout_ms: int = 5_000
    target: Target = "any"


class Producer(ClientLife):
    def __init__(self, options: ProducerOptions, *, client_world: ClientWorld, record: Record) -> None:
        self.options = options
        self._record = record
        self._targets = Targets(client_world, target=options.target)
        self._client = client_world.client(options.name, in_flight_max=options.in_flight)
        self._now_us = client_world.now_us
        self._in_flight = asyncio.Semaphore(options.in_flight)
        super().__init__(options.name, self._client, self._targets.nodes)

    async def wait(self) -> None:
        """Wait until the limit is reached and the last answer has arrived."""
        assert self._running is not None, f"{self.options.name} was never started"
        await asyncio.shield(self._running)

    # --- sending ----------------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        async with asyncio.TaskGroup() as operations:
            await self._send_all(operations)

    async def _send_all(self, operations: asyncio.TaskGroup) -> None:
        loop, options = asyncio.get_running_loop(), self.options
        due = loop.time()
        while not self._is_ending.is_set() and (count := self._next_count()):
            await self._pause(due - loop.time())
            await self._in_flight.acquire()
            if self._is_ending.is_set():
                self._in_flight.release()
                return
            operations.create_task(self._operation(self._next_index(), self.counts.sent, count))
            self.counts.sent += count
            due = max(due, loop.time() - BEHIND_S_MAX) + count / options.rate

    def _next_count(self) -> int:
        left = self.options.batch if self.options.limit is None else self.options.limit - self.counts.sent
        return min(self.options.batch, left)

    async def _operation(self, index: int, first: int, count: int) -> None:
        options = self.options
        key = f"k{index % options.keys}" if options.keys else None
        records = tuple((key, value_text(options.name, first + n)) for n in range(count))
        partition = self._partition(index, key)
        batch = Batch(
            topic=options.topic,
            partition=partition,
            records=records,
            acks=options.acks,
            timeout_ms=options.timeout_ms,
            value_bytes=options.value_bytes,
            idempotency_key=f"{options.name}-{index}" if options.idempotent else "",
        )
        try:
            invoke_us = self._now_us()
            attempts, result = await self._attempt_all(batch)
            self._finish_operation(index, partition, records, invoke_us, attempts, result)
        finally:
            self._in_flight.release()

    def _partition(self, index: int, key: str | None) -> int:
        if self.options.partition is not None:
            return self.options.partition
        partitions = self._targets.partitions(self.options.topic)
        number = index if key is None else partition_of_key(key.encode(), len(partitions))
        return partitions[number % len(partitions)]

    async def _attempt_all(self, batch: Batch) -> tuple[list[Attempt], ProduceResult]:
        attempts: list[Attempt] = []
        policy = RetryPolicy(backoff_ms=RETRY_BACKOFF_MS, backoff_max_ms=RETRY_BACKOFF_MS, retries=self.options.retries)
        while True:
            attempt, result = await self._attempt(batch)
            attempts += [replace(attempt, outcome="info", error=REPEATED)] * result.repeats
            attempts.append(attempt)
            failure = None
            if result.outcome != "ok":
                failure = Failure(reason=result.error or "", may_retry=result.may_try_again)
            step = next_step(failure, attempts=len(attempts), left_ms=math.inf, policy=policy)
            if not isinstance(step, RetryAfter):
                return attempts, result
            await asyncio.sleep(step.wait_ms / 1000)

    async def _attempt(self, batch: Batch) -> tuple[Attempt, ProduceResult]:
        node = self._targets.choose(batch.topic, batch.partition)
        invoke_us = self._now_us()
        result = await self._client.produce(node, batch)
        if result.cannot_now:
            self._targets.refused(node)
        attempt = Attempt(
            node=node,
            outcome=result.outcome,
            kafka_code=result.kafka_code,
            invoke_us=invoke_us,
            complete_us=self._now_us(),
            error=result.error,
        )
        return attempt, result

    def _finish_operation(
        self,
        index: int,
        partition: int,
        records: tuple[KeyValue, ...],
        invoke_us: int,
        attempts: list[Attempt],
        result: ProduceResult,
    ) -> None:
        outcome = of_attempts(attempt.outcome for attempt in attempts)
        self._record(
            Produce(
                process=self.options.name,
                index=index,
                invoke_us=invoke_us,
                complete_us=self._now_us(),
                topic=self.options.topic,
                partition=partition,
                acks=self.options.acks,
                node=attempts[-1].node,
                records=records,
                outcome=outcome,
                kafka_code=result.kafka_code,
                offsets=result.offsets,
                attempts=tuple(attempts),
                error=result.error,
            )
        )
        self._count(len(records), outcome, result.kafka_code)

    def _count(self, records: int, outcome: str, kafka_code: int | None) -> None:
        counts = self.counts
        if outcome == "ok":
            counts.acked += records
        elif outcome == "fail":
            counts.failed += records
        else:
            counts.unknown += records
        if kafka_code:
            counts.codes[kafka_code] += records
