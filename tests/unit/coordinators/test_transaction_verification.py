"""What a leader asks the transaction coordinator, and what it makes of the answer, without a coordinator."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from kraft.broker.transaction_verification import WAIT_MS, Support, TransactionVerifier
from kraft.broker.transactional_produce import _as_producers_know_it
from kraft.protocol.errors import (
    ConcurrentTransactions,
    CoordinatorNotAvailable,
    InvalidProducerIdMapping,
    KafkaError,
    ProducerFenced,
    TransactionAbortable,
)
from kraft.protocol.primitives import TopicPartition
from kraft.protocol.transactions import Producer
from metadata.settings import BrokerSettings

PRODUCER = Producer(7, 3)
A, B, C = ("t", 0), ("t", 1), ("u", 0)


class Transactions:
    def __init__(self, outcome: KafkaError | Mapping[TopicPartition, KafkaError | None] | None = None) -> None:
        self.outcome = outcome
        self.asked: list[tuple[frozenset[TopicPartition], bool, int]] = []
        self.may_answer = asyncio.Event()

    async def add_partitions(
        self,
        transactional_id: str,
        producer: Producer,
        partitions: frozenset[TopicPartition],
        *,
        is_verify_only: bool,
        wait_ms: int,
    ) -> Mapping[TopicPartition, KafkaError | None]:
        self.asked.append((partitions, is_verify_only, wait_ms))
        await self.may_answer.wait()
        if isinstance(self.outcome, KafkaError):
            raise self.outcome
        return self.outcome or dict.fromkeys(partitions)


async def refusals(
    transactions: Transactions,
    *partitions: TopicPartition,
    support: Support = Support.ADDS_PARTITIONS,
    timeout_ms: int = 500,
    enables: bool = True,
) -> dict[TopicPartition, int]:
    settings = BrokerSettings(transaction_partition_verification_enable=enables)
    verifier = TransactionVerifier(lambda: transactions, lambda: settings)
    transactions.may_answer.set()
    found = await verifier.refusals("id", PRODUCER, partitions, support, timeout_ms=timeout_ms)
    assert not verifier._asked
    return {each: error.code for each, error in found.items()}


def test_verification_depends_on_version() -> None:
    async def story() -> None:
        for support, is_verify_only in (
            (Support.OLD, True),
            (Support.KNOWS_ABORTABLE, True),
            (Support.ADDS_PARTITIONS, False),
        ):
            transactions = Transactions()
            assert await refusals(transactions, A, B, support=support) == {}
            assert await refusals(transactions, A, support=support, timeout_ms=10 * WAIT_MS) == {}
            assert transactions.asked == [
                (frozenset({A, B}), is_verify_only, 500),
                (frozenset({A}), is_verify_only, WAIT_MS),
            ]

    asyncio.run(story())


def test_refusals_are_reported_as_the_version_knows_them() -> None:
    async def story() -> None:
        for support, code in ((Support.OLD, 48), (Support.KNOWS_ABORTABLE, 120)):
            one = Transactions({A: TransactionAbortable("not in it"), B: None})
            assert await refusals(one, A, B, support=support) == {A: code}
        assert await refusals(Transactions(ProducerFenced("old")), A, B) == {A: 47, B: 47}
        assert await refusals(Transactions(InvalidProducerIdMapping("whose")), A) == {A: 49}

    asyncio.run(story())


def test_concurrent_requests_share_verification() -> None:
    async def story() -> None:
        transactions = Transactions()
        verifier = TransactionVerifier(lambda: transactions, BrokerSettings)
        order: list[int] = []

        async def ask(number: int, *partitions: TopicPartition) -> None:
            await verifier.refusals("id", PRODUCER, partitions, Support.ADDS_PARTITIONS, timeout_ms=WAIT_MS)
            order.append(number)

        waiting = [asyncio.ensure_future(ask(number, A)) for number in range(5)]
        waiting.append(asyncio.ensure_future(ask(5, A, C)))
        await asyncio.sleep(0)
        waiting[2].cancel()
        await asyncio.sleep(0)
        transactions.may_answer.set()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert order == [0, 1, 3, 4, 5]
        assert [partitions for partitions, _, _ in transactions.asked] == [frozenset({A}), frozenset({C})]
        assert not verifier._asked

    asyncio.run(story())


def test_without_verification_only_who_adds_partitions_asks() -> None:
    async def story() -> None:
        transactions = Transactions(ProducerFenced("old"))
        assert await refusals(transactions, A, support=Support.OLD, enables=False) == {}
        assert transactions.asked == []
        assert await refusals(transactions, A, enables=False) == {A: 47}

    asyncio.run(story())


@pytest.mark.parametrize("support", Support)
def test_what_asking_again_may_cure_makes_any_producer_send_again(support: Support) -> None:
    """19 is known to all of them and makes none look for another leader; 51 only to those of transaction version 2."""
    busy = 51 if support is Support.ADDS_PARTITIONS else 19
    assert _as_producers_know_it(ConcurrentTransactions("ends"), support).code == busy
    assert _as_producers_know_it(CoordinatorNotAvailable("gone"), support).code == 19
    assert _as_producers_know_it(InvalidProducerIdMapping("whose"), support).code == 49
