"""What nodes ask each other about transactions, over a real connection: it arrives whole, and so do refusals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from kraft.coordinators.transactions.list_filters import Listed, ListFilters
from kraft.coordinators.transactions.state import Phase, Transaction
from kraft.protocol.batches.markers import Marker
from kraft.protocol.codec import Malformed
from kraft.protocol.errors import (
    ConcurrentTransactions,
    InvalidProducerIdMapping,
    KafkaError,
    NotCoordinator,
    ProducerFenced,
    TransactionAbortable,
    TransactionalIdNotFound,
)
from kraft.protocol.messages.add_partitions_to_txn_response import AddPartitionsToTxnResponseData
from kraft.protocol.messages.write_txn_markers_response import WriteTxnMarkersResponseData
from kraft.protocol.primitives import TopicPartition
from kraft.protocol.transactions import Codes, MarkersToWrite, Producer
from kraft.wire.channels.transactions import (
    ADD_PARTITIONS_TO_TXN,
    WRITE_TXN_MARKERS,
    PartitionsOfTransaction,
    TransactionChannel,
)
from tests.unit.wire.fakes import Loopback, loopback, run

PRODUCER = Producer(2**40 + 1, 3)
A0, A7, B0 = ("a", 0), ("a", 7), ("b", 0)
OPEN = Transaction(
    transactional_id="id",
    producer_id=PRODUCER.producer_id,
    epoch=3,
    timeout_ms=60_000,
    phase=Phase.ONGOING,
    partitions=frozenset({A0, A7, B0}),
    updated_ms=-1,
    started_ms=1_700_000_000_000,
    owner="User:alice",
)
MARKERS = [
    MarkersToWrite(PRODUCER.producer_id, 4, Marker(True, 9), frozenset({A0, B0}), 2),
    MarkersToWrite(PRODUCER.producer_id, 5, Marker(False, 2**31 - 1), frozenset({A7})),
]
CODES: list[Codes] = [{A0: 0, B0: 6}, {A7: 47}]


class Coordinator:
    """Answers all that it is asked alike, and keeps it."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[Any] = []

    def _answered(self, *asked: Any) -> Any:
        self.asked.append(asked)
        if isinstance(self.answer, KafkaError):
            raise self.answer
        return self.answer

    async def init(
        self, name: str, *, timeout_ms: int, expected: Producer | None = None, key: bytes = b"", owner: str = ""
    ) -> Any:
        return self._answered(name, timeout_ms, expected, key, owner)

    async def add_partitions(
        self, name: str, producer: Producer, partitions: frozenset[TopicPartition], *, client_version: int
    ) -> None:
        self._answered(name, producer, partitions, client_version)

    async def verify_partitions(
        self, name: str, producer: Producer, partitions: frozenset[TopicPartition]
    ) -> Mapping[TopicPartition, KafkaError | None]:
        answer: Mapping[TopicPartition, KafkaError | None] = self._answered(name, producer, partitions)
        return answer

    async def end(self, name: str, producer: Producer, *, is_commit: bool, client_version: int) -> Any:
        return self._answered(name, producer, is_commit, client_version)

    async def describe(self, name: str) -> Any:
        return self._answered(name)

    async def list(self, filters: ListFilters) -> Any:
        return self._answered(filters)

    async def write(self, markers: Sequence[MarkersToWrite]) -> Any:
        return self._answered(markers)


def with_channel(answer: Any, story: Any) -> Coordinator:
    coordinator = Coordinator(answer)

    async def main() -> None:
        world: Loopback
        async with loopback(parts={"transaction_coordinator": coordinator, "markers": coordinator}) as world:
            peers = world.peers()
            await story(TransactionChannel(peers, 1))
            await peers.close()

    run(main())
    return coordinator


@pytest.mark.parametrize(("expected", "key"), [(None, b""), (PRODUCER, b""), (None, b"k" * 16)])
def test_a_producer_is_made_at_the_coordinator(expected: Producer | None, key: bytes) -> None:
    async def story(channel: TransactionChannel) -> None:
        given = await channel.init("id", timeout_ms=70_000, expected=expected, key=key, owner="User:alice")
        assert given == PRODUCER

    assert with_channel(PRODUCER, story).asked == [("id", 70_000, expected, key, "User:alice")]


def test_partitions_are_added_and_verified() -> None:
    partitions = frozenset({A0, B0})

    async def story(channel: TransactionChannel) -> None:
        await channel.add_partitions("id", PRODUCER, partitions, client_version=2)
        verified = await channel.verify_partitions("id", PRODUCER, partitions)
        assert verified[A0] is None
        assert isinstance(verified[B0], TransactionAbortable)

    coordinator = with_channel({A0: None, B0: TransactionAbortable("")}, story)
    assert coordinator.asked == [("id", PRODUCER, partitions, 2), ("id", PRODUCER, partitions)]


@pytest.mark.parametrize("error", [ConcurrentTransactions, NotCoordinator, ProducerFenced, InvalidProducerIdMapping])
def test_a_refusal_of_the_transaction_is_raised(error: type[KafkaError]) -> None:
    async def story(channel: TransactionChannel) -> None:
        with pytest.raises(error):
            await channel.add_partitions("id", PRODUCER, frozenset({A0}), client_version=2)
        with pytest.raises(error):
            await channel.verify_partitions("id", PRODUCER, frozenset({A0}))
        with pytest.raises(error):
            await channel.end("id", PRODUCER, is_commit=True, client_version=2)
        with pytest.raises(error):
            await channel.init("id", timeout_ms=60_000)

    with_channel(error("so"), story)


def test_the_end_brings_the_next_epoch() -> None:
    following = Producer(PRODUCER.producer_id, 4)

    async def story(channel: TransactionChannel) -> None:
        assert await channel.end("id", PRODUCER, is_commit=True, client_version=2) == following

    assert with_channel(following, story).asked == [("id", PRODUCER, True, 2)]


def test_markers_and_what_became_of_them() -> None:
    async def story(channel: TransactionChannel) -> None:
        assert await channel.write_markers(MARKERS) == CODES

    assert with_channel(CODES, story).asked == [(MARKERS,)]


def test_transactions_are_described_and_listed() -> None:
    async def describe(channel: TransactionChannel) -> None:
        assert await channel.describe("id") == OPEN

    async def refuse(channel: TransactionChannel) -> None:
        with pytest.raises(TransactionalIdNotFound):
            await channel.describe("id")

    async def list_(channel: TransactionChannel) -> None:
        assert await channel.list(ListFilters()) == [Listed("a", 7, Phase.ONGOING)]

    with_channel(OPEN, describe)
    with_channel(TransactionalIdNotFound(""), refuse)
    with_channel([Listed("a", 7, Phase.ONGOING)], list_)


def test_an_answer_about_other_partitions_is_no_answer() -> None:
    asked = [PartitionsOfTransaction("id", PRODUCER, False, frozenset({A0}))]
    with pytest.raises(Malformed):
        ADD_PARTITIONS_TO_TXN.replied(asked, AddPartitionsToTxnResponseData.make())
    with pytest.raises(Malformed):
        WRITE_TXN_MARKERS.replied(MARKERS, WriteTxnMarkersResponseData.make())
