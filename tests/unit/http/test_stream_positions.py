"""What a position says, and what a stream looks like on the wire. Pure."""

from __future__ import annotations

import json

import pytest

from kraft.http.embedded_records import encode_each
from kraft.http.errors import HttpError
from kraft.http.media import Format, stream_answer
from kraft.http.records import InRecord
from kraft.http.streaming.frames import FRAMES
from kraft.http.streaming.positions import PARTITIONS_MAX, Positions, parse_positions
from kraft.protocol.batches.records import NewRecord, build_batch, read_batches
from kraft.protocol.media_types import EVENT_STREAM, NDJSON


def stored(*values: bytes) -> list[InRecord]:
    batch = build_batch([NewRecord(None, value, [], 1) for value in values])
    return list(read_batches(batch, from_offset=0))


def test_a_position_is_the_next_offset_of_each_partition_and_reads_back() -> None:
    positions = Positions({("t", 1): 5, ("t", 0): 18}, topic="t")
    assert positions.text == "0:18,1:5"
    positions["t", 1] = 6
    assert parse_positions(positions.text, topic="t") == {("t", 0): 18, ("t", 1): 6}


def test_a_position_of_several_topics_names_them() -> None:
    positions = Positions({("b.c", 2): 7, ("a", 0): 2**63 - 1})
    assert positions.text == "a/0:9223372036854775807,b.c/2:7"
    assert parse_positions(positions.text) == dict(positions.offsets)


@pytest.mark.parametrize("text", ["x", "0", "0:", ":1", "0:-1", "0:1;1:2", "0:9223372036854775808", "u/0:1", "0:1,"])
def test_what_no_stream_said_is_refused(text: str) -> None:
    with pytest.raises(HttpError, match="no position of this stream") as refused:
        parse_positions(text, topic="t")
    assert refused.value.code == 40002


def test_the_topic_is_needed_where_there_may_be_several() -> None:
    with pytest.raises(HttpError, match="topic/partition:offset"):
        parse_positions("0:1")


def test_a_position_fits_into_a_header() -> None:
    positions = Positions({("t", number): 2**50 for number in range(PARTITIONS_MAX)}, topic="t")
    assert len(positions.text) < 16_384
    with pytest.raises(HttpError, match="at most 512"):
        parse_positions(positions.text + ",600:1", topic="t")


def test_events_carry_the_position_after_them() -> None:
    frames = FRAMES[EVENT_STREAM]
    assert frames.begin("0:3") == b"retry: 1000\nid: 0:3\n\n"
    assert frames.record(b'{"offset":3}', "0:4") == b'id: 0:4\ndata: {"offset":3}\n\n'
    assert frames.heartbeat() == b": heartbeat\n\n"
    assert frames.error({"error_code": 422}, "0:5") == b'event: error\nid: 0:5\ndata: {"error_code":422}\n\n'


def test_lines_are_json_and_heartbeats_are_empty() -> None:
    frames = FRAMES[NDJSON]
    assert (frames.begin("0:3"), frames.heartbeat()) == (b"", b"\n")
    assert frames.record(b'{"offset":3}', "0:4") == b'{"offset":3}\n'
    assert json.loads(frames.error({"error_code": 422}, "0:5")) == {"error_code": 422, "position": "0:5"}


def test_a_value_with_line_breaks_between_its_tokens_stays_on_one_line() -> None:
    (line,), error = encode_each(stored(b'{"a":\r\n "b\\n"}'), Format.JSON, topic="t", partition=0)
    assert error is None
    assert b"\n" not in line
    assert b"\r" not in line
    assert json.loads(line)["value"] == {"a": "b\n"}


def test_records_before_one_that_is_not_in_the_format_are_kept() -> None:
    lines, error = encode_each(stored(b"1", b"{", b"2"), Format.JSON, topic="t", partition=0)
    assert [json.loads(line)["offset"] for line in lines] == [0]
    assert error is not None
    assert (error.code, error.extra["offset"]) == (422, 1)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/event-stream", EVENT_STREAM),
        ("application/x-ndjson", NDJSON),
        ("text/event-stream;q=0.9, application/json;q=0.1", EVENT_STREAM),
        ("application/json, text/event-stream", None),
        ("*/*", None),
        (None, None),
    ],
)
def test_a_stream_is_what_is_asked_for_first(accept: str | None, kind: str | None) -> None:
    assert stream_answer(accept) == kind


def test_where_only_streams_are_served_anything_means_lines() -> None:
    assert stream_answer("*/*", is_only=True) == NDJSON
    with pytest.raises(HttpError, match="cannot answer in application/json"):
        stream_answer("application/json", is_only=True)
