"""Reader of the metadata log of a voter or an observer in its folder, live or stopped: for `kraft metadata`.

It takes no lock and changes nothing. The newest data of a running node may be missing at the end. A voter's journal may
hold entries that are not committed; they are left out by default.
"""

from __future__ import annotations

from dataclasses import dataclass

from metadata.environment import Files
from metadata.image import MetadataImage
from metadata.image_codec import decode_image
from metadata.quorum.command import decode_command
from metadata.quorum.durable import DamagedFile, QuorumStorageError, read_file, refuse_newer
from metadata.quorum.journal import COMMIT_FILE_NAME, saved_commit
from metadata.quorum.journal import FILE_NAME as JOURNAL_FILE_NAME
from metadata.quorum.journal_format import MAGIC, Entry, parse_journal
from metadata.quorum.library import OUR_COMMAND
from metadata.quorum.record_file import FILE_NAME as RECORDS_FILE_NAME
from metadata.quorum.record_file import parse_records
from metadata.quorum.snapshots import FILE_NAME as SNAPSHOT_FILE_NAME
from metadata.quorum.snapshots import SnapshotHeader, decode_snapshot
from metadata.quorum.state_machine import refusal
from metadata.records import Record, decode_record


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataRecord:
    offset: int
    controller_epoch: int
    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataFiles:
    snapshot: MetadataImage | None
    """The image of the snapshot file; the records follow it."""
    records: tuple[MetadataRecord, ...]
    image: MetadataImage
    """The image after all of them."""


def read_metadata_files(files: Files, directory: str, *, with_uncommitted: bool = False) -> MetadataFiles:
    """Read a folder. Raises QuorumStorageError for damaged files, or a folder without a metadata log."""
    header, image = _read_snapshot(files, f"{directory}/{SNAPSHOT_FILE_NAME}")
    start = image or MetadataImage()
    if files.exists(f"{directory}/{JOURNAL_FILE_NAME}"):
        entries = _committed(files, directory, header, with_uncommitted)
        records, end = _replay(entries, start)
    elif files.exists(f"{directory}/{RECORDS_FILE_NAME}"):
        records, end = _observed(read_file(files, f"{directory}/{RECORDS_FILE_NAME}"), start)
    else:
        raise QuorumStorageError(f"{directory} has no metadata log: expected a file {JOURNAL_FILE_NAME!r} or 'records'")
    return MetadataFiles(snapshot=image, records=tuple(records), image=end)


def _read_snapshot(files: Files, path: str) -> tuple[SnapshotHeader | None, MetadataImage | None]:
    if not files.exists(path):
        return None, None
    header, body = decode_snapshot(read_file(files, path), path=path)
    return header, decode_image(body)


def _committed(files: Files, directory: str, header: SnapshotHeader | None, with_uncommitted: bool) -> list[Entry]:
    path = f"{directory}/{JOURNAL_FILE_NAME}"
    data = read_file(files, path)
    refuse_newer(data[: len(MAGIC)], magic=MAGIC, path=path)
    parsed = parse_journal(data)
    if parsed.damage is not None:
        raise DamagedFile(path=path, offset=parsed.end, problem=parsed.damage, advice="Everything before it is intact.")
    first = 0 if header is None else header.last[1] + 1
    commit = 2**63 if with_uncommitted else _commit_index(files, f"{directory}/{COMMIT_FILE_NAME}")
    return [entry for entry in parsed.entries if first <= entry[1] <= commit]


def _commit_index(files: Files, path: str) -> int:
    """The saved commit index, which is saved about once a second; a live node may have committed more."""
    if not files.exists(path):
        return 0
    return saved_commit(read_file(files, path), path=path)


def _replay(entries: list[Entry], image: MetadataImage) -> tuple[list[MetadataRecord], MetadataImage]:
    records: list[MetadataRecord] = []
    for data, _, _ in entries:
        if data[:1] != OUR_COMMAND:
            continue
        command = decode_command(data[1:])
        if refusal(image, command) is not None:
            continue
        before, image = image, image.apply(command.records)
        records += [
            MetadataRecord(offset=before.next_offset + i, controller_epoch=image.controller_epoch, record=record)
            for i, record in enumerate(command.records)
        ]
    return records, image


def _observed(data: bytes, image: MetadataImage) -> tuple[list[MetadataRecord], MetadataImage]:
    records = [
        MetadataRecord(
            offset=stored.offset, controller_epoch=stored.controller_epoch, record=decode_record(stored.encoded)
        )
        for stored in parse_records(data)
        if stored.offset >= image.next_offset
    ]
    return records, image.apply([each.record for each in records])
