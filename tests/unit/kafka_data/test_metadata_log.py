"""Kafka's metadata records: a snapshot that Kafka 4.4 wrote, all messages in all versions, and bytes that are none."""

from __future__ import annotations

import json
import random
from base64 import b64decode
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from kraft.cli.files import dump_metadata
from kraft.cli.output import CommandFailed
from kraft.kafka_data.metadata_log import (
    CONTROL_RECORDS,
    FOLDER,
    RECORDS,
    SnapshotId,
    UnreadableMetadata,
    encode_value,
    newest_snapshot,
    read_file,
    snapshot_id_of,
)
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.encoding import TopLevel
from kraft.protocol.messages.partition_change_record import PartitionChangeRecordData
from kraft.protocol.messages.topic_record import TopicRecordData
from kraft.protocol.schema.facts import Field, Schema, Structure, read_schemas, snake_case
from kraft.runtime.files import DiskFiles

BOOTSTRAP = b64decode(
    "AAAAAAAAAAAAAABHAAAAAALYE0g2ACAAAAAAAAABohG0v98AAAGiEbS/3///////////////////AAAAASoAAAAIAAAAAxYAAAAA"
    "AaIRtL+UAAAAAAAAAAAAAQAAAPEAAAAAApSrfnsAAAAAAAUAAAGiEbTAEwAAAaIRtMAT//////////////////8AAAAGOgAAAAEu"
    "AQwAEW1ldGFkYXRhLnZlcnNpb24AIQAAWgAAAgFOAQwAIWVsaWdpYmxlLmxlYWRlci5yZXBsaWNhcy52ZXJzaW9uAAEAADQAAAQB"
    "KAEMAA5ncm91cC52ZXJzaW9uAAEAADQAAAYBKAEMAA5zaGFyZS52ZXJzaW9uAAIAADgAAAgBLAEMABBzdHJlYW1zLnZlcnNpb24A"
    "AQAAQAAACgE0AQwAFHRyYW5zYWN0aW9uLnZlcnNpb24AAgAAAAAAAAAAAAcAAAA/AAAAAAIO8CluACAAAAAAAAABohG0wCEAAAGi"
    "EbTAIf//////////////////AAAAARoAAAAIAAAABAYAAAAA"
)
"""The first snapshot of a node that `kafka-storage format` of Kafka 4.4.0 has made, with --release-version 4.4."""
FEATURES = {
    "metadata.version": 33,
    "eligible.leader.replicas.version": 1,
    "group.version": 1,
    "share.version": 2,
    "streams.version": 1,
    "transaction.version": 2,
}
SCHEMAS = {schema.name: schema for schema in read_schemas() if schema.name in RECORDS.values()}


def segment(folder: Path, *values: bytes, epoch: int = 3, name: str = "00000000000000000000.log") -> Path:
    path = folder / name
    path.write_bytes(build_batch([NewRecord(None, value, [], 5) for value in values], leader_epoch=epoch))
    return path


def test_a_snapshot_of_kafka_is_read(tmp_path: Path) -> None:
    path = tmp_path / "00000000000000000000-0000000000.checkpoint"
    path.write_bytes(BOOTSTRAP)
    header, *records, footer = read_file(DiskFiles(), str(path))
    assert (header.name, footer.name) == ("SnapshotHeaderRecord", "SnapshotFooterRecord")
    levels: list[Any] = [record.message for record in records]
    assert {level.name: level.feature_level for level in levels} == FEATURES
    assert [record.offset for record in records] == list(range(1, 7))


def test_a_dump_prints_the_snapshot_and_what_follows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    (folder / SnapshotId(0, 0).file_name).write_bytes(BOOTSTRAP)
    segment(folder, encode_value(TopicRecordData.make(name="orders", topic_id=UUID(int=1)), 0))
    dump_metadata(str(tmp_path), as_json=True)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == {"type": "Snapshot", "next_offset": 0, "controller_epoch": 0}
    assert [row["record"]["name"] for row in rows if row["type"] == "FeatureLevelRecord"] == list(FEATURES)
    assert rows[-1] == {
        "offset": 0,
        "controller_epoch": 3,
        "type": "TopicRecord",
        "version": 0,
        "record": {"name": "orders", "topic_id": "AAAAAAAAAAAAAAAAAAAAAQ"},
    }


def test_the_newest_snapshot_is_the_one_that_ends_last(tmp_path: Path) -> None:
    for name in (SnapshotId(9, 4).file_name, SnapshotId(80, 2).file_name, f"{SnapshotId(90, 9).file_name}.part"):
        (tmp_path / name).touch()
    assert newest_snapshot(DiskFiles(), str(tmp_path)) == SnapshotId(80, 2)
    assert snapshot_id_of(SnapshotId(80, 2).file_name) == SnapshotId(80, 2)


def test_keys_and_names_are_those_of_the_schemas() -> None:
    assert {schema.api_key: schema.name for schema in SCHEMAS.values()} == dict(RECORDS)
    named = {schema.name for schema in read_schemas()}
    assert named >= set(CONTROL_RECORDS.values())


def class_of(name: str) -> type[TopLevel]:
    kind: type[TopLevel] = getattr(import_module(f"kraft.protocol.messages.{snake_case(name)}"), f"{name}Data")
    return kind


def value_of(field: Field, schema: Schema, version: int, rng: random.Random) -> Any:
    if version in field.nullable and rng.random() < 0.3:
        return None
    if field.is_array:
        return tuple(one(field, schema, version, rng) for _ in range(rng.choice((0, 1, 3))))
    return one(field, schema, version, rng)


def one(field: Field, schema: Schema, version: int, rng: random.Random) -> Any:
    match field.kind:
        case "string":
            return "é" * rng.choice((0, 1, 90))
        case "bytes":
            return rng.randbytes(rng.choice((0, 1, 200)))
        case "uuid":
            return UUID(int=rng.getrandbits(128))
        case "bool":
            return rng.random() < 0.5
        case "float64":
            return rng.random()
        case "int8" | "int16" | "int32" | "int64" | "uint16":
            return rng.getrandbits(int(field.kind.strip("uint")) - 1)
    return made(schema.structures[field.kind], schema, version, rng)


def made(structure: Structure, schema: Schema, version: int, rng: random.Random) -> Any:
    module = import_module(f"kraft.protocol.messages.{snake_case(schema.name)}")
    kind = getattr(module, f"{schema.name}Data" if structure is schema.top else structure.name)
    fields = {
        field.slot: value_of(field, schema, version, rng) for field in structure.fields if version in field.versions
    }
    return kind.make(**fields)


@pytest.mark.parametrize("name", SCHEMAS)
def test_what_is_written_is_read(name: str, tmp_path: Path) -> None:
    schema, rng = SCHEMAS[name], random.Random(name)
    for version in schema.versions:
        messages = [made(schema.top, schema, version, rng) for _ in range(5)]
        path = segment(tmp_path, *(encode_value(message, version) for message in messages))
        entries = list(read_file(DiskFiles(), str(path)))
        assert [(entry.message, entry.version) for entry in entries] == [(message, version) for message in messages]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (b"", "in the batch at offset 0"),
        (b"\x02\x02\x00", "frame version 2 is not 1"),
        (b"\x01\x7f\x00", "records with key 127 are not known"),
        (b"\x01\x02\x09", "TopicRecord has version 9, known are 0 to 0"),
        (encode_value(TopicRecordData.make(name="t"), 0)[:-3], "TopicRecordData version 0"),
        (encode_value(TopicRecordData.make(name="t"), 0) + b"x", "1 bytes after its end"),
    ],
)
def test_bytes_that_are_no_record_are_refused_in_words(value: bytes, problem: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadableMetadata, match=problem):
        list(read_file(DiskFiles(), str(segment(tmp_path, value))))
    with pytest.raises(CommandFailed, match=problem):
        dump_metadata(str(segment(tmp_path, value)), as_json=True)


def test_a_batch_whose_bytes_changed_is_refused(tmp_path: Path) -> None:
    path = segment(tmp_path, encode_value(PartitionChangeRecordData.make(isr=[1, 2]), 0))
    damaged = bytearray(path.read_bytes())
    damaged[-3] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(UnreadableMetadata, match="does not have the CRC of its header"):
        list(read_file(DiskFiles(), str(path)))
