"""A REST consumer's batch that is asked for again: all of its records, or an error; never some of them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from kraft.coordinators.groups.answers import PollPlan
from kraft.coordinators.groups.requests import InstanceConfig, Range
from kraft.http.limits import Limits
from kraft.http.media import Format
from kraft.http.metrics import Metrics
from kraft.http.v2.consumers_poll import Poll
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.errors import LeaderNotAvailable
from kraft.runtime.environment import system_environment
from replication.record_workers import RecordWorkers
from tests.support.fake_gateway import FakeGateway
from tests.support.plenty import nothing, room


def append(fake: FakeGateway, topic: str, count: int, *, size: int = 10) -> None:
    for _ in range(count):
        fake.log(topic).append(build_batch([NewRecord(None, bytes(size), [], 1)]))


def poll_again(fake: FakeGateway, *ranges: Range, bytes_max: int = 1_000_000) -> Poll:
    environment = system_environment(asyncio.get_running_loop())
    clock, work = environment.clock, RecordWorkers(environment.workers)
    context: Any = SimpleNamespace(
        gateway=fake, room=room, clock=clock, limits=Limits(), metrics=Metrics(dict), record_workers=work
    )
    config = InstanceConfig(reset="earliest")
    plan = PollPlan(config=config, number=7, generation=1, is_repeat=True, ranges=ranges)
    return Poll(context, plan, Format.BINARY, bytes_max=bytes_max, hold=nothing)


def offsets(poll: Poll) -> list[tuple[str, int]]:
    return [(each["topic"], each["offset"]) for each in msgspec.json.decode(poll.encoded())]


def test_what_a_new_leader_does_not_let_be_read_yet_is_waited_for() -> None:
    """The high watermark of a new leader is behind for a moment (L10)."""
    fake = FakeGateway()
    fake.add_topic("a")
    fake.add_topic("b")
    append(fake, "a", 3)
    append(fake, "b", 1)

    async def story() -> Poll:
        poll = poll_again(fake, ("a", 0, 0, 3), ("b", 0, 0, 2))
        asked = asyncio.create_task(poll.run(wait_ms=10_000))
        await fake.log("b").waited_for.wait()
        append(fake, "b", 5)
        await asked
        return poll

    assert offsets(asyncio.run(story())) == [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1)]


def test_a_batch_that_cannot_be_read_wholly_is_refused() -> None:
    fake = FakeGateway()
    fake.add_topic("a")
    fake.add_topic("b")
    append(fake, "a", 3)

    async def story() -> None:
        with pytest.raises(
            LeaderNotAvailable, match=r"batch 7 cannot be read again yet: it holds b-0 up to offset 1.*token 8"
        ):
            await poll_again(fake, ("a", 0, 0, 3), ("b", 0, 0, 2)).run(wait_ms=20)

    asyncio.run(story())


def test_what_was_written_since_keeps_no_partition_out_of_the_answer() -> None:
    fake = FakeGateway()
    fake.add_topic("a")
    fake.add_topic("b")
    append(fake, "a", 20, size=1_000)
    append(fake, "b", 1)

    async def story() -> Poll:
        poll = poll_again(fake, ("a", 0, 0, 1), ("b", 0, 0, 1), bytes_max=2_000)
        await poll.run(wait_ms=20)
        return poll

    assert offsets(asyncio.run(story())) == [("a", 0), ("b", 0)]
