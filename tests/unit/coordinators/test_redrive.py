"""Dead letters go back to where they came from, each once, also if a node dies in the middle."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest

from kraft.chaos.worlds.simulated.cluster import SimulatedCluster
from kraft.coordinators.copies import Copies
from kraft.coordinators.shares.redrive import (
    FROM_HEADER,
    NOTED_BYTES,
    AskedRedrive,
    Redriven,
    Source,
    letter_of,
    records_of,
)
from kraft.coordinators.shares.redriven import Progress, progress_of
from kraft.protocol.batches.header import whole_batches
from kraft.protocol.batches.records import NewRecord, build_batch, read_batches
from kraft.protocol.errors import ConcurrentTransactions, InvalidRequest, KafkaError, ProducerFenced
from metadata.controller.requests import DeleteTopics
from metadata.image import TopicIdPartition
from replication.requests import ProduceOptions, ReadOptions
from tests.unit.coordinators.test_share_coordinator import at
from tests.unit.coordinators.test_transaction_cluster import create, play, until

LETTERS = {"errors.deadletterqueue.group.enable": "true", "min.insync.replicas": "1"}
MIN_ISR = {"min.insync.replicas": "1"}


def letter(
    offset: int, *, group: str = "g", topic: str = "t", partition: int = 0, value: bytes | None = None
) -> NewRecord:
    named = {
        "topic": topic,
        "partition": str(partition),
        "offset": str(offset),
        "group": group,
        "message": "no address",
    }
    headers = [(f"__dlq.errors.{name}", text.encode()) for name, text in named.items()]
    return NewRecord(None, value, list(headers), 2_000)


async def written(cluster: SimulatedCluster, where: TopicIdPartition, records: Sequence[NewRecord]) -> None:
    node = cluster.alive[0]
    assert node.node is not None
    outcomes = await at(node, node.node.gateway.produce({where: build_batch(records)}, ProduceOptions(-1, 10_000)))
    assert outcomes[where].error_code == 0, outcomes


async def topics(cluster: SimulatedCluster, *, partitions: int = 1) -> tuple[TopicIdPartition, TopicIdPartition]:
    """Six records, and the topic for dead letters."""
    where = await create(cluster, "t", on=(1, 2, 3), partitions=partitions, configs=MIN_ISR)
    await written(cluster, where, [NewRecord(b"k", b"v%d" % number, [("h", b"x")], 1_000) for number in range(6)])
    return where, await create(cluster, "dlq", on=(2, 3, 1), configs=LETTERS)


async def redrive(
    cluster: SimulatedCluster, *offsets: int, is_dry: bool = False, node_id: int = 1, **more: Any
) -> Redriven:
    node = cluster.nodes[node_id]
    assert node.node is not None
    asked: dict[str, Any] = {
        "queue": "g",
        "dead_letters": "dlq",
        "records": frozenset(Source("t", 0, offset) for offset in offsets) if offsets else None,
        "letters_max": 1_000,
        "is_dry": is_dry,
    }
    done: Redriven = await at(node, node.node.queues.redrive(AskedRedrive(**(asked | more)), node.node.gateway))
    return done


def rows(done: Redriven) -> list[tuple[int, str]]:
    return [(row.letter.source.offset, row.state) for row in done.rows]


async def came_back(
    cluster: SimulatedCluster, where: TopicIdPartition, *, is_read_committed: bool = True
) -> list[tuple[bytes | None, bytes | None]]:
    """Value and origin of each record that was brought back."""
    await asyncio.sleep(1)  # markers follow the end of a transaction
    node = cluster.alive[-1]
    assert node.node is not None
    options = ReadOptions(bytes_max=10**6, is_read_committed=is_read_committed)
    headers, offset = [], 0
    while (found := await at(node, node.node.gateway.read(where, offset, options))).data:
        headers += [(record.value, dict(record.headers)) for record in records_of(found, offset)]
        offset = [header for _, header in whole_batches(found.data)][-1].next_offset
    return [(value, named[FROM_HEADER]) for value, named in headers if FROM_HEADER in named]


def test_dead_letters_go_back_once_and_those_of_other_queues_stay():
    async def story(cluster: SimulatedCluster) -> None:
        where, dlq = await topics(cluster)
        foreign, copied = letter(2, group="other"), letter(9, value=b"copy")
        await written(cluster, dlq, [letter(1), foreign, letter(3), letter(1), copied])
        assert rows(await redrive(cluster, is_dry=True)) == [(1, "WAITS"), (3, "WAITS"), (9, "WAITS")]
        assert await came_back(cluster, where) == []
        assert rows(await redrive(cluster)) == [(1, "REDRIVEN"), (3, "REDRIVEN"), (9, "REDRIVEN")]
        back = [(b"v1", b"dlq-0@0"), (b"v3", b"dlq-0@2"), (b"copy", b"dlq-0@4")]
        assert await came_back(cluster, where) == back
        assert rows(await redrive(cluster, node_id=3)) == []
        await written(cluster, dlq, [letter(3), letter(5), letter(77)])
        again = await redrive(cluster, node_id=2)
        assert rows(again) == [(5, "REDRIVEN"), (77, "GONE")], "3 was a second letter of the same record"
        assert await came_back(cluster, where) == [*back, (b"v5", b"dlq-0@6")]

    play(story)


def test_single_letters_go_back_in_any_order_and_the_others_later():
    async def story(cluster: SimulatedCluster) -> None:
        where, dlq = await topics(cluster)
        await written(cluster, dlq, [letter(number) for number in range(6)])
        assert rows(await redrive(cluster, 4, 2)) == [(2, "REDRIVEN"), (4, "REDRIVEN")]
        missing = await redrive(cluster, 4, 8)
        assert rows(missing) == []
        assert [text.partition(" waits")[0] for text in missing.problems] == [
            "no dead letter of t-0@4",
            "no dead letter of t-0@8",
        ]
        first = await redrive(cluster, letters_max=2)
        assert (rows(first), first.is_complete) == ([(0, "REDRIVEN"), (1, "REDRIVEN")], False)
        assert rows(await redrive(cluster)) == [(3, "REDRIVEN"), (5, "REDRIVEN")]
        assert sorted(value or b"" for value, _ in await came_back(cluster, where)) == [b"v%d" % n for n in range(6)]

    play(story)


PLACES = ("before it notes", "before the copies", "between two partitions", "after the copies", "after it noted")


@pytest.mark.parametrize("place", PLACES)
def test_a_node_that_dies_in_the_middle_brings_nothing_back_twice(monkeypatch: pytest.MonkeyPatch, place: str):
    """For readers of uncommitted records, too."""

    async def story(cluster: SimulatedCluster) -> None:
        where, dlq = await topics(cluster, partitions=2)
        other = TopicIdPartition(where.topic_id, 1)
        await written(cluster, other, [NewRecord(b"k", b"w%d" % number, [], 1_000) for number in range(6)])
        await written(cluster, dlq, [letter(number, partition=at) for number in range(6) for at in (0, 1)])
        _dies(monkeypatch, cluster, place)
        with pytest.raises(BaseException):  # noqa: B017, PT011 - of a node that is dead
            await redrive(cluster)
        again: list[Redriven] = []
        await until(lambda: _is_done(cluster, again))
        for is_read_committed in (False, True):
            first = [value for value, _ in await came_back(cluster, where, is_read_committed=is_read_committed)]
            second = [value for value, _ in await came_back(cluster, other, is_read_committed=is_read_committed)]
            assert first == [b"v%d" % number for number in range(6)]
            assert second == [b"w%d" % number for number in range(6)]
        assert len(again[-1].rows) == (0 if place == "after it noted" else 12), "what has arrived is named as well"
        assert rows(await redrive(cluster, node_id=2, is_dry=True)) == []

    play(story)


def _dies(monkeypatch: pytest.MonkeyPatch, cluster: SimulatedCluster, place: str) -> None:
    """Node 1, once, in its turn."""
    note, send = Copies._note, Copies._send
    left = [place]

    def die() -> None:
        left.clear()
        cluster.nodes[1].kill()
        raise KafkaError("it is dead")

    async def noting(self: Copies, *arguments: Any, **named: Any) -> None:
        if left == ["before it notes"] and named["positions"]:
            die()
        await note(self, *arguments, **named)
        if left == ["after it noted"] and named["since"] > named["turn"] > 0:
            die()

    async def sending(self: Copies, batches: Mapping[TopicIdPartition, bytes]) -> None:
        first = next(iter(batches))
        if left == ["before the copies"]:
            die()
        if left == ["between two partitions"]:
            await send(self, {first: batches[first]})
            die()
        await send(self, batches)
        if left == ["after the copies"]:
            die()

    monkeypatch.setattr(Copies, "_note", noting)
    monkeypatch.setattr(Copies, "_send", sending)


async def _is_done(cluster: SimulatedCluster, answers: list[Redriven]) -> bool:
    try:
        answers.append(await redrive(cluster, node_id=3))
    except KafkaError:
        return False
    return answers[-1].is_complete


def test_a_dry_run_after_a_death_knows_what_has_arrived(monkeypatch: pytest.MonkeyPatch):
    async def story(cluster: SimulatedCluster) -> None:
        where, dlq = await topics(cluster, partitions=2)
        other = TopicIdPartition(where.topic_id, 1)
        await written(cluster, other, [NewRecord(b"k", b"w0", [], 1_000)])
        await written(cluster, dlq, [letter(0), letter(0, partition=1), letter(1)])
        _dies(monkeypatch, cluster, "between two partitions")
        with pytest.raises(BaseException):  # noqa: B017, PT011 - of a node that is dead
            await redrive(cluster)

        async def dry() -> Redriven | None:
            with suppress(KafkaError):
                return await redrive(cluster, node_id=3, is_dry=True)
            return None

        waits: Redriven = await until(dry)
        assert [str(row.letter.source) for row in waits.rows] == ["t-1@0"]

    play(story)


def test_of_two_redrives_at_once_one_goes_on_and_each_record_comes_back_once():
    async def story(cluster: SimulatedCluster) -> None:
        where, dlq = await topics(cluster)
        await written(cluster, dlq, [letter(number) for number in range(6)])
        both = await asyncio.gather(
            redrive(cluster, node_id=1),
            redrive(cluster, node_id=2),
            redrive(cluster, node_id=3),
            return_exceptions=True,
        )
        done = [each for each in both if isinstance(each, Redriven)]
        assert done
        assert all(isinstance(each, Redriven | ProducerFenced | ConcurrentTransactions) for each in both), both
        await redrive(cluster)
        back = await came_back(cluster, where, is_read_committed=False)
        assert [value for value, _ in back] == [b"v%d" % number for number in range(6)]

    play(story)


def test_a_target_that_is_gone_stops_before_its_letter_and_loses_nothing():
    async def story(cluster: SimulatedCluster) -> None:
        where, dlq = await topics(cluster)
        await create(cluster, "u", on=(1, 2, 3), configs=MIN_ISR)
        await written(cluster, dlq, [letter(0), letter(0, topic="u"), letter(1)])
        node = cluster.alive[0]
        assert node.node is not None
        await at(node, node.node.gateway.control(DeleteTopics(topics=("u",)), timeout_ms=10_000))
        stopped = await redrive(cluster)
        assert (rows(stopped), stopped.is_complete) == ([(0, "REDRIVEN")], False)
        assert stopped.problems[0].startswith("u-0 is not there any more, to which the dead letter dlq-0@1 goes back")
        assert rows(await redrive(cluster, 1)) == [(1, "REDRIVEN")], "past it"
        again = await create(cluster, "u", on=(1, 2, 3), configs=MIN_ISR)
        await written(cluster, again, [NewRecord(None, b"another", [], 3_000)])
        assert rows(await redrive(cluster)) == [(0, "GONE")], "the new topic has another record there"
        assert len(await came_back(cluster, where)) == 2

    play(story)


def test_more_single_letters_than_can_be_remembered_are_refused():
    async def story(cluster: SimulatedCluster) -> None:
        where, dlq = await topics(cluster)
        await written(cluster, dlq, [letter(number) for number in range(6)])
        assert rows(await redrive(cluster, 1)) == [(1, "REDRIVEN")]
        with pytest.raises(InvalidRequest, match="bring back all letters of the queue first"):
            await redrive(cluster, 3)
        assert len(await came_back(cluster, where)) == 1

    play(story, offset_metadata_max_bytes=NOTED_BYTES + 5)


@pytest.mark.parametrize("offset", [b"", b"-1", b"9" * 5_000, b"\xff1", b"\xd9\xa1", b"1 "])
def test_headers_of_no_dead_letter_are_passed(offset: bytes):
    headers = [(name, offset if name.endswith(".offset") else value) for name, value in letter(1).headers]
    (record,) = read_batches(build_batch([NewRecord(None, None, headers, 1)]))
    assert letter_of(record, "g", 0) is None


# --- progress ---------------------------------------------------------------------------------------------------------


def test_progress_is_what_a_set_of_offsets_would_be():
    for seed in range(200):
        rng = random.Random(seed)
        progress, done = Progress(), set[int]()
        for _ in range(30):
            first = rng.randrange(60)
            last = first + rng.choice((-1, 0, 0, 3, 12))
            progress = progress.with_done(first, last)
            done.update(range(first, last + 1))
            progress = progress_of(progress.offset, progress.metadata)
            assert {offset for offset in range(90) if progress.has(offset)} == done
            assert progress.offset == min(set(range(90)) - done)


@pytest.mark.parametrize("metadata", ["x", "1", "5-", "1-2;3-4", "-1-4", "9" * 20 + "-1"])
def test_metadata_of_somebody_else_is_refused(metadata: str):
    with pytest.raises(InvalidRequest):
        progress_of(0, metadata)
