"""Every request about a transaction, in each phase, from each producer: our decisions answer as Apache Kafka did."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cache, partial
from itertools import count

import pytest

from kraft.broker.transaction_verification import Support, TransactionVerifier
from kraft.broker.transactional_produce import _as_producers_know_it
from kraft.coordinators.transactions.decide import (
    AddPartitions,
    EndTransaction,
    Event,
    InitProducer,
    MarkersWritten,
    Reply,
    TimeIsOver,
    VerifyPartitions,
    decide,
)
from kraft.coordinators.transactions.records import decode_record, encode_batch
from kraft.coordinators.transactions.state import Transaction
from kraft.protocol.batches.records import read_batches
from kraft.protocol.errors import KafkaError
from kraft.protocol.primitives import TopicPartition
from kraft.protocol.transactions import Producer
from metadata.internal_topics import OFFSETS_TOPIC
from metadata.settings import BrokerSettings
from tests.clients.golden.transactions import (
    FIRST_SEED_EPOCH,
    NOT_ASKED,
    WAYS,
    Answers,
    Id,
    Story,
    Until,
    Way,
    ask_all,
    read,
)

NAME = "transfers"
FIRST_ID = 7
TIMEOUT_MS = 60_000
NOT_IN_IT = ("t", 99)
RECORDED = read()
EPOCH_TOLD_FROM = 5


class StoryOfOurs(Story):
    def __init__(self, *, is_near_end: bool, is_held: bool) -> None:
        super().__init__()
        self._is_held = is_held
        self._new_producer_id = FIRST_ID
        self._now_ms = 1_700_000_000_000
        self.transaction: Transaction | None = None
        if is_near_end:
            self.transaction = Transaction(
                transactional_id=NAME,
                producer_id=self._new_producer_id,
                previous_producer_id=self._new_producer_id,
                epoch=FIRST_SEED_EPOCH,
                timeout_ms=TIMEOUT_MS,
                updated_ms=self._now_ms,
            )

    def init(self, producer: Id | None) -> tuple[int, Id]:
        expected = None if producer is None else Producer(*producer)
        return self._given(InitProducer(timeout_ms=TIMEOUT_MS, timeout_ms_max=TIMEOUT_MS, expected=expected))

    def end(self, producer: Id, version: int, *, commits: bool) -> tuple[int, Id | None]:
        is_informed = version >= EPOCH_TOLD_FROM
        event = EndTransaction(producer=Producer(*producer), is_commit=commits, client_version=2 if is_informed else 0)
        code, given = self._given(event)
        return code, given if is_informed else None

    def add(self, producer: Id, version: int, number: int | None, *, is_verifying: bool = False) -> int:
        partition = NOT_IN_IT if number is None else ("t", number)
        try:
            outcomes = self.outcomes(Producer(*producer), partition, version=version, is_verifying=is_verifying)
        except KafkaError as error:
            return error.code
        return _code(outcomes[partition])

    def outcomes(
        self, producer: Producer, partition: TopicPartition, *, version: int, is_verifying: bool
    ) -> Mapping[TopicPartition, KafkaError | None]:
        partitions = frozenset({partition})
        if is_verifying:
            reply = self._decide(VerifyPartitions(producer=producer, partitions=partitions))
        else:
            client_version = 0 if version < 4 else 2
            event = AddPartitions(producer=producer, partitions=partitions, client_version=client_version)
            reply = self._decide(event)
        assert isinstance(reply, Mapping)
        return reply

    def add_offsets(self, producer: Id, version: int) -> int:
        return self.add(producer, 3, None)

    def produce(self, producer: Id, version: int) -> int:
        support = Support.ADDS_PARTITIONS if version >= 12 else Support.KNOWS_ABORTABLE
        error = self._refusal(producer, support, NOT_IN_IT)
        return _code(None if error is None else _as_producers_know_it(error, support))

    def commit_offsets(self, producer: Id, version: int) -> int:
        """What the leader of `__consumer_offsets` learns; clients are answered 14 for 51, which all of them know."""
        support = Support.ADDS_PARTITIONS if version >= 5 else Support.KNOWS_ABORTABLE
        return _code(self._refusal(producer, support, (OFFSETS_TOPIC, 0)))

    def _refusal(self, producer: Id, support: Support, partition: TopicPartition) -> KafkaError | None:
        verifier = TransactionVerifier(partial(_Coordinator, self), BrokerSettings)
        asked = verifier.refusals(NAME, Producer(*producer), [partition], support, timeout_ms=0)
        return asyncio.run(asked).get(partition)

    def let_time_pass(self) -> None:
        self._now_ms += TIMEOUT_MS
        self._decide(TimeIsOver())

    def settled(self) -> int:
        assert self.transaction is not None
        if self.transaction.phase.is_preparing and not self._is_held:
            self._decide(MarkersWritten())
        return self.transaction.producer_id

    def hold(self) -> None:
        """No markers are written from now on."""
        self._is_held = True

    def load(self) -> None:
        """As the next coordinator finds it in the log."""
        assert self.transaction is not None
        data = encode_batch([(NAME, self.transaction)], timestamp_ms=self._now_ms)
        (record,) = read_batches(data)
        assert record.key is not None
        decoded = decode_record(record.key, record.value)
        assert decoded is not None
        self.transaction = decoded[1]

    def _given(self, event: Event) -> tuple[int, Id]:
        try:
            reply = self._decide(event)
        except KafkaError as error:
            return error.code, Id(-1, -1)
        assert isinstance(reply, Producer)
        return 0, Id(reply.producer_id, reply.epoch)

    def _decide(self, event: Event) -> Reply:
        decision = decide(NAME, self.transaction, event, now_ms=self._now_ms)
        if decision.needs_producer_id:
            assert isinstance(event, InitProducer | EndTransaction | TimeIsOver)
            self._new_producer_id += 1
            return self._decide(event.with_producer_id(self._new_producer_id))
        self.transaction = decision.transaction
        if isinstance(decision.reply, KafkaError):
            raise decision.reply
        return decision.reply


class _Coordinator:
    def __init__(self, story: StoryOfOurs) -> None:
        self._story = story

    async def add_partitions(
        self,
        transactional_id: str,
        producer: Producer,
        partitions: frozenset[TopicPartition],
        *,
        is_verify_only: bool,
        wait_ms: int,
    ) -> Mapping[TopicPartition, KafkaError | None]:
        (partition,) = partitions
        return self._story.outcomes(producer, partition, version=5, is_verifying=is_verify_only)


def _code(error: KafkaError | None) -> int:
    return 0 if error is None else error.code


def taken(way: Way, *, columns_move: bool) -> StoryOfOurs:
    """`columns_move`: the columns are about the producer after the last step of a pending way, not before it."""
    story = StoryOfOurs(is_near_end=way.is_near_end, is_held=way.is_held)
    *steps, last = way.steps.split() or [""]
    for step in steps:
        story.take(step)
    known = story.known
    if way.until is Until.PENDING:
        story.hold()
    if last:
        story.take(last)
    if way.until is Until.PENDING and not columns_move:
        story.known, story.following = known, None
    if way.until is Until.LOADED:
        story.load()
    return story


OF_WHAT_IS_REPLICATED = (
    "AddPartitionsToTxn 5 verifies in it",
    "AddPartitionsToTxn 5 verifies not in it",
    "EndTxn 4 commit",
    "EndTxn 4 abort",
    "Produce 11",
    "TxnOffsetCommit 4",
)
WAITS = "51 while a change is not replicated: we decide on that change, and answer when it is replicated (T5)"
SEES = (
    "of the state before a change that is not replicated: we see the state after it, and answer when it is replicated"
)
FAILS = "UNKNOWN_SERVER_ERROR -1: Kafka throws for a wrong epoch of a producer id whose epochs are used up; 90 says it"


def reason(way: Way, request: str, theirs: str) -> str | None:
    """Why an answer that differs is meant."""
    if theirs == "-1":
        return FAILS
    if way.until is Until.PENDING and request in OF_WHAT_IS_REPLICATED:
        return SEES
    if way.until is Until.PENDING and theirs == "51" and not ends(way):
        return WAITS
    return None


def ends(way: Way) -> bool:
    return way.steps.split()[-1].startswith(("end", "fence"))


@cache
def answers(way: Way, *, columns_move: bool = False) -> Answers:
    return ask_all((taken(way, columns_move=columns_move) for _ in count()), is_fixed=False)


def differences(ours: Answers, theirs: Answers) -> list[tuple[str, str, str, str]]:
    """Request, producer, our answer and Kafka's."""
    return [
        (request, producer, answer, theirs[request].get(producer, NOT_ASKED))
        for request, row in ours.items()
        for producer, answer in row.items()
        if answer != theirs[request].get(producer, NOT_ASKED)
    ]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_we_answer_as_kafka(way: Way) -> None:
    found = differences(answers(way), RECORDED[way.name])
    assert not [each for each in found if reason(way, each[0], each[-1]) is None]


@pytest.mark.parametrize("way", [each for each in WAYS if each.until is Until.PENDING], ids=lambda way: way.name)
def test_our_answer_before_a_change_is_replicated_is_kafkas_after_it(way: Way) -> None:
    assert not differences(answers(way, columns_move=True), RECORDED[way.settled.name])


def test_each_reason_is_needed_and_nothing_else_was_recorded() -> None:
    found = {
        reason(way, request, theirs)
        for way in WAYS
        for request, _, _, theirs in differences(answers(way), RECORDED[way.name])
    }
    assert found == {WAITS, SEES, FAILS}
    assert RECORDED.keys() == {way.name for way in WAYS}
