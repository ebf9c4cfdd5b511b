"""A worker of a queue: receives records, works, acknowledges them, receives again; and ends, or is silent.

It accepts each record but the one that it cannot handle, which it releases. One that works for longer than a lock lasts
may renew its locks meanwhile. An acknowledgement without an answer is sent again until the locks have ended: until then
a repeated one has the same answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from kraft.chaos.history import Acknowledge, Receive, Word
from kraft.chaos.workload.client_life import ClientLife
from kraft.chaos.workload.producer import Record
from kraft.chaos.workload.queue_client import AcknowledgeResult, Held, QueuePlan, ReceiveResult
from kraft.chaos.workload.targets import ClientWorld, Target, Targets

WAIT_MS: Final = 200
ERROR_PAUSE_S: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    name: str
    topic: str
    group: str = "q"
    batch: int = 10
    work_ms: int = 20
    lock_ms: int = 3_000
    cannot_handle: str = ""
    renews: bool = False
    target: Target = "any"


@dataclass(slots=True)
class QueueProgress:
    """What the workers of a group know together about a topic."""

    done: dict[int, set[int]] = field(default_factory=dict)
    """Partition -> offsets that somebody has accepted or rejected, by the answers."""
    busy_us: int = 0
    """The last time at which a worker received a record, or did not know what became of a request."""


@dataclass(slots=True)
class _Part:
    """A record on its way to its result."""

    held: Held
    word: Word
    result: AcknowledgeResult = field(default_factory=lambda: AcknowledgeResult(outcome="info"))
    is_unknown: bool = False
    """An attempt has had no answer: a later refusal does not prove that nothing was done."""


class Worker(ClientLife):
    def __init__(
        self, options: WorkerOptions, *, client_world: ClientWorld, record: Record, progress: QueueProgress
    ) -> None:
        self.options = options
        self._record = record
        self._progress = progress
        self._targets = Targets(client_world, target=options.target)
        plan = QueuePlan(group=options.group, topic=options.topic, batch=options.batch, lock_ms=options.lock_ms)
        self._client = client_world.queue_client(options.name, plan)
        self._now_us = client_world.now_us
        super().__init__(options.name, self._client, self._targets.nodes)

    # --- its life -----------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        while not self._is_ending.is_set():
            await self._take_batch()

    async def _take_batch(self) -> None:
        node, invoke_us = self._node(), self._now_us()
        received = await self._client.receive(node, wait_ms=WAIT_MS)
        if received.cannot_now:
            self._targets.refused(node)
        if received.held or received.outcome != "ok":
            self._progress.busy_us = self._now_us()
        if received.outcome != "ok":
            self._keep(received, node, invoke_us)
            await self._pause(ERROR_PAUSE_S)
        if not received.held:
            return
        index = self._keep(received, node, invoke_us)
        self.counts.read += len(received.held)
        self.counts.uncommitted += len(received.held)
        held, locked_us = await self._work(index, received.held, invoke_us)
        parts = [_Part(each, self._word(each)) for each in held]
        await self._acknowledge(index, parts, until_us=locked_us + self.options.lock_ms * 1000)
        self.counts.uncommitted -= len(received.held)

    async def _work(self, receive: int, held: Sequence[Held], locked_us: int) -> tuple[Sequence[Held], int]:
        """Returns the records as they are locked at the end, and when their locks began at the earliest."""
        left_ms, half_ms = self.options.work_ms, self.options.lock_ms // 2
        while self.options.renews and left_ms > half_ms and not self._is_ending.is_set():
            await self._pause(half_ms / 1000)
            left_ms -= half_ms
            renewed_us, parts = self._now_us(), [_Part(each, "renew") for each in held]
            await self._acknowledge(receive, parts, until_us=locked_us + self.options.lock_ms * 1000)
            if all(part.result.outcome == "ok" for part in parts):
                locked_us = renewed_us
            held = [part.result.renewed or part.held for part in parts]
        await self._pause(left_ms / 1000)
        return held, locked_us

    async def _acknowledge(self, receive: int, parts: Sequence[_Part], *, until_us: int) -> None:
        """Sends what has no result again, until the locks have ended."""
        left, invoke_us, attempts, node = list(parts), self._now_us(), 0, -1
        while left:
            node, attempts = self._node(), attempts + 1
            results = await self._client.acknowledge(node, [(part.held, part.word) for part in left])
            for part, result in zip(left, results, strict=True):
                part.result = result
                part.is_unknown |= result.outcome == "info"
                if result.cannot_now:
                    self._targets.refused(node)
            left = [part for part in left if part.result.outcome == "info" or part.result.cannot_now]
            if self._now_us() >= until_us:
                break
            if left:
                await asyncio.sleep(ERROR_PAUSE_S)
        self._progress.busy_us = self._now_us()
        self._keep_acknowledged(receive, parts, node, invoke_us, attempts)

    def _word(self, held: Held) -> Word:
        return "release" if held.record.value == self.options.cannot_handle else "accept"

    def _node(self) -> int:
        return self._targets.choose(self.options.topic, 0)

    # --- the history --------------------------------------------------------------------------------------------

    def _keep(self, received: ReceiveResult, node: int, invoke_us: int) -> int:
        """The index of the operation."""
        index = self._next_index()
        self._record(
            Receive(
                process=self.options.name,
                index=index,
                invoke_us=invoke_us,
                complete_us=self._now_us(),
                node=node,
                group=self.options.group,
                topic=self.options.topic,
                records=tuple(each.record for each in received.held),
                lock_ms=self.options.lock_ms,
                outcome=received.outcome,
                kafka_code=received.kafka_code,
                error=received.error,
            )
        )
        return index

    def _keep_acknowledged(
        self, receive: int, parts: Sequence[_Part], node: int, invoke_us: int, attempts: int
    ) -> None:
        """One operation for the records with the same word and result."""
        same: dict[tuple[Word, AcknowledgeResult], list[Held]] = {}
        for part in parts:
            result = part.result
            if result.outcome == "fail" and part.is_unknown:
                result = AcknowledgeResult(outcome="info", kafka_code=result.kafka_code, error=result.error)
            same.setdefault((part.word, result), []).append(part.held)
        for (word, result), those in same.items():
            places = tuple((held.record.partition, held.record.offset) for held in those)
            self._count(word, result, places)
            self._record(
                Acknowledge(
                    process=self.options.name,
                    index=self._next_index(),
                    invoke_us=invoke_us,
                    complete_us=self._now_us(),
                    node=node,
                    group=self.options.group,
                    topic=self.options.topic,
                    receive=receive,
                    word=word,
                    records=places,
                    attempts=attempts,
                    outcome=result.outcome,
                    kafka_code=result.kafka_code,
                    error=result.error,
                )
            )

    def _count(self, word: Word, result: AcknowledgeResult, places: Sequence[tuple[int, int]]) -> None:
        if result.kafka_code:
            self.counts.codes[result.kafka_code] += len(places)
        if result.outcome != "ok" or word in ("release", "renew"):
            return
        self.counts.accepted += len(places) if word == "accept" else 0
        for partition, offset in places:
            self._progress.done.setdefault(partition, set()).add(offset)
