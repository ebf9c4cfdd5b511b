"""What a node's files look like on a terminal: one table per file and kind, headers once, nothing left out."""

from __future__ import annotations

import pytest

from kraft.cli.file_views import write_log_tables, write_metadata_table
from kraft.cli.streamed_tables import PAGE_ROWS

FILE = "logs/t-0/00000000000000000000.log"


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")


def batch(base: int, count: int = 1, **changes: object) -> dict[str, object]:
    row = {"kind": "batch", "file": FILE, "base_offset": base, "last_offset": base + max(count, 1) - 1, "count": count}
    row |= {"leader_epoch": 7, "position": base * 80, "size": 80, "timestamp": 1_000, "compression": "lz4"}
    row |= {"is_valid": True, "producer_id": -1, "producer_epoch": -1, "base_sequence": -1}
    return {**row, "is_transactional": False, "is_control": False, **changes}


def record(offset: int, value: str) -> dict[str, object]:
    return {
        "kind": "record",
        "offset": offset,
        "timestamp": 1_000,
        "key": None,
        "value": value,
        "headers": [("h", "x")],
    }


def lines(capsys) -> list[list[str]]:
    return [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]


def test_batches_have_one_header_however_many_there_are(capsys):
    write_log_tables((batch(at) for at in range(2 * PAGE_ROWS + 1)), records=False)
    file, header, *rows = lines(capsys)
    assert file == [FILE]
    assert header[:5] == ["base", "offset", "last", "offset", "count"]
    assert [int(row[0]) for row in rows] == list(range(2 * PAGE_ROWS + 1))
    assert rows[0][3:6] == ["7", "0", "80"]


def test_a_batch_reports_its_time_codec_crc_and_producer(capsys):
    write_log_tables([batch(0, is_valid=False, producer_id=9, producer_epoch=2, base_sequence=5)], records=False)
    row = " ".join(lines(capsys)[-1])
    assert "1970-01-01 00:00:01.000 lz4 wrong 9 epoch 2 sequence 5" in row


def test_records_stand_for_their_batches_and_an_emptied_batch_for_itself(capsys):
    write_log_tables([batch(0, 2), record(0, "a"), record(1, "b"), batch(2, 0)], records=True)
    _, header, first, second, emptied = lines(capsys)
    assert header == ["offset", "batch", "epoch", "timestamp", "key", "value", "headers"]
    assert first == ["0", "0", "7", "1970-01-01", "00:00:01.000", "-", "a", "h=x"]
    assert second[:2] == ["1", "0"]
    assert emptied[:3] == ["2", "2", "7"]
    assert "no records" in " ".join(emptied)


def test_producers_of_a_snapshot_tell_their_last_batch(capsys):
    row = {
        "kind": "producer",
        "file": "logs/t-0/00000000000000000009.snapshot",
        "producer_id": 2**62,
        "producer_epoch": 1,
    }
    row |= {"first_sequence": 3, "last_sequence": 4, "first_offset": 7, "last_offset": 8, "timestamp": 1_000}
    write_log_tables([row | {"open_transaction": -1}, row | {"open_transaction": 5}], records=False)
    file, header, cells, with_open = lines(capsys)
    assert file == [row["file"]]
    assert header == ["producer", "epoch", "sequences", "offsets", "open", "since", "timestamp"]
    assert " ".join(cells) == f"{2**62} 1 3 to 4 7 to 8 - 1970-01-01 00:00:01.000"
    assert " ".join(with_open) == f"{2**62} 1 3 to 4 7 to 8 5 1970-01-01 00:00:01.000"


def test_transactional_batches_markers_and_aborted_ones_are_distinguished(capsys):
    mine = {"producer_id": 9, "producer_epoch": 2, "is_transactional": True}
    rows = [batch(0, **mine, base_sequence=5), batch(1, **mine, is_control=True, marker="ABORT", coordinator_epoch=4)]
    index = {"kind": "aborted_transaction", "file": FILE.replace(".log", ".txnindex"), "producer_id": 9}
    index |= {"first_offset": 0, "last_offset": 1, "last_stable_offset": 2}
    write_log_tables([*rows, index], records=False)
    _, _, data, marker, _, header, entry = lines(capsys)
    assert " ".join(data).endswith("9 epoch 2 sequence 5 in a transaction")
    assert " ".join(marker).endswith("9 epoch 2 ABORT")
    assert header == ["producer", "first", "marker", "last", "stable"]
    assert entry == ["9", "0", "1", "2"]


def test_damage_stands_in_a_table_of_its_own(capsys):
    write_log_tables([batch(0), {"kind": "error", "file": FILE, "error": "3 bytes too many"}], records=False)
    assert lines(capsys)[-2:] == [["error"], ["3", "bytes", "too", "many"]]


def test_a_time_that_no_calendar_holds_stays_a_number(capsys):
    write_log_tables([{"kind": "time_entry", "file": FILE, "timestamp": 2**62, "offset": 3}], records=False)
    assert lines(capsys)[-1] == [str(2**62), "3"]


def test_metadata_records_tell_their_fields(capsys):
    snapshot = {"type": "Snapshot", "next_offset": 5}
    fields = {"type": "partition", "isr": [1, 2], "fenced": False}
    row = {"offset": 5, "controller_epoch": 3, "type": "PartitionRecord", "record": fields}
    write_metadata_table(iter([iter([snapshot]), iter([row])]))
    header, first, second = lines(capsys)
    assert header == ["offset", "epoch", "type", "record"]
    assert first[0] == "4"
    assert second == ["5", "3", "PartitionRecord", "isr=1,2", "fenced=false"]
