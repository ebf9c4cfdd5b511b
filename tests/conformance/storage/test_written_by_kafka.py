"""A log directory that Apache Kafka 4.1 wrote and shut down: we read it as it did, and change nothing in it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kraft.protocol.batches.records import read_batches
from kraft.runtime.files import DiskFiles
from metadata.settings import TopicSettings
from replication.storage.dump import dump_folder
from replication.storage.names import uuid_text
from replication.storage.text_files import read_offsets, read_properties, read_topic_id
from tests.conformance.storage.inputs import GOLDEN
from tests.unit.storage.world import idle_environment, load

KAFKA = GOLDEN / "kafka"
SETTINGS = TopicSettings(segment_bytes=1_048_576, index_interval_bytes=300)
RECORDS = 90


@pytest.mark.parametrize("is_clean", [True, False])
def test_kafkas_log_opens_and_recovers_to_the_same_bytes(is_clean: bool, tmp_path: Path) -> None:
    folder = tmp_path / "golden-0"
    shutil.copytree(KAFKA / "golden-0", folder, ignore=shutil.ignore_patterns("*.txt"))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with idle_environment() as environment:
        log, loaded = load(environment, str(folder), settings=SETTINGS, is_clean=is_clean)
        assert not loaded.repairs
        assert log.log_end_offset == RECORDS
        data = log.read(0, bytes_max=1_000_000, upper_bound=RECORDS).data
        records = list(read_batches(data))
    assert [record.offset for record in records] == list(range(RECORDS))
    assert {record.value for record in records if record.key == b"k3"} == {None}
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    if not is_clean:
        # The entry that a clean close adds to the time index is not there after a scan.
        before.pop(f"{0:020d}.timeindex")
        after.pop(f"{0:020d}.timeindex")
    assert after == before


def test_our_dump_finds_what_kafkas_did() -> None:
    text = (KAFKA / "golden-0" / "kafka-dump.txt").read_text()
    rows = list(dump_folder(DiskFiles(), str(KAFKA / "golden-0"), records=True))
    crcs = [f"crc: {row['crc']} isvalid: true" for row in rows if row["kind"] == "batch"]
    assert crcs
    assert all(crc in text for crc in crcs)
    entries = [f"offset: {row['offset']} position: {row['position']}" for row in rows if row["kind"] == "offset_entry"]
    assert entries
    assert all(entry in text for entry in entries)


def test_small_files() -> None:
    files = DiskFiles()
    topic_id = read_topic_id(files, str(KAFKA / "golden-0" / "partition.metadata"))
    assert topic_id is not None
    text = (KAFKA / "golden-0" / "partition.metadata").read_text()
    assert text == f"version: 0\ntopic_id: {uuid_text(topic_id)}"
    assert read_offsets(files, str(KAFKA / "recovery-point-offset-checkpoint")) == {("golden", 0): RECORDS}
    assert read_offsets(files, str(KAFKA / "replication-offset-checkpoint")) == {("golden", 0): RECORDS}
    properties = read_properties(files, str(KAFKA / "meta.properties"))
    assert properties is not None
    assert (properties["version"], properties["node.id"]) == ("1", "1")
