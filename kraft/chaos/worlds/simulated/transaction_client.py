"""A transactional producer in a simulated world: calls what the Kafka listener calls.

Batches go to the leader, requests of the transaction to any node, which calls the coordinator. A batch without an
answer is not sent again: its transaction is aborted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

from kraft.broker.transaction_verification import Support
from kraft.broker.transactional_produce import transactional_headers
from kraft.chaos.workload.client import Batch, ProduceResult
from kraft.chaos.workload.transaction_client import StepResult, TransactionPlan, of_end
from kraft.chaos.worlds.simulated.client import Refused, SimulatedClient, Unanswered
from kraft.chaos.worlds.simulated.client import partition_of as which_of
from kraft.chaos.worlds.simulated.cluster import SimulatedNode
from kraft.client.outcome import of_code
from kraft.coordinators.groups import requests as r
from kraft.coordinators.shards import partition_of
from kraft.coordinators.transactions.coordinator import TransactionCoordinator
from kraft.protocol.acks import ACKS_ALL
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.errors import CoordinatorNotAvailable, KafkaError, for_code
from kraft.protocol.transactions import Producer
from metadata.environment import ConnectionClosed
from metadata.internal_topics import OFFSETS_TOPIC
from replication.requests import ProduceOptions

T = TypeVar("T")
OLD_VERSION: Final = 0
"""`transaction.version` of the old flow."""
RETRY_S: Final = 0.05


class SimulatedTransactionClient:
    """Implements `TransactionClient`."""

    def __init__(self, client: SimulatedClient, plan: TransactionPlan) -> None:
        self._client = client
        self._plan = plan
        self._is_new = plan.flow == "new"
        self._producer: Producer | None = None
        self._sequences: dict[tuple[str, int], int] = {}
        self._added: set[tuple[str, int]] = set()

    async def open(self, nodes: Sequence[int]) -> None:
        await self._client.open(nodes)

    async def close(self) -> None:
        self._producer = None

    async def begin(self, node: int) -> StepResult:
        plan = self._plan
        self._added.clear()
        if self._producer is None:

            async def init(asked: SimulatedNode) -> Producer:
                assert asked.node is not None
                return await asked.node.transactions.init(
                    plan.transactional_id, timeout_ms=plan.transaction_timeout_ms, wait_ms=plan.timeout_ms
                )

            found = await self._step(node, init)
            if isinstance(found, StepResult):
                return found
            self._producer = found
            self._sequences.clear()
        return StepResult(outcome="ok", producer_id=self._producer.producer_id, epoch=self._producer.epoch)

    async def produce(self, node: int, batch: Batch) -> ProduceResult:
        producer, place = self._producer, (batch.topic, batch.partition)
        assert producer is not None, "no transaction has begun"
        if not self._is_new and place not in self._added:
            refused = await self._add(node, place, producer)
            if refused is not None:
                return ProduceResult(outcome=refused.outcome, kafka_code=refused.kafka_code, error=refused.error)
        sequence = self._sequences.get(place, 0)

        async def write(asked: SimulatedNode) -> ProduceResult:
            return await self._write(asked, batch, producer, sequence)

        result = await self._step(node, write)
        if isinstance(result, StepResult):
            return ProduceResult(
                outcome=result.outcome, kafka_code=result.kafka_code, error=result.error, cannot_now=result.cannot_now
            )
        if result.outcome == "ok":
            self._sequences[place] = sequence + len(batch.records)
        return result

    async def _write(self, asked: SimulatedNode, batch: Batch, producer: Producer, sequence: int) -> ProduceResult:
        """Write at the leader; retries while the coordinator is busy with the transaction before."""
        assert asked.node is not None
        assert asked.node.broker is not None
        loop, now_ms = asyncio.get_running_loop(), asked.machine.clock.wall_ms()
        deadline = loop.time() + batch.timeout_ms / 1000
        data = build_batch(
            [NewRecord(None, value.encode(), [], now_ms) for _, value in batch.records],
            producer_id=producer.producer_id,
            producer_epoch=producer.epoch,
            base_sequence=sequence,
            is_transactional=True,
        )
        while True:
            batches = {(which := which_of(asked, batch.topic, batch.partition)): data}
            begun = asked.node.broker.transactional_produce.begin(
                batches,
                transactional_headers(batches),
                ProduceOptions(ACKS_ALL, batch.timeout_ms, self._plan.transactional_id),
                support=Support.ADDS_PARTITIONS if self._is_new else Support.OLD,
            )
            outcome = (await begun if isinstance(begun, asyncio.Future) else begun)[which]
            if not outcome.error_code:
                end = outcome.base_offset + len(batch.records)
                return ProduceResult(outcome="ok", kafka_code=0, offsets=tuple(range(outcome.base_offset, end)))
            error = for_code(outcome.error_code)
            is_over = loop.time() > deadline or asked.node is None
            if not error.retriable or of_code(error.code) != "fail" or is_over:
                return ProduceResult(outcome=of_code(error.code), kafka_code=error.code, error=outcome.message)
            await asyncio.sleep(RETRY_S)
            if asked.node is None:
                raise ConnectionClosed("the node has died")

    async def _add(self, node: int, place: tuple[str, int], producer: Producer) -> StepResult | None:
        added = frozenset({place})
        refused = await self._step(
            node, lambda asked: self._at_coordinator(asked, lambda it: self._add_at(it, producer, added))
        )
        if refused is None:
            self._added.add(place)
        return refused

    async def _add_at(self, it: TransactionCoordinator, producer: Producer, added: frozenset[tuple[str, int]]) -> None:
        await it.add_partitions(self._plan.transactional_id, producer, added, client_version=OLD_VERSION)

    async def _at_coordinator(
        self, asked: SimulatedNode, work: Callable[[TransactionCoordinator], Coroutine[Any, Any, T]]
    ) -> T:
        """Clients of the old flow send requests to the coordinator itself, and find it again when it moves."""
        loop, cluster = asyncio.get_running_loop(), self._client.cluster
        deadline = loop.time() + self._plan.timeout_ms / 1000
        while True:
            try:
                if asked.node is None:
                    raise ConnectionClosed("the node has died")
                found = cluster.nodes[await asked.node.transactions.coordinator_of(self._plan.transactional_id)]
                if found.node is None or found.node.broker is None:
                    raise CoordinatorNotAvailable(f"node {found.node_id} does not run")
                answer = await found.machine.run(_caught(work, found.node.broker.transaction_coordinator))
                if isinstance(answer, KafkaError):
                    raise answer
                return answer
            except (KafkaError, ConnectionClosed) as error:
                is_final = isinstance(error, KafkaError) and not error.retriable
                if is_final or loop.time() > deadline:
                    raise
            await asyncio.sleep(RETRY_S)

    async def add_offsets(self, node: int, group: str, topic: str, offsets: Mapping[int, int]) -> StepResult:
        plan, producer = self._plan, self._producer
        assert producer is not None, "no transaction has begun"
        request = r.CommitInTransaction(
            group=group,
            transactional_id=plan.transactional_id,
            producer_id=producer.producer_id,
            producer_epoch=producer.epoch,
            adds_partition=self._is_new,
            offsets=tuple(r.OffsetToCommit(topic, partition, offset) for partition, offset in offsets.items()),
        )

        async def commit(asked: SimulatedNode) -> None:
            assert asked.node is not None
            if not self._is_new:
                place = (OFFSETS_TOPIC, partition_of(group, OFFSETS_TOPIC, asked.node.gateway.image))
                added = frozenset({place})
                await self._at_coordinator(asked, lambda it: self._add_at(it, producer, added))
            if asked.node is None:
                raise ConnectionClosed("the node has died")
            await asked.node.groups.ask(request)

        refused = await self._step(node, commit)
        return StepResult(outcome="ok") if refused is None else refused

    async def end(self, node: int, *, is_commit: bool) -> StepResult:
        plan, producer = self._plan, self._producer
        assert producer is not None, "no transaction has begun"

        async def end(asked: SimulatedNode) -> Producer:
            assert asked.node is not None
            name = plan.transactional_id
            if self._is_new:
                return await asked.node.transactions.end(name, producer, is_commit=is_commit, wait_ms=plan.timeout_ms)
            return await self._at_coordinator(
                asked, lambda it: it.end(name, producer, is_commit=is_commit, client_version=OLD_VERSION)
            )

        found = await self._step(node, end)
        if isinstance(found, StepResult):
            self._producer = None
            return found
        if self._is_new:
            self._producer = found
            self._sequences.clear()
        return StepResult(outcome="ok")

    async def _step(self, node: int, work: Callable[[SimulatedNode], Awaitable[T]]) -> T | StepResult:
        try:
            return await self._client.asked(node, work, within_ms=2 * self._plan.timeout_ms)
        except Refused as error:
            return StepResult(outcome="fail", error=str(error), cannot_now=True)
        except Unanswered as error:
            return StepResult(outcome="info", error=str(error))
        except KafkaError as error:
            return StepResult(outcome=of_end(error.code), kafka_code=error.code, error=error.message)


async def _caught(
    work: Callable[[TransactionCoordinator], Coroutine[Any, Any, T]], coordinator: TransactionCoordinator
) -> T | KafkaError:
    """Ignore a refusal without a waiting client: it is no failure of the node."""
    try:
        return await work(coordinator)
    except KafkaError as refusal:
        return refusal
