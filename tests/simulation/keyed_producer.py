"""A client that may send every request twice: each has an Idempotency-Key, as over HTTP.

A request of unknown outcome, and now and then one that was answered long ago, goes again to any node with the same
key; two attempts of one request may be under way at once. Timestamps differ between attempts, records do not.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from kraft.chaos.worlds.simulated.cluster import SimulatedNode
from kraft.http.batch_sender import Part, Pieces
from kraft.http.errors import HttpError
from kraft.http.idempotency import IdempotencyKey
from kraft.http.produce import pack
from kraft.http.records import OutRecord
from kraft.protocol.errors import KafkaError
from kraft.protocol.primitives import Buffer
from metadata.image import TopicIdPartition
from metadata.settings import TopicSettings
from replication.requests import ProduceOptions, ProduceOutcome
from tests.simulation.clients import GRACE_MS, RETRY_PAUSE_S, Attempt, choose
from tests.simulation.node_request import Unanswered, ask
from tests.simulation.producer_oracle import WRONG_SEQUENCE, ProducerOracle
from tests.simulation.stateful_plan import KeyedPlan

REMEMBERED = 50
"""Requests that may be sent once more."""
LAST_REPEATS = 5
HEDGES = 0.1
"""Share of attempts that are made twice at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyed:
    key: str
    topic: str
    values: Mapping[TopicIdPartition, tuple[bytes, ...]]


class KeyedProducer:
    def __init__(self, plan: KeyedPlan, topic: str, promised: ProducerOracle) -> None:
        self._plan = plan
        self._topic = topic
        self._promised = promised
        self._oracle = promised.oracle
        self._rng: random.Random = self._oracle.cluster.world.rng(f"keyed {plan.name}")
        self._sent: list[Keyed] = []
        self._number = 0
        self.is_stopping = False

    async def run(self) -> None:
        while not self.is_stopping:
            request = self._next()
            if request is not None:
                await self._send(request)
            await asyncio.sleep(self._rng.uniform(0, 2 * self._plan.pause_ms) / 1000)
        for request in self._sent[-LAST_REPEATS:]:
            await self._send(request)

    def _next(self) -> Keyed | None:
        if self._sent and self._rng.random() < self._plan.repeats:
            return self._rng.choice(self._sent)
        topic = self._oracle.image.topic(self._topic)
        if topic is None:
            return None
        self._number += 1
        numbers = sorted(topic.partitions)[: self._plan.partitions]
        values = {}
        for number in numbers:
            count = self._rng.randint(1, self._plan.records)
            name = f"{self._plan.name}.{self._number}.{number}"
            values[TopicIdPartition(topic.topic_id, number)] = tuple(f"{name}.{i}".encode() for i in range(count))
        request = Keyed(key=f"{self._plan.name}-{self._number}", topic=self._topic, values=values)
        self._promised.sends(value for each in values.values() for value in each)
        self._sent = [*self._sent, request][-REMEMBERED:]
        return request

    async def _send(self, request: Keyed) -> None:
        for _ in range(1 + self._plan.retries):
            count = 2 if self._rng.random() < HEDGES else 1
            nodes = [
                node
                for _ in range(count)
                if (node := choose(self._oracle.cluster, self._rng, out_of_reach=self._oracle.out_of_reach)) is not None
            ]
            if any(await asyncio.gather(*(self._attempt(node, request) for node in nodes))):
                return
            await asyncio.sleep(RETRY_PAUSE_S)

    async def _attempt(self, node: SimulatedNode, request: Keyed) -> bool:
        """Is all of it acknowledged?"""
        assert node.node is not None
        plan, gateway = self._plan, node.node.gateway
        now_ms = node.machine.clock.wall_ms()
        batches = {which: self._batches(values, now_ms) for which, values in request.values.items()}
        attempts = self._noted(batches, request)

        async def send(going: Mapping[TopicIdPartition, Buffer]) -> Mapping[TopicIdPartition, ProduceOutcome]:
            return await gateway.produce(going, ProduceOptions(plan.acks, plan.timeout_ms))

        key = IdempotencyKey(client="simulated", key=request.key)
        work = partial(key.send, send, batches, topic=request.topic, settings=TopicSettings())
        rounds = max(map(len, attempts.values()))
        try:
            within_s = rounds * (plan.timeout_ms + GRACE_MS) / 1000
            pieces = await ask(self._oracle, node, work, within_s=within_s, what="a keyed produce")
        except (KafkaError, Unanswered) as error:
            self._oracle.count(f"keyed produce raised {type(error).__name__}")
            return False
        except HttpError as error:
            self._oracle.check(
                bool(self._oracle.promise.rotten), f"{request.key} is refused: {error.code} {error.message}"
            )
            return False
        return self._take(request, attempts, pieces)

    def _batches(self, values: tuple[bytes, ...], now_ms: int) -> Sequence[Part]:
        records = [OutRecord(None, value, [], now_ms, None) for value in values]
        packed = pack(records, TopicSettings(max_message_bytes=self._plan.size_max), now_ms=now_ms, is_repeatable=True)
        assert not packed.refused, packed
        return packed.batches

    def _noted(
        self, batches: Mapping[TopicIdPartition, Sequence[Part]], request: Keyed
    ) -> dict[TopicIdPartition, list[Attempt]]:
        attempts: dict[TopicIdPartition, list[Attempt]] = {}
        for which, parts in batches.items():
            left = list(request.values[which])
            attempts[which] = []
            for part in parts:
                values, left = left[: part.records], left[part.records :]
                now_us = self._oracle.cluster.world.loop.now_us
                attempts[which].append(Attempt(tuple(values), which, self._plan.acks, now_us))
            self._oracle.attempts += attempts[which]
        return attempts

    def _take(self, request: Keyed, attempts: Mapping[TopicIdPartition, list[Attempt]], pieces: Pieces) -> bool:
        is_all = True
        for which, done in pieces.items():
            for number, (attempt, piece) in enumerate(zip(attempts[which], done, strict=True)):
                attempt.outcome = piece.outcome
                self._oracle.logs.answered(attempt)
                self._promised.answered((request.key, which, number), attempt)
                is_all = is_all and attempt.is_acked
                self._oracle.check(
                    piece.outcome.error_code not in WRONG_SEQUENCE or bool(self._oracle.promise.rotten),
                    f"{request.key}: {piece.outcome.message}",
                )
        return is_all
