"""A client in a simulated world: its requests run in the process of a node, without HTTP.

It also has the faults of its links: a port that refuses, a request or an answer that never arrives. A node that dies in
the middle resets the connection; a paused one lets its client wait. There are no retries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from kraft.broker.consumer_fetch import readable_batches
from kraft.broker.gateway import Records
from kraft.chaos.workload.client import Batch, FetchResult, Position, ProduceResult
from kraft.chaos.workload.requests import ANSWER_SLACK_MS, value_of
from kraft.chaos.worlds.simulated.cluster import SimulatedCluster, SimulatedNode
from kraft.client.outcome import of_broken_connection, of_code, of_refused_connection, of_sent_without_answer
from kraft.http.idempotency import IdempotencyKey
from kraft.protocol.batches.records import NewRecord, build_batch, read_batches
from kraft.protocol.errors import KafkaError, UnknownTopicOrPartition, for_code
from metadata.environment import ConnectionClosed
from metadata.image import TopicIdPartition
from replication.requests import LATEST_TIMESTAMP, ProduceOptions, ReadOptions

T = TypeVar("T")
ACKS: Final = {"0": 0, "1": 1, "all": -1}
NOTICE_S: Final = 0.02
"""The time after which the connection to a dead node is reset."""


@dataclass(slots=True)
class ClientLink:
    """The link from one client to one node. A fault lasts until it is healed."""

    refuses: bool = False
    holds_requests: bool = False
    holds_answers: bool = False
    delay_ms: int = 0
    requests_lost: int = 0
    """The number of requests to cut in the middle, each with its connection."""
    answers_lost: int = 0
    """The number of answers to lose, each with its connection."""


def _batch(batch: Batch, records: Sequence[NewRecord]) -> bytes:
    """The batch, with producer id and sequence from the Idempotency-Key, as over HTTP."""
    if not batch.idempotency_key:
        return build_batch(records)
    producer_id = IdempotencyKey(client="", key=batch.idempotency_key).producer_id(batch.topic, number=0)
    return build_batch(records, producer_id=producer_id, producer_epoch=0, base_sequence=0)


class Refused(Exception):
    """The port refuses: nothing was sent."""


class Unanswered(Exception):
    """The request was sent, and its outcome is unknown."""


LinkTo = Callable[[int], ClientLink]


class SimulatedClient:
    """Implements `Client`."""

    def __init__(self, cluster: SimulatedCluster, link_to: LinkTo) -> None:
        self.cluster = cluster
        self._link_to = link_to

    async def open(self, nodes: Sequence[int]) -> None:
        for node in nodes:
            self._link_to(node)

    async def close(self) -> None:
        """Nothing to close."""

    async def produce(self, node: int, batch: Batch) -> ProduceResult:
        within_ms = batch.timeout_ms + ANSWER_SLACK_MS
        try:
            return await self.asked(node, lambda asked: self._produced(asked, batch), within_ms=within_ms)
        except Refused as reason:
            outcome = of_refused_connection()
            return ProduceResult(outcome=outcome, error=str(reason), may_try_again=True, cannot_now=True)
        except Unanswered as reason:
            outcome = of_sent_without_answer() if batch.acks == "0" else of_broken_connection()
            return ProduceResult(outcome=outcome, error=str(reason), may_try_again=True)

    async def read(self, node: int, position: Position) -> FetchResult:
        try:
            return await self.asked(node, lambda asked: self._read(asked, position), within_ms=position.timeout_ms)
        except Refused as reason:
            return FetchResult(outcome=of_refused_connection(), error=str(reason), cannot_now=True)
        except Unanswered as reason:
            return FetchResult(outcome=of_broken_connection(), error=str(reason))

    # --- in the node's process ----------------------------------------------------------------------------------

    async def _produced(self, asked: SimulatedNode, batch: Batch) -> ProduceResult:
        assert asked.node is not None
        gateway, now_ms = asked.node.gateway, asked.machine.clock.wall_ms()
        records = [
            NewRecord(None if key is None else key.encode(), value.ljust(batch.value_bytes).encode(), [], now_ms)
            for key, value in batch.records
        ]
        try:
            which = partition_of(asked, batch.topic, batch.partition)
            options = ProduceOptions(ACKS[batch.acks], batch.timeout_ms)
            outcomes = await gateway.produce({which: _batch(batch, records)}, options)
        except KafkaError as error:
            return self._error_result(error.code, error.message)
        outcome = outcomes[which]
        if outcome.error_code:
            return self._error_result(outcome.error_code, outcome.message)
        if batch.acks == "0":
            return ProduceResult(outcome="ok", kafka_code=0)
        offsets = tuple(range(outcome.base_offset, outcome.base_offset + len(records)))
        return ProduceResult(outcome="ok", kafka_code=0, offsets=offsets)

    def _error_result(self, code: int, message: str) -> ProduceResult:
        may_try_again = for_code(code).retriable
        return ProduceResult(outcome=of_code(code), kafka_code=code, error=message, may_try_again=may_try_again)

    async def _read(self, asked: SimulatedNode, position: Position) -> FetchResult:
        assert asked.node is not None
        gateway = asked.node.gateway
        try:
            which = partition_of(asked, position.topic, position.partition)
            offset = position.offset
            if isinstance(offset, str):
                offset = (await gateway.list_offset(which, LATEST_TIMESTAMP)).offset
            options = ReadOptions(
                bytes_max=position.bytes_max,
                bytes_min=1,
                wait_ms_max=position.wait_ms,
                is_read_committed=position.is_read_committed,
            )
            found = await gateway.read(which, offset, options)
        except KafkaError as error:
            return FetchResult(outcome=of_code(error.code), kafka_code=error.code, error=error.message)
        following, records = records_for(found, offset)
        return FetchResult(
            outcome="ok",
            kafka_code=0,
            next_offset=following,
            high_watermark=found.high_watermark,
            log_start_offset=found.log_start_offset,
            records=tuple(records),
        )

    # --- on the way ---------------------------------------------------------------------------------------------

    async def asked(self, number: int, work: Callable[[SimulatedNode], Awaitable[T]], *, within_ms: int) -> T:
        """Raises Refused, Unanswered."""
        node, link, loop = self.cluster.nodes[number], self._link_to(number), self.cluster.world.loop
        deadline = loop.time() + within_ms / 1000
        await asyncio.sleep(link.delay_ms / 1000 + 0.0002)
        if link.refuses or not node.is_running or (node.node is None and not node.machine.process.is_paused):
            raise Refused(f"node {number}: connection refused")
        while link.holds_requests:
            await self._wait(deadline, within_ms)
        if node.node is None:
            raise Refused(f"node {number}: connection refused")
        if link.requests_lost:
            link.requests_lost -= 1
            raise Unanswered("connection reset in the middle of the request")
        answer = await self._until_answered(node, work, deadline, within_ms)
        while link.holds_answers:
            await self._wait(deadline, within_ms)
        if link.answers_lost:
            link.answers_lost -= 1
            raise Unanswered("connection reset")
        await asyncio.sleep(link.delay_ms / 1000)
        return answer

    async def _until_answered(
        self, node: SimulatedNode, work: Callable[[SimulatedNode], Awaitable[T]], deadline: float, within_ms: int
    ) -> T:
        process, loop = node.machine.process, self.cluster.world.loop
        asked = loop.create_task(_carry_out(work, node))
        try:
            while not asked.done():
                if node.machine.process is not process:
                    raise Unanswered("connection reset")
                left = deadline - loop.time()
                if left <= 0:
                    raise Unanswered(f"no answer within {within_ms} ms")
                await asyncio.wait([asked], timeout=min(NOTICE_S, left))
        finally:
            asked.cancel()
        if asked.cancelled():
            raise Unanswered("the node stops")
        try:
            result: T = asked.result()
        except ConnectionClosed as error:
            raise Unanswered(str(error)) from error
        return result

    async def _wait(self, deadline: float, within_ms: int) -> None:
        if self.cluster.world.loop.time() > deadline:
            raise Unanswered(f"no answer within {within_ms} ms")
        await asyncio.sleep(NOTICE_S)


async def _carry_out(work: Callable[[SimulatedNode], Awaitable[T]], node: SimulatedNode) -> T:
    """Run the request in the process of the node. The coroutine is made there: a client that gives up before leaves
    none behind that is never awaited."""

    async def carried() -> T:
        return await work(node)

    return await node.machine.run(carried())


def partition_of(asked: SimulatedNode, topic: str, partition: int) -> TopicIdPartition:
    """The partition in this node's metadata. Raises UnknownTopicOrPartition."""
    assert asked.node is not None
    found = asked.node.gateway.image.topic(topic)
    if found is None or partition not in found.partitions:
        raise UnknownTopicOrPartition(f"{topic}-{partition}")
    return TopicIdPartition(found.topic_id, partition)


def records_for(found: Records, offset: int) -> tuple[int, list[tuple[int, str]]]:
    """The next offset, and the records for the isolation level: without markers and aborted records."""
    records: list[tuple[int, str]] = []
    data = bytes(found.data)
    for position, header, is_readable in readable_batches(data, found.aborted):
        if is_readable:
            batch = data[position : position + header.size]
            found_here = read_batches(batch, from_offset=offset)
            records += [(each.offset, value_of((each.value or b"").decode())) for each in found_here]
        offset = max(offset, header.next_offset)
    return offset, records
