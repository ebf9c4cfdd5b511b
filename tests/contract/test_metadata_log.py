"""What every MetadataLog must do, on the one in memory and on Raft over real threads, files and sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from metadata.quorum.log import (
    AppendLost,
    Committed,
    Leadership,
    MetadataLog,
    MetadataSlice,
    SnapshotInstalled,
    SnapshotNeeded,
)
from metadata.records import ControllerEpochRecord, decode_record
from tests.support.memory_log import SharedLog
from tests.unit.quorum.cluster import running, setting

Opened = Callable[[Path], AbstractAsyncContextManager[tuple[MetadataLog, MetadataLog]]]
"""A log that leads, and another node's."""


@asynccontextmanager
async def in_memory(_directory: Path) -> AsyncIterator[tuple[MetadataLog, MetadataLog]]:
    shared = SharedLog()
    first, second = shared.node(1), shared.node(2)
    shared.elect(1)
    yield first, second


@asynccontextmanager
async def over_raft(directory: Path) -> AsyncIterator[tuple[MetadataLog, MetadataLog]]:
    async with running(directory) as cluster:
        leader = await cluster.leader()
        yield leader, next(log for log in cluster.logs.values() if log is not leader)


@pytest.fixture(params=[in_memory, over_raft], ids=["memory", "raft"])
def opened(request: pytest.FixtureRequest) -> Opened:
    chosen: Opened = request.param
    return chosen


async def _claim(log: MetadataLog, epoch: int = 1) -> None:
    record = ControllerEpochRecord(epoch=epoch, node_id=1)
    await log.append([record], controller_epoch=epoch, expected_offset=log.image.offset)


def test_an_append_returns_the_image_after_it(opened: Opened, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as (log, _):
            await _claim(log, 7)
            image = await log.append([setting("a"), setting("b")], controller_epoch=7, expected_offset=0)
            assert (image.offset, image.controller_epoch, image.config("broker", "")) == (2, 7, {"a": "1", "b": "1"})
            assert log.image == image

    asyncio.run(scenario())


def test_an_append_that_was_decided_on_an_older_image_is_lost(opened: Opened, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as (log, _):
            await _claim(log)
            await log.append([setting("a")], controller_epoch=1, expected_offset=0)
            with pytest.raises(AppendLost):
                await log.append([setting("b")], controller_epoch=1, expected_offset=0)
            assert log.image.offset == 1

    asyncio.run(scenario())


def test_a_controller_of_an_older_epoch_is_fenced(opened: Opened, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as (log, _):
            await _claim(log, 3)
            await _claim(log, 5)
            with pytest.raises(AppendLost):
                await log.append([setting("a")], controller_epoch=3, expected_offset=1)
            with pytest.raises(AppendLost):
                await _claim(log, 5)
            assert (log.image.offset, log.image.controller_epoch) == (1, 5)

    asyncio.run(scenario())


def test_only_the_leader_appends(opened: Opened, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as (log, other):
            assert log.leadership.is_self
            assert not other.leadership.is_self
            with pytest.raises(AppendLost):
                await _claim(other)

    asyncio.run(scenario())


def test_subscribers_of_every_node_see_the_same_changes_without_a_gap(opened: Opened, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as logs:
            seen: list[list[Committed | SnapshotInstalled]] = [[], []]
            leaders: list[Leadership] = []
            for log, changes in zip(logs, seen, strict=True):
                log.subscribe(changes.append, leaders.append)
            await _claim(logs[0])
            for number in range(20):
                await logs[0].append([setting(f"s{number}")], controller_epoch=1, expected_offset=number)
            async with asyncio.timeout(30):
                while len(seen[1]) < 21:  # noqa: ASYNC110 - polls with a deadline
                    await asyncio.sleep(0.005)
            for changes in seen:
                assert [change.base_offset for change in changes if isinstance(change, Committed)] == list(range(21))
                assert changes[-1].image == logs[0].image

    asyncio.run(scenario())


def test_an_observer_reads_every_record_in_pieces(opened: Opened, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as (log, _):
            await _claim(log)
            records = [setting(f"s{number}") for number in range(10)]
            await log.append(records, controller_epoch=1, expected_offset=0)
            read = []
            while len(read) < 11:
                piece = log.read(len(read), bytes_max=200)
                assert isinstance(piece, MetadataSlice)
                assert (piece.base_offset, piece.end_offset, piece.controller_epoch) == (len(read), 11, 1)
                assert 1 <= len(piece.records) < 5
                read += [decode_record(record) for record in piece.records]
            assert read[1:] == records
            end = log.read(11, bytes_max=200)
            assert isinstance(end, MetadataSlice)
            assert end.records == ()

    asyncio.run(scenario())


def test_raft_reports_snapshot_needed_for_what_it_no_longer_has(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running(tmp_path, voters=1, snapshot_bytes=4_000) as cluster:
            leader, epoch = await cluster.claim()
            for number in range(200):
                await leader.append(
                    [setting(f"s{number % 7}")], controller_epoch=epoch, expected_offset=leader.image.offset
                )
            needed = leader.read(0, bytes_max=1000)
            assert isinstance(needed, SnapshotNeeded)
            piece, size = leader.read_snapshot(needed.end_offset, position=0, bytes_max=10**6)
            assert len(piece) == size
            following = leader.read(needed.end_offset, bytes_max=10**6)
            assert isinstance(following, MetadataSlice)
            assert following.base_offset + len(following.records) == 201

    asyncio.run(scenario())
