"""Whether partitions are in a transaction, as their leaders ask the transaction coordinator before the first append
(KIP-890). For clients of transaction version 1 it only looks; for those of version 2 it adds the partitions.

One question about a partition and a producer is under way at most: a request that asks meanwhile waits for the same
answer. The order of a producer's batches is not kept here, but by their turns
(`kraft/broker/transactional_produce.py`).
Source: org.apache.kafka.server.transaction.AddPartitionsToTxnManager.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Protocol, TypeAlias

from kraft.protocol.errors import (
    InvalidProducerEpoch,
    InvalidTxnState,
    KafkaError,
    ProducerFenced,
    TransactionAbortable,
)
from kraft.protocol.primitives import TopicPartition
from kraft.protocol.transactions import Producer
from kraft.values import value
from metadata.settings import BrokerSettings

WAIT_MS = 10_000
"""A coordinator that moves, loads, or still ends the transaction before is asked again for so long, and no longer than
the request that waits for it may take."""

Refusals: TypeAlias = Mapping[TopicPartition, KafkaError]


class Support(Enum):
    """The errors and effects that the version of a client's request allows (TransactionSupportedOperation)."""

    OLD = "old"
    """Produce before 11, TxnOffsetCommit before 4: a partition that is not in the transaction is INVALID_TXN_STATE."""
    KNOWS_ABORTABLE = "knows abortable"
    """It is TRANSACTION_ABORTABLE 120: the producer aborts, and goes on."""
    ADDS_PARTITIONS = "adds partitions"
    """Produce 12, TxnOffsetCommit 5: the partition need not have been added before."""


class Transactions(Protocol):
    async def add_partitions(
        self,
        transactional_id: str,
        producer: Producer,
        partitions: frozenset[TopicPartition],
        *,
        is_verify_only: bool,
        wait_ms: int,
    ) -> Mapping[TopicPartition, KafkaError | None]: ...


@value()
class _Question:
    transactional_id: str
    producer: Producer
    support: Support
    partition: TopicPartition


class TransactionVerifier:
    def __init__(self, transactions: Callable[[], Transactions], settings: Callable[[], BrokerSettings]) -> None:
        """`transactions` is called for each verification: its gateway needs the local leader, which needs this."""
        self._transactions = transactions
        self._settings = settings
        self._asked: dict[_Question, asyncio.Task[Refusals]] = {}

    async def refusals(
        self,
        transactional_id: str,
        producer: Producer,
        partitions: Iterable[TopicPartition],
        support: Support,
        *,
        timeout_ms: int,
    ) -> Refusals:
        """The partitions that may not be written to, and why: InvalidProducerIdMapping 49, InvalidProducerEpoch 47,
        InvalidTxnState 48 or TransactionAbortable 120, or an error that asking again may cure."""
        if support is not Support.ADDS_PARTITIONS and not self._settings().transaction_partition_verification_enable:
            return {}
        questions = {each: _Question(transactional_id, producer, support, each) for each in partitions}
        new = frozenset(each for each, question in questions.items() if question not in self._asked)
        if new:
            task = asyncio.get_running_loop().create_task(
                self._ask(transactional_id, producer, new, support, wait_ms=min(timeout_ms, WAIT_MS))
            )
            for each in new:
                self._asked[questions[each]] = task
            task.add_done_callback(lambda _: self._answered(questions[each] for each in new))
        found: dict[TopicPartition, KafkaError] = {}
        for task in dict.fromkeys(self._asked[question] for question in questions.values()):
            refused = await asyncio.shield(task)
            found.update({each: error for each, error in refused.items() if each in questions})
        return found

    def _answered(self, questions: Iterable[_Question]) -> None:
        for question in questions:
            del self._asked[question]

    async def _ask(
        self,
        transactional_id: str,
        producer: Producer,
        partitions: frozenset[TopicPartition],
        support: Support,
        *,
        wait_ms: int,
    ) -> Refusals:
        try:
            outcomes = await self._transactions().add_partitions(
                transactional_id,
                producer,
                partitions,
                is_verify_only=support is not Support.ADDS_PARTITIONS,
                wait_ms=wait_ms,
            )
        except KafkaError as error:
            return dict.fromkeys(partitions, as_reported(error, support))
        return {each: as_reported(error, support) for each, error in outcomes.items() if error is not None}


def as_reported(error: KafkaError, support: Support) -> KafkaError:
    """The error that a producer of this support gets. Producers know an epoch that is over as 47 where they write
    (KIP-588)."""
    if isinstance(error, ProducerFenced):
        return InvalidProducerEpoch(error.message)
    if isinstance(error, TransactionAbortable) and support is Support.OLD:
        return InvalidTxnState(error.message)
    return error
