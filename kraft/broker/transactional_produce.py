"""Batches that belong to a transaction, on the way to the logs that this broker leads (KIP-890).

The first batch of a transaction in a partition is appended once the coordinator has said that the partition is in it;
with the guard that was taken before it was asked, so that nothing of an ended transaction is written after its marker.
What is asked before the append refuses that partition alone, and nothing of it is appended.
Source: ReplicaManager.handleProduceAppend.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from kraft.coordinators.transactions.decide import Producer
from kraft.coordinators.transactions.state import TopicPartition
from kraft.coordinators.transactions.verification import Refusals, Support
from kraft.protocol.batches.header import NO_PRODUCER_ID, BatchHeader, header_at
from kraft.protocol.errors import (
    ConcurrentTransactions,
    InvalidProducerIdMapping,
    KafkaError,
    NotEnoughReplicas,
    UnknownTopicId,
)
from kraft.protocol.primitives import Buffer
from metadata.image import TopicIdPartition
from replication.manager.manager import ReplicaManager
from replication.producers.origin import Origin, Verification
from replication.requests import ProduceOutcome

Batches = Mapping[TopicIdPartition, Buffer]
Outcomes = Mapping[TopicIdPartition, ProduceOutcome]
NewOutcomes = dict[TopicIdPartition, ProduceOutcome]
ROUNDS_MAX = 10
"""How often the coordinator is asked about one batch: again only when a marker of its producer came meanwhile."""


@dataclass(slots=True)
class _Asked:
    """One request on its way."""

    transactional_id: str
    producer: Producer
    transactional: Mapping[TopicIdPartition, BatchHeader]
    support: Support
    timeout_ms: int
    compares_records: bool
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
    def __init__(self, replicas: ReplicaManager, verifier: Verifies) -> None:
        self._replicas = replicas
        self._verifier = verifier

    def begin(
        self,
        batches: Batches,
        transactional: Mapping[TopicIdPartition, BatchHeader],
        *,
        transactional_id: str,
        support: Support,
        acks: int,
        timeout_ms: int,
        compares_records: bool = False,
    ) -> Outcomes | asyncio.Future[NewOutcomes]:
        """`transactional`: headers of the batches that belong to the transaction; others of the request do not. A
        future when something has to be waited for. Requests of a producer take effect in their order.
        `compares_records`: no client library counts its sequences.

        Raises InvalidProducerIdMapping 49 when they are of more than one producer, and what `begin_produce` raises."""
        producer = _producer_of(transactional)
        asked = _Asked(transactional_id, producer, transactional, support, timeout_ms, compares_records)
        self._guard(asked, transactional)
        if not asked.guards and not asked.refused:
            origins = dict.fromkeys(transactional, Origin(is_transactional=True, compares_records=compares_records))
            return self._replicas.begin_produce(batches, acks=acks, timeout_ms=timeout_ms, origins=origins)
        return asyncio.get_running_loop().create_task(self._produce(batches, asked, acks=acks))

    async def _produce(self, batches: Batches, asked: _Asked, *, acks: int) -> NewOutcomes:
        to_verify = list(asked.guards)
        for _ in range(ROUNDS_MAX):
            if not to_verify:
                break
            to_verify = await self._verify(asked, to_verify)
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
            return refused
        try:
            begun = self._replicas.begin_produce(allowed, acks=acks, timeout_ms=asked.timeout_ms, origins=origins)
        except KafkaError as error:
            return {**dict.fromkeys(allowed, _refused(error)), **refused}
        outcomes = await begun if isinstance(begun, asyncio.Future) else begun
        return {**outcomes, **refused}

    async def _verify(self, asked: _Asked, to_verify: Iterable[TopicIdPartition]) -> list[TopicIdPartition]:
        """Those that have to be asked about once more: the marker of the transaction before has come to them meanwhile,
        and the coordinator's yes may be older."""
        names = {}
        for key in to_verify:
            topic = self._replicas.image.topics.get(key.topic_id)
            if topic is None:
                asked.refused[key] = UnknownTopicId(f"no topic has the id {key.topic_id} any more")
            else:
                names[key] = topic.name, key.partition
        refusals = await self._verifier.refusals(
            asked.transactional_id,
            asked.producer,
            frozenset(names.values()),
            asked.support,
            timeout_ms=asked.timeout_ms,
        )
        again = []
        for key, name in names.items():
            if name in refusals:
                asked.refused[key] = _as_producers_know_it(refusals[name], asked.support)
            elif not self._replicas.is_verified(key, asked.producer.producer_id, asked.guards[key]):
                again.append(key)
        self._guard(asked, again)
        return [key for key in again if key in asked.guards]

    def _guard(self, asked: _Asked, keys: Iterable[TopicIdPartition]) -> None:
        """Take the guards of those that have to be asked about; the transaction is open in others, or they are
        refused."""
        for key in keys:
            asked.guards.pop(key, None)
            try:
                guard = self._replicas.begin_verification(
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
    """Of the batches that belong to a transaction. Each has a whole header."""
    headers = {key: header_at(data) for key, data in batches.items()}
    return {key: header for key, header in headers.items() if header.is_transactional and not header.is_control}


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
