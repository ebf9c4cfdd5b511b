"""An observer's files, so that a restart does not start from nothing: a snapshot and the records after it.

Owns the files `snapshot` (in the format of `snapshots`, with empty Raft entries) and `records`. Damaged files are moved
aside: all their content can be fetched again.
"""

from __future__ import annotations

import zlib

import msgspec

from metadata.environment import DirectoryLock, Files
from metadata.image import MetadataImage
from metadata.image_codec import CorruptSnapshot, decode_image, encode_image
from metadata.quorum.durable import DamagedFile, WrittenByNewerVersion, encode_document, read_file, replace_file
from metadata.quorum.identity import claim_directory
from metadata.quorum.record_file import RecordFile
from metadata.quorum.snapshots import FILE_NAME as SNAPSHOT_FILE_NAME
from metadata.quorum.snapshots import SNAPSHOT_MAGIC, SnapshotHeader, decode_snapshot
from metadata.records import ControllerEpochRecord, Record, decode_record

NO_ENTRY = (b"", 0, 0)


class ObserverStore:
    def __init__(self, files: Files, directory: str, *, cluster_id: str, node_id: int, snapshot_bytes: int) -> None:
        """Claim the folder. Raises QuorumStorageError when another node owns it, OSError."""
        self._lock: DirectoryLock = claim_directory(files, directory, cluster_id=cluster_id, node_id=node_id)
        self._files = files
        self._snapshot_path = f"{directory}/{SNAPSHOT_FILE_NAME}"
        self._snapshot_bytes = snapshot_bytes
        self._records = RecordFile(files, directory)
        self._end_offset = 0
        """Offset after the last record in the files; behind the image after a write has failed."""
        self.problem: str | None = None
        """Reason why the copy was dropped at the start, if it was."""

    def load(self) -> MetadataImage:
        """The image of the files; the empty one when they do not fit together."""
        try:
            image = self._load_snapshot()
            stored = self._records.load()
        except (DamagedFile, WrittenByNewerVersion, CorruptSnapshot) as error:
            # A copy can be fetched again. The file `meta` has shown that the folder is not of a newer version.
            self.problem = str(error)
            image, stored = MetadataImage(), []
            self._files.remove(self._snapshot_path)
        fitting = [record for record in stored if record.offset >= image.next_offset]
        if stored and stored[0].offset > image.next_offset:
            self.problem = f"records begin at {stored[0].offset}, the snapshot ends at {image.next_offset}"
            fitting = []
        if fitting:
            image = image.apply([decode_record(record.encoded) for record in fitting])
        else:
            self._records.restart(image.next_offset)
        self._end_offset = image.next_offset
        return image

    def append(self, image: MetadataImage, encoded: tuple[bytes, ...], records: tuple[Record, ...]) -> None:
        """Store records; `image` is the one after them. Raises OSError; the copy then ends before them."""
        if self._end_offset != image.next_offset - len(records):
            self.save_snapshot(image)  # an earlier write has failed, and records cannot be left out
            return
        self._records.append(encoded, controller_epochs=epochs_of(records, before=image.controller_epoch))
        self._end_offset = image.next_offset
        if self._records.size_bytes > self._snapshot_bytes:
            self.save_snapshot(image)

    def save_snapshot(self, image: MetadataImage) -> None:
        body = encode_image(image)
        header = SnapshotHeader(
            previous=NO_ENTRY,
            last=NO_ENTRY,
            end_offset=image.next_offset,
            controller_epoch=image.controller_epoch,
            size=len(body),
            crc=zlib.crc32(body),
        )
        document = encode_document(SNAPSHOT_MAGIC, msgspec.json.encode(header))
        # Not synced: it runs on the main loop, and damage by a power loss is noticed and fetched again.
        replace_file(self._files, self._snapshot_path, [document, body], sync=False)
        self._records.restart(image.next_offset)
        self._end_offset = image.next_offset

    def close(self) -> None:
        self._records.close()
        self._lock.release()

    def _load_snapshot(self) -> MetadataImage:
        if not self._files.exists(self._snapshot_path):
            return MetadataImage()
        _, body = decode_snapshot(read_file(self._files, self._snapshot_path), path=self._snapshot_path)
        return decode_image(body)


def epochs_of(records: tuple[Record, ...], *, before: int) -> list[int]:
    """The controller epoch under which each record was written; `before` holds until a record claims a new one."""
    epochs = []
    for record in records:
        if isinstance(record, ControllerEpochRecord):
            before = record.epoch
        epochs.append(before)
    return epochs
