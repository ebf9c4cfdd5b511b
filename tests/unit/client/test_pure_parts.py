"""Decisions of the client that need no loop: options, liveness, backoff, verdicts, batches, progress."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from kraft.client.errors import ConfigError, KraftError, RecordRefused, RecordUnknown
from kraft.client.metadata import parse_topic
from kraft.client.nodes import Nodes
from kraft.client.partition_queue import PartitionBuffer
from kraft.client.positions import Start, TopicPartition, check_start
from kraft.client.record_iterator import Progress
from kraft.client.records import Record, Sent, outgoing, to_bytes, to_headers, to_json
from kraft.client.response import (
    Answer,
    Lost,
    ProduceResponse,
    Refused,
    Response,
    Unknown,
    Untouched,
    failure_of,
    judge,
    read_produce_response,
    server_error,
)
from kraft.client.retries import Done, Failure, GiveUp, RetryAfter, RetryPolicy, Why, backoff_ms, next_step
from kraft.client.sender import Failed, Halve, produce_step
from kraft.client.settings import ConsumerSettings, ProducerSettings, parse, parse_producer
from kraft.protocol.batches.records import build_batch
from tests.unit.client.fake_cluster import answer, refusal

# --- options ----------------------------------------------------------------------------------------------------------


def test_defaults_are_those_of_kafka_4() -> None:
    found = ProducerSettings().model_dump(by_alias=True)
    assert found["linger.ms"] == 5
    assert found["batch.size"] == 16_384
    assert found["buffer.memory"] == 33_554_432
    assert found["delivery.timeout.ms"] == 120_000
    assert found["enable.idempotence"] is True
    assert found["max.in.flight.requests.per.connection"] == 5
    assert (found["retry.backoff.ms"], found["retry.backoff.max.ms"]) == (100, 1_000)


def test_both_spellings_are_the_same() -> None:
    assert parse_producer({"linger.ms": 7}) == parse_producer({"linger_ms": 7})
    assert parse_producer({"acks": -1}).acks == parse_producer({"acks": "all"}).acks == "all"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"linger": 5}, "did you mean linger"),
        ({"batch_size": -1}, "batch.size=-1 is not valid"),
        ({"acks": 2}, "acks='2' is not valid"),
        ({"compression_type": "brotli"}, "compression.type"),
        ({"enable_idempotence": True, "acks": 1}, "needs acks=all"),
        ({"enable_idempotence": True, "retries": 0}, "needs retries above 0"),
        ({"enable_idempotence": True, "max_in_flight_requests_per_connection": 6}, "more than the 5"),
        ({"max_in_flight_requests_per_connection": 6}, "more than the 5"),
        ({"delivery_timeout_ms": 1_000}, "is less than linger.ms + request.timeout.ms, which is 30005"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_producer(options)
    assert words in caught.value.message
    assert (caught.value.code, caught.value.name) == (40, "INVALID_CONFIG")


@pytest.mark.parametrize("options", [{"acks": 1}, {"acks": "0"}, {"retries": 0}])
def test_idempotence_that_was_not_asked_for_gives_way(options: dict[str, Any]) -> None:
    assert parse_producer(options).enable_idempotence is False


def test_a_delivery_timeout_that_was_not_given_grows_with_the_others() -> None:
    assert parse_producer({"request_timeout_ms": 500_000}).delivery_timeout_ms == 500_005


def test_more_than_five_in_flight_need_no_idempotence() -> None:
    options = {"enable_idempotence": False, "max_in_flight_requests_per_connection": 50}
    assert parse_producer(options).max_in_flight_requests_per_connection == 50


def test_a_consumers_options_are_checked_too() -> None:
    with pytest.raises(ConfigError, match=r"did you mean auto\.offset\.reset|auto_offset_reset"):
        parse(ConsumerSettings, {"auto_ofset_reset": "earliest"})


# --- backoff and nodes ------------------------------------------------------------------------------------------------


def test_backoff_doubles_up_to_its_limit_within_its_jitter() -> None:
    rng = random.Random(1)
    for failures, middle in ((1, 100), (2, 200), (3, 400), (4, 800), (5, 1_000), (500, 1_000)):
        waits = [backoff_ms(failures, base_ms=100, max_ms=1_000, rng=rng) for _ in range(200)]
        assert middle * 0.8 <= min(waits) < middle < max(waits) <= middle * 1.2


def nodes(*urls: str) -> Nodes:
    return Nodes(urls or ("a:1",), rng=random.Random(3), reconnect_backoff_ms=50, reconnect_backoff_max_ms=1_000)


def test_the_leader_is_preferred_then_who_answered_last() -> None:
    known = nodes()
    known.learn({1: "http://a:1", 2: "http://b:2", 3: "http://c:3"})
    assert known.choose(0, prefer=3) == "http://c:3"
    known.answered("http://b:2")
    assert known.choose(0) == "http://b:2"
    assert known.choose(0, prefer=9) == "http://b:2", "a leader whose address is not known"
    assert known.choose(0, prefer=2, avoid="http://b:2") != "http://b:2"


def test_a_node_that_failed_is_left_alone_longer_each_time_and_not_for_ever() -> None:
    known = nodes("a:1", "b:2")
    known.failed("http://a:1", 0)
    assert known.choose(10) == "http://b:2"
    assert known.choose(70) == "http://a:1"
    known.failed("http://a:1", 70)
    assert 70 < known.wait_ms("http://a:1", 70) <= 120
    known.answered("http://a:1")
    assert known.wait_ms("http://a:1", 70) == 0


def test_when_all_failed_the_first_whose_time_is_over_is_asked() -> None:
    known = nodes("a:1", "b:2")
    known.failed("http://a:1", 0)
    known.failed("http://b:2", 500)
    assert known.choose(500) in ("http://a:1", "http://b:2")
    known.failed("http://a:1", 500)
    known.failed("http://a:1", 500)
    assert known.choose(501) == "http://b:2"


def test_named_addresses_stay_and_nodes_that_are_gone_are_forgotten() -> None:
    known = nodes("balancer:80")
    known.learn({1: "http://a:1", 2: "http://b:2"})
    known.learn({2: "http://b:2"})
    assert set(known.urls) == {"http://balancer:80", "http://b:2"}
    known.failed("http://a:1", 0)


@pytest.mark.parametrize("text", ["", "ftp://a", "http://", "a:b", "a b:1", "http://a:0"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no address of a node"):
        nodes(text)


def test_a_topic_without_leaders_is_still_one() -> None:
    topic = parse_topic("t", [{"partition": 1, "leader": -1}, {"partition": 0, "leader": 2}], now_ms=0)
    assert (topic.leaders, topic.with_leader) == ((2, -1), (0,))
    assert parse_topic("t", [{"partition": 0, "leader": -1}], now_ms=0).with_leader == (0,)


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (Refused(reason="no"), Untouched),
        (Unknown(reason="broke"), Lost),
        (refusal(503, 50302, 5), Untouched),
        (refusal(503, 50302, 41), Untouched),
        (refusal(503, 50302, 13), Lost),
        (refusal(504, 50401, 7), Lost),
        (Answer(status=429, headers={}, body=b""), Untouched),
        (refusal(404, 40401, 3), Answer),
        (Answer(status=500, headers={}, body=b"x"), Answer),
        (answer({}), Answer),
    ],
)
def test_what_an_attempt_left_behind(outcome: Response, kind: type[object]) -> None:
    assert isinstance(judge(outcome), kind)


@pytest.mark.parametrize(("text", "expected"), [("2", 2_000), ("900", 5_000), ("Wed, 21 Oct", 0), ("", 0)])
def test_retry_after_is_followed_within_a_limit(text: str, expected: int) -> None:
    judged = judge(Answer(status=503, headers={"retry-after": text}, body=b""))
    assert isinstance(judged, Untouched)
    assert judged.retry_after_ms == expected


def test_an_error_speaks_with_the_servers_words() -> None:
    error = server_error(refusal(400, 40002, 36))
    assert (error.code, error.name, error.status, error.error_code) == (36, "TOPIC_ALREADY_EXISTS", 400, 40002)
    assert type(error.kafka).__name__ == "TopicAlreadyExists"
    plain = server_error(Answer(status=502, headers={}, body=b"<html>"))
    assert (plain.status, plain.code, plain.message) == (502, None, "HTTP status 502: <html>")


POLICY = RetryPolicy(backoff_ms=100, backoff_max_ms=1_000, retries=9)
FAILURE = Failure(reason="x")


@pytest.mark.parametrize(
    ("failure", "attempts", "left_ms", "expected"),
    [
        (None, 1, 0, Done()),
        (None, 100, -1, Done()),
        (FAILURE, 1, 101, RetryAfter(wait_ms=100)),
        (FAILURE, 3, 1e9, RetryAfter(wait_ms=400)),
        (FAILURE, 9, 1e9, RetryAfter(wait_ms=1_000)),
        (FAILURE, 10, 1e9, GiveUp(Why.RETRIES)),
        (FAILURE, 1, 100, GiveUp(Why.TIME)),
        (replace(FAILURE, may_retry=False), 1, 1e9, GiveUp(Why.FINAL)),
        (replace(FAILURE, is_node_gone=True), 5, 1, RetryAfter(wait_ms=0)),
        (replace(FAILURE, is_node_gone=True), 5, 0, GiveUp(Why.TIME)),
        (replace(FAILURE, retry_after_ms=700), 1, 1e9, RetryAfter(wait_ms=700)),
        (replace(FAILURE, retry_after_ms=700), 1, 700, GiveUp(Why.TIME)),
        (replace(FAILURE, retry_after_ms=50), 1, 1e9, RetryAfter(wait_ms=100)),
    ],
)
def test_whether_and_when_a_request_is_made_again(
    failure: Failure | None, attempts: int, left_ms: float, expected: object
) -> None:
    assert next_step(failure, attempts=attempts, left_ms=left_ms, policy=POLICY) == expected


@pytest.mark.parametrize("is_repeatable", [False, True])
def test_what_may_have_been_done_is_repeated_only_where_that_does_no_harm(*, is_repeatable: bool) -> None:
    def read(response: Response) -> Failure | None:
        return failure_of(response, is_repeatable=is_repeatable)

    lost, late = read(Unknown(reason="broke")), read(refusal(504, 50401, 7))
    assert lost == Failure(reason="broke", may_retry=is_repeatable, is_node_gone=True)
    assert (late and late.may_retry, late and late.is_node_gone) == (is_repeatable, False)
    assert read(Refused(reason="no")) == Failure(reason="no", is_node_gone=True)
    busy = read(Answer(status=503, headers={"retry-after": "2"}, body=b""))
    assert (busy and busy.may_retry, busy and busy.retry_after_ms) == (True, 2_000)
    assert read(refusal(404, 40401, 3)) is None
    assert read(answer({})) is None


def step(response: ProduceResponse, **changes: Any) -> object:
    given = {"earlier": "fail", "attempts": 1, "records": 4, "left_ms": 1_000, **changes}
    left_ms = given.pop("left_ms")
    failure = None if response.outcome == "ok" else Failure(reason=response.reason, may_retry=response.may_retry)
    general = next_step(failure, attempts=given["attempts"], left_ms=left_ms, policy=POLICY)
    return produce_step(general, response, retries=9, **given)


RETRIABLE = ProduceResponse(outcome="fail", may_retry=True, reason="x")


def test_what_follows_an_attempt() -> None:
    assert step(ProduceResponse(outcome="ok", offsets=(7,))) == Done()
    assert step(RETRIABLE) == RetryAfter(wait_ms=100)
    assert isinstance(step(RETRIABLE, attempts=10), Failed)
    assert isinstance(step(RETRIABLE, left_ms=100), Failed)
    too_large = ProduceResponse(outcome="fail", is_too_large=True)
    assert step(too_large) == Halve()
    assert isinstance(step(too_large, records=1), Failed)
    assert isinstance(step(too_large, earlier="info"), Failed), "a part of it may be written"


def test_one_record_that_may_pass_makes_a_produce_worth_repeating() -> None:
    def read(*codes: int | None) -> ProduceResponse:
        entries = [{"offset": 1, "error_code": code and 50003, "error": "x", "kafka_code": code} for code in codes]
        return read_produce_response(answer({"offsets": entries}), acks="all")

    assert (read(10, 19).may_retry, read(10, 19).code, read(10, 19).is_too_large) == (True, 10, True)
    assert not read(10, None, 87).may_retry
    assert read(None, None).outcome == "ok"


@pytest.mark.parametrize(
    ("earlier", "outcome", "kind"),
    [("fail", "fail", RecordRefused), ("info", "fail", RecordUnknown), ("fail", "info", RecordUnknown)],
)
def test_refused_is_only_what_no_attempt_can_have_written(earlier: str, outcome: Any, kind: type[KraftError]) -> None:
    given_up = step(ProduceResponse(outcome=outcome, may_retry=False, reason="x"), earlier=earlier)
    assert isinstance(given_up, Failed)
    assert isinstance(given_up.failure, kind)


# --- records ----------------------------------------------------------------------------------------------------------


def sent(n: int, *, size: int = 100, created_ms: float = 0) -> Sent:
    return Sent("t", 0, outgoing(b"x" * (size - 21)), timestamp_ms=n, created_ms=created_ms)


def test_the_size_of_a_record_is_an_upper_bound() -> None:
    rng = random.Random(5)
    for _ in range(200):
        key = None if rng.random() < 0.3 else rng.randbytes(rng.randrange(300))
        value = None if rng.random() < 0.1 else rng.randbytes(rng.randrange(70_000))
        headers = {"é" * rng.randrange(100): rng.randbytes(rng.randrange(200)) for _ in range(3)}
        record = Sent("t", 0, outgoing(value, key=key, headers=headers), timestamp_ms=1_700_000_000_000, created_ms=0)
        assert len(build_batch([record])) - 61 <= record.size  # type: ignore[list-item]


def test_a_batch_is_due_when_it_is_full_or_old_enough() -> None:
    buffer = PartitionBuffer(ProducerSettings(batch_size=300, linger_ms=5))
    assert buffer.wait_ms(0) is None
    assert buffer.append(sent(1, created_ms=10))
    assert (buffer.wait_ms(10), buffer.wait_ms(13), buffer.wait_ms(99)) == (5, 2, 0)
    assert not buffer.append(sent(2, created_ms=11))
    assert buffer.append(sent(3, created_ms=11)), "full: somebody has to look"
    assert buffer.wait_ms(11) == 0


def test_batches_are_taken_in_order_within_max_request_size() -> None:
    buffer = PartitionBuffer(ProducerSettings(max_request_size=1_061))
    for n in range(25):
        buffer.append(sent(n))
    taken = [buffer.take() for _ in range(3)]
    assert [len(batch) for batch in taken] == [10, 10, 5]
    assert [record.timestamp_ms for batch in taken for record in batch] == list(range(25))
    assert (len(buffer), buffer.bytes) == (0, 0)


def test_records_that_waited_too_long_are_taken_out() -> None:
    buffer = PartitionBuffer(ProducerSettings(delivery_timeout_ms=100))
    for n in range(4):
        buffer.append(sent(n, created_ms=n * 50))
    assert [record.timestamp_ms for record in buffer.take_expired(150)] == [0, 1]
    assert buffer.bytes == 200
    assert len(buffer.take_all()) == 2


def test_text_headers_and_json_become_bytes() -> None:
    assert (to_bytes("é"), to_bytes(b"x"), to_bytes(None)) == ("é".encode(), b"x", None)
    assert to_headers([("a", "b"), ("a", None)]) == [("a", b"b"), ("a", None)]
    assert to_json({"a": [1, "é"]}) == '{"a":[1,"é"]}'.encode()
    record = Record("t", 0, 1, 2, None, b'{"a": 1}')
    assert (record.text(), record.json()) == ('{"a": 1}', {"a": 1})
    null = Record("t", 0, 1, 2, b"k", None)
    assert (null.text(), null.json()) == (None, None)
    with pytest.raises(ValueError, match="Expecting value"):
        Record("t", 0, 1, 2, None, b"no").json()


def test_a_record_has_one_result_only() -> None:
    record = sent(1)
    record.acknowledge(5, None)
    assert record.result().offset == 5
    with pytest.raises(AssertionError, match="a second result"):
        record.fail(RecordRefused("x"))


# --- positions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["first", -1, True, datetime(2026, 1, 1)])
def test_what_is_no_place_to_begin_is_refused(start: Start) -> None:
    with pytest.raises(ConfigError):
        check_start(start)


def test_places_to_begin() -> None:
    for start in ("earliest", "latest", 0, 17, datetime(2026, 1, 1, tzinfo=UTC)):
        check_start(start)


A, B = TopicPartition("t", 0), TopicPartition("t", 1)


def batch(*places: tuple[int, int]) -> list[Record]:
    return [Record("t", partition, offset, 0, None, None) for partition, offset in places]


def test_progress_shows_the_record_at_hand_apart_from_those_done_with() -> None:
    progress = Progress()
    progress.begin(batch((0, 5), (0, 6), (1, 2), (1, 3)))
    for _ in range(3):
        progress.next()
    assert progress.positions(with_current=True) == {A: 7, B: 3}
    assert progress.positions(with_current=False) == {A: 7}
    assert progress.left(with_current=True) == {A: 7, B: 3}
    assert progress.left(with_current=False) == {A: 7, B: 2}


def test_unread_partitions_of_a_batch_are_returned() -> None:
    progress = Progress()
    progress.begin(batch((0, 5), (1, 2), (1, 3)))
    progress.next()
    assert progress.left(with_current=True) == {A: 6, B: 2}
    assert [record.partition for record in progress.rest()] == [1, 1]
    assert progress.left(with_current=True) == {}


def test_what_was_committed_is_not_committed_again() -> None:
    progress = Progress()
    progress.begin(batch((0, 5), (1, 2)))
    progress.rest()
    progress.committed(progress.positions(with_current=True))
    assert progress.positions(with_current=True) == {}
    progress.begin(())
    assert progress.positions(with_current=True) == {}
    progress.begin(batch((1, 3)))
    progress.next()
    assert progress.positions(with_current=True) == {B: 4}
    progress.forget()
    assert progress.positions(with_current=True) == {}
