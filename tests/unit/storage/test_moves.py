"""Logs that move between the directories of their broker (KIP-113): what is copied, and what a sudden end leaves."""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraft.chaos.worlds.simulated.disk import Disk, SimulatedFiles
from kraft.protocol.batches.header import whole_batches
from kraft.protocol.errors import KafkaStorageError, LogDirNotFound, ReplicaNotAvailable
from metadata.environment import Environment
from metadata.image import TopicIdPartition
from metadata.settings import BrokerSettings, TopicSettings
from replication.storage import moves
from replication.storage.log_manager import PREFERENCES_MAX, LogManager
from replication.storage.moves import CopyFrom, CutTo, StartOverAt, TakeThePlace, agreed_end, next_step
from replication.storage.names import MOVED_FILE
from replication.storage.partition_log import PartitionLog
from tests.unit.storage.test_transactions import aborted, end, write
from tests.unit.storage.world import NOW_MS, TOPIC_ID, RecordedEvents, batch, run

KEY = TopicIdPartition(TOPIC_ID, 0)
SMALL = TopicSettings(segment_bytes=2_000, file_delete_delay_ms=0)
DEADLINE_S = 20


@pytest.fixture(autouse=True)
def many_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy takes many turns of the loop, and fsyncs on its way."""
    monkeypatch.setattr(moves, "CHUNK_BYTES", 400)
    monkeypatch.setattr(moves, "FLUSH_BYTES", 1_200)


# --- what to do next -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Extent:
    log_start_offset: int
    log_end_offset: int
    epoch_entries: tuple[tuple[int, int], ...] = ((0, 0),)


@pytest.mark.parametrize(
    ("current", "future", "expected"),
    [
        (Extent(0, 10), Extent(0, 0), CopyFrom(0)),
        (Extent(0, 10), Extent(0, 4), CopyFrom(4)),
        (Extent(0, 10), Extent(0, 10), TakeThePlace()),
        (Extent(0, 0, ()), Extent(0, 0, ()), TakeThePlace()),
        (Extent(6, 10), Extent(0, 4), StartOverAt(6)),
        (Extent(6, 10), Extent(0, 6), CopyFrom(6)),
        (Extent(0, 8), Extent(0, 10), CutTo(8)),
        (Extent(0, 8), Extent(9, 10), StartOverAt(0)),
        (Extent(0, 20, ((0, 0), (5, 8))), Extent(0, 10, ((0, 0), (4, 6))), CutTo(6)),
        (Extent(0, 20, ((5, 0),)), Extent(0, 10, ((4, 0),)), StartOverAt(0)),
    ],
)
def test_the_next_step(current: Extent, future: Extent, expected: object) -> None:
    assert next_step(current, future) == expected


@st.composite
def _two_extents(draw: st.DrawFn) -> tuple[Extent, Extent]:
    """Of one partition: they share a beginning, and go apart with an epoch of their own each."""
    shared = draw(st.lists(st.integers(0, 3), min_size=0, max_size=6).map(sorted))
    one = shared + sorted(draw(st.lists(st.sampled_from([4, 6]), max_size=4)))
    other = shared + sorted(draw(st.lists(st.sampled_from([5, 7]), max_size=4)))
    return _extent(one, draw(st.integers(0, len(one)))), _extent(other, draw(st.integers(0, len(other))))


def _extent(epochs: list[int], start: int) -> Extent:
    """With an epoch for each offset."""
    kept = dict[int, int]()
    for offset, epoch in enumerate(epochs):
        if offset >= start:
            kept.setdefault(epoch, offset)
    return Extent(start, len(epochs), tuple(kept.items()))


@given(_two_extents())
def test_the_agreed_end_is_that_of_a_comparison_offset_by_offset(both: tuple[Extent, Extent]) -> None:
    one, other = both
    start = max(one.log_start_offset, other.log_start_offset)
    end = min(one.log_end_offset, other.log_end_offset)
    while end > start and _epoch(one, end - 1) != _epoch(other, end - 1):
        end -= 1
    assert agreed_end(one, other) == agreed_end(other, one) == end


def _epoch(extent: Extent, offset: int) -> int:
    return max((epoch for epoch, start in extent.epoch_entries if start <= offset), default=-1)


# --- a manager with two directories --------------------------------------------------------------------------------


@dataclass
class World:
    environment: Environment
    manager: LogManager
    events: RecordedEvents
    reported: list[tuple[TopicIdPartition, str]] = field(default_factory=list)
    moved: list[TopicIdPartition] = field(default_factory=list)

    @property
    def log(self) -> PartitionLog:
        log = self.manager.get(KEY)
        assert log is not None
        return log

    def names(self, path: str) -> list[str]:
        names = self.environment.files.list_directory(path)
        return [name for name in names if self.environment.files.is_directory(f"{path}/{name}")]

    def place(self, path: str) -> None:
        self.manager.place("t", 0, path=path)

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not is_so():  # noqa: ASYNC110 nothing tells of each turn of the loop
                await asyncio.sleep(0)

    async def until_moved(self, path: str) -> None:
        await self.until(lambda: self.log.folder == f"{path}/t-0" and self.names_are_settled())

    def names_are_settled(self) -> bool:
        ending = self.manager.moves._ending
        return not self.manager.moves.all() and (ending is None or ending.done())


async def started(environment: Environment, *paths: str, settings: TopicSettings = SMALL) -> World:
    events = RecordedEvents()
    manager = LogManager(
        environment,
        directories=paths or ("/a", "/b"),
        cluster_id="c1",
        node_id=1,
        settings=BrokerSettings,
        events=events,
        topic_settings_of=lambda _topic: settings,
    )
    world = World(environment, manager, events)
    manager.watch_failures(lambda key, reason, is_readable: world.reported.append((key, reason)), lambda key: False)
    manager.watch_moves(lambda key, _log: world.moved.append(key))
    await manager.start()
    return world


def create(world: World, settings: TopicSettings = SMALL) -> PartitionLog:
    world.manager._preferred["t", 0] = world.manager.directories()[0]
    return world.manager.get_or_create(topic="t", topic_id=TOPIC_ID, partition=0, settings=settings)


def append(log: PartitionLog, count: int = 1, *, epoch: int = 0, **options: Any) -> None:
    log.append_as_leader(batch(count, **options), leader_epoch=epoch, now_ms=NOW_MS)


def contents(log: PartitionLog) -> bytes:
    data, offset = b"", log.log_start_offset
    while offset < log.log_end_offset:
        read = log.read(offset, bytes_max=1 << 20, upper_bound=log.log_end_offset)
        data += bytes(read.data)
        offset = read.next_offset
    return data


def disk_and_files() -> tuple[Disk, SimulatedFiles]:
    disk = Disk(random.Random(1))
    return disk, SimulatedFiles(disk)


def test_a_log_moves_with_all_that_is_known_of_it_while_it_is_written() -> None:
    async def play(environment: Environment) -> None:
        world = await started(environment)
        old = create(world)
        for number in range(50):
            append(old, 2, epoch=number // 20, producer_id=5, producer_epoch=0, base_sequence=2 * number)
        old.assign_epoch_start(7, old.log_end_offset)
        old.maybe_increment_log_start(10)
        old.high_watermark = 60
        await world.manager.checkpoint_high_watermarks({KEY: 60})
        world.place("/b")
        [copy] = world.manager.moves.all().values()
        assert [each.copied_of for each in world.manager.described()[1].logs] == [100]
        assert [name.endswith("-future") for name in world.names("/b")] == [True]
        append(old, 3, epoch=7)
        before = contents(old)
        await world.until_moved("/b")
        log = world.log
        assert log is copy.log
        assert log is not old
        assert world.moved == [KEY]
        assert contents(log) == before
        assert log.epoch_entries == old.epoch_entries
        assert (log.log_start_offset, log.log_end_offset, log.high_watermark) == (10, 103, 60)
        assert world.names("/b") == ["t-0"]
        assert not environment.files.exists(f"/b/t-0/{MOVED_FILE}")
        again = log.append_as_leader(
            batch(2, producer_id=5, producer_epoch=0, base_sequence=98), leader_epoch=7, now_ms=NOW_MS
        )
        assert again.is_duplicate
        with pytest.raises(KafkaStorageError, match="moved"):
            append(old)
        for _ in range(30):
            append(log, epoch=7)  # rolls in its new folder
        await world.manager.background_tasks.remove_due()
        assert not world.names("/a")
        assert not world.reported
        after = contents(log)
        await world.manager.stop()
        next_world = await started(environment)
        assert (contents(next_world.log), next_world.log.folder) == (after, "/b/t-0")
        assert next_world.manager.high_watermark(KEY) == 60
        assert environment.files.exists(f"/b/t-0/{log.log_end_offset:020}.snapshot")
        await next_world.manager.stop()

    run(play, files=disk_and_files()[1])


def test_transactions_move_with_their_log_open_ones_and_aborted_ones() -> None:
    async def play(environment: Environment) -> None:
        world = await started(environment)
        log = create(world)
        for producer_id in range(10, 22):
            write(log, producer_id, b"a" * 50)
            end(log, producer_id, commits=producer_id % 2 == 0)
        write(log, 30)
        log.high_watermark = log.log_end_offset
        before, stable = aborted(log), log.last_stable_offset
        assert len(before) == 6
        world.place("/b")
        await world.until_moved("/b")
        log = world.log
        assert (aborted(log), log.last_stable_offset) == (before, stable)
        end(log, 30, commits=False)
        log.high_watermark = log.log_end_offset
        assert log.last_stable_offset == log.log_end_offset
        before = aborted(log)
        await world.manager.stop()
        world = await started(environment)
        assert aborted(world.log) == before
        await world.manager.stop()

    run(play, files=disk_and_files()[1])


def test_flush_messages_1_stays_durable_after_move() -> None:
    disk, files = disk_and_files()
    settings = TopicSettings(flush_messages=1, segment_bytes=2_000)

    async def play(environment: Environment) -> bytes:
        world = await started(environment, settings=settings)
        log = create(world, settings)
        for _ in range(20):
            append(log)
        await log.flush()
        world.place("/b")
        await world.until(lambda: bool(world.moved))
        assert world.log.flushed_offset == world.log.log_end_offset == 20
        return contents(world.log)

    before = run(play, files=files)
    disk.lose_power()

    async def look(environment: Environment) -> None:
        world = await started(environment, settings=settings)
        assert contents(world.log) == before
        await world.manager.stop()

    run(look, files=files)


def test_move_follows_truncation_and_log_start() -> None:
    async def play(environment: Environment) -> None:
        world = await started(environment)
        log = create(world)
        for _ in range(60):
            append(log)
        world.place("/b")
        [copy] = world.manager.moves.all().values()
        await world.until(lambda: copy.log.log_end_offset > 45)
        log.truncate_to(40)
        for _ in range(5):
            append(log, epoch=3)
        log.maybe_increment_log_start(30)
        before = contents(log)
        await world.until_moved("/b")
        assert contents(world.log) == before
        assert world.log.epoch_entries == log.epoch_entries == ((0, 30), (3, 40))
        world.place("/a")
        world.log.truncate_fully_and_start_at(100)
        append(world.log, epoch=9)
        before = contents(world.log)
        await world.until_moved("/a")
        assert (contents(world.log), world.log.log_start_offset) == (before, 100)
        await world.manager.stop()

    run(play, files=disk_and_files()[1])


def test_a_log_moves_whose_start_lies_within_a_batch() -> None:
    async def play(environment: Environment) -> None:
        world = await started(environment)
        log = create(world)
        for _ in range(3):
            append(log, 4)
        log.maybe_increment_log_start(6)
        before = contents(log)
        world.place("/b")
        await world.until_moved("/b")
        assert (contents(world.log), world.log.log_start_offset, world.log.log_end_offset) == (before, 6, 12)
        await world.manager.stop()

    run(play, files=disk_and_files()[1])


def test_the_directory_where_it_is_and_a_third_one_end_the_move() -> None:
    async def play(environment: Environment) -> None:
        world = await started(environment, "/a", "/b", "/c")
        append(create(world), 5)
        world.place("/b")
        first = world.names("/b")
        world.place("/b")
        assert world.names("/b") == first
        world.place("/c")
        assert [name.endswith("-delete") for name in world.names("/b")] == [True]
        assert [name.endswith("-future") for name in world.names("/c")] == [True]
        world.place("/a")
        assert not world.manager.moves.all()
        assert [name.endswith("-delete") for name in world.names("/c")] == [True]
        await world.manager.background_tasks.remove_due()
        assert (world.names("/a"), world.names("/b"), world.names("/c")) == (["t-0"], [], [])
        assert not world.log.cleaning.is_paused
        with pytest.raises(LogDirNotFound):
            world.place("/nowhere")
        with pytest.raises(ReplicaNotAvailable):
            world.manager.place("t", 1, path="/b")
        await world.manager.stop()

    run(play, files=disk_and_files()[1])


def test_limit_of_unknown_partitions_in_assignment() -> None:
    async def play(environment: Environment) -> None:
        world = await started(environment)
        for partition in range(3 * PREFERENCES_MAX):
            with suppress(ReplicaNotAvailable):
                world.manager.place("none", partition, path="/b")
        wishes = world.manager._preferred
        assert [*wishes] == [("none", partition) for partition in range(2 * PREFERENCES_MAX, 3 * PREFERENCES_MAX)]
        assert isinstance(wishes, OrderedDict), "the oldest of a dict is looked for behind all that went before it"
        await world.manager.stop()

    run(play, files=disk_and_files()[1])


def test_a_deleted_partition_takes_its_copy_with_it() -> None:
    async def play(environment: Environment) -> None:
        world = await started(environment)
        append(create(world), 5)
        world.place("/b")
        world.manager.delete(KEY)
        await world.manager.background_tasks.remove_due()
        assert (world.names("/a"), world.names("/b")) == ([], [])
        assert not world.manager.moves.all()
        await world.manager.stop()

    run(play, files=disk_and_files()[1])


@pytest.mark.parametrize("trouble", ["full", "gone"])
def test_a_copy_whose_directory_fails_is_given_up_and_the_log_does_not_notice(trouble: str) -> None:
    disk, files = disk_and_files()

    async def play(environment: Environment) -> None:
        world = await started(environment)
        log = create(world)
        for _ in range(30):
            append(log)
        world.place("/b")
        [copy] = world.manager.moves.all().values()
        if trouble == "gone":
            disk.fails = lambda path: path.startswith("/b")
        else:
            disk.is_full = True
        await world.until(lambda: "replica_move_given_up" in world.events.names())
        disk.is_full = False
        assert copy.log.is_offline
        assert world.manager.directories()[1].is_offline is (trouble == "gone")
        assert not world.reported
        append(log)
        assert (world.log.folder, log.is_offline, log.cleaning.is_paused) == ("/a/t-0", False, False)
        if trouble == "gone":
            with pytest.raises(KafkaStorageError, match="/b is offline"):
                world.place("/b")
        else:
            world.place("/b")
            await world.until_moved("/b")
        await world.manager.stop()

    run(play, files=files)


def test_a_log_that_fails_is_waited_for() -> None:
    disk, files = disk_and_files()

    async def play(environment: Environment) -> None:
        world = await started(environment)
        log = create(world)
        for _ in range(30):
            append(log)
        disk.fails = lambda path: path.startswith("/a")
        with pytest.raises(KafkaStorageError):
            append(log)
        with pytest.raises(KafkaStorageError, match="offline"):
            world.place("/b")
        disk.fails = lambda path: False
        await world.manager.reopen(KEY, topic="t", is_last=True)
        world.place("/b")
        disk.fails = lambda path: path.startswith("/a")
        await world.until(lambda: world.log.is_offline)
        disk.fails = lambda path: False
        await world.manager.reopen(KEY, topic="t", is_last=True)
        before = contents(world.log)
        await world.until_moved("/b")
        assert contents(world.log) == before
        await world.manager.stop()

    run(play, files=files)


def test_a_log_that_is_being_copied_is_not_compacted() -> None:
    settings = TopicSettings(cleanup_policy="compact", segment_bytes=500, min_cleanable_dirty_ratio=0.0)

    async def play(environment: Environment) -> None:
        world = await started(environment, settings=settings)
        log = create(world, settings)
        for _ in range(40):
            append(log)
        log.high_watermark = 40
        await world.manager.checkpoint_high_watermarks({KEY: 40})
        log.cleaning.is_paused = True
        await world.manager.background_tasks.cleaner.clean_all()
        assert log.cleaning.cleaned_to == 0
        log.cleaning.is_paused = False
        world.place("/b")
        await world.until_moved("/b")
        await world.manager.background_tasks.cleaner.clean_all()
        cleaned = world.log.cleaning.cleaned_to
        assert cleaned > 0
        world.place("/a")
        await world.until_moved("/a")
        assert world.log.cleaning.cleaned_to == cleaned
        await world.manager.stop()

    run(play, files=disk_and_files()[1])


def test_two_folders_of_which_none_was_moved_here_are_left_alone() -> None:
    async def play(environment: Environment) -> None:
        world = await started(environment)
        append(create(world), 5)
        await world.manager.stop()
        for name in environment.files.list_directory("/a/t-0"):
            environment.files.make_directories("/b/t-0")
            source = environment.files.open(f"/a/t-0/{name}")
            environment.files.open(f"/b/t-0/{name}", create=True).append([source.pread(0, source.size)])
        world = await started(environment)
        assert world.manager.get(KEY) is None
        [reason] = [fields["reason"] for name, fields in world.events.seen if name == "log_not_loaded"]
        assert "/a/t-0 and /b/t-0" in str(reason)
        with pytest.raises(KafkaStorageError, match="exists and could not be loaded"):
            create(world)
        await world.manager.stop()
        assert (world.names("/a"), world.names("/b")) == (["t-0"], ["t-0"])

    run(play, files=disk_and_files()[1])


# --- a process that ends in between --------------------------------------------------------------------------------


class Killed(Exception):
    """Nothing that this process still does reaches the disk."""


class DyingFiles(SimulatedFiles):
    """`kill -9` before the change of that number, counted from `arm` on."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self.left: int | None = None

    def change(self) -> None:
        if self.left is None:
            return
        if self.left <= 0:
            raise Killed
        self.left -= 1

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> Any:
        if create and not self.exists(path):
            self.change()
        return DyingFile(super().open(path, create=create, read_only=read_only), self)

    def rename(self, old: str, new: str) -> None:
        self.change()
        super().rename(old, new)

    def remove(self, path: str) -> None:
        self.change()
        super().remove(path)

    def remove_tree(self, path: str) -> None:
        self.change()
        super().remove_tree(path)

    def make_directories(self, path: str) -> None:
        self.change()
        super().make_directories(path)

    def sync_directory(self, path: str) -> None:
        self.change()
        super().sync_directory(path)


class DyingFile:
    def __init__(self, file: Any, files: DyingFiles) -> None:
        self._file, self._files = file, files

    def __getattr__(self, name: str) -> Any:
        if name in ("append", "pwrite", "truncate", "sync"):
            self._files.change()
        return getattr(self._file, name)


@pytest.mark.parametrize("loses_power", [False, True])
@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.long)])
def test_whatever_moment_it_is_killed_at_nothing_is_lost_and_the_move_ends(loses_power: bool, step: int) -> None:
    """Before each change of a file that a move makes, or each fifth, one after the other."""
    ended, kill_at = False, 0
    while not ended:
        ended = _killed_at(kill_at, loses_power=loses_power)
        kill_at += step
    assert kill_at > 40


def _killed_at(kill_at: int, *, loses_power: bool) -> bool:
    """True when the move ended before it."""
    disk = Disk(random.Random(kill_at))
    files = DyingFiles(disk)
    kept = [b"", b""]
    """What was flushed, and what was appended at all."""

    async def live(environment: Environment) -> bool:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        world = await started(environment)
        log = create(world)
        for number in range(12):
            append(log, 3, epoch=number // 5)
        await log.flush()
        await world.manager.checkpoint_high_watermarks({KEY: 30})
        await world.manager.background_tasks.checkpoint()
        kept[:] = contents(log), contents(log)
        files.left = kill_at
        try:
            world.place("/b")
            for _ in range(20):
                append(world.log, epoch=4)
                kept[1] = contents(world.log)
                await asyncio.sleep(0.0005)
            await world.until(lambda: world.names_are_settled() or files.left == 0)
        except (Killed, KafkaStorageError):
            pass
        left, files.left = files.left, 0
        await asyncio.sleep(0.001)
        return bool(left)

    def look(environment: Environment) -> Any:
        async def play() -> None:
            world = await started(environment)
            data = contents(world.log)
            assert data.startswith(kept[0]), (kill_at, world.log.folder)
            assert loses_power or data == kept[1], (kill_at, world.log.folder)
            headers = [header for _, header in whole_batches(memoryview(data))]
            assert [one.next_offset for one in headers[:-1]] == [each.base_offset for each in headers[1:]]
            if "t-0" in world.names("/a"):
                world.place("/b")
            await world.until_moved("/b")
            assert contents(world.log) == data
            append(world.log, epoch=8)
            data = contents(world.log)
            await world.manager.stop()
            world = await started(environment)
            assert (contents(world.log), world.names("/a"), world.names("/b")) == (data, [], ["t-0"]), kill_at
            await world.manager.stop()

        return play()

    ended = run(live, files=files)
    disk.release_locks(None)  # type: ignore[arg-type]
    disk._locks.clear()
    if loses_power:
        disk.lose_power()
    run(look, files=SimulatedFiles(disk))
    return ended
