"""Batches that belong to a transaction, on the way to the logs that this broker leads (KIP-890).

The first batch of a transaction in a partition is appended once the coordinator has said that the partition is in it;
with the guard that was taken before it was asked, so that nothing of an ended transaction is written after its marker.
What is asked before the append refuses that partition alone, and nothing of it is appended.
Batches of one producer id and partition are appended in the order in which their requests arrived, whatever each waits
for: a request that has to wait takes a place in line, those behind it wait, and its guards are checked once more
when its turn comes (docs/decisions/order-within-a-connection.md). Source: ReplicaManager.handleProduceAppend.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from kraft.broker.transaction_verification import WAIT_MS, Refusals, Support, as_reported
from kraft.protocol.batches.header import NO_PRODUCER_ID, BatchHeader, header_at
from kraft.protocol.errors import (
    ConcurrentTransactions,
    InvalidProducerIdMapping,
    KafkaError,
    NotEnoughReplicas,
    TransactionAbortable,
    UnknownTopicId,
)
from kraft.protocol.primitives import Buffer, TopicPartition
from kraft.protocol.transactions import Producer
from metadata.environment import Clock
from metadata.image import TopicIdPartition
from replication.manager.append_queues import AppendQueues, Place
from replication.manager.manager import ReplicaManager
from replication.producers.origin import Origin, Verification
from replication.requests import ProduceOptions, ProduceOutcome

Batches = Mapping[TopicIdPartition, Buffer]
Outcomes = Mapping[TopicIdPartition, ProduceOutcome]
NewOutcomes = dict[TopicIdPartition, ProduceOutcome]
Begun: TypeAlias = "Outcomes | asyncio.Future[NewOutcomes]"
ROUNDS_MAX = 10
"""How often the coordinator is asked about one batch: again only when a marker of its producer came meanwhile."""


@dataclass(slots=True)
class _Asked:
    """One request on its way."""

    options: ProduceOptions
    producer: Producer
    transactional: Mapping[TopicIdPartition, BatchHeader]
    support: Support
    compares_records: bool
    deadline_ms: int = 0
    """Until then it waits for its turn and for the coordinator, if it has to wait; then it is refused."""
    refused: dict[TopicIdPartition, KafkaError] = field(default_factory=dict)
    guards: dict[TopicIdPartition, Verification] = field(default_factory=dict)


class Verifies(Protocol):
    async def refusals(
        self,
        transactional_id: str,
        producer: Producer,
        partitions: frozenset[TopicPartition],
        support: Support,
        *,
        timeout_ms: int,
    ) -> Refusals: ...


class TransactionalProduce:
    def __init__(self, replicas: ReplicaManager, verifier: Verifies, clock: Clock) -> None:
        self._replicas = replicas
        self._verifier = verifier
        self._clock = clock
        self._queues: AppendQueues[tuple[int, TopicIdPartition]] = AppendQueues()
        """One queue for each producer id and partition."""

    def begin(
        self,
        batches: Batches,
        transactional: Mapping[TopicIdPartition, BatchHeader],
        options: ProduceOptions,
        *,
        support: Support,
        compares_records: bool = False,
    ) -> Begun:
        """`transactional`: headers of the batches that belong to the transaction; others of the request do not. A
        future when something has to be waited for.
        `compares_records`: no client library counts its sequences.

        Raises InvalidProducerIdMapping 49 when they are of more than one producer, and what `Produce.begin` raises."""
        producer = _producer_of(transactional)
        asked = _Asked(options, producer, transactional, support, compares_records)
        self._guard(asked, transactional)
        producer_id = producer.producer_id
        is_behind = bool(self._queues) and any(self._queues.has_waiting((producer_id, key)) for key in transactional)
        if not asked.guards and not asked.refused and not is_behind:
            origins = dict.fromkeys(transactional, Origin(is_transactional=True, compares_records=compares_records))
            return self._replicas.produce.begin(batches, options, origins=origins)
        others = {key: data for key, data in batches.items() if key not in transactional}
        begun = self._replicas.produce.begin(others, options) if others else {}
        own = {key: batches[key] for key in transactional}
        asked.deadline_ms = self._clock.monotonic_ms() + min(options.timeout_ms, WAIT_MS)
        places = self._queues.join([(producer_id, key) for key in transactional]).values()
        task = asyncio.get_running_loop().create_task(self._produce(own, asked, places, begun))
        task.add_done_callback(lambda _: _end(places))  # it may be cancelled before it has begun
        return task

    async def _produce(self, batches: Batches, asked: _Asked, places: Collection[Place], others: Begun) -> NewOutcomes:
        """`others`: what becomes of the batches of the request that are in no transaction."""
        try:
            await self._verify_all(asked, list(asked.guards))
            if await self._places_reached(asked, places):
                await self._verify_all(asked, self._guarded_anew(asked))
            refused, begun = self._append(batches, asked)
        finally:
            _end(places)
        outcomes = [await each if isinstance(each, asyncio.Future) else each for each in (others, begun)]
        return {**outcomes[0], **outcomes[1], **refused}

    def _append(self, batches: Batches, asked: _Asked) -> tuple[Outcomes, Begun]:
        """What is refused, and the outcomes of all else."""
        refused = {key: _refused(error) for key, error in asked.refused.items()}
        allowed = {key: data for key, data in batches.items() if key not in refused}
        origins = {
            key: Origin(
                is_transactional=True,
                verification=asked.guards.get(key),
                compares_records=asked.compares_records,
            )
            for key in asked.transactional
        }
        if not allowed:
            return refused, {}
        try:
            begun = self._replicas.produce.begin(allowed, asked.options, origins=origins)
        except KafkaError as error:
            return refused, dict.fromkeys(allowed, _refused(error))
        return refused, begun

    async def _places_reached(self, asked: _Asked, places: Iterable[Place]) -> bool:
        """False, with all that is in the transaction refused, when those before it take longer than it may wait."""
        try:
            async with self._clock.timeout(self._left_ms(asked)):
                for place in places:
                    await place.wait()
        except TimeoutError:
            late = NotEnoughReplicas("batches of the producer that arrived before this one still wait; send it again")
            asked.refused.update(dict.fromkeys(asked.transactional.keys() - asked.refused.keys(), late))
            return False
        return True

    def _left_ms(self, asked: _Asked) -> int:
        return max(0, asked.deadline_ms - self._clock.monotonic_ms())

    def _guarded_anew(self, asked: _Asked) -> Sequence[TopicIdPartition]:
        """The partitions that have to be asked about after a wait: a marker may have ended the transaction that was
        open there, or the guard. What the coordinator has said may be older than that marker.

        Before transaction version 2 a client begins the next transaction when all markers of the one before are
        written. So a batch that was here before a marker belongs to the ended transaction, and is refused: the next one
        has the same epoch, and would begin with it."""
        producer_id, guards = asked.producer.producer_id, asked.guards
        ended = [
            key
            for key in asked.transactional
            if key not in asked.refused
            and not (key in guards and self._replicas.producers.is_verified(key, producer_id, guards[key]))
        ]
        if asked.support is not Support.ADDS_PARTITIONS:
            self._refuse_ended(asked, ended)
            return []
        self._guard(asked, ended)
        return [key for key in ended if key in guards]

    def _refuse_ended(self, asked: _Asked, keys: Iterable[TopicIdPartition]) -> None:
        """Refuse those whose transaction is not open; an earlier batch of it may have opened it meanwhile."""
        producer = asked.producer
        over = TransactionAbortable(f"the transaction of producer {producer} has ended while the batch waited")
        for key in keys:
            asked.guards.pop(key, None)
            try:
                if not self._replicas.producers.is_open(key, producer.producer_id, epoch=producer.epoch):
                    asked.refused[key] = as_reported(over, asked.support)
            except KafkaError as error:
                asked.refused[key] = error

    async def _verify_all(self, asked: _Asked, to_verify: Sequence[TopicIdPartition]) -> None:
        for _ in range(ROUNDS_MAX):
            if not to_verify:
                return
            await self._verify(asked, to_verify)
            to_verify = self._guarded_anew(asked)
        busy = NotEnoughReplicas(f"the verification was ended {ROUNDS_MAX} times while it was asked for; send it again")
        asked.refused.update(dict.fromkeys(to_verify, busy))

    async def _verify(self, asked: _Asked, to_verify: Iterable[TopicIdPartition]) -> None:
        names = {}
        for key in to_verify:
            topic = self._replicas.image.topics.get(key.topic_id)
            if topic is None:
                asked.refused[key] = UnknownTopicId(f"no topic has the id {key.topic_id} any more")
            else:
                names[key] = topic.name, key.partition
        transactional_id = asked.options.transactional_id
        assert transactional_id is not None, asked
        refusals = await self._verifier.refusals(
            transactional_id,
            asked.producer,
            frozenset(names.values()),
            asked.support,
            timeout_ms=self._left_ms(asked),
        )
        for key, name in names.items():
            if name in refusals:
                asked.refused[key] = _as_producers_know_it(refusals[name], asked.support)

    def _guard(self, asked: _Asked, keys: Iterable[TopicIdPartition]) -> None:
        """Take the guards of those that have to be asked about; the transaction is open in others, or they are
        refused."""
        for key in keys:
            asked.guards.pop(key, None)
            try:
                guard = self._replicas.producers.begin_verification(
                    key,
                    asked.producer.producer_id,
                    epoch=asked.producer.epoch,
                    sequence=asked.transactional[key].base_sequence,
                    raises_epoch=asked.support is Support.ADDS_PARTITIONS,
                )
            except KafkaError as error:
                asked.refused[key] = error
            else:
                if guard is not None:
                    asked.guards[key] = guard


def transactional_headers(batches: Batches) -> Mapping[TopicIdPartition, BatchHeader]:
    """The headers of the batches that belong to a transaction. Each has a whole header."""
    headers = {key: header_at(data) for key, data in batches.items()}
    return {key: header for key, header in headers.items() if header.is_transactional and not header.is_control}


def _end(places: Iterable[Place]) -> None:
    for place in places:
        place.end()


def _refused(error: KafkaError) -> ProduceOutcome:
    return ProduceOutcome(error_code=error.code, message=error.message)


def _producer_of(transactional: Mapping[TopicIdPartition, BatchHeader]) -> Producer:
    producers = {Producer(header.producer_id, header.producer_epoch) for header in transactional.values()}
    if len(producers) > 1:
        raise InvalidProducerIdMapping(
            f"the transactional batches of the request are of {len(producers)} producers; one request is of one"
        )
    (producer,) = producers
    if producer.producer_id == NO_PRODUCER_ID:
        raise InvalidProducerIdMapping("a transactional batch has no producer id")
    return producer


def _as_producers_know_it(error: KafkaError, support: Support) -> KafkaError:
    """19 makes any producer send again, without asking for metadata before; those of transaction version 2 know 51."""
    if not error.retriable or (isinstance(error, ConcurrentTransactions) and support is Support.ADDS_PARTITIONS):
        return error
    return NotEnoughReplicas(f"whether the partition is in the transaction is not known yet: {error.message}")
