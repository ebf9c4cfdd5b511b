"""Where produced records come from: files and lines of every kind, and which of them share a request."""

from __future__ import annotations

import base64
import json

import msgspec
import pytest

from kraft.cli.output import CommandFailed
from kraft.cli.sources import (
    BYTES_PER_REQUEST_MAX,
    PAUSE,
    RECORDS_PER_REQUEST_MAX,
    Reading,
    batches,
    from_arguments,
    from_files,
)

TEXT = Reading(form="text")
RECORDS = Reading(form="json", is_record=True)


def of_file(tmp_path, content: bytes, reading: Reading) -> list[dict[str, object]]:
    path = tmp_path / "in"
    path.write_bytes(content)
    sent = msgspec.json.encode(list(from_files([path], reading)))
    return json.loads(sent)


def test_a_file_is_read_line_by_line_and_counts_its_bytes(tmp_path):
    counted: list[int] = []
    entries = of_file(tmp_path, "a\r\nü\n\nlast".encode(), Reading(form="text", on_bytes=counted.append))
    assert [entry["value"] for entry in entries] == ["a", "ü", "", "last"]
    assert counted == [3, 3, 1, 4]


def test_a_binary_file_is_one_record(tmp_path):
    entries = of_file(tmp_path, b"\x00\n\xff", Reading(form="binary", key="aw=="))
    assert entries == [{"value": base64.b64encode(b"\x00\n\xff").decode(), "key": "aw=="}]


def test_a_line_may_be_a_whole_record_and_reports_where_it_goes(tmp_path):
    line = b'{"topic": "old", "offset": 7, "partition": 2, "timestamp": 5, "key": null, "value": {"a": 1}}\n'
    assert of_file(tmp_path, line, RECORDS) == [{"partition": 2, "timestamp": 5, "value": {"a": 1}}]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{\n", ":1 is not JSON"),
        (b'{"value": 1}\n[1]\n', ":2 is no JSON object"),
        (b'{"value": 1, "valeu": 2}\n', "has valeu; a record has headers, key, partition, timestamp, value"),
        (b"\xff\n", ":1 is not UTF-8"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, words):
    with pytest.raises(CommandFailed) as caught:
        of_file(tmp_path, line, RECORDS)
    assert words in str(caught.value)


@pytest.mark.parametrize("reading", [RECORDS, Reading(form="json")])
def test_json_is_sent_as_it_was_written(tmp_path, reading):
    value = '{"n":12345678901234567890.123456789012345,"f":1.10,"e":1e400}'
    path = tmp_path / "in"
    path.write_text(f'{{"value": {value}, "partition": 1}}\n' if reading.is_record else value + "\n")
    (batch,) = batches(from_files([path], reading))
    assert f'"value":{value}'.encode() in msgspec.json.encode(batch)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CommandFailed, match="No such file"):
        list(from_files([tmp_path / "nowhere"], TEXT))


def test_a_separator_splits_at_its_first():
    entries = list(from_arguments(["k:v:w", "plain"], Reading(form="text", separator=":", key="all", partition=3)))
    assert entries == [{"value": "v:w", "key": "k", "partition": 3}, {"value": "plain", "key": "all", "partition": 3}]


def test_a_pause_sends_what_is_there_and_a_full_request_goes_at_once():
    entry = {"value": "x"}
    assert list(batches([entry, PAUSE, PAUSE, entry, entry])) == [[entry], [entry, entry]]
    assert [len(batch) for batch in batches([entry] * (RECORDS_PER_REQUEST_MAX + 1))] == [RECORDS_PER_REQUEST_MAX, 1]
    large = {"value": "x" * BYTES_PER_REQUEST_MAX}
    assert [len(batch) for batch in batches([large, entry, large, entry])] == [1, 2, 1]
