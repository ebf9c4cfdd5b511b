"""What a request costs the loop is counted, and its waits are not."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from kraft.broker.client_quotas import ClientQuotas, Owner
from kraft.broker.processor_time import ProcessorTime, Timed


class Clock:
    now_us = 0

    def monotonic_us(self) -> int:
        return self.now_us


async def turn() -> None:
    await asyncio.sleep(0)


def test_work_counts_and_waits_do_not() -> None:
    clock = Clock()
    time = ProcessorTime(cast(Any, clock))

    async def work() -> str:
        clock.now_us += 3_000
        await turn()
        clock.now_us += 4_000
        with pytest.raises(asyncio.CancelledError):
            await turn()
        clock.now_us += 5_000
        return "done"

    clock.now_us += 1_000
    time.pause()
    clock.now_us += 90_000
    steps = Timed(work(), time).__await__()
    next(steps)
    clock.now_us += 50_000
    next(steps)
    clock.now_us += 60_000
    with pytest.raises(StopIteration) as ended:
        steps.throw(asyncio.CancelledError())
    assert ended.value.value == "done"
    assert time.take_percent() == 1.3
    assert time.take_percent() == 0
    time.resume()
    clock.now_us += 10_000
    assert time.take_percent() == 1


def test_a_failure_passes_and_counts() -> None:
    clock = Clock()
    time = ProcessorTime(cast(Any, clock))

    async def work() -> None:
        clock.now_us += 20_000
        raise KeyError("x")

    async def main() -> None:
        await Timed(work(), time)

    with pytest.raises(KeyError):
        asyncio.run(main())
    assert time.take_percent() == 2


def test_a_client_over_its_share_of_the_loop_waits_for_a_second_at_most() -> None:
    quotas = ClientQuotas({(("user", "alice"),): {"request_percentage": 50.0}})
    alice = Owner("alice", None)
    assert quotas.limits("request_percentage", alice)
    assert not quotas.limits("request_percentage", Owner("bob", None))
    assert quotas.worked(alice, 500.0, 0) == 0
    assert quotas.worked(alice, 10.0, 0) == 200
    assert quotas.worked(alice, 1_000.0, 0) == 1_000
    assert quotas.worked(Owner("bob", None), 1_000.0, 0) == 0
