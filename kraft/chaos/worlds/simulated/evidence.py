"""Collect the evidence of a simulated cluster after healing: its disks are copied to folders and read as those of real
nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from kraft.chaos.evidence import EPOCH_UNKNOWN, Evidence, GroupOffset, LogRecord, ReadBack, read_events
from kraft.chaos.history import Header
from kraft.chaos.worlds.processes.logs import RunFiles, records_of, replica_logs, voter_metadata
from kraft.chaos.worlds.processes.pace import of_clients
from kraft.chaos.worlds.processes.readback import merge_events
from kraft.chaos.worlds.simulated.client import records_for
from kraft.chaos.worlds.simulated.cluster import SimulatedCluster, SimulatedNode
from kraft.chaos.worlds.simulated.world import SimulatedStoryWorld
from kraft.chaos.worlds.snapshot import Snapshot
from kraft.chaos.worlds.spec import ScenarioError
from kraft.coordinators.groups.answers import GroupOffsets
from kraft.coordinators.groups.requests import FetchOffsets
from kraft.protocol.batches.header import whole_batches
from kraft.protocol.errors import KafkaError
from metadata.environment import ConnectionClosed, Files
from metadata.image import TopicIdPartition
from replication.requests import ReadOptions

READ_BYTES: Final = 4 * 1024 * 1024
READ_LIMIT_S: Final = 30.0
RETRY_S: Final = 0.05


async def gather_evidence(
    cluster: SimulatedCluster,
    world: SimulatedStoryWorld,
    *,
    header: Header,
    directory: Path,
    groups: Sequence[str] = (),
) -> Evidence:
    snapshot = world.snapshot()
    _make_folder(directory / "readback")
    readback = [
        await _read_back(cluster, snapshot, topic, number, directory / "readback")
        for topic, number in sorted(snapshot.newest.partitions if snapshot.newest else ())
        if of_clients(topic)
    ]
    committed = [each for group in groups for each in await _committed(cluster, group)]
    data = {number: directory / "data" / f"node-{number}" for number in cluster.nodes}
    for number, node in cluster.nodes.items():
        _copy(node.machine.environment.files, "/data", data[number])
    logs = {number: folder / "logs" for number, folder in data.items()}
    files = RunFiles(directory=directory, brokers=world.brokers, voters=world.voters, data=data, logs=logs)
    voters, notes = voter_metadata(files)
    return Evidence(
        readback=readback,
        replicas=replica_logs(files, snapshot, of_clients),
        committed=committed if groups else None,
        samples=tuple(world.samples),
        voters=voters,
        events=read_events(merge_events(files), header),
        faults=tuple(world.faults),
        notes=notes,
    )


async def _committed(cluster: SimulatedCluster, group: str) -> list[GroupOffset]:
    """The committed offsets from the coordinator of a group. Raises ScenarioError without an answer."""
    deadline = cluster.world.loop.time() + READ_LIMIT_S
    while True:
        for node in cluster.alive:
            assert node.node is not None
            try:
                async with asyncio.timeout(READ_LIMIT_S):
                    answer = await node.machine.run(node.node.groups.ask(FetchOffsets(group=group)))
            except (KafkaError, ConnectionClosed, TimeoutError) as error:
                problem = error
                continue
            assert isinstance(answer, GroupOffsets), answer
            return [GroupOffset(group, row.topic, row.partition, row.offset) for row in answer.offsets]
        if cluster.world.loop.time() > deadline:
            raise ScenarioError(f"no answer about the committed offsets of group {group}: {problem}")
        await asyncio.sleep(RETRY_S)


def _make_folder(folder: Path) -> None:
    folder.mkdir(exist_ok=True)


def _copy(files: Files, source: str, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in files.list_directory(source):
        path = f"{source}/{name}"
        if files.is_directory(path):
            _copy(files, path, target / name)
        else:
            file = files.open(path, read_only=True)
            (target / name).write_bytes(file.pread(0, file.size))
            file.close()


async def _read_back(cluster: SimulatedCluster, snapshot: Snapshot, topic: str, number: int, folder: Path) -> ReadBack:
    facts = snapshot.partition(topic, number)
    leader = snapshot.leader(topic, number)
    path = folder / f"{topic}-{number}.batches"
    start, end, problem = await _read_all(cluster, leader, topic, number, path)
    committed, stable = await _read_committed(cluster, leader, topic, number)
    return ReadBack(
        topic=topic,
        partition=number,
        records=records_of([path], from_offset=start),
        log_start_offset=start,
        high_watermark=end,
        committed=None if committed is None else committed.__iter__,
        last_stable_offset=stable,
        leader=leader,
        leader_epoch=EPOCH_UNKNOWN if facts is None else facts.leader_epoch,
        isr=tuple(node for node in snapshot.isr(topic, number) if snapshot.alive(node)),
        error=problem or None,
    )


async def _read_all(
    cluster: SimulatedCluster, leader: int, topic: str, number: int, path: Path
) -> tuple[int, int, str]:
    """Log start offset, end of the read, and the reason if it did not reach the high watermark."""
    deadline = cluster.world.loop.time() + READ_LIMIT_S
    start, position, problem = -1, 0, "there is no leader"
    with path.open("wb") as out:
        while cluster.world.loop.time() < deadline:
            node = cluster.nodes.get(leader)
            try:
                data, position, high_watermark, log_start = await _read(node, topic, number, position)
            except (KafkaError, ConnectionClosed, TimeoutError) as error:
                problem = f"{type(error).__name__} {error}"
                await asyncio.sleep(RETRY_S)
                continue
            out.write(data)
            start = log_start if start < 0 else start
            if position >= high_watermark:
                return start, position, ""
    return max(start, 0), position, problem


async def _read_committed(
    cluster: SimulatedCluster, leader: int, topic: str, number: int
) -> tuple[list[LogRecord] | None, int | None]:
    """The records that a `read_committed` consumer receives, and its end offset; None if the partition cannot be
    read."""
    node, found, position = cluster.nodes.get(leader), list[LogRecord](), 0
    if node is None or node.node is None:
        return None, None
    gateway = node.node.gateway
    image = gateway.image.topic(topic)
    assert image is not None, topic
    which = TopicIdPartition(image.topic_id, number)
    try:
        async with asyncio.timeout(READ_LIMIT_S):
            while True:
                options = ReadOptions(bytes_max=READ_BYTES, is_read_committed=True)
                read = await node.machine.run(gateway.read(which, position, options))
                following, records = records_for(read, position)
                found += [LogRecord(offset, EPOCH_UNKNOWN, value) for offset, value in records]
                if following == position:
                    return found, read.last_stable_offset
                position = following
    except (KafkaError, ConnectionClosed, TimeoutError):
        return None, None


async def _read(node: SimulatedNode | None, topic: str, number: int, position: int) -> tuple[bytes, int, int, int]:
    """The bytes, the next offset, the high watermark and the log start offset."""
    if node is None or node.node is None:
        raise TimeoutError("the leader does not run")
    gateway = node.node.gateway
    found = gateway.image.topic(topic)
    assert found is not None, topic
    which = TopicIdPartition(found.topic_id, number)
    async with asyncio.timeout(READ_LIMIT_S):
        read = await node.machine.run(gateway.read(which, position, ReadOptions(bytes_max=READ_BYTES)))
    data = bytes(read.data)
    following = position
    for _, header in whole_batches(data):
        following = max(following, header.next_offset)
    if not data:
        following = max(position, read.high_watermark)
    return data, following, read.high_watermark, read.log_start_offset
