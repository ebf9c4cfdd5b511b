"""Kafka's small text files: checkpoints, `meta.properties`, `partition.metadata`; replaced whole, never edited.

A checkpoint is `0` (version), the number of entries, then one entry a line: `<topic> <partition> <offset>` or
`<epoch> <start offset>`. Writing goes to `<name>.tmp`, is synced, then renamed over the old one.
Source: org.apache.kafka.server.common.CheckpointFile, PartitionMetadataFile, PropertiesUtils.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from uuid import UUID

from kraft.protocol.primitives import INT32_MAX, INT64_MAX
from metadata.environment import Files
from replication.storage.names import uuid_of, uuid_text

_VERSION = 0
_TOPIC_ID_HEAD = "version: 0\ntopic_id: "


class MalformedFile(ValueError):
    """A text file does not have its format; the message names the file, the line and what was expected."""


def read_text(files: Files, path: str) -> str | None:
    """The file's text; None when there is no such file."""
    try:
        file = files.open(path, read_only=True)
    except FileNotFoundError:
        return None
    try:
        return file.pread(0, file.size).decode("utf-8", errors="replace")
    finally:
        file.close()


def replace_text(files: Files, path: str, text: str, *, sync: bool = True) -> None:
    """Write a whole file atomically. With `sync` it is durable when this returns (which then waits for the disk)."""
    temporary = path + ".tmp"
    file = files.open(temporary, create=True)
    try:
        file.truncate(0)
        file.append([text.encode()])
        if sync:
            file.sync()
    finally:
        file.close()
    files.rename(temporary, path)
    if sync:
        files.sync_directory(path.rpartition("/")[0] or ".")


def format_checkpoint(entries: Sequence[str]) -> str:
    return "\n".join([str(_VERSION), str(len(entries)), *entries]) + "\n"


def parse_checkpoint(text: str, *, path: str, columns: int) -> list[list[str]]:
    lines = text.splitlines()
    if len(lines) < 2 or lines[0] != str(_VERSION) or not lines[1].isdecimal():
        raise MalformedFile(f"{path}: expected version {_VERSION} and a count in the first two lines")
    entries = [line.split(" ") for line in lines[2:] if line]
    if len(entries) != int(lines[1]):
        raise MalformedFile(f"{path}: line 2 announces {lines[1]} entries, {len(entries)} follow")
    for number, entry in enumerate(entries, start=3):
        if len(entry) != columns:
            raise MalformedFile(f"{path}: line {number} has {len(entry)} fields instead of {columns}")
    return entries


def read_offsets(files: Files, path: str) -> dict[tuple[str, int], int]:
    """(topic, partition) -> offset; empty when there is no file. Raises MalformedFile."""
    text = read_text(files, path)
    if text is None:
        return {}
    try:
        return {
            (topic, _number(partition, "partition", INT32_MAX)): _number(offset, "offset", INT64_MAX)
            for topic, partition, offset in parse_checkpoint(text, path=path, columns=3)
        }
    except MalformedFile:
        raise
    except ValueError as error:
        raise MalformedFile(f"{path}: {error}") from None


def _number(text: str, what: str, high: int) -> int:
    """Parse a number. Raises ValueError beyond the bounds of Kafka's protocol: a file may contain any text."""
    value = int(text)
    if not 0 <= value <= high:
        raise ValueError(f"{what} {text} is not between 0 and {high}")
    return value


def write_offsets(files: Files, path: str, offsets: Mapping[tuple[str, int], int]) -> None:
    lines = [f"{topic} {partition} {offset}" for (topic, partition), offset in sorted(offsets.items())]
    replace_text(files, path, format_checkpoint(lines))


def read_epochs(files: Files, path: str) -> list[tuple[int, int]]:
    """(epoch, start offset) entries; empty when there is no file. Raises MalformedFile."""
    text = read_text(files, path)
    if text is None:
        return []
    try:
        entries = [
            (_number(epoch, "leader epoch", INT32_MAX), _number(start, "offset", INT64_MAX))
            for epoch, start in parse_checkpoint(text, path=path, columns=2)
        ]
    except MalformedFile:
        raise
    except ValueError as error:
        raise MalformedFile(f"{path}: {error}") from None
    for before, after in pairwise(entries):
        if before[0] >= after[0] or before[1] > after[1]:
            raise MalformedFile(f"{path}: epoch {after[0]} from {after[1]} cannot follow {before[0]} from {before[1]}")
    return entries


def write_epochs(files: Files, path: str, entries: Iterable[tuple[int, int]], *, sync: bool) -> None:
    replace_text(files, path, format_checkpoint([f"{epoch} {start}" for epoch, start in entries]), sync=sync)


def read_properties(files: Files, path: str) -> dict[str, str] | None:
    """A Java properties file of simple lines; None when there is no file."""
    text = read_text(files, path)
    if text is None:
        return None
    properties: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith(("#", "!")):
            properties[key.strip()] = value.strip().replace("\\", "")
    return properties


def write_properties(files: Files, path: str, properties: Mapping[str, str]) -> None:
    replace_text(files, path, "#\n" + "".join(f"{key}={properties[key]}\n" for key in sorted(properties)))


def read_topic_id(files: Files, path: str) -> UUID | None:
    """The topic id in a `partition.metadata`; None when there is no file. Raises MalformedFile."""
    text = read_text(files, path)
    if text is None:
        return None
    fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    try:
        if fields.get("version") != "0":
            raise ValueError("expected `version: 0`")
        return uuid_of(fields["topic_id"])
    except (KeyError, ValueError) as error:
        raise MalformedFile(f"{path}: {error}") from None


def is_torn_topic_id(files: Files, path: str) -> bool:
    """Whether this is a `partition.metadata` whose bytes never reached the disk, and not one that was damaged
    afterwards.

    A file that was renamed into place and lost power before its bytes were synced is missing, empty, a beginning of the
    written text, or has zeros instead.
    """
    text = read_text(files, path)
    if text is None:
        return True
    written = text.rstrip("\0")
    whole = len(_TOPIC_ID_HEAD) + len(uuid_text(UUID(int=0)))
    return not written.strip("\0") or (len(written) < whole and written.startswith(_TOPIC_ID_HEAD[: len(written)]))


def write_topic_id(files: Files, path: str, topic_id: UUID, *, sync: bool = True) -> None:
    replace_text(files, path, f"{_TOPIC_ID_HEAD}{uuid_text(topic_id)}", sync=sync)
