"""Compaction: what stays, in which order, what a crash in a swap leaves, and what the slow model says."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from kraft.protocol.batches.header import DELETE_HORIZON, HEADER_BYTES, computed_crc, header_at
from kraft.protocol.batches.records import NewRecord, build_batch, read_batches
from kraft.protocol.errors import OutOfOrderSequenceNumber
from metadata.environment import Environment
from metadata.image import TopicIdPartition
from metadata.settings import BrokerSettings, TopicSettings
from replication.manager.partition_reader import past_emptied
from replication.storage.cleaner_copy import ActiveProducers, CleanedTransactions, CopyRules, build_map, copy_group
from replication.storage.cleaner_log import CleanLimits
from replication.storage.cleaner_map import ENTRY_BYTES, OffsetMap
from replication.storage.cleaner_plan import CleanableSegment, groups_to_clean, plan_cleaning
from replication.storage.dump import dump_folder
from replication.storage.header_scan import headers_from
from replication.storage.log_manager import LogManager
from replication.storage.partition_log import PartitionLog
from tests.unit.storage.world import NOW_MS, TOPIC_ID, RecordedEvents, load, run

DAY_MS = 86_400_000
LIMITS = CleanLimits(map_bytes_max=10_000_000)
Row = tuple[int, bytes | None, bytes | None, int]


def compacted(**changes: Any) -> TopicSettings:
    options: dict[str, Any] = {"cleanup_policy": "compact", "segment_bytes": 600, "min_cleanable_dirty_ratio": 0.0}
    return TopicSettings(**{**options, **changes})


def put(log: PartitionLog, *pairs: tuple[bytes, bytes | None], at_ms: int = NOW_MS, **options: Any) -> None:
    records = [NewRecord(key, value, [], at_ms) for key, value in pairs]
    log.append_as_leader(build_batch(records, **options), leader_epoch=1, now_ms=NOW_MS)


def rows(log: PartitionLog) -> list[Row]:
    found: list[Row] = []
    offset = log.log_start_offset
    while offset < log.log_end_offset:
        read = log.read(offset, bytes_max=500, upper_bound=log.log_end_offset)
        found += [(r.offset, r.key, r.value, r.timestamp) for r in read_batches(read.data, from_offset=offset)]
        assert read.next_offset > offset, (offset, read)
        offset = read.next_offset
    return found


async def clean(log: PartitionLog, *, now_ms: int = NOW_MS, limits: CleanLimits = LIMITS) -> bool:
    plan = log.cleaning.plan(
        log_start_offset=log.log_start_offset,
        last_stable_offset=log.log_end_offset,
        now_ms=now_ms,
        settings=log.settings,
    )
    if not plan.is_worth_it(log.settings):
        return False
    states = log.producers.states
    active = ActiveProducers(last_offsets=states.last_offsets(), marked_epochs=states.last_epochs())
    done = await log.cleaning.run(plan, settings=log.settings, limits=limits, active=active)
    return done is not None


def latest(found: list[Row]) -> dict[bytes | None, tuple[int, bytes | None]]:
    return {key: (offset, value) for offset, key, value, _ in found}


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_only_the_last_record_of_a_key_stays_at_its_offset(compression: str, tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path / "t-0"), settings=compacted())
        for turn in range(20):
            put(log, (b"a", b"%d" % turn), (b"b%d" % turn, b"x" * 30), (b"a", b"-%d" % turn), compression=compression)
        before = rows(log)
        assert await clean(log)
        after = rows(log)
        closed_to = log.cleaning.cleaned_to
        assert 0 < closed_to < log.log_end_offset
        keys_in_clean = [key for offset, key, _, _ in after if offset < closed_to]
        assert len(keys_in_clean) == len(set(keys_in_clean))
        assert set(after) <= set(before)
        assert [row[0] for row in after] == sorted(row[0] for row in after)
        assert latest(after) == latest(before)
        assert not await clean(log)
        await log.close()

    run(play)


@pytest.mark.parametrize("seed", range(12))
def test_random_histories_keep_what_the_model_keeps(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    settings = compacted(segment_bytes=rng.choice([300, 900, 3000]), index_interval_bytes=rng.choice([0, 100, 4096]))
    limits = CleanLimits(map_bytes_max=rng.choice([ENTRY_BYTES * 3, 10_000_000]))

    async def play(environment: Environment) -> None:
        folder = str(tmp_path / "t-0")
        log, _ = load(environment, folder, settings=settings)
        model: list[Row] = []
        for _ in range(60):
            step = rng.random()
            if step < 0.7:
                pairs = [(b"k%d" % rng.randrange(8), rng.choice([b"v%d" % rng.randrange(99)] * 4 + [None]))]
                pairs *= rng.randrange(1, 4)
                model += [(log.log_end_offset + i, key, value, NOW_MS) for i, (key, value) in enumerate(pairs)]
                put(log, *pairs, compression=rng.choice(["none", "lz4"]))
            elif step < 0.85:
                await clean(log, limits=limits)
                assert latest(rows(log)) == latest(model)
            elif step < 0.92 and log.log_end_offset:
                log.truncate_to(rng.randrange(log.log_end_offset))
                kept = [row for row in model if row[0] < log.log_end_offset]
                if latest(kept) != latest(rows(log)):  # what superseded a record was cut: it is gone, never wrong
                    assert set(rows(log)) <= set(kept)
                model = rows(log)
            else:
                cleaned_to = log.cleaning.cleaned_to
                await log.close()
                log, loaded = load(environment, folder, settings=settings)
                assert not loaded.repairs
                log.cleaning.restore(cleaned_to, log_end_offset=log.log_end_offset)
            assert set(rows(log)) <= set(model)
        while await clean(log, limits=limits):
            assert latest(rows(log)) == latest(model)
        await log.close()

    run(play)


def test_tombstones_stay_for_delete_retention_and_then_go(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        settings = compacted(delete_retention_ms=0, segment_bytes=200)
        log, _ = load(environment, str(tmp_path / "t-0"), settings=settings)
        put(log, (b"a", b"1"), (b"b", b"1"))
        put(log, (b"a", None), (b"c", b"1"))
        for turn in range(5):
            put(log, (b"d%d" % turn, b"x" * 60))
        assert await clean(log)
        first = log.read(2, bytes_max=1, upper_bound=4)
        header = header_at(first.data)
        assert header.attributes & DELETE_HORIZON
        assert header.crc == computed_crc(first.data, 0, header.size)
        assert [row[:3] for row in rows(log)][:3] == [(1, b"b", b"1"), (2, b"a", None), (3, b"c", b"1")]
        assert all(row[3] == NOW_MS for row in rows(log))
        for turn in range(8):
            put(log, (b"e%d" % turn, b"x" * 60))
        assert await clean(log)
        assert [row[:2] for row in rows(log)][:2] == [(1, b"b"), (3, b"c")]
        await log.close()

    run(play)


def test_the_last_batch_of_a_producer_stays_as_a_header_while_it_may_come_back(tmp_path: Path) -> None:
    """D9: so that a replay of the log alone goes on with its sequence."""

    async def play(environment: Environment) -> None:
        settings, folder = compacted(segment_bytes=600), str(tmp_path / "t-0")
        log, _ = load(environment, folder, settings=settings)
        for sequence in range(2):
            put(log, (b"a", b"%d" % sequence), producer_id=77, producer_epoch=0, base_sequence=sequence)
        for turn in range(12):
            put(log, (b"a", b"later"), (b"z%d" % turn, b"x" * 60))
        assert await clean(log)
        assert headers_of(log, 77) == [(1, 0)]
        assert rows(log)[0][1] != b"a"
        await log.abandon()
        for snapshot in (tmp_path / "t-0").glob("*.snapshot"):
            snapshot.unlink()
        again, _ = load(environment, folder, settings=settings, recovery_point=0)
        repeated = build_batch([NewRecord(b"a", b"1", [], NOW_MS)], producer_id=77, producer_epoch=0, base_sequence=1)
        assert again.append_as_leader(repeated, leader_epoch=1, now_ms=NOW_MS).is_duplicate
        with pytest.raises(OutOfOrderSequenceNumber):
            put(again, (b"a", b"gap"), producer_id=77, producer_epoch=0, base_sequence=9)
        put(again, (b"b", b"next"), producer_id=77, producer_epoch=0, base_sequence=2)
        again.producers.remove_expired(now_ms=environment.clock.wall_ms() + 2 * DAY_MS)
        for turn in range(12):
            put(again, (b"b", b"later"), (b"y%d" % turn, b"x" * 60))
        assert await clean(again)
        assert headers_of(again, 77) == [], "forgotten, so nothing has to be remembered"
        await again.close()

    run(play)


def headers_of(log: PartitionLog, producer_id: int) -> list[tuple[int, int]]:
    """First sequence and number of records of each of its batches."""
    found = [header for segment in log._segments for _, header in headers_from(segment.log, 0)]
    return [(each.base_sequence, each.record_count) for each in found if each.producer_id == producer_id]


def test_a_follower_takes_a_compacted_log_and_truncates_in_it(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        leader, _ = load(environment, str(tmp_path / "t-0"), settings=compacted())
        for turn in range(20):
            put(leader, (b"a", b"%d" % turn), (b"b", b"x" * 30))
        assert await clean(leader)
        follower, _ = load(environment, str(tmp_path / "t-1"), settings=compacted())
        while follower.log_end_offset < leader.log_end_offset:
            end = follower.log_end_offset
            follower.append_as_follower(
                leader.read(end, bytes_max=100, upper_bound=leader.log_end_offset).data, now_ms=NOW_MS
            )
            assert follower.log_end_offset > end
        assert rows(follower) == rows(leader)
        assert follower.log_end_offset == leader.log_end_offset
        gap = rows(leader)[0][0] // 2
        follower.truncate_to(gap)
        assert follower.log_end_offset <= gap
        await leader.close()
        await follower.close()

    run(play)


def test_a_truncation_during_a_pass_undoes_the_pass(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path / "t-0"), settings=compacted())
        for turn in range(20):
            put(log, (b"a", b"%d" % turn), (b"b", b"x" * 30))
        plan = log.cleaning.plan(
            log_start_offset=0, last_stable_offset=log.log_end_offset, now_ms=NOW_MS, settings=log.settings
        )

        class CuttingWorkers:
            async def run(self, function: Any, *args: Any, **options: Any) -> Any:
                result = function(*args, **options)
                if function is copy_group:
                    log.truncate_to(3)
                return result

        log.cleaning._environment = type(environment)(
            clock=environment.clock,
            files=environment.files,
            network=environment.network,
            workers=CuttingWorkers(),
            rng=environment.rng,
        )
        assert await log.cleaning.run(plan, settings=log.settings, limits=LIMITS, active=ActiveProducers()) is None
        assert [row[0] for row in rows(log)] == list(range(log.log_end_offset))
        assert log.cleaning.cleaned_to == 0
        assert not list((tmp_path / "t-0").glob("*.cleaned"))
        await log.close()

    run(play)


@pytest.mark.parametrize("renames_done", range(16))
def test_a_swap_that_a_crash_cut_short_is_finished_or_undone(renames_done: int, tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        folder = tmp_path / "t-0"
        log, _ = load(environment, str(folder), settings=compacted(segment_bytes=400))
        for turn in range(12):
            put(log, (b"a", b"%d" % turn), (b"b", b"x" * 30))
        before = rows(log)
        plan = log.cleaning.plan(
            log_start_offset=0, last_stable_offset=log.log_end_offset, now_ms=NOW_MS, settings=log.settings
        )
        big = compacted(segment_bytes=100_000)
        rules = CopyRules(
            files=environment.files,
            folder=str(folder),
            settings=big,
            active=ActiveProducers(),
            transactions=CleanedTransactions(()),
            now_ms=NOW_MS,
        )
        segments = [segment for segment, _ in log.cleaning._closed()]
        assert len(segments) > 2
        offsets = build_map(segments, rules.transactions, start=0, end=plan.end_offset, bytes_max=10_000_000)
        copy_group(segments, offsets, rules)
        original, done = environment.files.rename, 0

        class Crash(Exception):
            pass

        def rename(old: str, new: str) -> None:
            nonlocal done
            if done == renames_done:
                raise Crash
            done += 1
            original(old, new)

        log._segments._environment.files.rename = rename  # type: ignore[method-assign]
        try:
            log._segments.replace(segments, now_ms=NOW_MS)
        except Crash:
            pass
        finally:
            environment.files.rename = original  # type: ignore[method-assign]
        again, _ = load(environment, str(folder), settings=compacted())
        assert latest(rows(again)) == latest(before)
        assert again.log_end_offset == log.log_end_offset
        is_finished = renames_done >= 3
        assert (rows(again) == before) is not is_finished
        assert not [path for path in folder.iterdir() if path.suffix in (".cleaned", ".swap", ".deleted")]
        await again.close()

    run(play)


def test_the_dump_reads_a_compacted_log(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path / "t-0"), settings=compacted())
        for turn in range(20):
            put(log, (b"a", b"%d" % turn), (b"b", b"x" * 30))
        assert await clean(log)
        await log.close()
        found = list(dump_folder(environment.files, str(tmp_path / "t-0"), records=True))
        assert [row for row in found if row.get("is_valid") is False or "error" in row] == []
        assert sum("is_valid" in row for row in found) > 2

    run(play)


def segment(base: int, size: int = 100, *, at_ms: int = 0) -> CleanableSegment:
    return CleanableSegment(
        base_offset=base,
        next_offset=base + 10,
        size_bytes=size,
        index_bytes=8,
        first_timestamp=at_ms,
        largest_timestamp=at_ms,
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (10, 30, 100, 200)),
        ({"last_stable_offset": 29}, (10, 20, 100, 100)),
        ({"log_start_offset": 20}, (20, 30, 200, 100)),
        ({"settings": compacted(min_compaction_lag_ms=50)}, (10, 20, 100, 100)),
    ],
)
def test_a_plan_leaves_alone_what_it_must(changes: dict[str, Any], expected: tuple[int, ...]) -> None:
    segments = [segment(0), segment(10), segment(20, at_ms=900)]
    options: dict[str, Any] = {"cleaned_to": 10, "log_start_offset": 0, "last_stable_offset": 99, "now_ms": 920}
    options |= {"settings": compacted(), **changes}
    plan = plan_cleaning(segments, **options)
    assert (plan.first_dirty_offset, plan.end_offset, plan.clean_bytes, plan.dirty_bytes) == expected


@pytest.mark.parametrize(("ratio", "lag_ms", "worth"), [(0.5, 10**9, True), (0.7, 10**9, False), (0.9, 100, True)])
def test_a_log_is_cleaned_when_dirty_enough_or_overdue(ratio: float, lag_ms: int, worth: bool) -> None:
    settings = compacted(min_cleanable_dirty_ratio=ratio, max_compaction_lag_ms=lag_ms)
    plan = plan_cleaning(
        [segment(0), segment(10), segment(20)],
        cleaned_to=10,
        log_start_offset=0,
        last_stable_offset=99,
        now_ms=500,
        settings=settings,
    )
    assert plan.is_worth_it(settings) is worth


def test_groups_fit_one_segment() -> None:
    segments = [segment(0), segment(10), segment(20, 550), segment(30, 10), segment(40)]
    groups = groups_to_clean(segments, end_offset=40, settings=compacted())
    assert [[each.base_offset for each in group] for group in groups] == [[0, 10], [20, 30]]


def test_the_map_is_bounded() -> None:
    offsets = OffsetMap(bytes_max=ENTRY_BYTES * 2)
    assert offsets.has_room_for(5)
    offsets.put(b"a", 1)
    assert offsets.has_room_for(1)
    assert not offsets.has_room_for(2)


def test_the_cleaner_finds_the_dirty_log_and_remembers_how_far_it_came(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        events = RecordedEvents()

        def manager() -> LogManager:
            options: dict[str, Any] = {"cluster_id": "c", "node_id": 1, "settings": BrokerSettings, "events": events}
            return LogManager(environment, directories=[str(tmp_path)], **options)

        first = manager()
        await first.start()
        log = first.get_or_create(topic="t", topic_id=TOPIC_ID, partition=0, settings=compacted())
        for turn in range(20):
            put(log, (b"a", b"%d" % turn), (b"b", b"x" * 30))
        await first.background_tasks.cleaner.clean_all()
        assert "log_cleaned" not in events.names(), "nothing is below the high watermark yet"
        await first.checkpoint_high_watermarks({TopicIdPartition(TOPIC_ID, 0): log.log_end_offset})
        await first.background_tasks.cleaner.clean_all()
        assert events.names().count("log_cleaned") == 1
        cleaned_to = log.cleaning.cleaned_to
        assert (tmp_path / "cleaner-offset-checkpoint").read_text() == f"0\n1\nt 0 {cleaned_to}\n"
        await first.stop()
        second = manager()
        await second.start()
        again = second.get(TopicIdPartition(TOPIC_ID, 0))
        assert again is not None
        assert again.cleaning.cleaned_to == cleaned_to
        await second.stop()

    run(play)


def test_a_consumer_reads_past_segments_without_records(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path / "t-0"), settings=compacted(segment_bytes=300))
        for turn in range(40):
            put(log, (b"a", b"%d" % turn * 40))
        assert await clean(log)
        bound = log.log_end_offset
        first = log.read(0, bytes_max=500, upper_bound=bound)
        assert len(first.data) == HEADER_BYTES
        found = past_emptied(log, first, bytes_max=500, bound=bound, at_least_one_batch=True)
        assert [record.key for record in read_batches(found.data, from_offset=0)] == [b"a"]
        assert found.next_offset > first.next_offset
        last = log.read(bound - 1, bytes_max=500, upper_bound=bound)
        assert past_emptied(log, last, bytes_max=500, bound=bound, at_least_one_batch=True) is last
        await log.close()

    run(play)
