"""The metadata log of Apache Kafka: its records and control records, in segments and in snapshots. No I/O but reading.

A record of a data batch has no key; its value is a frame: varints 1 (of the frame), the record's key and its version,
then the message. The key of a control record is int16 version 0 and int16 type, its value the message, which begins
with its version. A snapshot is a file of batches, named by the offset at which it ends and the epoch of its last
record; in its control batches are a header, the voters if they are in the log (KIP-853), and a footer.
Source: AbstractApiMessageSerde, ControlRecordType, RecordsSnapshotWriter, Snapshots (KIP-595, KIP-630, KIP-853).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Final, NamedTuple

from kraft.protocol import codec
from kraft.protocol.batches.header import BatchHeader
from kraft.protocol.batches.markers import as_control
from kraft.protocol.batches.records import NewRecord, build_batch, read_batches
from kraft.protocol.encoding import REFUSALS, TopLevel
from kraft.protocol.errors import KafkaError
from kraft.protocol.messages.snapshot_footer_record import SnapshotFooterRecordData
from kraft.protocol.messages.snapshot_header_record import SnapshotHeaderRecordData
from kraft.protocol.varints import varint, varint_at
from metadata.environment import Files
from replication.storage.header_scan import DamagedLog, headers_from, whole_batch
from replication.storage.names import LOG_SUFFIX, base_offset_of

FOLDER: Final = "__cluster_metadata-0"
QUORUM_STATE_FILE: Final = "quorum-state"
CHECKPOINT_SUFFIX: Final = ".checkpoint"
FRAME_VERSION: Final = 1
LEADER_CHANGE, SNAPSHOT_HEADER, SNAPSHOT_FOOTER, KRAFT_VERSION, VOTERS = 2, 3, 4, 5, 6
"""Types of control records."""
RECORDS: Final[Mapping[int, str]] = {
    0: "RegisterBrokerRecord",
    1: "UnregisterBrokerRecord",
    2: "TopicRecord",
    3: "PartitionRecord",
    4: "ConfigRecord",
    5: "PartitionChangeRecord",
    7: "FenceBrokerRecord",
    8: "UnfenceBrokerRecord",
    9: "RemoveTopicRecord",
    10: "DelegationTokenRecord",
    11: "UserScramCredentialRecord",
    12: "FeatureLevelRecord",
    14: "ClientQuotaRecord",
    15: "ProducerIdsRecord",
    17: "BrokerRegistrationChangeRecord",
    18: "AccessControlEntryRecord",
    19: "RemoveAccessControlEntryRecord",
    20: "NoOpRecord",
    21: "ZkMigrationStateRecord",
    22: "RemoveUserScramCredentialRecord",
    23: "BeginTransactionRecord",
    24: "EndTransactionRecord",
    25: "AbortTransactionRecord",
    26: "RemoveDelegationTokenRecord",
    27: "RegisterControllerRecord",
    28: "ClearElrRecord",
    29: "UnregisterControllerRecord",
}
"""Keys of records and the messages that they are."""
CONTROL_RECORDS: Final[Mapping[int, str]] = {
    LEADER_CHANGE: "LeaderChangeMessage",
    SNAPSHOT_HEADER: "SnapshotHeaderRecord",
    SNAPSHOT_FOOTER: "SnapshotFooterRecord",
    KRAFT_VERSION: "KRaftVersionRecord",
    VOTERS: "VotersRecord",
}

SNAPSHOT_BATCH_BYTES: Final = 1 << 20
SNAPSHOT_BATCH_RECORDS: Final = 1024
"""Limits of one batch of a snapshot: Kafka reads up to 8 MiB."""

_CONTROL_KEY = struct.Struct(">hh")
_INT16 = struct.Struct(">h")
_NAME = re.compile(r"(\d{20})-(\d{10})\.checkpoint")


class UnreadableMetadata(Exception):
    """Bytes that are no metadata log of a Kafka that we know; the message has the file, the offset and the reason."""


class Entry(NamedTuple):
    """One record, or one control record, of the log."""

    offset: int
    """In a snapshot: its place, counted from 0."""
    epoch: int
    """The epoch of the leader that appended it."""
    timestamp: int
    version: int
    message: TopLevel

    @property
    def name(self) -> str:
        """The name of the record in Kafka's sources."""
        return type(self.message).__name__.removesuffix("Data")


class SnapshotId(NamedTuple):
    end_offset: int
    """The first offset that is not in the snapshot."""
    epoch: int

    @property
    def file_name(self) -> str:
        return f"{self.end_offset:020d}-{self.epoch:010d}{CHECKPOINT_SUFFIX}"


def snapshot_id_of(file_name: str) -> SnapshotId | None:
    """None for the name of another file, such as that of a snapshot that is not complete."""
    found = _NAME.fullmatch(file_name)
    return found and SnapshotId(int(found[1]), int(found[2]))


# --- files ----------------------------------------------------------------------------------------------------------


def newest_snapshot(files: Files, folder: str) -> SnapshotId | None:
    """The snapshot of a metadata folder from which Kafka starts."""
    return max(filter(None, map(snapshot_id_of, files.list_directory(folder))), default=None)


def read_folder(files: Files, folder: str, *, after: SnapshotId | None = None) -> Iterator[Entry]:
    """The entries of the log, in the order of their offsets, from the end of a snapshot on. Raises UnreadableMetadata,
    OSError.
    """
    start = 0 if after is None else after.end_offset
    names = sorted(name for name in files.list_directory(folder) if name.endswith(LOG_SUFFIX))
    for name in names:
        if base_offset_of(name) is not None:
            yield from read_file(files, f"{folder}/{name}", from_offset=start)


def read_file(files: Files, path: str, *, from_offset: int = 0) -> Iterator[Entry]:
    """The entries of one segment or snapshot. Raises UnreadableMetadata, OSError."""
    file = files.open(path, read_only=True)
    try:
        for position, header in headers_from(file, 0):
            if header.next_offset > from_offset:
                yield from _entries(whole_batch(file, position, header), header, from_offset, path)
    except DamagedLog as error:
        raise UnreadableMetadata(str(error)) from error
    finally:
        file.close()


def _entries(batch: bytes, header: BatchHeader, from_offset: int, path: str) -> Iterator[Entry]:
    try:
        for record in read_batches(batch, from_offset=from_offset, with_control=True):
            decode = _control if header.is_control else _framed
            version, message = decode(record.key or b"", record.value or b"")
            yield Entry(record.offset, header.leader_epoch, record.timestamp, version, message)
    except (KafkaError, codec.Malformed, *REFUSALS) as error:
        raise UnreadableMetadata(f"{path}: in the batch at offset {header.base_offset}: {error}") from error


def snapshot_batches(records: Iterable[tuple[TopLevel, int]], *, epoch: int, timestamp_ms: int) -> Iterator[bytes]:
    """The batches of a snapshot of these messages, each with its version; `epoch` is that of its id."""
    offset = 0

    def batch(values: Sequence[tuple[bytes | None, bytes]]) -> bytes:
        nonlocal offset
        records = [NewRecord(key, value, [], timestamp_ms) for key, value in values]
        built = build_batch(records, base_offset=offset, leader_epoch=epoch)
        offset += len(values)
        return built

    header = SnapshotHeaderRecordData.make(last_contained_log_timestamp=timestamp_ms)
    yield as_control(batch([encode_control(header, SNAPSHOT_HEADER)]))
    values: list[tuple[bytes | None, bytes]] = []
    size = 0
    for message, version in records:
        value = encode_value(message, version)
        if values and (size + len(value) > SNAPSHOT_BATCH_BYTES or len(values) == SNAPSHOT_BATCH_RECORDS):
            yield batch(values)
            values, size = [], 0
        values.append((None, value))
        size += len(value)
    if values:
        yield batch(values)
    yield as_control(batch([encode_control(SnapshotFooterRecordData.make(), SNAPSHOT_FOOTER)]))


# --- records --------------------------------------------------------------------------------------------------------


def encode_value(message: TopLevel, version: int) -> bytes:
    """The value of a record of a data batch."""
    assert message.API_KEY in RECORDS, message
    head = varint(FRAME_VERSION) + varint(message.API_KEY) + varint(version)
    return head + b"".join(codec.encode_body(message, version))


def _framed(_: bytes, value: bytes) -> tuple[int, TopLevel]:
    frame = memoryview(value)
    frame_version, offset = varint_at(frame, 0)
    if frame_version != FRAME_VERSION:
        raise ValueError(f"frame version {frame_version} is not {FRAME_VERSION}")
    key, offset = varint_at(frame, offset)
    version, offset = varint_at(frame, offset)
    if key not in RECORDS:
        raise ValueError(f"records with key {key} are not known; Kafka 4.4 has up to {max(RECORDS)}")
    return version, _decoded(RECORDS[key], version, frame, offset)


def encode_control(message: TopLevel, kind: int) -> tuple[bytes, bytes]:
    """Key and value of a control record; the message has its version in its first field."""
    version: int = message.version  # type: ignore[attr-defined]
    return _CONTROL_KEY.pack(0, kind), b"".join(codec.encode_body(message, version))


def _control(key: bytes, value: bytes) -> tuple[int, TopLevel]:
    _, kind = _CONTROL_KEY.unpack_from(key)
    if kind not in CONTROL_RECORDS:
        raise ValueError(f"control records of type {kind} are not known")
    (version,) = _INT16.unpack_from(value)
    return version, _decoded(CONTROL_RECORDS[kind], version, memoryview(value), 0)


def _decoded(name: str, version: int, frame: memoryview, offset: int) -> TopLevel:
    kind = _class_of(name)
    if version not in kind.VERSIONS:
        raise ValueError(f"{name} has version {version}, known are {kind.VERSIONS[0]} to {kind.VERSIONS[-1]}")
    return codec.decode_body(kind, version, frame, offset)


def _class_of(name: str) -> type[TopLevel]:
    from kraft.protocol.schema.facts import snake_case

    kind: type[TopLevel] = getattr(import_module(f"kraft.protocol.messages.{snake_case(name)}"), f"{name}Data")
    return kind
