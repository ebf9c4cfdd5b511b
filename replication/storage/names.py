"""Names of Kafka's files and folders. Pure text.

`<topic>-<partition>/` holds `<20-digit base offset>.log|.index|.timeindex|.txnindex|.snapshot`; files waiting for
removal end in `.deleted`, folders in `-delete`, those of a compaction in `.cleaned` and then `.swap`.
Source: org.apache.kafka.storage.internals.log.LogFileUtils, UnifiedLog.
"""

from __future__ import annotations

import base64
from uuid import UUID

LOG_SUFFIX = ".log"
INDEX_SUFFIX = ".index"
TIME_INDEX_SUFFIX = ".timeindex"
TRANSACTION_INDEX_SUFFIX = ".txnindex"
NEEDED_SUFFIXES = (LOG_SUFFIX, INDEX_SUFFIX, TIME_INDEX_SUFFIX)
"""Suffixes of the files that every segment has."""
SEGMENT_SUFFIXES = (*NEEDED_SUFFIXES, TRANSACTION_INDEX_SUFFIX)
SNAPSHOT_SUFFIX = ".snapshot"
DELETED_SUFFIX = ".deleted"
CLEANED_SUFFIX = ".cleaned"
SWAP_SUFFIX = ".swap"
DELETE_FOLDER_SUFFIX = "-delete"
FUTURE_FOLDER_SUFFIX = "-future"
"""Suffix of the copy of a log that moves to this directory."""

EPOCHS_FILE = "leader-epoch-checkpoint"
PARTITION_METADATA_FILE = "partition.metadata"
CHECKPOINT_CEILING_FILE = "checkpoint-ceiling"
"""A file of ours; Kafka ignores it."""
MOVED_FILE = "moved-here"
"""A file of ours: the log in this folder replaces one in another directory, or has replaced it."""
META_PROPERTIES_FILE = "meta.properties"
RECOVERY_POINTS_FILE = "recovery-point-offset-checkpoint"
HIGH_WATERMARKS_FILE = "replication-offset-checkpoint"
LOG_STARTS_FILE = "log-start-offset-checkpoint"
CLEANER_OFFSETS_FILE = "cleaner-offset-checkpoint"
CLEAN_SHUTDOWN_FILE = ".kafka_cleanshutdown"

_NAME_BYTES_MAX = 255


def segment_file(folder: str, base_offset: int, suffix: str) -> str:
    return f"{folder}/{base_offset:020d}{suffix}"


def base_offset_of(name: str) -> int | None:
    """The base offset in a segment file's name; None when it is no such file."""
    stem, dot, suffix = name.partition(".")
    if dot + suffix not in SEGMENT_SUFFIXES or len(stem) != 20 or not stem.isdecimal():
        return None
    return int(stem)


def partition_folder(topic: str, partition: int) -> str:
    return f"{topic}-{partition}"


def topic_partition_of(folder_name: str) -> tuple[str, int] | None:
    """Topic and partition of a folder's name; None for a folder that is no live partition."""
    if folder_name.endswith((DELETE_FOLDER_SUFFIX, FUTURE_FOLDER_SUFFIX)):
        return None
    topic, dash, partition = folder_name.rpartition("-")
    if not (topic and dash and partition.isdecimal() and partition.isascii()):
        return None
    return topic, int(partition)


def delete_folder(topic: str, partition: int, unique: UUID) -> str:
    """`<topic>-<partition>.<hex>-delete`, with the topic cut so that the whole name fits a file system's limit."""
    return _unique_folder(topic, partition, unique, DELETE_FOLDER_SUFFIX)


def future_folder(topic: str, partition: int, unique: UUID) -> str:
    """`<topic>-<partition>.<hex>-future`, with a topic cut as well: the file with the topic id identifies the topic."""
    return _unique_folder(topic, partition, unique, FUTURE_FOLDER_SUFFIX)


def future_partition_of(folder_name: str) -> tuple[str, int] | None:
    """Topic, maybe cut, and partition of the copy of a log; None for another folder."""
    name, dot, unique = folder_name.removesuffix(FUTURE_FOLDER_SUFFIX).rpartition(".")
    if not (folder_name.endswith(FUTURE_FOLDER_SUFFIX) and dot and len(unique) == 32):
        return None
    return topic_partition_of(name)


def _unique_folder(topic: str, partition: int, unique: UUID, ending: str) -> str:
    suffix = f"-{partition}.{unique.hex}{ending}"
    return topic[: _NAME_BYTES_MAX - len(suffix)] + suffix


def uuid_text(value: UUID) -> str:
    """The text of Kafka's Uuid.toString: URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(value.bytes).rstrip(b"=").decode()


def uuid_of(text: str) -> UUID:
    """The id of a text. Raises ValueError for text that is no Kafka Uuid."""
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if len(raw) != 16:
        raise ValueError(f"{text!r} is {len(raw)} bytes, not the 16 of a Uuid")
    return UUID(bytes=raw)
