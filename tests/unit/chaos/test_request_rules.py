"""Which requests of clients a rule hits: by API, topic, client id and broker, so many times, wherever they are sent."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from kio.schema.errors import ErrorCode

from kraft.chaos.nemesis.kafka_apis import api_name, api_names, request_type
from kraft.chaos.nemesis.kafka_errors import CODES, code_of, error_of
from kraft.chaos.worlds.processes.proxy.requests import (
    EVERY_TOPIC,
    NOTHING,
    ClientRequest,
    Decision,
    FetchSession,
    RequestRules,
    TopicIds,
    names_topics,
    topics_of,
)
from kraft.chaos.worlds.processes.proxy.rules import RequestRule
from kraft.chaos.worlds.spec import ScenarioError
from kraft.protocol.messages import (
    delete_topics_request,
    describe_configs_request,
    fetch_request,
    metadata_request,
    metadata_response,
    offset_commit_request,
    offset_fetch_request,
    produce_request,
    share_fetch_request,
)
from kraft.wire.handler_table import SERVED

PRODUCE, FETCH, COMMIT = 0, 1, 8
NOT_LEADER = 6
ORDERS, FLIGHTS = UUID(int=7), UUID(int=8)
NAMES = {ORDERS: "orders", FLIGHTS: "flights"}


def asked(api: int = PRODUCE, *, node: int = 1, topics: Any = ("orders",), **fields: Any) -> ClientRequest:
    return ClientRequest(
        api_key=api, version=9, client_id=fields.pop("client_id", "c"), node=node, topics=lambda: topics, **fields
    )


def rule(number: int = 1, do: Any = "answer", **fields: Any) -> RequestRule:
    defaults: dict[str, Any] = {"api": "Produce", "api_key": PRODUCE, "error_code": NOT_LEADER if do == "answer" else 0}
    return RequestRule(number=number, do=do, **{**defaults, **fields})


def table(*rules: RequestRule) -> RequestRules:
    found = RequestRules()
    for each in rules:
        found.begin(each)
    return found


REFUSED = Decision(answer_with=NOT_LEADER)


def test_times_counts_requests_wherever_they_are_sent():
    rules = table(rule(times=3))
    decided = [rules.decide(asked(node=node), at_us=node) for node in (1, 2, 3, 1, 2)]
    assert decided == [REFUSED, REFUSED, REFUSED, NOTHING, NOTHING]
    assert [(fired.number, fired.node, fired.at_us) for fired in rules.take_fired()] == [
        (1, 1, 1),
        (1, 2, 2),
        (1, 3, 3),
    ]
    assert rules.take_fired() == ()


@pytest.mark.parametrize(
    ("wanted", "request_", "is_hit"),
    [
        ({}, asked(FETCH), False),
        ({"topic": "orders"}, asked(), True),
        ({"topic": "flights"}, asked(), False),
        ({"topic": "flights"}, asked(topics=EVERY_TOPIC), True),
        ({"client_id": "c"}, asked(), True),
        ({"client_id": "d"}, asked(), False),
        ({"node": 1}, asked(), True),
        ({"node": 2}, asked(), False),
        ({"topic": "orders", "client_id": "d"}, asked(), False),
    ],
)
def test_a_rule_holds_for_the_requests_that_it_names(wanted: dict[str, Any], request_: ClientRequest, is_hit: bool):
    rules = table(rule(**wanted))
    assert (rules.decide(request_, at_us=1) != NOTHING) is is_hit
    assert len(rules.take_fired()) == is_hit


def test_topics_are_decoded_only_for_rules_that_need_them():
    def never() -> Any:
        raise AssertionError("decoded for nobody")

    rules = table(rule(node=2, topic="orders"), rule(2, api="OffsetCommit", api_key=COMMIT, topic="orders"))
    request = ClientRequest(api_key=PRODUCE, version=9, client_id="c", node=1, topics=never)
    assert rules.decide(request, at_us=1) == NOTHING


def test_oldest_rule_of_each_kind_is_applied():
    rules = table(
        rule(1, error_code=7, times=1), rule(2, times=1), rule(3, "delay", delay_ms=50), rule(4, "drop_answer", times=1)
    )
    decided = [rules.decide(asked(), at_us=n) for n in range(4)]
    assert [each.answer_with for each in decided] == [7, NOT_LEADER, None, None]
    assert [each.drops_answer for each in decided] == [False, False, True, False]
    assert {each.delay_ms for each in decided} == {50}
    assert sorted(fired.number for fired in rules.take_fired()) == [1, 2, 3, 3, 3, 3, 4]


def test_a_rule_that_has_ended_does_nothing():
    rules = table(rule(1), rule(2, "close_after"))
    rules.end(1)
    assert rules.decide(asked(), at_us=1) == Decision(closes_after=True)
    rules.end(2)
    rules.end(99)
    assert rules.decide(asked(), at_us=1) == NOTHING


@pytest.mark.parametrize(
    ("do", "is_hit"), [("delay", False), ("drop_answer", False), ("close_after", True), ("answer", True)]
)
def test_nothing_is_done_to_an_answer_that_never_comes(do: str, is_hit: bool):
    """A produce with acks=0: a fault that could not be seen would count as done."""
    rules = table(rule(do=do, delay_ms=5 if do == "delay" else 0))
    assert (rules.decide(asked(has_answer=False), at_us=1) != NOTHING) is is_hit


# --- topics ---------------------------------------------------------------------------------------------------------


def through(message: Any, version: int) -> Any:
    """As it is after the way over a connection, in this version."""
    parts: list[Any] = []
    message.WRITERS[version](parts, message)
    return message.READERS[version](memoryview(b"".join(parts)), 0)[0]


Produced, Committed = produce_request.TopicProduceData, offset_commit_request.OffsetCommitRequestTopic
Group, OfGroup = offset_fetch_request.OffsetFetchRequestGroup, offset_fetch_request.OffsetFetchRequestTopics
Resource = describe_configs_request.DescribeConfigsResource


@pytest.mark.parametrize(
    ("message", "versions", "expected"),
    [
        (
            produce_request.ProduceRequestData.make(
                topic_data=[Produced.make(name=name, topic_id=id_) for id_, name in NAMES.items()],
                acks=1,
                timeout_ms=30_000,
            ),
            range(3, 14),
            {"orders", "flights"},
        ),
        (
            offset_commit_request.OffsetCommitRequestData.make(topics=[Committed.make(name="orders", topic_id=ORDERS)]),
            range(2, 11),
            {"orders"},
        ),
        (
            offset_fetch_request.OffsetFetchRequestData.make(
                groups=[Group.make(group_id="g", topics=[OfGroup.make(name="orders", topic_id=ORDERS)])]
            ),
            range(8, 11),
            {"orders"},
        ),
        (
            offset_fetch_request.OffsetFetchRequestData.make(groups=[Group.make(group_id="g", topics=None)]),
            range(8, 11),
            EVERY_TOPIC,
        ),
        (metadata_request.MetadataRequestData.make(topics=None), range(1, 14), EVERY_TOPIC),
        (
            metadata_request.MetadataRequestData.make(
                topics=[metadata_request.MetadataRequestTopic.make(name=None, topic_id=FLIGHTS)]
            ),
            range(10, 14),
            {"flights"},
        ),
        (delete_topics_request.DeleteTopicsRequestData.make(topic_names=["orders"]), range(1, 6), {"orders"}),
        (
            describe_configs_request.DescribeConfigsRequestData.make(
                resources=[Resource.make(resource_type=n, resource_name=f"r{n}") for n in (2, 4)]
            ),
            range(1, 5),
            {"r2"},
        ),
    ],
)
def test_topics_of_requests_in_every_version(message: Any, versions: range, expected: Any):
    for version in versions:
        found = topics_of(through(message, version), NAMES)
        assert found == expected, version


def test_an_unknown_id_names_nothing():
    message = offset_commit_request.OffsetCommitRequestData.make(topics=[Committed.make(topic_id=UUID(int=99))])
    assert topics_of(through(message, 10), NAMES) == set()


def test_topics_of_share_session():
    def fetch(epoch: int, *topics: UUID, forgotten: tuple[UUID, ...] = ()) -> Any:
        partitions = [share_fetch_request.FetchPartition.make(partition_index=0)]
        message = share_fetch_request.ShareFetchRequestData.make(
            group_id="g",
            member_id="m",
            share_session_epoch=epoch,
            topics=[share_fetch_request.FetchTopic.make(topic_id=topic, partitions=partitions) for topic in topics],
            forgotten_topics_data=[
                share_fetch_request.ForgottenTopic.make(topic_id=topic, partitions=[0]) for topic in forgotten
            ],
        )
        return through(message, 2)

    session, seen = FetchSession(), []
    for message in (fetch(0, ORDERS), fetch(1), fetch(2, FLIGHTS, forgotten=(ORDERS,)), fetch(3), fetch(-1)):
        session.take(message)
        seen.append(session.topics(NAMES))
    assert seen == [{"orders"}, {"orders"}, {"flights"}, {"flights"}, set()]


def test_topics_of_fetch_session():
    def fetch(epoch: int, *topics: tuple[UUID, int], forgotten: tuple[tuple[UUID, int], ...] = ()) -> Any:
        return through(
            fetch_request.FetchRequestData.make(
                session_id=5,
                session_epoch=epoch,
                max_wait_ms=1,
                min_bytes=1,
                topics=[
                    fetch_request.FetchTopic.make(
                        topic_id=topic, partitions=[fetch_request.FetchPartition.make(partition=number)]
                    )
                    for topic, number in topics
                ],
                forgotten_topics_data=[
                    fetch_request.ForgottenTopic.make(topic_id=topic, partitions=[number])
                    for topic, number in forgotten
                ],
            ),
            13,
        )

    session, seen = FetchSession(), []
    for message in (
        fetch(0, (ORDERS, 0), (ORDERS, 1)),
        fetch(1),
        fetch(2, (FLIGHTS, 0)),
        fetch(3, forgotten=((ORDERS, 0),)),
        fetch(4, forgotten=((ORDERS, 1),)),
        fetch(0, (ORDERS, 0)),
        fetch(-1),
    ):
        session.take(message)
        seen.append(session.topics(NAMES))
    assert seen == [
        {"orders"},
        {"orders"},
        {"orders", "flights"},
        {"orders", "flights"},
        {"flights"},
        {"orders"},
        set(),
    ]


def test_ids_are_learned_from_what_brokers_tell():
    ids = TopicIds()
    Topic = metadata_response.MetadataResponseTopic  # noqa: N806
    ids.learn(metadata_response.MetadataResponseData.make(topics=[Topic.make(name="orders", topic_id=ORDERS)]))
    ids.learn(metadata_response.MetadataResponseData.make(topics=[Topic.make(name=None, topic_id=FLIGHTS)]))
    assert ids.names == {ORDERS: "orders"}


# --- names ----------------------------------------------------------------------------------------------------------


def test_every_error_of_kafka_has_its_name():
    assert {name.upper(): code for name, code in CODES.items()} == {
        each.name.upper(): each.value for each in ErrorCode if each.name != "none"
    }


@pytest.mark.parametrize("said", ["NOT_LEADER_OR_FOLLOWER", "not_leader_or_follower", "6", 6])
def test_an_error_is_named_or_numbered(said: str | int):
    assert code_of(said) == NOT_LEADER
    assert error_of(NOT_LEADER, "m").code == NOT_LEADER


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("NOT_LEADER", "NOT_LEADER_OR_FOLLOWER"),
        ("NONE", "Kafka has no error"),
        (0, "0 is no error"),
        (99_999, "99999 is no error"),
    ],
)
def test_unknown_error_is_refused(said: str | int, hint: str):
    with pytest.raises(ScenarioError, match=hint):
        code_of(said)


def test_every_api_of_clients_is_known_by_its_name():
    for api in SERVED:
        assert api.key == request_type(api.name).API_KEY
        assert api_name(request_type(api.name)) == api.name
    assert request_type("offsetcommitrequest") is request_type("OffsetCommit")
    assert "EndTxn" in api_names()
    with pytest.raises(ScenarioError, match="did you mean Produce"):
        request_type("Produces")


def test_apis_without_topics():
    assert [
        name
        for name in ("Produce", "OffsetFetch", "Heartbeat", "EndTxn", "ListGroups")
        if names_topics(request_type(name))
    ] == [
        "Produce",
        "OffsetFetch",
    ]
