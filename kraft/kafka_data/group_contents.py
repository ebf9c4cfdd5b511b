"""What the records of `__consumer_offsets` need of a Kafka that reads them: found by reading its logs batch by batch.
Replicas of one length are read once; others, such as those that were compacted at another time, each."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from kraft.coordinators.groups.consumer_records import CONSUMER_KEYS
from kraft.coordinators.groups.records import INSTANCE_KEY, OFFSET_FLEXIBLE_FROM, OFFSET_KEY
from kraft.coordinators.groups.share_records import SHARE_KEYS
from kraft.kafka_data.replica import Replica, UnfitData
from kraft.protocol.batches.records import read_batches
from kraft.protocol.errors import KafkaError
from metadata.environment import Files
from metadata.internal_topics import OFFSETS_TOPIC
from replication.storage.header_scan import DamagedLog, headers_from, whole_batch
from replication.storage.names import LOG_SUFFIX, segment_file

STREAMS_KEYS: Final = range(17, 24)
"""Keys of streams groups (KIP-1071), which this cluster has not."""
_VERSION = struct.Struct(">h")


@dataclass(slots=True)
class GroupContents:
    """Names of groups that have records of each kind; a record that was deleted since does not count."""

    consumer: set[str] = field(default_factory=set)
    share: set[str] = field(default_factory=set)
    streams: set[str] = field(default_factory=set)
    rest_consumers: set[str] = field(default_factory=set)
    """Groups with REST consumers, as `group/instance`."""
    offsets_with_topic_ids: set[str] = field(default_factory=set)
    """Groups with such an offset anywhere in the log: a Kafka that loads it reads the superseded ones too."""
    has_share_records: bool = False
    """Whether the log has any, be it of groups that are gone."""


def read_group_contents(files: Files, replicas: Iterable[Replica]) -> GroupContents:
    """`replicas`: those of all topics. Raises UnfitData, OSError."""
    found = GroupContents()
    latest: dict[bytes, tuple[set[str], str]] = {}
    for replica in _unlike(files, [each for each in replicas if each.topic == OFFSETS_TOPIC]):
        for key, value in _records(files, replica):
            found.has_share_records |= _VERSION.unpack_from(key)[0] in SHARE_KEYS
            if value is None:
                latest.pop(key, None)
                continue
            try:
                kind = _kind(found, key, value)
            except struct.error as error:
                raise UnfitData(f"{replica.folder} has a record whose key or value is cut short: {error}") from error
            if kind is None:
                latest.pop(key, None)
            else:
                latest[key] = kind
    for names, name in latest.values():
        names.add(name)
    return found


def _unlike(files: Files, replicas: Iterable[Replica]) -> Iterator[Replica]:
    """Replicas with different segments; the one of a partition that reaches farthest comes last."""
    found: dict[tuple[object, ...], Replica] = {}
    for each in sorted(replicas, key=lambda replica: replica.log_end):
        sizes = [files.size(segment_file(each.folder, base_offset, LOG_SUFFIX)) for base_offset in each.segments]
        key = (each.partition, *each.segments, *sizes)
        found.pop(key, None)
        found[key] = each
    yield from found.values()


def _kind(found: GroupContents, key: bytes, value: bytes) -> tuple[set[str], str] | None:
    """The set to which a record belongs, and its group."""
    (version,) = _VERSION.unpack_from(key)
    if version in (0, OFFSET_KEY):
        if _VERSION.unpack_from(value)[0] >= OFFSET_FLEXIBLE_FROM:
            found.offsets_with_topic_ids.add(_text(key, 2))
        return None
    if version == INSTANCE_KEY:
        group = _text(key, 2)
        return found.rest_consumers, f"{group}/{_text(key, 4 + len(group.encode()))}"
    if version in CONSUMER_KEYS:
        return found.consumer, _text(key, 2)
    if version in SHARE_KEYS:
        return found.share, _text(key, 2)
    return (found.streams, _text(key, 2)) if version in STREAMS_KEYS else None


def _text(key: bytes, at: int) -> str:
    (size,) = _VERSION.unpack_from(key, at)
    return key[at + 2 : at + 2 + size].decode("utf-8", "replace")


def _records(files: Files, replica: Replica) -> Iterator[tuple[bytes, bytes | None]]:
    for base_offset in replica.segments:
        path = segment_file(replica.folder, base_offset, LOG_SUFFIX)
        file = files.open(path, read_only=True)
        try:
            for position, header in headers_from(file, 0):
                if header.is_control:
                    continue
                for record in read_batches(whole_batch(file, position, header)):
                    if record.key is not None and len(record.key) >= _VERSION.size:
                        yield bytes(record.key), record.value
        except (DamagedLog, KafkaError, struct.error) as error:
            raise UnfitData(f"{path}: {error}") from error
        finally:
            file.close()
