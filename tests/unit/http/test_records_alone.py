"""Each record is judged by itself: what a topic forbids costs the record that has it, and none of its neighbours."""

from __future__ import annotations

import json
import random
from base64 import b64encode
from typing import Any

import pytest

from kraft.http.batch_sender import Part, record_sets
from kraft.http.produce import pack
from kraft.http.records import OutRecord, to_batch
from kraft.protocol.batches.budget import Budget
from kraft.protocol.batches.records import read_batches
from kraft.protocol.errors import KafkaError
from metadata.settings import TopicSettings
from replication.log_validator import BatchRules, prepare_records
from replication.record_times import AHEAD_MS_MAX
from tests.support.fake_gateway import FakeGateway
from tests.unit.http.door import PLAIN, TEXT, V3, Door, with_door

NOW_MS = 1_700_000_000_000
LIMIT = 1_000
LARGE = "x" * 2_000


def gateway(**configs: str) -> FakeGateway:
    fake = FakeGateway()
    fake.add_topic(
        "t", configs={"max.message.bytes": str(LIMIT)} | {k.replace("_", "."): v for k, v in configs.items()}
    )
    return fake


def stored(door: Door) -> list[bytes | None]:
    return [record.value for record in read_batches(door.gateway.log("t").data)]


def made(rng: random.Random) -> list[OutRecord]:
    return [
        OutRecord(
            rng.choice([None, b"k"]),
            rng.randbytes(rng.choice([0, 10, 900, 905, 910, 920, 950, 3_000])),
            [],
            NOW_MS + rng.choice([0, 0, 0, -5, 5, 100]),
            0,
        )
        for _ in range(rng.randrange(1, 40))
    ]


@pytest.mark.parametrize("seed", range(60))
def test_records_are_packed_as_the_leader_would_judge_each_of_them(seed: int) -> None:
    """The slow way: each record in a batch of its own, looked at by what a leader looks at batches with."""
    rng = random.Random(seed)
    settings = TopicSettings(
        max_message_bytes=rng.choice([80, LIMIT, 100_000]),
        cleanup_policy=rng.choice(["delete", "compact"]),
        message_timestamp_after_max_ms=rng.choice([50, 10**9]),
        message_timestamp_before_max_ms=rng.choice([3, 10**9]),
        message_timestamp_type=rng.choice(["CreateTime", "LogAppendTime"]),
    )
    records, rules = made(rng), BatchRules.of(settings)

    def refusal(record: OutRecord) -> str | None:
        try:
            prepare_records(to_batch([record]), rules=rules, now_ms=NOW_MS, budget=Budget())
        except KafkaError as error:
            return type(error).__name__
        return None

    packed = pack(records, settings, now_ms=NOW_MS)
    good = [record for record in records if refusal(record) is None]
    assert sorted(packed.refused) == [n for n, record in enumerate(records) if refusal(record) is not None]
    kept = [(r.key, r.value, r.timestamp) for _, data in packed.batches for r in read_batches(data)]
    assert kept == [(r.key, r.value, r.timestamp_ms) for r in good]
    for count, data in packed.batches:
        assert len(prepare_records(data, rules=rules, now_ms=NOW_MS, budget=Budget()).headers) == 1
        assert count == len(list(read_batches(data)))


def test_a_record_set_fits_a_segment() -> None:
    batches = [Part(n, bytes(size)) for n, size in enumerate((400, 300, 300, 1_000, 10, 990, 1))]
    sets = record_sets(batches, TopicSettings(segment_bytes=LIMIT))
    assert [(records, len(data)) for records, data in sets] == [(3, 1_000), (3, 1_000), (9, 1_000), (6, 1)]
    assert record_sets([], TopicSettings()) == []


async def write_v2(door: Door, values: list[str], **headers: str) -> list[tuple[int | None, Any]]:
    body = {"records": [{"value": value} for value in values]}
    answer = await door.ask("POST", "/topics/t", body, Content_Type=TEXT, **headers)
    assert answer.status == 200, answer.body
    return [(each["offset"], each["error_code"]) for each in answer.json["offsets"]]


async def write_batch(door: Door, values: list[str]) -> list[tuple[int | None, Any]]:
    entries = [{"id": str(n), "value": {"type": "STRING", "data": value}} for n, value in enumerate(values)]
    answer = await door.ask("POST", f"{V3}/topics/t/records:batch", {"entries": entries}, Content_Type=PLAIN)
    reported = {each["id"]: (each["offset"], None) for each in answer.json["successes"]}
    reported |= {each["id"]: (None, each["error_code"]) for each in answer.json["failures"]}
    return [reported[str(n)] for n in range(len(values))]


async def write_stream(door: Door, values: list[str]) -> list[tuple[int | None, Any]]:
    body = b"".join(json.dumps({"value": {"type": "STRING", "data": value}}).encode() for value in values)
    answer = await door.ask("POST", f"{V3}/topics/t/records", body, Content_Type=PLAIN)
    reported = [json.loads(line) for line in answer.body.splitlines()]
    return [(each.get("offset"), None if each["error_code"] == 200 else each["error_code"]) for each in reported]


@pytest.mark.parametrize("write", [write_v2, write_batch, write_stream], ids=["v2", "records:batch", "records"])
@pytest.mark.parametrize("place", [0, 2, 4])
def test_one_record_that_is_too_large_fails_alone(write: Any, place: int) -> None:
    async def story(door: Door) -> None:
        values = ["a", "b", "c", "d"]
        reported = await write(door, [*values[:place], LARGE, *values[place:]])
        assert [each for n, each in enumerate(reported) if n != place] == [(n, None) for n in range(4)]
        assert reported[place] == (None, 50002)
        assert stored(door) == [value.encode() for value in values]
        assert await write(door, [LARGE, LARGE]) == [(None, 50002)] * 2
        assert len(stored(door)) == 4

    with_door(story, gateway())


def test_the_refusal_names_the_record_s_own_size() -> None:
    async def story(door: Door) -> None:
        body = {"records": [{"value": "a"}, {"value": LARGE}]}
        answer = await door.ask("POST", "/topics/t", body, Content_Type=TEXT)
        good, bad = answer.json["offsets"]
        assert good["error"] is None
        size = len(to_batch([OutRecord(None, LARGE.encode(), [], NOW_MS, None)]))
        assert bad["error"] == f"the record makes a batch of {size} bytes; the topic's max.message.bytes is {LIMIT}"
        assert (bad["kafka_code"], bad["retriable"], bad["is_appended"]) == (10, False, False)

    with_door(story, gateway())


def test_what_a_topic_forbids_fails_alone() -> None:
    async def story(door: Door) -> None:
        keyed = {"key": "k", "value": "v"}
        records = [keyed, {"value": "no key"}, keyed | {"timestamp": 1_000}, keyed | {"timestamp": 2**62}, keyed]
        answer = await door.ask("POST", "/topics/t", {"records": records}, Content_Type=TEXT)
        assert [each.get("kafka_code") for each in answer.json["offsets"]] == [None, 87, 32, 32, None]
        assert [each["offset"] for each in answer.json["offsets"]] == [0, None, None, None, 1]
        assert stored(door) == [b"v", b"v"]

    with_door(story, gateway(cleanup_policy="compact", message_timestamp_before_max_ms="60000"))


def timed(configs: dict[str, str], **more: Any) -> list[tuple[int, str]]:
    """Code and message of what was refused: over both ways of v3, which say the same."""
    said: list[list[tuple[int, str]]] = []

    async def story(door: Door) -> None:
        value = {"type": "STRING", "data": "v"}
        entries = [{"id": "0", "value": value}, {"id": "1", "value": value, **more}]
        batch = await door.ask("POST", f"{V3}/topics/t/records:batch", {"entries": entries}, Content_Type=PLAIN)
        said.append([(each["error_code"], each["message"]) for each in batch.json["failures"]])
        one = await door.ask("POST", f"{V3}/topics/t/records", {"value": value, **more}, Content_Type=PLAIN)
        line = json.loads(one.body)
        said.append([] if line["error_code"] == 200 else [(line["error_code"], line["message"])])

    fake = gateway(**configs)
    fake.add_topic("target", configs={"record.expiry.enable": "true"})
    with_door(story, fake)
    assert said[0] == said[1], said
    return said[0]


def test_times_that_a_topic_does_not_take_are_refused_alone() -> None:
    expiry, delay = {"record_expiry_enable": "true"}, {"delivery_target_topic": "target"}
    assert timed(expiry, expires_in_ms=1) == timed(delay, expires_in_ms=1) == timed(delay, deliver_in_ms=1) == []
    ((code, text),) = timed({}, expires_in_ms=60_000)
    assert (code, "set record.expiry.enable=true" in text) == (422, True), text
    for configs in ({}, expiry):
        ((code, text),) = timed(configs, deliver_in_ms=60_000)
        assert (code, "this topic is no delay topic; produce to one whose delivery.target.topic" in text) == (
            422,
            True,
        ), text
    for name, configs in (("kraft.deliver.at", delay), ("kraft.expires.at", expiry)):
        for value in (b"soon", b"-5", b"99999999999999999"):
            header = {"name": name, "value": b64encode(value).decode()}
            ((code, text),) = timed(configs, headers=[header])
            assert (code, f"header {name}" in text) == (50002, True), text
            assert timed({}, headers=[header]) == [], "it means nothing there"


ABSURD = (-1, AHEAD_MS_MAX + 1, 10**30, 1.5, "soon", True, [], {})


@pytest.mark.parametrize("value", ABSURD, ids=str)
@pytest.mark.parametrize("name", ["deliver_in_ms", "expires_in_ms"])
def test_times_that_are_absurd_are_refused_and_nothing_is_written(name: str, value: Any) -> None:
    async def story(door: Door) -> None:
        data = {"type": "STRING", "data": "v"}
        entries = [{"id": "0", "value": data}, {"id": "1", "value": data, name: value}]
        batch = await door.ask("POST", f"{V3}/topics/t/records:batch", {"entries": entries}, Content_Type=PLAIN)
        one = await door.ask("POST", f"{V3}/topics/t/records", {"value": data, name: value}, Content_Type=PLAIN)
        assert batch.status == 400
        assert f"`entries[1].{name}` should be an integer" in batch.json["message"]
        line = json.loads(one.body)
        assert line["error_code"] == 400
        assert f"`{name}` should be an integer" in line["message"]
        assert not stored(door)

    fake = gateway(delivery_target_topic="target")
    fake.add_topic("target", configs={"record.expiry.enable": "true"})
    with_door(story, fake)


def test_a_keyed_request_sent_again_has_the_same_results() -> None:
    async def story(door: Door) -> None:
        first = await write_v2(door, ["a", LARGE, "b"], Idempotency_Key="once")
        assert first == [(0, None), (None, 50002), (1, None)]
        assert await write_v2(door, ["a", LARGE, "b"], Idempotency_Key="once") == first
        assert stored(door) == [b"a", b"b"]

    with_door(story, gateway())


def test_more_than_a_segment_holds_goes_in_one_set_after_the_other() -> None:
    async def story(door: Door) -> None:
        values = [f"{n}" + "y" * 800 for n in range(6)]
        assert await write_v2(door, values) == [(n, None) for n in range(6)]
        assert len(door.gateway.produced) == 3, "two batches of one record each fit a segment"
        assert stored(door) == [value.encode() for value in values]

    with_door(story, gateway(segment_bytes="1900"))


def test_nothing_is_known_of_offsets_that_nobody_knows() -> None:
    async def story(door: Door) -> None:
        body = {"records": [{"value": "a"}, {"value": LARGE}]}
        answer = await door.ask("POST", "/topics/t?acks=0", body, Content_Type=TEXT)
        assert [each["offset"] for each in answer.json["offsets"]] == [None, None]
        assert [each["error_code"] for each in answer.json["offsets"]] == [None, 50002]

    with_door(story, gateway())
