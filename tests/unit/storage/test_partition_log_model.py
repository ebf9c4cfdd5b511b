"""PartitionLog against a list of records that does everything the slow and obvious way."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kraft.protocol.batches.header import whole_batches
from kraft.protocol.batches.records import NewRecord, build_batch, read_batches
from kraft.protocol.errors import OffsetOutOfRange
from metadata.environment import Environment
from metadata.settings import TopicSettings
from replication.storage.checkpoint_ceiling import Checkpoint
from replication.storage.partition_log import PartitionLog
from tests.unit.storage.world import NOW_MS, load, run

SETTINGS = TopicSettings(
    segment_bytes=1500, index_interval_bytes=150, segment_index_bytes=400, retention_bytes=6000, file_delete_delay_ms=0
)
STEPS = 250


@dataclass
class ModelBatch:
    base_offset: int
    epoch: int
    timestamps: list[int]

    @property
    def next_offset(self) -> int:
        return self.base_offset + len(self.timestamps)


@dataclass
class Model:
    start: int = 0
    end: int = 0
    batches: list[ModelBatch] = field(default_factory=list)
    epochs: list[tuple[int, int]] = field(default_factory=list)

    def append(self, epoch: int, timestamps: list[int]) -> None:
        if not self.epochs or epoch > self.epochs[-1][0]:
            self.epochs.append((epoch, self.end))
        self.batches.append(ModelBatch(self.end, epoch, timestamps))
        self.end += len(timestamps)

    def truncate(self, offset: int) -> None:
        self.batches = [each for each in self.batches if each.next_offset <= offset]
        self.end = max(self.batches[-1].next_offset if self.batches else offset, self.start)
        self.epochs = [entry for entry in self.epochs if entry[1] < self.end]

    def move_start(self, offset: int) -> None:
        self.start = offset
        older = [entry for entry in self.epochs if entry[1] <= offset]
        if older:
            self.epochs = [(older[-1][0], offset), *(entry for entry in self.epochs if entry[1] > offset)]

    def records(self) -> list[tuple[int, int]]:
        return [(b.base_offset + i, t) for b in self.batches for i, t in enumerate(b.timestamps)]

    def first_at(self, timestamp: int, bound: int) -> tuple[int, int] | None:
        for offset, time in self.records():
            if self.start <= offset < bound and time >= timestamp:
                return offset, time
        return None

    def end_for_epoch(self, epoch: int) -> tuple[int, int] | None:
        if not self.epochs or epoch > self.epochs[-1][0]:
            return None
        if epoch == self.epochs[-1][0]:
            return epoch, self.end
        later = next(start for e, start in self.epochs if e > epoch)
        known = [e for e, _ in self.epochs if e <= epoch]
        return (known[-1] if known else epoch), later


@pytest.mark.parametrize("seed", range(12))
def test_log_agrees_with_the_model(seed: int, tmp_path: Path) -> None:
    run(lambda environment: _play(environment, random.Random(seed), str(tmp_path / "t-0")))


async def _play(environment: Environment, rng: random.Random, folder: str) -> None:
    log, _ = load(environment, folder, settings=SETTINGS)
    model, epoch = Model(), 0
    for _ in range(STEPS):
        step = rng.random()
        if step < 0.6:
            epoch += rng.random() < 0.1
            _append(log, model, epoch, rng)
        elif step < 0.68:
            await log.flush()
            assert log.flushed_offset == log.log_end_offset
        elif step < 0.76:
            boundaries = [model.start, *(b.base_offset for b in model.batches if b.base_offset >= model.start)]
            offset = rng.choice(boundaries[-4:])
            log.truncate_to(offset)
            if offset < model.end:
                model.truncate(offset)
            else:
                model.epochs = [entry for entry in model.epochs if entry[1] < model.end]
        elif step < 0.82:
            log.delete_old_segments(high_watermark=log.log_end_offset, now_ms=NOW_MS)
            assert log.size_bytes <= 6000 + 1500
            if log.log_start_offset > model.start:
                model.move_start(log.log_start_offset)
            await log.remove_deleted_files()
        elif step < 0.86 and model.end > model.start:
            offset = rng.randint(model.start + 1, model.end)
            assert log.maybe_increment_log_start(offset)
            model.move_start(offset)
        elif step < 0.93:
            log = await _reopen(environment, log, model, folder, rng)
        _compare(log, model, rng)
    await log.close()


def _append(log: PartitionLog, model: Model, epoch: int, rng: random.Random) -> None:
    count = rng.randint(1, 5)
    timestamps = [NOW_MS - rng.randint(0, 10_000) for _ in range(count)]
    records = [NewRecord(b"k", bytes(rng.randint(0, 60)), [], timestamp) for timestamp in timestamps]
    codec = rng.choice(["none", "none", "gzip", "snappy", "lz4", "zstd"])
    if rng.random() < 0.5:
        data = build_batch(records, compression=codec)
        appended = log.append_as_leader(data, leader_epoch=epoch, now_ms=NOW_MS)
    else:
        data = build_batch(records, compression=codec, base_offset=log.log_end_offset, leader_epoch=epoch)
        followed = log.append_as_follower(data + data[:20], now_ms=NOW_MS)
        assert followed is not None
        appended = followed
    assert (appended.base_offset, appended.last_offset) == (model.end, model.end + count - 1)
    model.append(epoch, timestamps)


async def _reopen(
    environment: Environment, log: PartitionLog, model: Model, folder: str, rng: random.Random
) -> PartitionLog:
    is_clean = rng.random() < 0.5
    recovery_point = log.flushed_offset
    if is_clean:
        await log.close()
        recovery_point = log.log_end_offset
    else:
        await log.abandon()
    log.ceiling.save()
    for kind in Checkpoint:  # those that `load` is given are of now
        log.ceiling.covered(kind, log.ceiling.cuts)
    if rng.random() < 0.3:
        victims = [name for name in environment.files.list_directory(folder) if name.endswith("index")]
        environment.files.remove(f"{folder}/{rng.choice(victims)}")
    reopened, loaded = load(
        environment,
        folder,
        settings=SETTINGS,
        is_clean=is_clean,
        recovery_point=recovery_point,
        log_start_offset=model.start,
    )
    assert all(repair.event == "index_rebuilt" for repair in loaded.repairs), loaded.repairs
    model.epochs = [entry for entry in model.epochs if entry[1] < model.end]
    return reopened


def _compare(log: PartitionLog, model: Model, rng: random.Random) -> None:
    assert (log.log_start_offset, log.log_end_offset) == (model.start, model.end)
    assert list(log.epoch_entries) == model.epochs
    for _ in range(3):
        offset = rng.randint(model.start, model.end)
        bound = rng.randint(model.start, model.end + 3)
        _compare_read(log, model, offset, bound, bytes_max=rng.choice([1, 200, 1000, 100_000]))
        timestamp = NOW_MS - rng.randint(-100, 11_000)
        found = log.offset_for_timestamp(timestamp, upper_bound=bound)
        assert (found and (found.offset, found.timestamp)) == model.first_at(timestamp, bound)
    for epoch in range(8):
        end = log.end_offset_for_epoch(epoch)
        assert (end and (end.epoch, end.end_offset)) == model.end_for_epoch(epoch)
    _compare_max_timestamp(log, model)
    with pytest.raises(OffsetOutOfRange):
        log.read(model.end + 1, bytes_max=1, upper_bound=model.end)


def _compare_max_timestamp(log: PartitionLog, model: Model) -> None:
    latest = log.max_timestamp(upper_bound=model.end)
    shown = [time for b in model.batches if b.next_offset > model.start for time in b.timestamps]
    assert (latest and latest.timestamp) == (max(shown) if shown else None)


def _compare_read(log: PartitionLog, model: Model, offset: int, bound: int, *, bytes_max: int) -> None:
    read = log.read(offset, bytes_max=bytes_max, upper_bound=bound)
    headers = [header for _, header in whole_batches(read.data)]
    wanted = [b for b in model.batches if b.next_offset > offset and b.next_offset <= bound]
    if not wanted or offset >= bound or offset < wanted[0].base_offset:
        assert not read.data
        assert read.next_offset == offset
        return
    assert sum(header.size for header in headers) == len(read.data)
    assert headers, (offset, bound)
    assert len(headers) == 1 or len(read.data) <= bytes_max
    assert [(h.base_offset, h.leader_epoch) for h in headers] == [
        (b.base_offset, b.epoch) for b in wanted[: len(headers)]
    ]
    assert read.next_offset == headers[-1].next_offset
    expected = [(o, t) for o, t in model.records() if offset <= o < read.next_offset]
    assert [(r.offset, r.timestamp) for r in read_batches(read.data, from_offset=offset)] == expected
