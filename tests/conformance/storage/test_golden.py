"""Our bytes against the golden files, and our dump against what Apache Kafka's DumpLogSegments said of them."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from kraft.runtime.files import DiskFiles
from replication.producers.state import Producer
from replication.storage.dump import Row, dump_folder
from replication.storage.names import CHECKPOINT_CEILING_FILE
from replication.storage.producer_snapshot import decode_snapshot
from tests.conformance.storage.inputs import GOLDEN, LOGS, write_logs

OURS = GOLDEN / "ours"
TEXT = "kafka-dump.txt"
OURS_ALONE = {CHECKPOINT_CEILING_FILE}
"""Kafka has no such file, and passes over names that it does not know."""


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("golden")
    asyncio.run(write_logs(root))
    return root


@pytest.mark.parametrize("name", LOGS)
def test_bytes_are_those_that_kafka_read(name: str, rebuilt: Path) -> None:
    golden = {path.name: path.read_bytes() for path in (OURS / name).iterdir() if path.name != TEXT}
    ours = {path.name: path.read_bytes() for path in (rebuilt / name).iterdir() if path.name not in OURS_ALONE}
    assert ours == golden


@pytest.mark.parametrize("name", LOGS)
def test_kafka_found_nothing_wrong(name: str) -> None:
    text = (OURS / name / TEXT).read_text()
    assert "passed sanity check" in text or ".index is empty" in text
    for complaint in ("isvalid: false", "Mismatches", "mismatch", "Found timestamp", "not found", "xception"):
        assert complaint not in text


@pytest.mark.parametrize("name", LOGS)
def test_our_dump_agrees_with_kafkas(name: str) -> None:
    text = (OURS / name / TEXT).read_text()
    rows = list(dump_folder(DiskFiles(), str(OURS / name), records=True))
    assert not [row for row in rows if row["kind"] == "error"]
    assert [_as_kafka_prints(row) for row in rows if row["kind"] == "batch"] == _batches(text)
    ours = [(row["offset"], row["timestamp"], row["headers"] != []) for row in rows if row["kind"] == "record"]
    assert ours == _records(text)
    entries = [(row["offset"], row["position"]) for row in rows if row["kind"] == "offset_entry"]
    assert entries == _pairs(text, r"^offset: (\d+) position: (\d+)$")
    times = [(row["timestamp"], row["offset"]) for row in rows if row["kind"] == "time_entry"]
    assert times == _pairs(text, r"^timestamp: (\d+) offset: (\d+)$")


def _as_kafka_prints(row: Row) -> str:
    return (
        f"baseOffset: {row['base_offset']} lastOffset: {row['last_offset']} count: {row['count']} "
        f"partitionLeaderEpoch: {row['leader_epoch']} position: {row['position']} "
        f"{row['timestamp_type']}: {row['timestamp']} size: {row['size']} magic: {row['magic']} "
        f"compresscodec: {row['compression']} crc: {row['crc']} isvalid: {str(row['is_valid']).lower()}"
    )


def _batches(text: str) -> list[str]:
    left_out = r"(baseSequence|lastSequence|producerId|producerEpoch|isTransactional|isControl|deleteHorizonMs): \S+ "
    return [re.sub(left_out, "", line) for line in text.splitlines() if line.startswith("baseOffset")]


def _records(text: str) -> list[tuple[int, int, bool]]:
    pattern = r"^\| offset: (\d+) \w+: (\d+) .*headerKeys: \[(.*?)\]"
    return [(int(o), int(t), bool(h)) for o, t, h in re.findall(pattern, text, re.MULTILINE)]


def _pairs(text: str, pattern: str) -> list[tuple[int, int]]:
    return [(int(first), int(second)) for first, second in re.findall(pattern, text, re.MULTILINE)]


def test_kafka_reads_of_our_snapshots_what_we_do() -> None:
    folder = OURS / "producers-0"
    text = (folder / TEXT).read_text()
    said: dict[str, list[str]] = {}
    for name, lines in re.findall(r"^Dumping (\d+\.snapshot)\n((?:producerId: .*\n)*)", text, re.MULTILINE):
        said[name] = lines.splitlines()
    assert said
    for path in folder.glob("*.snapshot"):
        producers = decode_snapshot(path.read_bytes())
        assert sorted(said[path.name]) == sorted(_producer_as_kafka_prints(*each) for each in producers)


def test_our_dump_of_snapshots_agrees_with_kafkas() -> None:
    text = (OURS / "producers-0" / TEXT).read_text()
    said = re.findall(
        r"^producerId: (\d+) producerEpoch: (\d+) .*lastTimestamp: (\d+) "
        r"firstSequence: (-?\d+) lastSequence: (-?\d+) lastOffset: (-?\d+)",
        text,
        re.MULTILINE,
    )
    names = ("producer_id", "producer_epoch", "timestamp", "first_sequence", "last_sequence", "last_offset")
    rows = [row for row in dump_folder(DiskFiles(), str(OURS / "producers-0")) if row["kind"] == "producer"]
    assert sorted(tuple(str(row[name]) for name in names) for row in rows) == sorted(said)
    assert all(str(row["file"]).endswith(".snapshot") for row in rows)


def _producer_as_kafka_prints(producer_id: int, producer: Producer) -> str:
    last = producer.batches[-1]
    return (
        f"producerId: {producer_id} producerEpoch: {producer.epoch} coordinatorEpoch: -1 "
        f"currentTxnFirstOffset: OptionalLong.empty lastTimestamp: {producer.timestamp} "
        f"firstSequence: {last.first_sequence} lastSequence: {last.last_sequence} lastOffset: {last.last_offset} "
        f"offsetDelta: {last.offset_delta} timestamp: {last.timestamp}"
    )
