"""One replica's folder as it lies on the disk of a node that was stopped, ours or Kafka's: both have the same files."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from kraft.protocol.batches.header import MAGIC, MAGIC_OFFSET
from metadata.environment import Files
from replication.storage.header_scan import DamagedLog, headers_from
from replication.storage.names import (
    CLEANED_SUFFIX,
    CLEANER_OFFSETS_FILE,
    EPOCHS_FILE,
    HIGH_WATERMARKS_FILE,
    INDEX_SUFFIX,
    LOG_STARTS_FILE,
    LOG_SUFFIX,
    PARTITION_METADATA_FILE,
    RECOVERY_POINTS_FILE,
    SEGMENT_SUFFIXES,
    SNAPSHOT_SUFFIX,
    SWAP_SUFFIX,
    base_offset_of,
    segment_file,
)
from replication.storage.text_files import MalformedFile, read_epochs, read_offsets, read_topic_id

_ENTRY_BYTES = 8
"""An entry of `.index`: relative offset and position."""


class UnfitData(Exception):
    """Data that cannot be exported or imported as it is; the message has what is wrong and what would be right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """The checkpoints of a log directory: (topic, partition) -> offset."""

    recovery_points: Mapping[tuple[str, int], int]
    log_starts: Mapping[tuple[str, int], int]
    high_watermarks: Mapping[tuple[str, int], int]
    cleaned: Mapping[tuple[str, int], int]
    """How far each log is compacted; none for a log that is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    broker: int
    topic: str
    partition: int
    folder: str
    directory_id: UUID
    topic_id: UUID
    log_start: int
    log_end: int
    high_watermark: int
    acknowledged: int
    """The high watermark of the checkpoint, be the log that long or not."""
    cleaned_to: int | None
    """Everything before was compacted; None of a log that never was."""
    last_epoch: int
    """The last leader epoch that it has records of; -1 without one."""
    segments: Sequence[int]
    """Base offsets, ascending."""

    @property
    def name(self) -> str:
        return f"{self.topic}-{self.partition}"

    def is_closed(self, base_offset: int) -> bool:
        """Whether nobody will change this segment: another follows it, and it ends at or below the high watermark, so
        that no leader epoch can cut it."""
        following = bisect_right(self.segments, base_offset)
        return following < len(self.segments) and self.segments[following] <= self.high_watermark


def read_checkpoints(files: Files, directory: str) -> Checkpoints:
    """Raises UnfitData."""
    try:
        return Checkpoints(
            recovery_points=_offsets(files, f"{directory}/{RECOVERY_POINTS_FILE}"),
            log_starts=_offsets(files, f"{directory}/{LOG_STARTS_FILE}"),
            high_watermarks=_offsets(files, f"{directory}/{HIGH_WATERMARKS_FILE}"),
            cleaned=_offsets(files, f"{directory}/{CLEANER_OFFSETS_FILE}"),
        )
    except MalformedFile as error:
        raise UnfitData(str(error)) from error


def _offsets(files: Files, path: str) -> Mapping[tuple[str, int], int]:
    """Kafka makes a checkpoint empty, and writes it when it has something to write."""
    return read_offsets(files, path) if files.exists(path) and files.size(path) else {}


def read_replica(
    files: Files,
    directory: str,
    topic: str,
    partition: int,
    *,
    broker: int,
    directory_id: UUID,
    checkpoints: Checkpoints,
) -> Replica:
    """Raises UnfitData for a folder that a Kafka would cut, rename or refuse."""
    folder, key = f"{directory}/{topic}-{partition}", (topic, partition)
    names = files.list_directory(folder)
    unfinished = [name for name in names if name.endswith((CLEANED_SUFFIX, SWAP_SUFFIX))]
    if unfinished:
        raise UnfitData(f"{folder} has {unfinished[0]}, of a compaction that did not end: start the node, and stop it")
    try:
        topic_id = read_topic_id(files, f"{folder}/{PARTITION_METADATA_FILE}")
        has_epochs = EPOCHS_FILE in names and files.size(f"{folder}/{EPOCHS_FILE}") > 0
        epochs = read_epochs(files, f"{folder}/{EPOCHS_FILE}") if has_epochs else []
    except MalformedFile as error:
        raise UnfitData(str(error)) from error
    if topic_id is None:
        raise UnfitData(f"{folder} has no {PARTITION_METADATA_FILE}: a Kafka would take it for a stray partition")
    segments = sorted(
        base for name in names if name.endswith(LOG_SUFFIX) and (base := base_offset_of(name)) is not None
    )
    _refuse_old_formats(files, folder, segments)
    log_start = max(checkpoints.log_starts.get(key, 0), segments[0] if segments else 0)
    log_end = log_end_of(files, folder, segments[-1]) if segments else 0
    if log_start > log_end:
        raise UnfitData(
            f"{folder}: {LOG_STARTS_FILE} has {log_start}, and the log ends at {log_end}: Kafka would delete all of it"
        )
    acknowledged = max(checkpoints.high_watermarks.get(key, log_start), log_start)
    return Replica(
        broker=broker,
        topic=topic,
        partition=partition,
        folder=folder,
        directory_id=directory_id,
        topic_id=topic_id,
        log_start=log_start,
        log_end=log_end,
        high_watermark=min(acknowledged, log_end),
        acknowledged=acknowledged,
        cleaned_to=min(checkpoints.cleaned[key], log_end) if key in checkpoints.cleaned else None,
        last_epoch=epochs[-1][0] if epochs else -1,
        segments=segments,
    )


def _refuse_old_formats(files: Files, folder: str, segments: Sequence[int]) -> None:
    """Raises UnfitData for message sets of Kafka before 0.11, which Kafka 3.9 still reads."""
    for base_offset in {*segments[:1], *segments[-1:]}:
        path = segment_file(folder, base_offset, LOG_SUFFIX)
        file = files.open(path, read_only=True)
        try:
            magic = file.pread(MAGIC_OFFSET, 1)
        finally:
            file.close()
        if magic and magic[0] != MAGIC:
            raise UnfitData(
                f"{path} has records in format {magic[0]}, and format {MAGIC} (Kafka 0.11 and newer) is the only one "
                "that is read: copy the topic in Kafka, and delete the old one"
            )


def log_end_of(files: Files, folder: str, base_offset: int) -> int:
    """The end of the last segment, read from where its index ends. Raises UnfitData."""
    file = files.open(segment_file(folder, base_offset, LOG_SUFFIX), read_only=True)
    try:
        position = _last_indexed(files, segment_file(folder, base_offset, INDEX_SUFFIX), file.size)
        end = base_offset
        for _, header in headers_from(file, position):
            end = header.next_offset
        return end
    except DamagedLog as error:
        raise UnfitData(f"{error}: start the node, so that it repairs the log, and stop it in order") from error
    finally:
        file.close()


def _last_indexed(files: Files, path: str, log_bytes: int) -> int:
    """The position of the last entry of an index that lies in the log; Kafka may leave room behind the entries."""
    if not files.exists(path):
        return 0
    file = files.open(path, read_only=True)
    try:
        low, high = 0, file.size // _ENTRY_BYTES
        position = 0
        while low < high:
            middle = (low + high) // 2
            found = int.from_bytes(file.pread(middle * _ENTRY_BYTES + 4, 4), "big")
            if (found == 0 and middle) or found >= log_bytes:
                high = middle
            else:
                position, low = found, middle + 1
        return position
    finally:
        file.close()


def files_of(files: Files, replica: Replica) -> Iterator[tuple[str, bool]]:
    """The files of a replica that go along, and whether each may be shared between two owners: only logs of closed
    segments are never written again."""
    for name in files.list_directory(replica.folder):
        base_offset = base_offset_of(name)
        if base_offset is not None and name.endswith(SEGMENT_SUFFIXES):
            yield name, name.endswith(LOG_SUFFIX) and replica.is_closed(base_offset)
        elif name == EPOCHS_FILE and not files.size(f"{replica.folder}/{name}"):
            continue  # Kafka leaves an empty one in a log without records
        elif name in (EPOCHS_FILE, PARTITION_METADATA_FILE) or name.endswith(SNAPSHOT_SUFFIX):
            yield name, False
