"""Batches as a transactional producer and its coordinator write them, for logs that are written by hand."""

from __future__ import annotations

from kraft.protocol.batches.markers import Marker, build_marker
from kraft.protocol.batches.records import NewRecord, build_batch

TIME_MS = 1_000


def in_transaction(producer_id: int, *values: bytes) -> bytes:
    records = [NewRecord(None, value, [], TIME_MS) for value in values]
    return build_batch(records, producer_id=producer_id, producer_epoch=0, is_transactional=True)


def plain(*values: bytes) -> bytes:
    return build_batch([NewRecord(None, value, [], TIME_MS) for value in values])


def ending(producer_id: int, *, commits: bool) -> bytes:
    marker = Marker(is_commit=commits, coordinator_epoch=0)
    return build_marker(marker, producer_id=producer_id, producer_epoch=0, timestamp_ms=TIME_MS)
