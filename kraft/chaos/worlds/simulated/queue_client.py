"""A worker of a queue in a simulated world: calls what the HTTP listener of a node calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

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
from kraft.chaos.workload.requests import value_of
from kraft.chaos.worlds.simulated.client import Refused, SimulatedClient, Unanswered
from kraft.chaos.worlds.simulated.cluster import SimulatedNode
from kraft.client.outcome import of_broken_connection, of_code, of_refused_connection
from kraft.coordinators.shares.ack_ids import AckId, Settlement
from kraft.coordinators.shares.queue import Receive, by_lock, locks_of
from kraft.protocol.batches.records import read_batches
from kraft.protocol.errors import KafkaError
from replication.shares.states import AcknowledgeType

WORDS = {kind.name.lower(): kind for kind in AcknowledgeType}


class SimulatedQueueClient:
    """Implements `QueueClient`."""

    def __init__(self, client: SimulatedClient, plan: QueuePlan) -> None:
        self._client = client
        self._plan = plan

    async def open(self, nodes: Sequence[int]) -> None:
        await self._client.open(nodes)

    async def close(self) -> None:
        """Nothing to close."""

    async def receive(self, node: int, *, wait_ms: int) -> ReceiveResult:
        try:
            held = await self._client.asked(
                node, lambda asked: self._received(asked, wait_ms), within_ms=wait_ms + RECEIVE_SLACK_MS
            )
        except Refused as reason:
            return ReceiveResult(outcome=of_refused_connection(), error=str(reason), cannot_now=True)
        except Unanswered as reason:
            return ReceiveResult(outcome=of_broken_connection(), error=str(reason))
        except KafkaError as error:
            return ReceiveResult(outcome=of_code(error.code), kafka_code=error.code, error=error.message)
        return ReceiveResult(outcome="ok", kafka_code=0, held=held)

    async def _received(self, asked: SimulatedNode, wait_ms: int) -> list[Held]:
        assert asked.node is not None
        queues, plan = asked.node.queues, self._plan
        receipt = queues.new_receipt()
        handed = await queues.receive(
            Receive(
                group=plan.group,
                topics=(plan.topic,),
                receipt=receipt,
                records_max=plan.batch,
                bytes_max=1 << 20,
                wait_ms=wait_ms,
                lock_ms=plan.lock_ms,
            )
        )
        locks = locks_of(handed, receipt, now_ms=asked.machine.clock.wall_ms())
        held = []
        for where, each in handed.items():
            records = list(read_batches(each.records, from_offset=each.acquired[0].first_offset))
            for lock, those in by_lock(records, locks[where]):
                for record in those:
                    value = value_of((record.value or b"").decode())
                    found = Delivered(where.partition, record.offset, lock.delivery_count, value)
                    held.append(Held(record=found, ack_id=AckId(lock, record.offset)))
        return held

    async def acknowledge(self, node: int, items: Sequence[tuple[Held, Word]]) -> Sequence[AcknowledgeResult]:
        async def work(asked: SimulatedNode) -> Sequence[AcknowledgeResult]:
            assert asked.node is not None
            ids = [(held.ack_id, WORDS[word]) for held, word in items]
            asks = [Settlement(lock, offset, offset, kind) for (lock, offset), kind in ids]
            refused = await asked.node.queues.acknowledge(self._plan.group, asks)
            now_ms = asked.machine.clock.wall_ms()
            return [_result(*item, refused.get(at), now_ms) for at, item in enumerate(items)]

        try:
            return await self._client.asked(node, work, within_ms=ACKNOWLEDGE_TIMEOUT_MS)
        except Refused as reason:
            refused = AcknowledgeResult(outcome=of_refused_connection(), error=str(reason), cannot_now=True)
            return [refused] * len(items)
        except Unanswered as reason:
            return [AcknowledgeResult(outcome=of_broken_connection(), error=str(reason))] * len(items)
        except KafkaError as error:
            failed = AcknowledgeResult(
                outcome=of_acknowledgement(error.code), kafka_code=error.code, error=error.message
            )
            return [failed] * len(items)


def _result(held: Held, word: Word, error: KafkaError | None, now_ms: int) -> AcknowledgeResult:
    if error is None:
        lock, offset = held.ack_id
        again = AckId(lock._replace(until_ms=now_ms + lock.lock_ms), offset)
        renewed = replace(held, ack_id=again) if word == "renew" else None
        return AcknowledgeResult(outcome="ok", kafka_code=0, renewed=renewed)
    return AcknowledgeResult(outcome=of_acknowledgement(error.code), kafka_code=error.code, error=error.message)
