"""A lookup by timestamp in a batch that decompresses to much is a worker's, and finds the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from kraft.protocol.batches.batch_lookup import Looking, NeedsWorker
from kraft.protocol.batches.budget import INLINE_RECORDS_MAX
from kraft.protocol.batches.records import NewRecord, build_batch
from metadata.settings import TopicSettings
from tests.unit.storage.world import NOW_MS, idle_environment, load

T = TypeVar("T")


def batch(count: int, size: int, *, begin_ms: int) -> bytes:
    records = [NewRecord(None, bytes(size), [], begin_ms + number) for number in range(count)]
    return build_batch(records, compression="zstd")


def searched(search: Callable[[Looking], T]) -> tuple[T, int]:
    """What was found, and how many batches a worker had to look at."""
    looking = Looking()
    while True:
        try:
            return search(looking), len(looking.known)
        except NeedsWorker as large:
            if large.base_offset in looking.known:
                raise AssertionError("a worker looks once") from large
            looking.known[large.base_offset] = large.work()


@pytest.mark.parametrize(
    ("count", "size", "workers"),
    [(100, 10, 0), (10, 1_000_000, 1), pytest.param(INLINE_RECORDS_MAX + 1, 0, 1, marks=pytest.mark.long)],
)
def test_a_record_is_found_on_the_loop_and_by_a_worker(count: int, size: int, workers: int, tmp_path: Path) -> None:
    with idle_environment() as environment:
        log, _ = load(environment, str(tmp_path), settings=TopicSettings())
        for turn in range(3):
            log.append_as_leader(batch(count, size, begin_ms=NOW_MS + turn * count), leader_epoch=0, now_ms=NOW_MS)
        end = log.log_end_offset
        for offset in (0, count + 7, 3 * count - 1):
            found, asked = searched(
                lambda looking, at=offset: log.offset_for_timestamp(NOW_MS + at, upper_bound=end, looking=looking)
            )
            assert found is not None
            assert (found.offset, found.timestamp, asked) == (offset, NOW_MS + offset, workers)
        latest, asked = searched(lambda looking: log.max_timestamp(upper_bound=end, looking=looking))
        assert latest is not None
        assert (latest.offset, latest.timestamp, asked) == (3 * count - 1, NOW_MS + 3 * count - 1, workers)
        none, _ = searched(
            lambda looking: log.offset_for_timestamp(NOW_MS + 3 * count, upper_bound=end, looking=looking)
        )
        assert none is None
