"""Segments of `__consumer_offsets` written again for a Kafka that is too old for some of their records.

Before 4.1 an offset with the id of its topic (value version 4) fails the load of its partition: it becomes version 3.
Before 4.2 the records of share groups go, for their values were others under the same version. All offsets stay, and
so do the epochs, the producers and the index of aborted transactions, which have offsets only.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from kraft.coordinators.groups.records import (
    OFFSET_FLEXIBLE_FROM,
    OFFSET_KEY,
    MalformedRecord,
    decode_record,
    encode_value,
)
from kraft.coordinators.groups.share_records import SHARE_KEYS
from kraft.kafka_data.releases import OFFSET_TOPIC_IDS, SHARE_GROUPS, Release
from kraft.kafka_data.replica import UnfitData
from kraft.protocol.batches.header import BatchHeader, header_at
from kraft.protocol.batches.record_filter import decoded, delete_horizon_of, with_records
from kraft.protocol.errors import KafkaError
from metadata.environment import Files
from replication.storage.header_scan import DamagedLog, headers_from, whole_batch
from replication.storage.names import LOG_SUFFIX, segment_file
from replication.storage.segment import Segment

INDEX_BYTES_MAX: Final = 10 << 20
INDEX_INTERVAL_BYTES: Final = 4096
"""Kafka's defaults of segment.index.bytes and index.interval.bytes."""


class _Record(NamedTuple):
    """What a batch is built of."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Any


def rewrite_segment(
    files: Files, source: str, target: str, base_offset: int, *, release: Release, created_ms: int
) -> None:
    """Write the log and the two indexes of a segment from one folder into another. Raises UnfitData, OSError."""
    path = segment_file(source, base_offset, LOG_SUFFIX)
    files.make_directories(target)
    file = files.open(path, read_only=True)
    segment = Segment.open(
        files,
        target,
        base_offset,
        index_bytes_max=INDEX_BYTES_MAX,
        index_interval_bytes=INDEX_INTERVAL_BYTES,
        created_ms=created_ms,
        create=True,
    )
    try:
        for position, header in headers_from(file, 0):
            batch = for_release(whole_batch(file, position, header), header, release)
            segment.append([batch], [header_at(batch)])
        segment.finish_time_index()
    except (DamagedLog, KafkaError, MalformedRecord) as error:
        raise UnfitData(f"{path}: {error}") from error
    finally:
        segment.close()
        file.close()


def for_release(batch: bytes, header: BatchHeader, release: Release) -> bytes:
    """The batch itself where nothing is to be changed. Raises KafkaError, MalformedRecord."""
    if header.is_control:
        return batch
    before = decoded(batch, header)
    kept = [record for record in before if _is_known(record.key, release)]
    after = [
        _Record(each.offset, each.timestamp, each.key, _value(each.key, each.value, release), each.headers)
        for each in kept
    ]
    if len(kept) == len(before) and all(one.value == other.value for one, other in zip(kept, after, strict=True)):
        return batch
    return with_records(header, after, delete_horizon_ms=delete_horizon_of(header))


def _is_known(key: bytes | None, release: Release) -> bool:
    return SHARE_GROUPS.is_known_to(release) or _number(key) not in SHARE_KEYS


def _value(key: bytes | None, value: bytes | None, release: Release) -> bytes | None:
    is_offset = _number(key) in (0, OFFSET_KEY)
    if not is_offset or value is None or _number(value) < OFFSET_FLEXIBLE_FROM or OFFSET_TOPIC_IDS.is_known_to(release):
        return value
    assert key is not None
    found = decode_record(bytes(key), bytes(value))
    if found is None:
        raise MalformedRecord(f"a committed offset has version {_number(value)}, which is not known")
    return encode_value(found.value)


def _number(data: bytes | None) -> int:
    """The version with which a key or a value begins; -1 without one."""
    return -1 if data is None or len(data) < 2 else int.from_bytes(data[:2], "big", signed=True)
