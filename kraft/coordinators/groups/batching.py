"""One change of a group as one batch of `__consumer_offsets`."""

from __future__ import annotations

from collections.abc import Sequence

from kraft.coordinators.groups.records import BATCH_BYTES_MAX, GroupRecord, encode_key, encode_value
from metadata.errors import InvalidCommitOffsetSize
from replication.batches.records import NewRecord, build_batch


def change_batch(records: Sequence[GroupRecord], *, wall_ms: int) -> bytes:
    """Raises InvalidCommitOffsetSize 28 for more than fits in a batch of the topic."""
    batch = build_batch(
        [NewRecord(encode_key(record.key), encode_value(record.value), [], wall_ms) for record in records]
    )
    if len(batch) > BATCH_BYTES_MAX:
        raise InvalidCommitOffsetSize(
            f"the change of group {records[0].key.group!r} takes {len(batch)} bytes; at most {BATCH_BYTES_MAX} do"
        )
    return batch
