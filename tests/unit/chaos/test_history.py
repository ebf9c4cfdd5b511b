"""The history file: what is written is read, and a line that is none is named."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from kraft.chaos.checkers.check import check_beside, check_history
from kraft.chaos.evidence import Fault, read_events, read_faults, write_faults
from kraft.chaos.history import Attempt, Header, History, HistoryError, HistoryWriter, Produce, Read

HEADER = Header(scenario="s", seed=3, settings={"flush.messages": 1}, start_us=5_000_000, wall_ms=1_000)

PRODUCE = Produce(
    process="p",
    index=4,
    invoke_us=10,
    complete_us=20,
    topic="t",
    partition=0,
    acks="all",
    node=2,
    records=((None, "p:0"), ("k", "p:1")),
    outcome="info",
    kafka_code=7,
    attempts=(Attempt(node=1, outcome="info", kafka_code=None, invoke_us=10, complete_us=15, error="timed out"),),
    error="timed out",
)
READ = Read(
    process="r",
    index=0,
    invoke_us=30,
    complete_us=40,
    topic="t",
    partition=0,
    offset=5,
    next_offset=6,
    high_watermark=6,
    records=((5, "p:0"),),
    outcome="ok",
)


def written(path: Path, *lines: bytes) -> Path:
    header = msgspec.json.encode({"history": 1, "scenario": "s", "seed": 1})
    path.write_bytes(b"".join(line + b"\n" for line in (header, *lines)))
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with HistoryWriter(path, HEADER) as writer:
        writer.record(PRODUCE)
        writer.record(READ)
    history = History(path)
    assert history.header == HEADER
    assert list(history.operations()) == [PRODUCE, READ]
    assert list(history.operations()) == [PRODUCE, READ], "it can be read again"


def test_line_format_of_history(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with HistoryWriter(path, HEADER) as writer:
        writer.record(PRODUCE)
    header, line = (msgspec.json.decode(line) for line in path.read_bytes().splitlines())
    assert (header["history"], header["wall_ms"]) == (1, 1_000)
    assert (line["op"], line["records"], line["acks"]) == ("produce", [[None, "p:0"], ["k", "p:1"]], "all")
    assert line["attempts"][0] == {
        "node": 1,
        "outcome": "info",
        "kafka_code": None,
        "invoke_us": 10,
        "complete_us": 15,
        "error": "timed out",
    }


def test_the_writer_holds_no_more_than_its_buffer(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    with HistoryWriter(path, HEADER, buffer_bytes_max=1_000) as writer:
        for _ in range(10):
            writer.record(READ)
            assert (writer.operations * 150) - path.stat().st_size < 1_500
        assert path.stat().st_size > 1_000, "nothing was written before the end"
        writer.flush()
        assert len(list(History(path).operations())) == 10


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b'{"op":"produce"', "Input data was truncated"),
        (b"{}", "missing required field `op`"),
        (b'{"op":"delete"}', "Invalid value 'delete'"),
        (b"", "an empty line"),
        (
            b'{"op":"read","process":"r","index":0,"invoke_us":1,"complete_us":2,"topic":"t","partition":"0"}',
            "partition",
        ),
        (b"\xff", "malformed"),
    ],
)
def test_a_line_that_is_no_operation_is_named(tmp_path: Path, line: bytes, complaint: str) -> None:
    path = written(
        tmp_path / "h.jsonl",
        b'{"op":"read","process":"r","index":0,"invoke_us":1,"complete_us":2,"topic":"t",'
        b'"partition":0,"offset":0,"outcome":"ok"}',
        line,
    )
    with pytest.raises(HistoryError) as caught:
        list(History(path).operations())
    assert str(caught.value).startswith(f"{path}:3: ")
    assert complaint in str(caught.value)


def test_truncated_history_is_reported(tmp_path: Path) -> None:
    path = written(tmp_path / "h.jsonl")
    path.write_bytes(path.read_bytes() + b'{"op":"read","proc')
    with pytest.raises(HistoryError, match=r":2: the last line is cut off after 18 bytes"):
        list(History(path).operations())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"", "the file is empty"),
        (b"[]\n", "this is no header"),
        (b'{"history":2,"scenario":"s"}\n', "format 2"),
        (b'{"history":1}\n', "missing required field `scenario`"),
    ],
)
def test_a_header_that_is_none_is_named(tmp_path: Path, text: bytes, complaint: str) -> None:
    path = tmp_path / "h.jsonl"
    path.write_bytes(text)
    with pytest.raises(HistoryError) as caught:
        History(path)
    assert str(caught.value).startswith(f"{path}:1: ")
    assert complaint in str(caught.value)


def test_a_value_that_was_sent_twice_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    with HistoryWriter(path, HEADER) as writer:
        writer.record(PRODUCE)
        writer.record(PRODUCE)
    with pytest.raises(HistoryError, match=r"h\.jsonl:3: value 'p:0' was sent twice"):
        check_history(path)


def test_offsets_have_to_fit_the_records(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    fields = {name: getattr(PRODUCE, name) for name in PRODUCE.__struct_fields__}
    with HistoryWriter(path, HEADER) as writer:
        writer.record(Produce(**fields | {"outcome": "ok", "offsets": (1,)}))
    with pytest.raises(HistoryError, match=r"h\.jsonl:2: .* has 2 records and 1 offsets"):
        check_history(path)


def test_events_are_put_on_the_clock_of_the_history(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    near = {"at_ms": 1_500, "monotonic_us": 5_499_123, "node_id": 1, "sequence": 0, "event": "a", "topic": "t"}
    far = {"at_ms": 1_200, "monotonic_us": 99, "node_id": 2, "sequence": 0, "event": "b"}
    path.write_bytes(msgspec.json.encode(near) + b"\n" + msgspec.json.encode(far) + b"\n" + b'{"at_ms": 1')
    other, own = read_events(path, HEADER)
    assert (own.at_us, own.node, own.event, own.fields) == (5_499_123, 1, "a", {"topic": "t"})
    assert (other.at_us, other.event) == (5_200_000, "b"), "another host: its wall clock counts"


def test_a_line_that_is_no_event_is_named(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event":"a"}\n')
    with pytest.raises(HistoryError, match=r"events\.jsonl:1: this is no event: an event has at_ms, node_id and event"):
        read_events(path, HEADER)


def test_faults_are_written_and_read(tmp_path: Path) -> None:
    faults = [
        Fault(at_us=2, fault="kill", nodes=(1,), text="b"),
        Fault(at_us=1, fault="cut", links=("1->2",), text="a"),
    ]
    write_faults(tmp_path / "faults.jsonl", faults)
    assert read_faults(tmp_path / "faults.jsonl") == faults[::-1]


def test_a_history_is_checked_with_what_lies_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    fields = {name: getattr(READ, name) for name in READ.__struct_fields__}
    with HistoryWriter(path, HEADER) as writer:
        writer.record(
            Produce(
                process="p",
                index=0,
                invoke_us=5_100_000,
                complete_us=5_110_000,
                topic="t",
                partition=0,
                acks="1",
                node=1,
                records=((None, "p:0"), (None, "p:1")),
                outcome="ok",
                offsets=(0, 1),
            )
        )
        records = ((0, "p:0"),)
        writer.record(Read(**fields | {"offset": 0, "next_offset": 2, "high_watermark": 2, "records": records}))
    alone = check_beside(path)
    assert (alone.counts.lost, alone.unexplained) == (1, 1)
    lines = [
        {"at_ms": 1_050, "node_id": 1, "event": "became_leader", "leader_epoch": 0, "epoch_start_offset": 0},
        {"at_ms": 1_900, "node_id": 2, "event": "became_leader", "leader_epoch": 1, "epoch_start_offset": 1},
    ]
    where = {"topic": "t", "partition": 0}
    (tmp_path / "events.jsonl").write_bytes(b"".join(msgspec.json.encode(line | where) + b"\n" for line in lines))
    explained = check_beside(path)
    assert (explained.counts.lost, explained.unexplained) == (1, 0)
