"""Read logs of replicas and voters from the files of running or stopped nodes. Changes nothing, takes no lock."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from kraft.chaos.evidence import LogRecord, Records, ReplicaLog, VoterMetadata
from kraft.chaos.workload.requests import value_of
from kraft.chaos.worlds.processes.pace import every_topic
from kraft.chaos.worlds.snapshot import Snapshot
from kraft.layout import METADATA_FOLDER
from kraft.protocol.batches.header import BatchHeader, computed_crc
from kraft.protocol.batches.records import ReadRecord, read_batches
from kraft.protocol.errors import KafkaError
from kraft.runtime.files import DiskFiles
from metadata.environment import File
from metadata.quorum.durable import QuorumStorageError
from metadata.quorum.files import read_metadata_files
from metadata.quorum.votes import saved_term
from replication.storage.header_scan import DamagedLog, headers_from
from replication.storage.names import (
    EPOCHS_FILE,
    HIGH_WATERMARKS_FILE,
    LOG_STARTS_FILE,
    LOG_SUFFIX,
    PARTITION_METADATA_FILE,
    topic_partition_of,
)
from replication.storage.text_files import MalformedFile, read_epochs, read_offsets, read_topic_id

FILES = DiskFiles()
"""The same name as in `kraft.node.quorum`, whose import would load a whole node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFiles:
    """The folders of a run."""

    directory: Path
    brokers: Sequence[int]
    voters: Sequence[int]
    data: Mapping[int, Path]
    """Node -> its data folder."""
    logs: Mapping[int, Path]
    """Node -> its log directory."""


Offsets: TypeAlias = Mapping[tuple[str, int], int]
ValueOf: TypeAlias = Callable[[str, ReadRecord], str | None]
"""(topic, record) -> the value that the checker uses; None: the checker ignores the record."""


def by_its_value(_: str, record: ReadRecord) -> str:
    """The value of a record of the workload, without padding."""
    return value_of((record.value or b"").decode("utf-8", "replace"))


def replica_logs(
    files: RunFiles,
    latest: Snapshot | None,
    is_judged: Callable[[str], bool] = every_topic,
    *,
    to_value: ValueOf = by_its_value,
) -> list[ReplicaLog]:
    """The logs of all replicas of these topics, on running and stopped nodes; without deleted topics.

    `latest`: the last snapshot of the cluster, with its topics."""
    topics = _topic_ids(latest)
    found = []
    for node in files.brokers:
        directory = files.logs[node]
        # Read once for all replicas of the directory: each file has a line for every one of them.
        starts, high_watermarks = (_checkpointed(directory / name) for name in (LOG_STARTS_FILE, HIGH_WATERMARKS_FILE))
        for folder in sorted(directory.iterdir()) if directory.is_dir() else ():
            key = topic_partition_of(folder.name)
            if key is not None and is_judged(key[0]) and _is_current(folder, topics.get(key[0])):
                found.append(
                    _replica_log(node, key, folder, starts=starts, high_watermarks=high_watermarks, to_value=to_value)
                )
    return found


def _topic_ids(latest: Snapshot | None) -> dict[str, str]:
    newest = None if latest is None else latest.newest
    return {topic: facts.topic_id for (topic, _), facts in newest.partitions.items()} if newest else {}


def _is_current(folder: Path, topic_id: str | None) -> bool:
    """False for the folder of a deleted topic, which a node has that was down during the deletion."""
    try:
        stored = read_topic_id(FILES, str(folder / PARTITION_METADATA_FILE))
    except MalformedFile:
        return topic_id is not None
    return topic_id is not None and (stored is None or str(stored) == topic_id)


def _replica_log(
    node: int, key: tuple[str, int], folder: Path, *, starts: Offsets, high_watermarks: Offsets, to_value: ValueOf
) -> ReplicaLog:
    segments = sorted(path for path in folder.iterdir() if path.name.endswith(LOG_SUFFIX))
    first, end, problem = _extent(segments)
    start = max(starts.get(key, 0), first)
    return ReplicaLog(
        node=node,
        topic=key[0],
        partition=key[1],
        records=records_of(segments, from_offset=start, topic=key[0], to_value=to_value),
        log_start_offset=start,
        log_end_offset=end,
        high_watermark=high_watermarks.get(key, 0),
        epochs=_epochs(folder),
        error=problem or None,
    )


def _checkpointed(path: Path) -> Offsets:
    try:
        return read_offsets(FILES, str(path))
    except MalformedFile:
        return {}


def _epochs(folder: Path) -> tuple[tuple[int, int], ...]:
    try:
        return tuple(read_epochs(FILES, str(folder / EPOCHS_FILE)))
    except MalformedFile:
        return ()


def _extent(segments: Sequence[Path]) -> tuple[int, int, str]:
    """First offset, offset after the last, and the reason if the log could not be read to its end."""
    if not segments:
        return 0, 0, "there are no segments"
    first = end = int(segments[0].name.removesuffix(LOG_SUFFIX))
    for path in segments:
        end = max(end, int(path.name.removesuffix(LOG_SUFFIX)))
        file = FILES.open(str(path), read_only=True)
        try:
            for _, header in _intact(file):
                end = header.next_offset
        except DamagedLog as damage:
            return first, end, str(damage)
        finally:
            file.close()
    return first, end, ""


def _intact(file: File) -> Iterator[tuple[bytes, BatchHeader]]:
    """Raises DamagedLog at a batch with a wrong CRC."""
    for position, header in headers_from(file, 0):
        data = file.pread(position, header.size)
        if computed_crc(data, 0, header.size) != header.crc:
            raise DamagedLog(f"{file.path}: the batch at position {position} has a wrong checksum")
        yield data, header


def records_of(
    paths: Sequence[Path], *, from_offset: int = 0, topic: str = "", to_value: ValueOf = by_its_value
) -> Records:
    """The records of files with batches, in order, up to the first damaged batch."""

    def records() -> Iterator[LogRecord]:
        following = from_offset
        for path in paths:
            file = FILES.open(str(path), read_only=True)
            try:
                for data, header in _intact(file):
                    # A read that began in the middle of a batch has its first records twice in the file.
                    for record in read_batches(data, from_offset=following):
                        value = to_value(topic, record)
                        if value is not None:
                            yield LogRecord(record.offset, header.leader_epoch, value)
                    following = max(following, header.next_offset)
            except (DamagedLog, KafkaError):
                return
            finally:
                file.close()

    return records


def voter_metadata(files: RunFiles) -> tuple[list[VoterMetadata], dict[str, str]]:
    """The committed metadata on the disk of each voter, and the reason for each voter that cannot be read."""
    found, notes = [], {}
    for node in files.voters:
        folder = str(files.data[node] / METADATA_FOLDER)
        try:
            metadata, term = read_metadata_files(FILES, folder), saved_term(FILES, folder)
            log_image = read_metadata_files(FILES, folder, with_uncommitted=True).image
        except (QuorumStorageError, OSError) as error:
            notes[f"metadata of node {node}"] = str(error)
            continue
        found.append(
            VoterMetadata(
                node=node,
                image=metadata.image,
                first_offset=metadata.snapshot.next_offset if metadata.snapshot else 0,
                records=tuple((each.offset, each.record) for each in metadata.records),
                term=term,
                log_image=log_image,
            )
        )
    return found, notes
