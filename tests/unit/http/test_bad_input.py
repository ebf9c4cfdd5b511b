"""Bad input: each gets its typed error, nothing is written, and the next request is served as if nothing was."""

from __future__ import annotations

import re
from typing import Any

import pytest

from kraft.http import errors as table
from kraft.http.app import CONTEXT
from kraft.http.errors import code_of, status_of
from kraft.http.limits import Limits
from kraft.protocol import errors
from metadata.controller.requests import ErrorDetail
from replication.requests import ProduceOutcome
from tests.support.fake_gateway import FakeGateway
from tests.unit.http.door import BINARY, JSON, RAW_BATCH, RAW_RECORDS, TEXT, V3, Door, b64, raw_records, with_door

ONE = {"records": [{"value": "YQ=="}]}
READ = "/topics/t/partitions/0/records"

PRODUCE: tuple[tuple[str, str, Any, dict[str, str], int, int], ...] = (
    ("malformed JSON", "/topics/t", b'{"records":', {"Content_Type": JSON}, 400, 400),
    ("not UTF-8", "/topics/t", b'{"records":[{"value":"\xff"}]}', {"Content_Type": JSON}, 400, 400),
    ("not UTF-8 in text", "/topics/t", b'{"records":[{"value":"\xff"}]}', {"Content_Type": TEXT}, 400, 400),
    ("too deep", "/topics/t", b'{"records":[{"value":' + b"[" * 100_000, {"Content_Type": JSON}, 400, 400),
    ("empty body", "/topics/t", b"", {"Content_Type": JSON}, 422, 422),
    ("a list", "/topics/t", [], {"Content_Type": JSON}, 400, 400),
    ("records of text", "/topics/t", {"records": "foo"}, {"Content_Type": JSON}, 400, 400),
    ("base64 of an object", "/topics/t", {"records": [{"value": {}}]}, {"Content_Type": BINARY}, 400, 400),
    ("no records", "/topics/t", {}, {"Content_Type": JSON}, 422, 422),
    ("zero records", "/topics/t", {"records": []}, {"Content_Type": JSON}, 422, 422),
    ("unknown field", "/topics/t", {"records": [{"valeu": 1}]}, {"Content_Type": JSON}, 422, 422),
    ("unknown outer field", "/topics/t", {**ONE, "x": 1}, {"Content_Type": BINARY}, 422, 422),
    ("bad base64", "/topics/t", {"records": [{"value": "!"}]}, {"Content_Type": BINARY}, 422, 422),
    ("base64 of a number", "/topics/t", {"records": [{"value": 1}]}, {"Content_Type": BINARY}, 400, 400),
    ("text of a number", "/topics/t", {"records": [{"value": 1}]}, {"Content_Type": TEXT}, 400, 400),
    ("negative partition", "/topics/t", {"records": [{"partition": -1}]}, {"Content_Type": JSON}, 422, 422),
    ("negative timestamp", "/topics/t", {"records": [{"timestamp": -1}]}, {"Content_Type": JSON}, 422, 422),
    ("header without name", "/topics/t", {"records": [{"headers": [{}]}]}, {"Content_Type": JSON}, 422, 422),
    ("two partitions", "/topics/t/partitions/0", {"records": [{"partition": 1}]}, {"Content_Type": JSON}, 422, 422),
    ("form", "/topics/t", b"a=b", {"Content_Type": "application/x-www-form-urlencoded"}, 415, 415),
    ("avro", "/topics/t", ONE, {"Content_Type": "application/vnd.kafka.avro.v2+json"}, 415, 415),
    ("v3 type", "/topics/t", ONE, {"Content_Type": "application/vnd.kafka.v3+json"}, 415, 415),
    ("utf-16", "/topics/t", ONE, {"Content_Type": JSON + "; charset=utf-16"}, 400, 400),
    ("wrong accept", "/topics/t", ONE, {"Content_Type": BINARY, "Accept": "text/plain"}, 406, 406),
    ("no number", "/topics/t/partitions/x", ONE, {"Content_Type": BINARY}, 404, 40402),
    ("negative number", "/topics/t/partitions/-1", ONE, {"Content_Type": BINARY}, 404, 40402),
    ("bad acks", "/topics/t?acks=2", ONE, {"Content_Type": BINARY}, 400, 40002),
    ("bad timeout", "/topics/t?timeout=soon", ONE, {"Content_Type": BINARY}, 400, 40002),
    ("negative timeout", "/topics/t?timeout=-1", ONE, {"Content_Type": BINARY}, 400, 40002),
    ("raw without partition", "/topics/t", b"x", {"Content_Type": RAW_BATCH}, 415, 415),
    ("raw empty", "/topics/t/partitions/0", b"", {"Content_Type": RAW_BATCH}, 422, 422),
    ("records empty", "/topics/t", b"", {"Content_Type": RAW_RECORDS}, 422, 422),
    ("records cut", "/topics/t", raw_records([(b"k", b"v")])[:-1], {"Content_Type": RAW_RECORDS}, 422, 422),
    ("records length", "/topics/t", b"\x7f\xff\xff\xff", {"Content_Type": RAW_RECORDS}, 422, 422),
    ("records negative", "/topics/t", b"\xff\xff\xff\xfe", {"Content_Type": RAW_RECORDS}, 422, 422),
    (
        "records headers",
        "/topics/t",
        raw_records([(b"k", b"v")])[:-4] + b"\x7f\xff\xff\xff",
        {"Content_Type": RAW_RECORDS},
        422,
        422,
    ),
    ("too large", "/topics/t", b"x" * 5000, {"Content_Type": BINARY}, 413, 413),
)

GETS: tuple[tuple[str, int, int], ...] = (
    ("/topics/no", 404, 40403),
    ("/topics/no/partitions", 404, 40403),
    ("/topics/no/partitions/0", 404, 40403),
    ("/topics/t/partitions/9", 404, 40402),
    ("/topics/t/partitions/99999999999999999999", 404, 40402),
    ("/topics/no/partitions/0/offsets", 404, 40403),
    (f"{READ}?offset=-1", 400, 40002),
    (f"{READ}?offset=99", 400, 40002),
    (f"{READ}?offset=99999999999999999999", 400, 40002),
    (f"{READ}?offset=", 400, 40002),
    (f"{READ}?offset=newest", 400, 40002),
    (f"{READ}?offset=ts:yesterday", 400, 40002),
    (f"{READ}?offset=ts:1969-01-01T00:00:00Z", 400, 40002),
    (f"{READ}?max_bytes=many", 400, 40002),
    (f"{READ}?min_bytes=-1", 400, 40002),
    (f"{READ}?timeout=1e3", 400, 40002),
    ("/topics/no/partitions/0/records", 404, 40403),
    ("/topics/t/partitions/9/records", 404, 40402),
    ("/nothing", 404, 404),
    ("/v3/clusters/other", 404, 404),
    (f"{V3}/topics/no", 404, 40403),
    (f"{V3}/topics/no/partitions", 404, 40403),
    (f"{V3}/topics/no/configs", 404, 40403),
    (f"{V3}/topics/t/partitions/9", 404, 404),
    (f"{V3}/topics/t/partitions/x", 404, 404),
    (f"{V3}/topics/t/partitions/0/offset?offset_type=latest", 400, 40002),
    (f"{V3}/topics/t/partitions/0/replicas/9", 404, 404),
    (f"{V3}/topics/t/partitions/0/reassignment", 404, 404),
    (f"{V3}/topics/t/configs/no.such", 404, 404),
    (f"{V3}/brokers/9", 404, 404),
    (f"{V3}/brokers/x/configs", 404, 404),
    (f"{V3}/brokers/1/configs/no.such", 404, 404),
)

ADMIN: tuple[tuple[str, str, Any, int, int], ...] = (
    ("POST", f"{V3}/topics", b"{", 400, 400),
    ("POST", f"{V3}/topics", b"", 422, 42206),
    ("POST", "/admin/topics", {"topic_name": "t"}, 400, 40002),
    ("POST", "/admin/topics", {"topic_name": "a/b"}, 422, 42206),
    ("GET", f"{V3}/acls", None, 400, 40002),
    ("POST", "/topics/t?min_isr=0", ONE, 400, 40002),
    ("POST", "/topics/t?async=perhaps", ONE, 400, 40002),
    ("POST", f"{V3}/topics", {}, 400, 400),
    ("POST", f"{V3}/topics", {"topic_name": ""}, 422, 42206),
    ("POST", f"{V3}/topics", {"topic_name": "a/b"}, 422, 42206),
    ("POST", f"{V3}/topics", {"topic_name": "t"}, 400, 40002),
    ("POST", f"{V3}/topics", {"topic_name": "u", "partitions_count": 0}, 400, 400),
    ("POST", f"{V3}/topics", {"topic_name": "u", "partitions": 1}, 422, 422),
    (
        "POST",
        f"{V3}/topics",
        {"topic_name": "u", "partitions_count": 1, "replicas_assignments": {"0": [1]}},
        400,
        40002,
    ),
    ("POST", f"{V3}/topics?validate_only=perhaps", {"topic_name": "u"}, 400, 40002),
    ("PATCH", f"{V3}/topics/t", {"partitions_count": 1}, 400, 40002),
    ("PATCH", f"{V3}/topics/no", {"partitions_count": 3}, 404, 40403),
    ("DELETE", f"{V3}/topics/no", None, 404, 40403),
    ("PUT", f"{V3}/topics/t/configs/retention.ms", {}, 422, 42206),
    ("PUT", f"{V3}/topics/t/configs/no.such", {"value": "1"}, 404, 404),
    ("DELETE", f"{V3}/topics/t/configs/no.such", None, 404, 404),
    ("DELETE", f"{V3}/brokers/1/configs/no.such", None, 404, 404),
    ("PUT", f"{V3}/brokers/1/configs/no.such", {"value": "1"}, 404, 404),
    ("PUT", f"{V3}/broker-configs/no.such", {"value": "1"}, 400, 40002),
    ("POST", f"{V3}/topics/t/configs:alter", {"data": [{"name": "no.such", "operation": "DELETE"}]}, 404, 404),
    ("POST", f"{V3}/topics/t/configs:alter", {"data": []}, 400, 400),
    ("POST", f"{V3}/topics/t/configs:alter", {"data": [{"name": "retention.ms"}]}, 422, 42206),
    ("POST", f"{V3}/topics/t/configs:alter", {"data": [{"name": "x", "operation": "ADD"}]}, 400, 400),
    ("POST", f"{V3}/elections", {"election_type": "fair"}, 400, 400),
    ("POST", f"{V3}/topics/t/partitions/9:elect", {}, 404, 404),
    ("POST", f"{V3}/topics/t/partitions/0/reassignment", {"replicas": []}, 400, 400),
    ("POST", f"{V3}/topics/t/records:batch", {"entries": []}, 422, 42208),
    ("POST", f"{V3}/topics/t/records:batch", {"entries": [{"id": "a"}, {"id": "a"}]}, 422, 42208),
    ("POST", f"{V3}/topics/t/records:batch", {"entries": [{"id": str(i)} for i in range(4)]}, 422, 42208),
    ("POST", f"{V3}/topics/t/records:batch", {"entries": [{"id": "x" * 81}]}, 422, 42208),
    ("POST", f"{V3}/topics/no/records:batch", {"entries": [{"id": "a"}]}, 404, 40403),
    ("POST", f"{V3}/topics/t/records:batch?acks=3", {"entries": [{"id": "a"}]}, 400, 40002),
    ("PUT", "/topics", {}, 405, 405),
    ("DELETE", "/topics/t", None, 405, 405),
    ("PATCH", f"{V3}/topics", {}, 405, 405),
)


def gateway(**static: object) -> FakeGateway:
    fake = FakeGateway(static=static)
    fake.add_topic("t", 2)
    return fake


LIMITS = Limits(body_bytes_max=4096, batch_entries_max=3)


LIBRARIES = re.compile(
    "Value error|Extra inputs|maximum recursion|bytearray|Can not decode|Expected `|Object (contains|missing)|JSON is "
    "malformed|Input should|Field required|<class|Traceback"
)
"""Words of libraries: what is wrong is said in sentences of ours."""


async def assert_unharmed(door: Door) -> None:
    assert all(log.end == 0 for log in door.gateway.logs.values()), "something was written"
    answer = await door.ask("POST", "/topics/t/partitions/0", ONE, Content_Type=BINARY)
    assert (answer.status, answer.json["offsets"][0]["offset"]) == (200, 0)


def assert_error(answer: Any, status: int, code: int) -> None:
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] in ("application/json", "application/vnd.kafka.v2+json")
    body = answer.json
    assert body["error_code"] == code, body
    assert body["message"]
    assert not LIBRARIES.search(body["message"]), body


@pytest.mark.parametrize(
    ("name", "path", "body", "headers", "status", "code"), PRODUCE, ids=[case[0] for case in PRODUCE]
)
def test_bad_produce(name: str, path: str, body: Any, headers: dict[str, str], status: int, code: int) -> None:
    async def story(door: Door) -> None:
        assert_error(await door.ask("POST", path, body, **headers), status, code)
        await assert_unharmed(door)

    limits = LIMITS if name == "too large" else Limits()
    with_door(story, gateway(), limits=limits)


def test_bad_gets() -> None:
    async def story(door: Door) -> None:
        for path, status, code in GETS:
            assert_error(await door.ask("GET", path), status, code)
        await assert_unharmed(door)

    with_door(story, gateway())


def test_bad_administration() -> None:
    async def story(door: Door) -> None:
        for method, path, body, status, code in ADMIN:
            answer = await door.ask(method, path, body)
            assert_error(answer, status, code)
            assert ("Allow" in answer.headers) == (status == 405)
        assert (await door.ask("POST", f"{V3}/topics", {}, Content_Type="text/plain")).status == 415
        assert (await door.ask("GET", f"{V3}/topics", Accept="text/plain")).status == 406
        await assert_unharmed(door)

    with_door(story, gateway(), limits=LIMITS)


def test_chunked_body_beyond_the_limit_is_413() -> None:
    async def story(door: Door) -> None:
        async def chunks() -> Any:
            for _ in range(10):
                yield b"x" * 1000

        async with door.client.post("/topics/t", data=chunks(), headers={"Content-Type": BINARY}) as response:
            assert response.status == 413
        await assert_unharmed(door)

    with_door(story, gateway(), limits=LIMITS)


def test_expect_continue_is_refused_before_the_body() -> None:
    async def story(door: Door) -> None:
        for headers, status in (({"Content-Type": "image/png"}, 415), ({"Content-Type": BINARY}, 200)):
            body = b'{"records":[{"value":"YQ=="}]}'
            async with door.client.post("/topics/t", data=body, headers=headers, expect100=True) as response:
                assert response.status == status, await response.text()

    with_door(story, gateway())


def test_bodies_beyond_the_budget_get_503_and_the_budget_is_given_back() -> None:
    async def story(door: Door) -> None:
        budget = door.app[CONTEXT].bodies
        budget.reserve(1000)
        answer = await door.ask("POST", "/topics/t", b"x" * 100, Content_Type=BINARY)
        assert_error(answer, 503, 50302)
        assert answer.headers["Retry-After"] == "1"
        assert answer.json["retriable"] is True
        budget.release(1000)
        await assert_unharmed(door)
        assert budget.used == 0

    with_door(story, FakeGatewayWithSmallBudget())


class FakeGatewayWithSmallBudget(FakeGateway):
    def __init__(self) -> None:
        super().__init__(static={"queued.max.request.bytes": 1024})
        self.add_topic("t", 2)


def test_reads_beyond_the_number_of_long_polls_get_503() -> None:
    async def story(door: Door) -> None:
        answer = await door.ask("GET", f"{READ}?timeout=0")
        assert_error(answer, 503, 50302)
        assert answer.headers["Retry-After"] == "1"

    with_door(story, gateway(**{"rest.max.waiting.reads": 0}))


def test_errors_of_the_cluster_on_a_read() -> None:
    async def story(door: Door) -> None:
        for error, status, code in (
            (errors.NotLeaderOrFollower("moved"), 503, 50302),
            (errors.RequestTimedOut("late"), 504, 50401),
            (errors.KafkaStorageError("disk"), 503, 50302),
            (errors.UnknownTopicOrPartition("gone"), 404, 40403),
            (errors.KafkaError("strange"), 500, 50002),
        ):
            door.gateway.fail_read = error
            answer = await door.ask("GET", READ)
            assert_error(answer, status, code)
            assert answer.json["kafka_code"] == error.code
            assert answer.json["retriable"] == error.retriable
            assert ("Retry-After" in answer.headers) == (status == 503)

    with_door(story, gateway())


def test_refused_writes_are_reported_per_record() -> None:
    async def story(door: Door) -> None:
        door.gateway.fail_produce = ProduceOutcome(
            error_code=19, message="ISR too small", leader_id=1, leader_epoch=4, isr=(1,), min_isr=2
        )
        answer = await door.ask("POST", "/topics/t/partitions/1", {"records": [{}, {}]}, Content_Type=JSON)
        assert answer.status == 200
        expected = {
            "partition": 1, "offset": None, "error_code": 50003, "error": "ISR too small", "kafka_code": 19,
            "retriable": True, "is_appended": False, "isr": [1], "min_isr": 2, "leader": 1, "leader_epoch": 4,
        }  # fmt: skip
        assert answer.json["offsets"] == [expected, expected]
        door.gateway.fail_produce = ProduceOutcome(error_code=87, message="bad record")
        raw = await door.ask("POST", "/topics/t/partitions/1", b"false CRC", Content_Type=RAW_BATCH)
        assert raw.status == 200
        assert raw.json["offsets"][0]["error_code"] == 50002
        assert raw.json["offsets"][0]["kafka_code"] == 87
        batch = await door.ask("POST", f"{V3}/topics/t/records:batch", {"entries": [{"id": "a"}]})
        assert batch.status == 207
        assert batch.json["failures"][0]["error_code"] == 50002

    with_door(story, gateway())


def test_record_for_a_missing_partition_fails_alone() -> None:
    async def story(door: Door) -> None:
        body = {"records": [{"partition": 0, "value": 1}, {"partition": 7, "value": 2}, {"partition": 0, "value": 3}]}
        offsets = (await door.ask("POST", "/topics/t", body, Content_Type=JSON)).json["offsets"]
        assert [entry["offset"] for entry in offsets] == [0, None, 1]
        assert (offsets[1]["kafka_code"], offsets[1]["error_code"]) == (3, 50003)

    with_door(story, gateway())


def test_oversized_record_is_reported_as_10() -> None:
    async def story(door: Door) -> None:
        body = {"records": [{"value": b64(b"x" * 2000)}]}
        entry = (await door.ask("POST", "/topics/small", body, Content_Type=BINARY)).json["offsets"][0]
        assert (entry["error_code"], entry["kafka_code"], entry["retriable"]) == (50002, 10, False)
        assert door.gateway.log("small").end == 0

    fake = gateway()
    fake.add_topic("small", configs={"max.message.bytes": "1000"})
    with_door(story, fake)


def test_refusals_of_the_controller_become_errors() -> None:
    async def story(door: Door) -> None:
        door.gateway.refuse = ErrorDetail(errors.NoReassignmentInProgress, "none")
        assert_error(await door.ask("DELETE", f"{V3}/topics/t/partitions/0/reassignment"), 400, 40002)
        door.gateway.refuse = ErrorDetail(errors.ThrottlingQuotaExceeded, "slow down")
        answer = await door.ask("DELETE", f"{V3}/topics/t")
        assert_error(answer, 429, 42901)
        assert "Retry-After" in answer.headers
        door.gateway.refuse = ErrorDetail(errors.ElectionNotNeeded, "fine already")
        assert (await door.ask("POST", f"{V3}/topics/t/partitions/0:elect", {})).status == 204
        listed = (await door.ask("POST", f"{V3}/elections", {})).json["data"][0]
        assert (listed["kafka_code"], listed["error_code"]) == (84, 40002)

    with_door(story, gateway())


class GatewayOfALateController(FakeGateway):
    async def control(self, request: Any, *, timeout_ms: int) -> Any:
        raise errors.RequestTimedOut("no answer of the quorum within 5000 ms")


def test_a_change_whose_outcome_is_unknown_reports_what_to_do() -> None:
    async def story(door: Door) -> None:
        answer = await door.ask("PATCH", f"{V3}/topics/t", {"partitions_count": 537})
        assert_error(answer, 504, 50401)
        assert answer.json["retriable"] is True
        assert answer.json["message"].endswith("may have been made or still be made: look before asking for it again")

    fake = GatewayOfALateController()
    fake.add_topic("t", 2)
    with_door(story, fake)


@pytest.mark.parametrize("error", errors.BY_CODE.values(), ids=lambda error: error.name)
def test_every_kafka_error_has_a_status_that_fits(error: type[errors.KafkaError]) -> None:
    status = status_of(code_of(error("x")))
    assert 400 <= status < 600
    if error.retriable and error is not errors.RequestTimedOut:
        assert status in (404, 422, 429, 503), "a retriable error is no fault of the request"
    assert code_of(error("x")) != table.KAFKA_RETRIABLE
