"""The observer against voters in memory that lag, fail and forget."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from pathlib import Path

from kraft.protocol.errors import SnapshotNotFound
from kraft.runtime.environment import close_environment, system_environment
from metadata.image import MetadataImage
from metadata.image_codec import encode_image
from metadata.quorum.command import encode_command
from metadata.quorum.files import read_metadata_files
from metadata.quorum.log import Committed, MetadataSlice, SnapshotInstalled, SnapshotNeeded
from metadata.quorum.observer import ObserverLog
from metadata.quorum.retained import RetainedRecords
from metadata.records import ControllerEpochRecord, Record
from tests.unit.quorum.cluster import RecordedEvents, running, setting, until


@dataclass
class Answer:
    result: MetadataSlice | SnapshotNeeded
    leader_id: int = 1
    leader_epoch: int = 1


@dataclass
class Piece:
    data: bytes
    size: int


class Voters:
    """One log; voter 2 is down, voter 3 is behind, voter 1 is fine."""

    def __init__(self) -> None:
        self.image = MetadataImage()
        self.retained = RetainedRecords()
        self.asked: list[int] = []

    def append(self, *records: Record) -> None:
        base = self.image.next_offset
        self.image = self.image.apply(records)
        command = encode_command(records, controller_epoch=self.image.controller_epoch, expected_offset=base - 1)
        self.retained.append(
            base,
            memoryview(command),
            end_offset=self.image.next_offset,
            controller_epoch=self.image.controller_epoch,
        )

    def snapshot(self) -> None:
        self.retained.add_snapshot(
            end_offset=self.image.next_offset,
            controller_epoch=self.image.controller_epoch,
            body=encode_image(self.image),
        )

    async def fetch(self, voter_id: int, *, offset: int, wait_ms_max: int, bytes_max: int) -> Answer:
        self.asked.append(voter_id)
        await asyncio.sleep(0.002)
        if voter_id == 2:
            raise ConnectionRefusedError("down")
        if voter_id == 3:
            behind = MetadataSlice(base_offset=offset, records=(), controller_epoch=0, end_offset=0)
            return Answer(behind, leader_id=-1)
        return Answer(self.retained.read(offset, bytes_max=100))

    async def fetch_snapshot(
        self, voter_id: int, *, end_offset: int, epoch: int, position: int, bytes_max: int
    ) -> Piece:
        if voter_id != 1:
            raise SnapshotNotFound("none here")
        return Piece(*self.retained.read_snapshot(end_offset, position=position, bytes_max=50))


@dataclass
class Observed:
    log: ObserverLog
    fatal: list[str]
    events: RecordedEvents = field(default_factory=RecordedEvents)
    changes: list[Committed | SnapshotInstalled] = field(default_factory=list)


def observe(environment, source, directory: Path, *, snapshot_bytes: int = 10**6) -> Observed:  # type: ignore[no-untyped-def]
    events = RecordedEvents()
    fatal: list[str] = []
    log = ObserverLog(
        environment,
        cluster_id="c",
        node_id=7,
        directory=str(directory / "__cluster_metadata"),
        voters=(1, 2, 3),
        source=source,
        snapshot_bytes=snapshot_bytes,
        events=events,
        on_fatal=lambda error: fatal.append(repr(error)),
    )
    observed = Observed(log, fatal, events)
    log.subscribe(observed.changes.append, lambda leadership: None)
    return observed


def test_it_follows_and_after_a_restart_goes_on_from_its_own_copy(tmp_path: Path) -> None:
    async def scenario() -> None:
        environment, voters = system_environment(), Voters()
        voters.append(ControllerEpochRecord(epoch=3, node_id=1))
        for number in range(20):
            voters.append(setting(f"s{number}"))
        first = observe(environment, voters, tmp_path)
        await first.log.start()
        await until(lambda: first.log.image == voters.image or bool(first.fatal))
        assert not first.fatal, first.fatal
        offsets = [change.base_offset for change in first.changes if isinstance(change, Committed)]
        assert offsets == sorted(offsets)
        assert first.log.leadership.leader_id == 1
        await first.log.stop()
        assert read_metadata_files(environment.files, str(tmp_path / "__cluster_metadata")).image == voters.image

        silent = Voters()
        second = observe(environment, silent, tmp_path)
        await second.log.start()
        assert second.log.image == voters.image
        await until(lambda: len(set(silent.asked)) == 3)
        assert second.log.image == voters.image, "voters that know less are not followed"
        await second.log.stop()
        close_environment(environment)

    asyncio.run(scenario())


def test_it_takes_a_snapshot_when_it_is_too_far_behind_and_makes_its_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        environment, voters = system_environment(), Voters()
        voters.append(ControllerEpochRecord(epoch=3, node_id=1), *[setting(f"s{number}") for number in range(20)])
        voters.snapshot()
        voters.append(*[setting(f"t{number}") for number in range(20)])
        voters.snapshot()
        voters.append(setting("u"))
        voters.snapshot()
        observed = observe(environment, voters, tmp_path, snapshot_bytes=300)
        await observed.log.start()
        await until(lambda: observed.log.image == voters.image)
        assert isinstance(observed.changes[0], SnapshotInstalled)
        for number in range(30):
            voters.append(setting(f"v{number}"))
        await until(lambda: observed.log.image == voters.image)
        await observed.log.stop()
        found = read_metadata_files(environment.files, str(tmp_path / "__cluster_metadata"))
        assert found.image == voters.image
        assert found.snapshot is not None
        assert len(found.records) < 20
        close_environment(environment)

    asyncio.run(scenario())


def test_a_damaged_copy_is_dropped_or_cut_and_fetched_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        environment, voters = system_environment(), Voters()
        voters.append(ControllerEpochRecord(epoch=3, node_id=1), *[setting(f"s{number}") for number in range(20)])
        rng = random.Random(1)
        for name in ["records"] * 8 + ["snapshot"] * 4:
            observed = observe(environment, voters, tmp_path, snapshot_bytes=10**6 if name == "records" else 100)
            await observed.log.start()
            voters.append(setting(f"x{rng.random()}"))
            await until(lambda log=observed.log: log.image == voters.image)  # type: ignore[misc]
            await observed.log.stop()
            path = tmp_path / "__cluster_metadata" / name
            data = bytearray(path.read_bytes())
            data[rng.randrange(len(data))] ^= 1
            path.write_bytes(data)
        last = observe(environment, voters, tmp_path)
        await last.log.start()
        await until(lambda: last.log.image == voters.image)
        await last.log.stop()
        close_environment(environment)

    asyncio.run(scenario())


def test_a_voter_s_files_can_be_read_while_it_runs_and_after(tmp_path: Path) -> None:
    async def scenario() -> None:
        environment = system_environment()
        async with running(tmp_path, voters=1, snapshot_bytes=3_000) as cluster:
            leader, epoch = await cluster.claim()
            for number in range(40):
                await leader.append(
                    [setting(f"s{number}")], controller_epoch=epoch, expected_offset=leader.image.offset
                )
            directory = str(tmp_path / "1" / "__cluster_metadata")
            live = read_metadata_files(environment.files, directory, with_uncommitted=True)
            assert live.image == leader.image
            assert live.snapshot is not None
            assert live.records[0].offset == live.snapshot.next_offset
            image = leader.image
        stopped = read_metadata_files(environment.files, directory, with_uncommitted=True)
        assert stopped.image == image
        close_environment(environment)

    asyncio.run(scenario())
