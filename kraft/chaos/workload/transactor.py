"""A transactional producer: writes a few batches, commits a group's offset with them, and ends the transaction.

It commits most transactions and aborts each n-th; it also aborts a transaction with a failed batch or failed offsets. A
fenced producer ends: another instance has its transactional id.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from kraft.chaos.history import Asked, Attempt, Produce, Transaction
from kraft.chaos.workload.client import Batch
from kraft.chaos.workload.client_life import ClientLife
from kraft.chaos.workload.producer import Record
from kraft.chaos.workload.requests import value_text
from kraft.chaos.workload.targets import ClientWorld, Target, Targets
from kraft.chaos.workload.transaction_client import FENCED, Flow, StepResult, TransactionPlan

ERROR_PAUSE_S: Final = 0.1
OFFSETS_PARTITION: Final = 0
NOT_ENDED: Final = StepResult(outcome="info", error="its client was gone")


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactorOptions:
    name: str
    topic: str
    transactional_id: str = ""
    """The transactional id; empty: the name of the client."""
    flow: Flow = "new"
    rate: int = 10
    """Transactions per second."""
    limit: int | None = None
    batches: int = 3
    batch: int = 2
    aborts_every: int = 0
    group: str | None = None
    work_ms: int = 0
    transaction_timeout_ms: int = 10_000
    timeout_ms: int = 5_000
    target: Target = "leader"


class Transactor(ClientLife):
    def __init__(self, options: TransactorOptions, *, client_world: ClientWorld, record: Record) -> None:
        self.options = options
        self._record = record
        self._targets = Targets(client_world, target=options.target)
        plan = TransactionPlan(
            transactional_id=options.transactional_id or options.name,
            transaction_timeout_ms=options.transaction_timeout_ms,
            timeout_ms=options.timeout_ms,
            flow=options.flow,
        )
        self._plan = plan
        self._client = client_world.transaction_client(options.name, plan)
        self._now_us = client_world.now_us
        super().__init__(options.name, self._client, self._targets.nodes)
        self._number = 0
        self._is_fenced = False

    # --- its life -----------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        loop, options = asyncio.get_running_loop(), self.options
        due = loop.time()
        while not self._is_over():
            await self._pause(due - loop.time())
            if self._is_over():
                return
            due = max(due, loop.time()) + 1 / options.rate
            await self._begin()

    def _is_over(self) -> bool:
        is_last = self.options.limit is not None and self._number >= self.options.limit
        return self._is_ending.is_set() or self._is_fenced or is_last

    async def _begin(self) -> None:
        node = self._node(0)
        result = await self._client.begin(node)
        if result.cannot_now:
            self._targets.refused(node)
        if result.outcome == "ok":
            await self._transaction(result)
            return
        self._take_code(result.kafka_code)
        await self._pause(ERROR_PAUSE_S)

    async def _transaction(self, begun: StepResult) -> None:
        number, invoke_us = self._number, self._now_us()
        self._number += 1
        asked: Asked = "nothing"
        node, result = self._node(0), NOT_ENDED
        offsets: tuple[tuple[str, str, int, int], ...] = ()
        try:
            is_whole = await self._write(number)
            if is_whole and self.options.group is not None:
                offsets = self._offsets_of(number)  # whether they were taken or not: after an abort none may count
                is_whole = await self._add_offsets(number)
            await asyncio.sleep(self.options.work_ms / 1000)
            every = self.options.aborts_every
            asked = "commit" if is_whole and not (every and number % every == every - 1) else "abort"
            node = self._node(0)
            result = await self._client.end(node, is_commit=asked == "commit")
            if result.cannot_now:
                self._targets.refused(node)
        finally:
            self._keep_end(number, invoke_us, node, begun, asked, result, offsets)
        self._take_code(result.kafka_code)

    async def _write(self, number: int) -> bool:
        """True if every batch was acknowledged."""
        options = self.options
        partitions = self._targets.partitions(options.topic)
        for turn in range(options.batches):
            partition = partitions[(number + turn) % len(partitions)]
            values = [value_text(options.name, self.counts.sent + n) for n in range(options.batch)]
            self.counts.sent += options.batch
            batch = Batch(
                topic=options.topic,
                partition=partition,
                records=[(None, value) for value in values],
                acks="all",
                timeout_ms=options.timeout_ms,
            )
            if not await self._produce(number, batch):
                return False
        return True

    async def _produce(self, number: int, batch: Batch) -> bool:
        node, invoke_us = self._node(batch.partition), self._now_us()
        result, is_answered = None, False
        try:
            result = await self._client.produce(node, batch)
            is_answered = True
        finally:
            outcome = result.outcome if result is not None else "info"
            attempt = Attempt(
                node=node,
                outcome=outcome,
                kafka_code=result.kafka_code if result is not None else None,
                invoke_us=invoke_us,
                complete_us=self._now_us(),
                error=result.error if result is not None else "its client was gone",
            )
            self._record(
                Produce(
                    process=self.options.name,
                    index=self._next_index(),
                    invoke_us=invoke_us,
                    complete_us=attempt.complete_us,
                    topic=batch.topic,
                    partition=batch.partition,
                    acks="all",
                    node=node,
                    records=tuple(batch.records),
                    outcome=outcome,
                    kafka_code=attempt.kafka_code,
                    offsets=result.offsets if result is not None else None,
                    attempts=(attempt,),
                    error=attempt.error,
                    transaction=number,
                )
            )
        assert is_answered
        if result.cannot_now:
            self._targets.refused(node)
        self._count(len(batch.records), result.outcome)
        self._take_code(result.kafka_code)
        return result.outcome == "ok"

    def _count(self, records: int, outcome: str) -> None:
        counts = self.counts
        if outcome == "ok":
            counts.acked += records
            counts.uncommitted += records
        elif outcome == "fail":
            counts.failed += records
        else:
            counts.unknown += records

    def _offsets_of(self, number: int) -> tuple[tuple[str, str, int, int], ...]:
        """The offsets to commit: the number of the transaction, counted from 1, so that the offset of the group is the
        number of the last committed transaction."""
        assert self.options.group is not None
        return ((self.options.group, self.options.topic, OFFSETS_PARTITION, number + 1),)

    async def _add_offsets(self, number: int) -> bool:
        """True if the offsets were acknowledged."""
        ((group, topic, partition, offset),) = self._offsets_of(number)
        result = await self._client.add_offsets(self._node(0), group, topic, {partition: offset})
        self._take_code(result.kafka_code)
        return result.outcome == "ok"

    def _take_code(self, code: int | None) -> None:
        if code:
            self.counts.codes[code] += 1
        if code in FENCED and not self._is_own_fence():
            self._is_fenced = True

    def _is_own_fence(self) -> bool:
        """True if the coordinator's timeout fenced the only instance: it begins again."""
        return not self.options.transactional_id

    def _node(self, partition: int) -> int:
        return self._targets.choose(self.options.topic, partition)

    # --- the history --------------------------------------------------------------------------------------------

    def _keep_end(
        self,
        number: int,
        invoke_us: int,
        node: int,
        begun: StepResult,
        asked: Asked,
        result: StepResult,
        offsets: tuple[tuple[str, str, int, int], ...],
    ) -> None:
        self.counts.uncommitted = 0
        if result.outcome == "ok" and asked == "commit":
            self.counts.committed += 1
        elif result.outcome == "ok":
            self.counts.aborted += 1
        self._record(
            Transaction(
                process=self.options.name,
                index=self._next_index(),
                invoke_us=invoke_us,
                complete_us=self._now_us(),
                node=node,
                transactional_id=self._plan.transactional_id,
                number=number,
                producer_id=begun.producer_id,
                epoch=begun.epoch,
                asked=asked,
                attempts=result.attempts,
                offsets=offsets,
                outcome=result.outcome,
                kafka_code=result.kafka_code,
                error=result.error,
            )
        )
