"""read_committed over REST: stateless reads in every form, streams, offsets, and the polls of consumers."""

from __future__ import annotations

import asyncio
import struct
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from kraft.coordinators.groups.answers import PollPlan
from kraft.coordinators.groups.requests import InstanceConfig, Range
from kraft.http.limits import Limits
from kraft.http.media import Format
from kraft.http.metrics import Metrics
from kraft.http.v2.consumers_poll import Poll
from kraft.protocol.batches.header import whole_batches
from kraft.protocol.batches.records import read_batches
from kraft.runtime.environment import system_environment
from replication.record_workers import RecordWorkers
from tests.support.fake_gateway import FakeGateway
from tests.support.plenty import nothing, room
from tests.support.transactional_batches import ending, in_transaction, plain
from tests.unit.http.door import RAW_BATCH, RAW_RECORDS, TEXT, V3, Door, with_door
from tests.unit.http.test_streams import EVENTS, LINES, stream

READ = "/topics/t/partitions/0/records"
COMMITTED = "isolation_level=read_committed"
GONE, KEPT, OPEN = 7, 8, 9


def gateway(*batches: bytes) -> FakeGateway:
    fake = FakeGateway()
    fake.add_topic("t")
    for batch in batches:
        fake.log("t").append(batch)
    return fake


def mixed() -> FakeGateway:
    """Offsets: 0 plain, 1 gone, 2 kept, 3 gone, 4 marker, 5 marker, 6 plain, 7 open, 8 plain."""
    return gateway(
        plain(b"plain"),
        in_transaction(GONE, b"gone"),
        in_transaction(KEPT, b"kept"),
        in_transaction(GONE, b"gone too"),
        ending(GONE, commits=False),
        ending(KEPT, commits=True),
        plain(b"between"),
        in_transaction(OPEN, b"open"),
        plain(b"behind"),
    )


def values(answer: Any) -> list[str]:
    assert answer.status == 200, answer.body
    return [record["value"] for record in answer.json]


def test_a_read_shows_what_was_committed_and_reports_where_to_go_on() -> None:
    async def story(door: Door) -> None:
        answer = await door.ask("GET", f"{READ}?{COMMITTED}&timeout=0", Accept=TEXT)
        assert values(answer) == ["plain", "kept", "between"]
        headers = answer.headers
        assert (headers["X-Next-Offset"], headers["X-Last-Stable-Offset"], headers["X-High-Watermark"]) == (
            "7",
            "7",
            "9",
        )
        assert COMMITTED in headers["Link"], "the next request reads in the same way"
        everything = await door.ask("GET", f"{READ}?timeout=0", Accept=TEXT)
        assert values(everything) == ["plain", "gone", "kept", "gone too", "between", "open", "behind"]
        assert (everything.headers["X-Next-Offset"], everything.headers["X-Last-Stable-Offset"]) == ("9", "7")
        for batch in (ending(OPEN, commits=True),):
            door.gateway.log("t").append(batch)
        answer = await door.ask("GET", f"{READ}?{COMMITTED}&offset=7&timeout=0", Accept=TEXT)
        assert values(answer) == ["open", "behind"]
        assert answer.headers["X-Next-Offset"] == "10"

    with_door(story, mixed())


@pytest.mark.parametrize("offset", range(8))
def test_a_read_from_the_midst_of_a_transaction_knows_how_it_ended(offset: int) -> None:
    async def story(door: Door) -> None:
        answer = await door.ask("GET", f"{READ}?{COMMITTED}&offset={offset}&timeout=0", Accept=TEXT)
        visible = {0: "plain", 2: "kept", 6: "between"}
        assert values(answer) == [value for at, value in visible.items() if at >= offset]

    with_door(story, mixed())


@pytest.mark.parametrize("bytes_max", [1, 40, 100])
def test_reads_in_small_pieces_come_to_the_end_and_show_the_same(bytes_max: int) -> None:
    async def story(door: Door) -> None:
        url, seen = f"{READ}?{COMMITTED}&offset=0&timeout=0&max_bytes={bytes_max}", []
        for _ in range(20):
            answer = await door.ask("GET", url, Accept=TEXT)
            seen += values(answer)
            link = answer.headers["Link"]
            url = link[1 : link.index(">")]
        assert seen == ["plain", "kept", "between"]
        assert answer.headers["X-Next-Offset"] == "7"

    with_door(story, mixed())


def test_a_read_goes_on_over_what_was_aborted_to_the_first_record() -> None:
    """At least one record is answered when there is one: an answer without any looks like the end."""
    gone = [in_transaction(GONE, bytes(1_000)), ending(GONE, commits=False)] * 50

    async def story(door: Door) -> None:
        answer = await door.ask("GET", f"{READ}?{COMMITTED}&timeout=0&max_bytes=2000", Accept=TEXT)
        assert values(answer) == ["kept"]
        assert answer.headers["X-Next-Offset"] == "101"

    with_door(story, gateway(*gone, plain(b"kept")))


def test_others_have_their_turns_while_a_read_goes_on_over_what_was_aborted(monkeypatch: pytest.MonkeyPatch) -> None:
    """No read of a log that is here suspends: a read of gigabytes that were aborted would hold the node for seconds."""
    gone = [in_transaction(GONE, bytes(1_000)), ending(GONE, commits=False)] * 20
    fake, turns, read = gateway(*gone, plain(b"kept")), [0], []
    original = fake.read

    async def noted(*parameters: Any, **options: Any) -> Any:
        read.append(turns[0])
        return await original(*parameters, **options)

    async def story(door: Door) -> None:
        async def others() -> None:
            while True:
                turns[0] += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(others())
        answer = await door.ask("GET", f"{READ}?{COMMITTED}&timeout=0&max_bytes=2000", Accept=TEXT)
        task.cancel()
        assert values(answer) == ["kept"]
        assert len(read) > 10
        assert len(set(read)) == len(read), "each in a turn of its own"

    monkeypatch.setattr(fake, "read", noted)
    with_door(story, fake)


def test_where_all_was_aborted_the_answer_is_behind_it() -> None:
    async def story(door: Door) -> None:
        answer = await door.ask("GET", f"{READ}?{COMMITTED}&timeout=0", Accept=TEXT)
        assert (values(answer), answer.headers["X-Next-Offset"]) == ([], "2")

    with_door(story, gateway(in_transaction(GONE, b"gone"), ending(GONE, commits=False)))


def test_a_read_of_all_records_passes_over_markers_too() -> None:
    async def story(door: Door) -> None:
        answer = await door.ask("GET", f"{READ}?offset=1&timeout=0&max_bytes=1", Accept=TEXT)
        assert (values(answer), answer.headers["X-Next-Offset"]) == (["next"], "3")

    with_door(story, gateway(in_transaction(KEPT, b"kept"), ending(KEPT, commits=True), plain(b"next")))


def test_a_long_poll_waits_for_the_marker() -> None:
    async def story(door: Door) -> None:
        log = door.gateway.log("t")
        async with asyncio.timeout(30):
            waiting = asyncio.create_task(door.ask("GET", f"{READ}?{COMMITTED}&timeout=60000", Accept=TEXT))
            await log.waited_for.wait()
            log.append(plain(b"behind"))
            assert values(await door.ask("GET", f"{READ}?timeout=0", Accept=TEXT)) == ["open", "behind"]
            assert not waiting.done(), "nothing of it is decided"
            log.append(ending(OPEN, commits=False))
            assert values(await waiting) == ["behind"]

    with_door(story, gateway(in_transaction(OPEN, b"open")))


def test_raw_records_and_batches_are_left_out_too() -> None:
    async def story(door: Door) -> None:
        batches = await door.ask("GET", f"{READ}?{COMMITTED}&timeout=0", Accept=RAW_BATCH)
        assert [record.value for record in read_batches(batches.body, with_control=True)] == [
            b"plain",
            b"kept",
            b"between",
        ]
        assert [header.base_offset for _, header in whole_batches(batches.body)] == [0, 2, 6]
        assert batches.headers["X-Next-Offset"] == "7"
        records = await door.ask("GET", f"{READ}?{COMMITTED}&offset=1&timeout=0", Accept=RAW_RECORDS)
        assert struct.unpack_from(">q", records.body) == (2,)
        assert records.body.count(b"gone") == 0
        everything = await door.ask("GET", f"{READ}?timeout=0", Accept=RAW_BATCH)
        assert [header.base_offset for _, header in whole_batches(everything.body)] == list(range(9))

    with_door(story, mixed())


def test_latest_and_times_end_at_the_last_stable_offset() -> None:
    async def story(door: Door) -> None:
        for offset, expected in (("latest", "7"), ("ts:99999", "7"), ("ts:1000", "7")):
            answer = await door.ask("GET", f"{READ}?{COMMITTED}&offset={offset}&timeout=0", Accept=TEXT)
            assert answer.headers["X-Next-Offset"] == expected
        offsets = "/topics/t/partitions/0/offsets"
        assert (await door.ask("GET", f"{offsets}?{COMMITTED}")).json == {"beginning_offset": 0, "end_offset": 7}
        assert (await door.ask("GET", offsets)).json == {"beginning_offset": 0, "end_offset": 9}
        v3 = f"{V3}/topics/t/partitions/0/offset"
        assert (await door.ask("GET", f"{v3}?{COMMITTED}")).json["latest_offset"] == 7
        assert (await door.ask("GET", v3)).json["latest_offset"] == 9

    with_door(story, mixed())


@pytest.mark.parametrize(
    "path", [READ, "/topics/t/records", "/topics/t/partitions/0/offsets", f"{V3}/topics/t/partitions/0/offset"]
)
def test_an_unknown_isolation_level_is_refused_with_those_that_there_are(path: str) -> None:
    async def story(door: Door) -> None:
        headers = {"Accept": EVENTS} if path == "/topics/t/records" else {}
        answer = await door.ask("GET", f"{path}?isolation_level=committed", **headers)
        assert (answer.status, answer.json["error_code"]) == (400, 40002)
        assert "read_uncommitted or read_committed" in answer.json["message"]

    with_door(story, mixed())


@pytest.mark.parametrize("path", [READ, "/topics/t/records"])
@pytest.mark.parametrize("accept", [EVENTS, LINES])
def test_a_stream_shows_what_was_committed_when_it_was(path: str, accept: str) -> None:
    async def lines(reader: Any, count: int) -> list[str]:
        if accept == EVENTS:
            return list(await reader.values(count))
        found = []
        while len(found) < count:
            async with asyncio.timeout(30):
                line = await reader.response.content.readline()
            if line.strip() and "value" in (record := msgspec.json.decode(line)):
                found.append(record["value"])
        return found

    async def story(door: Door) -> None:
        async with stream(door, f"{path}?{COMMITTED}&offset=earliest&format=text", accept=accept) as reader:
            assert await lines(reader, 3) == ["plain", "kept", "between"]
            door.gateway.log("t").append(plain(b"last"))
            door.gateway.log("t").append(ending(OPEN, commits=False))
            assert await lines(reader, 2) == ["behind", "last"]

    with_door(story, mixed())


def test_a_stream_goes_on_after_its_position_and_knows_what_is_under_way() -> None:
    async def story(door: Door) -> None:
        async with stream(door, f"{READ}?{COMMITTED}&format=text", last_id="0:3") as reader:
            assert await reader.values(1) == ["between"]
            assert reader.last_id == "0:7"

    with_door(story, mixed())


# --- consumers ----------------------------------------------------------------------------------------------------


def poll(fake: FakeGateway, first: int, *, number: int = 1, end: int = -1, reset: str = "earliest") -> Poll:
    environment = system_environment(asyncio.get_running_loop())
    clock, work = environment.clock, RecordWorkers(environment.workers)
    context: Any = SimpleNamespace(
        gateway=fake, room=room, clock=clock, limits=Limits(), metrics=Metrics(dict), record_workers=work
    )
    config = InstanceConfig(reset=reset, is_read_committed=True)
    ranges: tuple[Range, ...] = (("t", 0, first, end),)
    plan = PollPlan(config=config, number=number, generation=1, is_repeat=end >= 0, ranges=ranges)
    return Poll(context, plan, Format.TEXT, bytes_max=1_000_000, hold=nothing)


def polled(fake: FakeGateway, first: int, **how: Any) -> tuple[list[str], int]:
    """The values, and where the consumer stands then."""

    async def story() -> Poll:
        made = poll(fake, first, **how)
        await made.run(wait_ms=0)
        return made

    made = asyncio.run(story())
    return [each["value"] for each in msgspec.json.decode(made.encoded())], made.ranges[0][3]


def test_a_consumer_reads_what_was_committed() -> None:
    assert polled(mixed(), 0) == (["plain", "kept", "between"], 7)
    assert polled(mixed(), 7) == ([], 7)
    assert polled(mixed(), 3) == (["between"], 7)


def test_a_batch_that_is_asked_for_again_holds_the_same() -> None:
    fake = mixed()
    assert polled(fake, 0, end=7) == (["plain", "kept", "between"], 7)
    fake.log("t").append(ending(OPEN, commits=True))
    assert polled(fake, 0, end=7) == (["plain", "kept", "between"], 7)
    assert polled(fake, 1, end=6) == (["kept"], 6)


def test_a_consumer_gets_on_where_nothing_was_committed() -> None:
    """Its next poll would else begin where this one did, for ever."""
    fake = gateway(in_transaction(GONE, b"gone"), ending(GONE, commits=False))

    async def story() -> tuple[bool, int]:
        made = poll(fake, 0)
        await made.run(wait_ms=0)
        return made.has_moved, made.ranges[0][3]

    assert asyncio.run(story()) == (True, 2)


def test_a_consumer_without_an_offset_begins_at_the_last_stable_one() -> None:
    assert polled(mixed(), -1, reset="latest") == ([], 7)
