"""The records of `__share_group_state`, byte for byte Kafka's; a time of delivery is a tagged field of ours. Pure.

The key is an int16 type (0 snapshot, 1 update) and a ShareSnapshotKey or ShareUpdateKey, the value an int16 version and
a ShareSnapshotValue or ShareUpdateValue. A share partition that is deleted has a snapshot key without a value.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final

from kraft.coordinators.shares.state import ShareKey, ShareRecord, Snapshot, Update
from kraft.protocol import codec
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.encoding import REFUSALS, TopLevel
from kraft.protocol.messages import share_snapshot_value, share_update_value
from kraft.protocol.messages.share_snapshot_key import ShareSnapshotKeyData
from kraft.protocol.messages.share_snapshot_value import ShareSnapshotValueData
from kraft.protocol.messages.share_update_key import ShareUpdateKeyData
from kraft.protocol.messages.share_update_value import ShareUpdateValueData
from replication.shares.states import StateBatch

SNAPSHOT, UPDATE = 0, 1
"""Types of keys."""
VERSION: Final = 0
_SHORT = struct.Struct(">h")


class MalformedRecord(ValueError):
    """A key or value that does not have the form of its type."""


def encode_batch(records: Sequence[ShareRecord], *, timestamp_ms: int) -> bytes:
    return build_batch([new_record(record, timestamp_ms=timestamp_ms) for record in records])


def new_record(record: ShareRecord, *, timestamp_ms: int) -> NewRecord:
    """A record as it is put into a batch."""
    return NewRecord(*_key_and_value(*record), [], timestamp_ms)


def _key_and_value(key: ShareKey, change: Snapshot | Update | None) -> tuple[bytes, bytes | None]:
    group, topic_id, partition = key
    if isinstance(change, Update):
        update = ShareUpdateKeyData.make(group_id=group, topic_id=topic_id, partition=partition)
        return _encoded(UPDATE, update), _encoded(VERSION, _update_value(change))
    snapshot = ShareSnapshotKeyData.make(group_id=group, topic_id=topic_id, partition=partition)
    return _encoded(SNAPSHOT, snapshot), None if change is None else _encoded(VERSION, _snapshot_value(change))


def _snapshot_value(snapshot: Snapshot) -> ShareSnapshotValueData:
    return ShareSnapshotValueData.make(
        snapshot_epoch=snapshot.snapshot_epoch,
        state_epoch=snapshot.state_epoch,
        leader_epoch=snapshot.leader_epoch,
        start_offset=snapshot.start_offset,
        delivery_complete_count=snapshot.delivery_complete_count,
        create_timestamp=snapshot.created_ms,
        write_timestamp=snapshot.written_ms,
        state_batches=[share_snapshot_value.StateBatch.make(**_fields(batch)) for batch in snapshot.batches],
    )


def _update_value(update: Update) -> ShareUpdateValueData:
    return ShareUpdateValueData.make(
        snapshot_epoch=update.snapshot_epoch,
        leader_epoch=update.leader_epoch,
        start_offset=update.start_offset,
        delivery_complete_count=update.delivery_complete_count,
        state_batches=[share_update_value.StateBatch.make(**_fields(batch)) for batch in update.batches],
    )


def _fields(batch: StateBatch) -> dict[str, int]:
    first, last, state, count, not_before_ms = batch
    return {
        "first_offset": first,
        "last_offset": last,
        "delivery_state": state,
        "delivery_count": count,
        "not_before_ms": not_before_ms,
    }


def _encoded(number: int, message: TopLevel) -> bytes:
    """A key with its type before it, or a value with its version."""
    return _SHORT.pack(number) + b"".join(codec.encode_body(message, VERSION))


def decode_record(key: bytes, value: bytes | None) -> ShareRecord | None:
    """None for a type or a version that is not ours to read. Raises MalformedRecord."""
    kind = _number(key)
    if kind == SNAPSHOT:
        of_snapshot = _decoded(ShareSnapshotKeyData, key)
        where = ShareKey(of_snapshot.group_id, of_snapshot.topic_id, of_snapshot.partition)
        if value is None:
            return where, None
        return (where, _snapshot(_decoded(ShareSnapshotValueData, value))) if _number(value) == VERSION else None
    if kind != UPDATE or value is None or _number(value) != VERSION:
        return None
    of_update = _decoded(ShareUpdateKeyData, key)
    where = ShareKey(of_update.group_id, of_update.topic_id, of_update.partition)
    return where, _update(_decoded(ShareUpdateValueData, value))


def _number(data: bytes) -> int:
    try:
        number: int = _SHORT.unpack_from(data)[0]
    except struct.error as error:
        raise MalformedRecord(f"{len(data)} bytes are no key or value") from error
    return number


def _decoded(kind: type[codec.MessageT], data: bytes) -> codec.MessageT:
    try:
        return codec.decode_body(kind, VERSION, memoryview(data), _SHORT.size)
    except (*REFUSALS, codec.Malformed) as error:
        raise MalformedRecord(f"{kind.__name__}: {error}") from error


def _snapshot(stored: ShareSnapshotValueData) -> Snapshot:
    return Snapshot(
        snapshot_epoch=stored.snapshot_epoch,
        state_epoch=stored.state_epoch,
        leader_epoch=stored.leader_epoch,
        start_offset=stored.start_offset,
        delivery_complete_count=stored.delivery_complete_count,
        created_ms=stored.create_timestamp,
        written_ms=stored.write_timestamp,
        batches=_batches(stored.state_batches),
    )


def _update(stored: ShareUpdateValueData) -> Update:
    return Update(
        snapshot_epoch=stored.snapshot_epoch,
        leader_epoch=stored.leader_epoch,
        start_offset=stored.start_offset,
        delivery_complete_count=stored.delivery_complete_count,
        batches=_batches(stored.state_batches),
    )


def _batches(
    stored: Iterable[share_snapshot_value.StateBatch] | Iterable[share_update_value.StateBatch],
) -> list[StateBatch]:
    return [
        StateBatch(b.first_offset, b.last_offset, b.delivery_state, b.delivery_count, b.not_before_ms) for b in stored
    ]
