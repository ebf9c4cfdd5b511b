"""Batches of a producer that wait for the transaction coordinator are appended in the order in which they arrived.

The logs are real; the answers of the coordinator come when the test says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from kraft.broker.transaction_verification import Refusals, Support
from kraft.broker.transactional_produce import ROUNDS_MAX, TransactionalProduce, transactional_headers
from kraft.protocol.batches.markers import Marker, build_marker
from kraft.protocol.errors import CoordinatorNotAvailable, KafkaError, TransactionAbortable
from kraft.protocol.primitives import TopicPartition
from kraft.protocol.transactions import Producer
from metadata.image import TopicIdPartition
from replication.producers.origin import Origin
from replication.requests import ProduceOptions, ProduceOutcome
from tests.unit.replication.harness.cluster import Cluster
from tests.unit.replication.harness.virtual import environment, run
from tests.unit.wire.handlers.brokers import Brokers, records

A, B = ("t", 0), ("t", 1)
PRODUCER = Producer(7, 0)


class Coordinator:
    """Answers each question when the test says so."""

    def __init__(self) -> None:
        self.questions: list[tuple[frozenset[TopicPartition], asyncio.Future[Refusals]]] = []
        self._next = asyncio.Event()

    async def refusals(
        self,
        transactional_id: str,
        producer: Producer,
        partitions: frozenset[TopicPartition],
        support: Support,
        *,
        timeout_ms: int,
    ) -> Refusals:
        answer: asyncio.Future[Refusals] = asyncio.get_running_loop().create_future()
        self.questions.append((partitions, answer))
        self._next.set()
        return await answer

    async def asked(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.questions) < count:
                self._next = asyncio.Event()
                await self._next.wait()

    def answer(self, number: int, refused: Mapping[TopicPartition, KafkaError] | None = None) -> None:
        self.questions[number][1].set_result(refused or {})


class Producing:
    """Requests of one producer to the leader of two partitions."""

    def __init__(self, cluster: Cluster, topic: TopicIdPartition) -> None:
        self.coordinator = Coordinator()
        self._manager = cluster.nodes[1].manager
        self._produce = TransactionalProduce(self._manager, self.coordinator, environment(1).clock)
        self._keys = {place: TopicIdPartition(topic.topic_id, place[1]) for place in (A, B)}

    def send(
        self,
        sequences: Mapping[TopicPartition, int],
        *,
        support: Support = Support.OLD,
        timeout_ms: int = 10_000,
    ) -> asyncio.Future[list[int]]:
        """The error code at each partition, once it is known."""
        batches = {
            self._keys[place]: records(
                f"{place[1]}-{sequence}".encode(),
                producer_id=PRODUCER.producer_id,
                producer_epoch=PRODUCER.epoch,
                base_sequence=sequence,
                is_transactional=True,
            )
            for place, sequence in sequences.items()
        }
        begun = self._produce.begin(
            batches,
            transactional_headers(batches),
            ProduceOptions(1, timeout_ms, "id"),
            support=support,
        )

        async def codes() -> list[int]:
            outcomes = await begun if isinstance(begun, asyncio.Future) else begun
            return [outcomes[key].error_code for key in batches]

        future = asyncio.ensure_future(codes())
        future.add_done_callback(lambda _: begun.cancel() if isinstance(begun, asyncio.Future) else None)
        return future

    async def mark(self, place: TopicPartition = A) -> None:
        marker = build_marker(
            Marker(is_commit=True, coordinator_epoch=0), producer_id=7, producer_epoch=0, timestamp_ms=1
        )
        begun = self._manager.produce.begin(
            {self._keys[place]: marker}, ProduceOptions(1, 1_000), origin=Origin(is_coordinator=True)
        )
        outcomes: Mapping[TopicIdPartition, ProduceOutcome] = (
            await begun if isinstance(begun, asyncio.Future) else begun
        )
        assert outcomes[self._keys[place]].error_code == 0, outcomes

    def end(self, place: TopicPartition) -> int:
        return self._manager.describe()[self._keys[place]].log_end_offset


def story(tell: object) -> None:
    async def main() -> None:
        async with Brokers() as cluster:
            await tell(Producing(cluster, cluster.create(partitions=2)))  # type: ignore[operator]

    run(main())


async def begin_in_a(producing: Producing) -> None:
    first = producing.send({A: 0})
    await producing.coordinator.asked(1)
    producing.coordinator.answer(0)
    assert await first == [0]


def test_a_request_that_needs_no_answer_waits_for_the_one_before_it_that_does() -> None:
    async def tell(producing: Producing) -> None:
        await begin_in_a(producing)
        both = producing.send({A: 1, B: 0})
        last = producing.send({A: 2})
        await producing.coordinator.asked(2)
        assert producing.coordinator.questions[1][0] == {B}
        await asyncio.sleep(1)
        assert producing.end(A) == 1, "the third request arrived behind the second"
        producing.coordinator.answer(1)
        assert (await both, await last) == ([0, 0], [0])
        assert (producing.end(A), producing.end(B)) == (3, 1)
        assert await producing.send({A: 3}) == [0], "and nobody waits any more"

    story(tell)


def test_requests_on_both_sides_of_a_marker_keep_their_order() -> None:
    """The marker of the transaction before ends the guard of the first, which has to be asked about again."""

    async def tell(producing: Producing) -> None:
        await begin_in_a(producing)
        await producing.mark()
        first = producing.send({A: 1}, support=Support.ADDS_PARTITIONS)
        await producing.coordinator.asked(2)
        await producing.mark()
        second = producing.send({A: 2}, support=Support.ADDS_PARTITIONS)
        await producing.coordinator.asked(3)
        producing.coordinator.answer(1)
        producing.coordinator.answer(2)
        await producing.coordinator.asked(4)
        await asyncio.sleep(1)
        assert producing.end(A) == 3, "one batch and two markers"
        producing.coordinator.answer(3)
        assert (await first, await second) == ([0], [0])

    story(tell)


def test_marker_during_wait_repeats_verification() -> None:
    async def tell(producing: Producing) -> None:
        await begin_in_a(producing)
        both = producing.send({A: 1, B: 0}, support=Support.ADDS_PARTITIONS)
        last = producing.send({A: 2}, support=Support.ADDS_PARTITIONS)
        await producing.coordinator.asked(2)
        await producing.mark()
        producing.coordinator.answer(1)
        await producing.coordinator.asked(3)
        assert producing.coordinator.questions[2][0] == {A}
        producing.coordinator.answer(2, {A: TransactionAbortable("it has ended")})
        assert await both == [120, 0]
        await producing.coordinator.asked(4)
        producing.coordinator.answer(3, {A: TransactionAbortable("it has ended")})
        assert await last == [120]
        assert producing.end(A) == 2, "nothing behind the marker"

    story(tell)


@pytest.mark.parametrize(("support", "code"), [(Support.OLD, 48), (Support.KNOWS_ABORTABLE, 120)])
def test_what_a_marker_overtakes_begins_no_transaction_of_its_epoch(support: Support, code: int) -> None:
    """Transaction version 1: its coordinator would take it for a batch of the next transaction."""

    async def tell(producing: Producing) -> None:
        await begin_in_a(producing)
        both = producing.send({A: 1, B: 0}, support=support)
        last = producing.send({A: 2}, support=support)
        await producing.coordinator.asked(2)
        await producing.mark()
        producing.coordinator.answer(1)
        assert (await both, await last) == ([code, 0], [code])
        waiting = producing.send({A: 1}, support=support)
        await producing.coordinator.asked(3)
        await producing.mark()
        producing.coordinator.answer(2)
        assert await waiting == [code]
        assert len(producing.coordinator.questions) == 3
        assert producing.end(A) == 3, "one batch and two markers"
        first = producing.send({A: 1}, support=support)
        await producing.coordinator.asked(4)
        producing.coordinator.answer(3)
        assert await first == [0]

    story(tell)


@pytest.mark.parametrize("how", ["refused", "cancelled", "cancelled at once"])
def test_a_request_that_is_given_up_lets_those_behind_it_pass_in_their_order(how: str) -> None:
    async def tell(producing: Producing) -> None:
        await begin_in_a(producing)
        both = producing.send({A: 1, B: 0})
        behind = [producing.send({A: 2}), producing.send({A: 3})]
        if how == "cancelled at once":
            both.cancel()
        await producing.coordinator.asked(2) if how != "cancelled at once" else await asyncio.sleep(1)
        if how == "refused":
            producing.coordinator.answer(1, {B: CoordinatorNotAvailable("gone")})
            assert await both == [0, 19]
            assert [await each for each in behind] == [[0], [0]]
            return
        both.cancel()
        codes = [await each for each in behind]
        assert codes == [[45], [45]], "there is a gap where the first was"
        assert await producing.send({A: 1}) == [0]

    story(tell)


def test_wait_for_turn_times_out_retriable() -> None:
    """19: nothing of it was appended, and those behind it are where they were."""

    async def tell(producing: Producing) -> None:
        await begin_in_a(producing)
        both = producing.send({A: 1, B: 0})
        impatient = producing.send({A: 2}, timeout_ms=50)
        last = producing.send({A: 2})
        async with asyncio.timeout(1):
            assert await impatient == [19]
        assert producing.end(A) == 1
        producing.coordinator.answer(1)
        assert (await both, await last) == ([0, 0], [0])

    story(tell)


def test_marker_during_second_verification() -> None:
    """Whichever of its questions a request waits for: what is open elsewhere may have ended meanwhile."""

    async def tell(producing: Producing) -> None:
        await begin_in_a(producing)
        first = producing.send({B: 0}, support=Support.ADDS_PARTITIONS)
        await producing.coordinator.asked(2)
        both = producing.send({A: 1, B: 1}, support=Support.ADDS_PARTITIONS)
        await producing.coordinator.asked(3)
        producing.coordinator.answer(2)
        await asyncio.sleep(0.1)
        await producing.mark(B)  # it ends both guards: the second is asked about again when its turn comes
        producing.coordinator.answer(1, {B: TransactionAbortable("over")})
        assert await first == [120]
        await producing.coordinator.asked(4)
        assert producing.coordinator.questions[3][0] == {B}
        await producing.mark(A)
        producing.coordinator.answer(3)
        await producing.coordinator.asked(5)
        assert producing.coordinator.questions[4][0] == {A}
        producing.coordinator.answer(4, {A: TransactionAbortable("over")})
        assert (await both)[0] == 120, "and not INVALID_TXN_STATE, which no producer survives"

    story(tell)


def test_who_is_never_answered_between_two_markers_is_refused_and_not_appended() -> None:
    async def tell(producing: Producing) -> None:
        asked = producing.send({A: 0}, support=Support.ADDS_PARTITIONS)
        for number in range(ROUNDS_MAX):
            await producing.coordinator.asked(number + 1)
            await producing.mark()
            producing.coordinator.answer(number)
        assert await asked == [19]
        assert producing.end(A) == ROUNDS_MAX, "markers only"

    story(tell)


def test_requests_of_same_partitions_do_not_deadlock() -> None:
    async def tell(producing: Producing) -> None:
        first = producing.send({A: 0, B: 0})
        second = producing.send({B: 1, A: 1})
        third = producing.send({A: 2, B: 2})
        await producing.coordinator.asked(3)
        for number in (2, 1, 0):
            producing.coordinator.answer(number)
            await asyncio.sleep(0.1)
        assert [await first, await second, await third] == [[0, 0]] * 3

    story(tell)


def test_plain_batch_does_not_wait_for_transactional_ones() -> None:
    async def tell(producing: Producing) -> None:
        plain = records(b"plain", producer_id=9, producer_epoch=0, base_sequence=0)
        own = records(b"own", producer_id=7, producer_epoch=0, base_sequence=0, is_transactional=True)
        batches = {producing._keys[A]: own, producing._keys[B]: plain}
        begun = producing._produce.begin(
            batches,
            transactional_headers(batches),
            ProduceOptions(1, 10_000, "id"),
            support=Support.OLD,
        )
        assert isinstance(begun, asyncio.Future)
        await producing.coordinator.asked(1)
        assert (producing.end(A), producing.end(B)) == (0, 1)
        producing.coordinator.answer(0)
        assert [outcome.error_code for outcome in (await begun).values()] == [0, 0]

    story(tell)
