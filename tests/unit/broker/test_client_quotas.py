"""Quotas of clients: which one holds, rates against a slow twin, buckets of tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraft.broker import client_quotas
from kraft.broker.client_quotas import OWNER, SAMPLES, ClientQuotas, Owner, Rate, precedence
from kraft.broker.control import submit_counted
from kraft.broker.mutations import WAIT, Drawn, mutations
from kraft.protocol.errors import InvalidTopicException, ThrottlingQuotaExceeded
from metadata.controller.requests import (
    AlterConfigs,
    CreatePartitions,
    CreateTopics,
    DeleteTopics,
    ErrorDetail,
    NewPartitions,
    NewTopic,
    Request,
    TopicCreated,
)
from metadata.image import MetadataImage, QuotaEntity
from metadata.records import PartitionRecord, TopicRecord

PRODUCE = "producer_byte_rate"
ALICE, BOB = Owner("alice", "app"), Owner("bob", "app")
USER_AND_CLIENT: QuotaEntity = (("client-id", "app"), ("user", "alice"))
EVERY: list[QuotaEntity] = [
    USER_AND_CLIENT,
    (("client-id", None), ("user", "alice")),
    (("user", "alice"),),
    (("client-id", "app"), ("user", None)),
    (("client-id", None), ("user", None)),
    (("user", None),),
    (("client-id", "app"),),
    (("client-id", None),),
]


def test_the_most_specific_quota_holds() -> None:
    """Kafka's order, from a user with a client id to the default of client ids."""
    assert [entity for entity, _ in precedence(ALICE)] == EVERY
    for place, entity in enumerate(EVERY):
        quotas = {each: {PRODUCE: float(number + 1)} for number, each in enumerate(EVERY) if number >= place}
        assert ClientQuotas(quotas)._find(PRODUCE, ALICE) == ((PRODUCE, *dict(precedence(ALICE))[entity]), place + 1.0)
    assert ClientQuotas({EVERY[0]: {"other": 1.0}})._find(PRODUCE, ALICE) is None


def used(quotas: ClientQuotas, owner: Owner, amount: float, now_ms: int = 0) -> int:
    return quotas.used(PRODUCE, owner, amount, now_ms)


def test_a_client_waits_until_its_rate_is_the_quota() -> None:
    quotas = ClientQuotas({(("user", None),): {PRODUCE: 100.0}})
    assert used(quotas, ALICE, 1_000) == 0
    wait_ms = used(quotas, ALICE, 500)
    assert wait_ms == 5_000
    assert used(quotas, BOB, 1_000) == 0  # the default of users counts each of them alone
    assert used(quotas, Owner("alice", "other"), 0) == 5_000  # and all of a user's client ids together
    assert used(quotas, ALICE, 0, 11_000) == 0


def test_a_fetch_beyond_the_quota_is_not_counted_and_comes_again() -> None:
    quotas = ClientQuotas({(("user", None),): {"consumer_byte_rate": 100.0}})
    assert quotas.fetch_bytes_max(ALICE) == 1_000
    assert quotas.fetched(ALICE, 900, 0) == (0, False)
    assert quotas.fetched(ALICE, 500, 100) == (4_000, True)
    assert quotas.fetched(ALICE, 0, 100) == (0, False), "what it did not get is not counted"
    assert quotas.fetched(ALICE, 500, 20_000) == (0, False)
    assert quotas.fetched(BOB, 5_000, 100) == (40_000, False), "the first records, however large they are"
    assert quotas.fetched(BOB, 1, 200)[1]


def test_a_quota_of_client_ids_counts_all_users_together() -> None:
    quotas = ClientQuotas({(("client-id", "app"),): {PRODUCE: 100.0}})
    assert used(quotas, ALICE, 1_000) == 0
    assert used(quotas, BOB, 100) > 0
    assert used(quotas, Owner("alice", "other"), 10_000) == 0


def test_another_quota_holds_at_once() -> None:
    quotas = ClientQuotas({(("user", "alice"),): {PRODUCE: 1.0}})
    assert used(quotas, ALICE, 1_000) == client_quotas.THROTTLE_MS_MAX
    quotas.update({(("user", "alice"),): {PRODUCE: 1e6}})
    assert used(quotas, ALICE, 1) == 0
    quotas.update({})
    assert used(quotas, ALICE, 1e9) == 0


def test_what_is_counted_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_quotas, "COUNTED_MAX", 3)
    quotas = ClientQuotas({(("user", None),): {PRODUCE: 1.0}})
    for number in range(10):
        used(quotas, Owner(f"user-{number}", None), 1)
    assert (len(quotas._rates), len(quotas._found)) == (3, 1)


@given(st.lists(st.tuples(st.integers(0, 4_000), st.integers(1, 500)), min_size=1, max_size=40))
def test_a_rate_counts_what_is_not_older_than_its_samples(steps: list[tuple[int, int]]) -> None:
    """The twin keeps each amount, with the time at which its sample began."""
    rate, now_ms = Rate(), 0
    every: list[tuple[int, int]] = []
    for pause_ms, amount in steps:
        now_ms += pause_ms
        rate.add(amount, now_ms)
        begun_ms = every[-1][0] if every and now_ms - every[-1][0] < 1_000 else now_ms
        every.append((begun_ms, amount))
        counted = [each for each in every if now_ms - each[0] < SAMPLES * 1_000]
        total = sum(size for _, size in counted)
        assert rate.total == total
        elapsed_ms = max(now_ms - counted[0][0], 10_000)
        expected = max(0.0, (total * 1_000 / elapsed_ms - 20) / 20 * elapsed_ms)
        assert rate.over_ms(20, now_ms) == pytest.approx(expected, abs=1)


TOPIC = UUID(int=5)
IMAGE = MetadataImage().apply(
    [
        TopicRecord(name="t", topic_id=TOPIC),
        *(PartitionRecord(topic_id=TOPIC, partition=each, replicas=(1,), isr=(1,), leader=1) for each in range(3)),
    ]
)


@pytest.mark.parametrize(
    ("request_", "count"),
    [
        (CreateTopics(topics=(NewTopic(name="a", partitions=4), NewTopic(name="b", assignment={0: (1,), 1: (1,)}))), 6),
        (CreateTopics(topics=(NewTopic(name="a", partitions=4),), validate_only=True), 4),
        (CreatePartitions(topics=(NewPartitions(topic="t", count=5), NewPartitions(topic="gone", count=9))), 2),
        (DeleteTopics(topics=("t", TOPIC, "gone")), 6),
        (AlterConfigs(resources={}), 0),
    ],
)
def test_partitions_are_counted(request_: object, count: int) -> None:
    assert sum(mutations(request_, IMAGE).values()) == count  # type: ignore[arg-type]


@pytest.fixture
def noted() -> Iterator[list[int]]:
    """The waits of a request of alice; 1.0 is her quota."""
    waits: list[int] = []
    tokens = OWNER.set(ALICE), WAIT.set(waits)
    yield waits
    OWNER.reset(tokens[0])
    WAIT.reset(tokens[1])


ONE: Mapping[QuotaEntity, Mapping[str, float]] = {(("user", "alice"),): {"controller_mutation_rate": 1.0}}
MANY = CreateTopics(topics=(NewTopic(name="a", partitions=13),))


def test_a_node_changes_metadata_without_a_quota() -> None:
    made = ClientQuotas(ONE)
    for _ in range(3):
        assert made.change_metadata(MANY, IMAGE, 0) == Drawn(MANY)


def test_changes_of_metadata_are_drawn_from_a_bucket(noted: list[int]) -> None:
    made = ClientQuotas(ONE)
    assert made.change_metadata(MANY, IMAGE, 0) == Drawn(MANY), "the bucket may be overdrawn"
    with pytest.raises(ThrottlingQuotaExceeded) as caught:
        made.change_metadata(MANY, IMAGE, 0)
    assert caught.value.wait_ms == 2_000
    made.change_metadata(MANY, IMAGE, 2_000)
    assert noted == []


def test_the_topics_of_a_request_are_drawn_one_by_one(noted: list[int]) -> None:
    """As Kafka does: those within the quota are done."""
    made = ClientQuotas(ONE)
    names = ("a", "b", "c")
    drawn = made.change_metadata(CreateTopics(topics=tuple(NewTopic(name=n, partitions=8) for n in names)), IMAGE, 0)
    assert [each.name for each in drawn.request.topics] == ["a", "b"]  # type: ignore[attr-defined]
    assert {name: each.error for name, each in drawn.refused.items()} == {"c": ThrottlingQuotaExceeded}
    assert noted == [5_000]
    assert sorted(drawn.complete({"a": 1, "b": 2})) == ["a", "b", "c"]  # type: ignore[arg-type]
    again = DeleteTopics(topics=("t", "gone"))
    left = made.change_metadata(again, IMAGE, 0)
    assert left.request == DeleteTopics(topics=("gone",)), "what changes nothing is answered"
    assert list(left.refused) == ["t"]


def test_only_what_the_controller_would_do_is_counted(noted: list[int]) -> None:
    """It is asked that first: what it refuses is no change, whatever is left of the quota."""
    made, asked = ClientQuotas(ONE), list[Request[Any]]()
    answers: dict[str, TopicCreated | ErrorDetail] = {
        "more": TopicCreated(topic_id=TOPIC, partitions=13, replication_factor=1, configs={}),
        "wrong": ErrorDetail(InvalidTopicException, "wrong"),
    }

    async def submit(request: Request[Any]) -> Mapping[str, TopicCreated | ErrorDetail]:
        asked.append(request)
        return {each.name: answers[each.name] for each in request.topics}  # type: ignore[attr-defined]

    def ask(*names: str) -> Any:
        del asked[:]
        request = CreateTopics(topics=tuple(NewTopic(name=name) for name in names))
        clock: Any = SimpleNamespace(monotonic_ms=lambda: 0)
        return asyncio.run(submit_counted(request, submit, quotas=made, image=IMAGE, clock=clock))

    assert ask("wrong", "more") == answers
    assert [each.validate_only for each in asked] == [True, False]  # type: ignore[attr-defined]
    assert noted == []
    reply = ask("wrong", "more")
    assert reply["wrong"] == answers["wrong"]
    assert reply["more"].error is ThrottlingQuotaExceeded
    assert noted == [2_000]
    assert ask("wrong") == {"wrong": answers["wrong"]}
    with pytest.raises(ThrottlingQuotaExceeded):
        ask("more")
    OWNER.set(None)
    assert ask("more") == {"more": answers["more"]}
    assert [each.validate_only for each in asked] == [False]  # type: ignore[attr-defined]


def test_what_an_older_client_asks_is_done_and_it_waits_afterwards(noted: list[int]) -> None:
    made = ClientQuotas(ONE)
    OWNER.set(ALICE._replace(is_permissive=True))
    for wait_ms in (2_000, 15_000, 28_000):
        noted.clear()
        assert made.change_metadata(MANY, IMAGE, 0) == Drawn(MANY)
        assert noted == [wait_ms]
    OWNER.set(ALICE)
    with pytest.raises(ThrottlingQuotaExceeded):
        made.change_metadata(MANY, IMAGE, 27_000)
