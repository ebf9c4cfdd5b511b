"""A voter takes memory for its log and its image, and little more: not for all that it has ever decoded."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from pathlib import Path
from uuid import UUID

from kraft.runtime.environment import close_environment, system_environment
from metadata.image import MetadataImage
from metadata.quorum.command import COMMAND_BYTES_MAX, encode_command
from metadata.quorum.engine import QuorumEngine
from metadata.quorum.outputs import Output
from metadata.quorum.raft_reports import UNTAKEN_BYTES_MAX
from metadata.quorum.state_machine import Applied, MetadataStateMachine
from metadata.records import ControllerEpochRecord, PartitionChangeRecord, PartitionRecord, Reason, Record, TopicRecord
from tests.support.repetitions import few_and_many
from tests.unit.quorum.cluster import Cluster, until

TOPIC = UUID(int=7)
PARTITIONS = 700
CHANGES_MAX = 30


async def fill(cluster: Cluster, *, changes: int = CHANGES_MAX) -> int:
    """Change the ISR of each of many partitions many times; returns the bytes of the commands."""
    log, epoch = await cluster.claim()
    total = 0

    async def append(records: list[Record]) -> None:
        nonlocal total
        total += len(encode_command(records, controller_epoch=epoch, expected_offset=0))
        await log.append(records, controller_epoch=epoch, expected_offset=log.image.offset)

    partitions = [
        PartitionRecord(topic_id=TOPIC, partition=number, replicas=(1, 2, 3), isr=(1, 2, 3), leader=1)
        for number in range(PARTITIONS)
    ]
    await append([TopicRecord(name="t", topic_id=TOPIC), *partitions])
    for change in range(1, changes + 1):
        await append(
            [
                PartitionChangeRecord(
                    topic_id=TOPIC,
                    partition=number,
                    reason=Reason.ISR_SHRUNK if change % 2 else Reason.ISR_EXPANDED,
                    leader_epoch=0,
                    partition_epoch=change,
                    isr=(1, 2) if change % 2 else (1, 2, 3),
                )
                for number in range(PARTITIONS)
            ]
        )
    return total


@few_and_many("changes", 8, CHANGES_MAX)
def test_what_a_restarted_voter_has_in_memory_is_of_the_size_of_its_log(tmp_path: Path, changes: int) -> None:
    async def scenario() -> None:
        cluster = Cluster(tmp_path, voters=1)
        try:
            await cluster.start()
            log_bytes = await fill(cluster, changes=changes)
            offset = cluster.logs[1].image.offset
            await cluster.stop()
            gc.collect()
            tracemalloc.start()
            try:
                await cluster.start()
                await until(lambda: cluster.logs[1].image.offset >= offset)
                gc.collect()
                kept, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            # The log, and the image with what is around it; 1.6 KB for each record more if they are kept decoded.
            assert kept < 1.4 * log_bytes + 2_000_000, (kept, log_bytes)
            assert peak < 3 * log_bytes + UNTAKEN_BYTES_MAX + 4_000_000, (peak, log_bytes)
        finally:
            await cluster.close()

    asyncio.run(scenario())


def test_voter_stops_applying_while_main_loop_hangs(tmp_path: Path) -> None:
    async def scenario() -> None:
        cluster = Cluster(tmp_path, voters=1)
        await cluster.start()
        log_bytes = await fill(cluster)
        image = cluster.logs[1].image
        await cluster.close()
        assert log_bytes > 2 * (UNTAKEN_BYTES_MAX + COMMAND_BYTES_MAX), "or there is nothing to see"

        environment, held = system_environment(), list[Output]()
        engine = QuorumEngine(environment, cluster.config(1), deliver=held.extend)
        running = asyncio.create_task(engine.run())
        try:
            await until(lambda: untaken(held) >= UNTAKEN_BYTES_MAX)
            ticks = environment.clock.monotonic_ms() + 500
            await until(lambda: environment.clock.monotonic_ms() >= ticks)
            assert untaken(held) < UNTAKEN_BYTES_MAX + COMMAND_BYTES_MAX
            reached = MetadataImage()
            while reached.offset < image.offset:
                await until(lambda: untaken(held) > 0)
                for output in (taken := held.copy()):
                    if isinstance(output, Applied):
                        reached = output.committed.image
                held.clear()
                engine.taken(untaken(taken))
            assert reached.topics == image.topics
        finally:
            engine.stop()
            await running
            close_environment(environment)

    asyncio.run(scenario())


def untaken(outputs: list[Output]) -> int:
    return sum(len(output.command) for output in outputs if isinstance(output, Applied))


def test_an_applied_command_is_where_the_log_has_it() -> None:
    """A copy of it, or an object for each record, would be in memory for as long as the log is."""
    entry = b"\0" + encode_command([ControllerEpochRecord(epoch=1, node_id=1)], controller_epoch=1, expected_offset=-1)
    applied: list[Applied] = []
    machine = MetadataStateMachine(on_applied=applied.append, on_installed=lambda image: None)
    machine.apply(memoryview(entry)[1:], index=2)
    assert applied[0].command.obj is entry
