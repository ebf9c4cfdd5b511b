"""Budget: never above the limit, except for one holder alone; first come, first served; cancellation frees."""

from __future__ import annotations

import asyncio

from kraft.wire.budget import Budget
from tests.unit.wire.fakes import run


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_caller_that_does_not_fit_waits_in_line() -> None:
    async def main() -> None:
        budget = Budget(100)
        await budget.take(60)
        big = asyncio.create_task(budget.take(50))
        await turns()
        small = asyncio.create_task(budget.take(10))
        await turns()
        assert (big.done(), small.done(), budget.taken) == (False, False, 60)
        budget.give_back(60)
        await turns()
        assert (big.done(), small.done(), budget.taken) == (True, True, 60)

    run(main())


def test_one_that_is_larger_than_the_limit_gets_it_alone() -> None:
    async def main() -> None:
        budget = Budget(100)
        await budget.take(1)
        huge = asyncio.create_task(budget.take(500))
        await turns()
        assert not huge.done()
        budget.give_back(1)
        await huge
        assert budget.taken == 500

    run(main())


def test_a_cancelled_waiter_leaves_the_line() -> None:
    async def main() -> None:
        budget = Budget(100)
        await budget.take(100)
        first, second = asyncio.create_task(budget.take(100)), asyncio.create_task(budget.take(50))
        await turns()
        first.cancel()
        budget.give_back(100)
        await asyncio.gather(first, return_exceptions=True)
        await second
        assert budget.taken == 50

    run(main())
