"""Blocks of producer ids at a broker: each id once, the next block before the last id, one request at a time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from typing import Any

import pytest

from kraft.broker.producer_ids import ProducerIds
from kraft.protocol.errors import CoordinatorLoadInProgress, NotController, StaleBrokerEpoch
from metadata.controller.requests import AllocateProducerIds, ProducerIdBlock


class Controller:
    """Gives blocks of ten, counting up; `gate` holds answers back; `refuses` is raised once."""

    def __init__(self) -> None:
        self.asked: list[AllocateProducerIds] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.refuses: Exception | None = None
        self.count = 10

    async def control(self, request: Any, *, timeout_ms: int) -> Any:
        assert timeout_ms > 0
        self.asked.append(request)
        first = self.count * (len(self.asked) - 1)
        await self.gate.wait()
        refusal, self.refuses = self.refuses, None
        if refusal is not None:
            raise refusal
        return ProducerIdBlock(first=first, count=self.count)


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 60))


def made() -> tuple[ProducerIds, Controller]:
    controller = Controller()
    return ProducerIds(broker_id=3, control=controller, broker_epoch=lambda: 77), controller


def test_ids_are_given_once_and_in_order_over_blocks() -> None:
    async def story() -> None:
        ids, controller = made()
        assert [await ids.next_id() for _ in range(35)] == list(range(35))
        assert {(each.broker_id, each.broker_epoch) for each in controller.asked} == {(3, 77)}
        assert len(controller.asked) == 4
        await ids.stop()

    run(story())


def test_the_next_block_comes_while_ids_are_left_and_is_asked_for_once() -> None:
    async def story() -> None:
        ids, controller = made()
        given = [await ids.next_id() for _ in range(8)]
        assert len(controller.asked) == 1
        controller.gate.clear()
        given.append(await ids.next_id())
        await asyncio.sleep(0)
        assert len(controller.asked) == 2, "one of ten is left"
        given.append(await ids.next_id())
        waiting = [asyncio.ensure_future(ids.next_id()) for _ in range(5)]
        await asyncio.sleep(0)
        assert not any(each.done() for each in waiting)
        controller.gate.set()
        given += await asyncio.gather(*waiting)
        assert sorted(given) == list(range(15))
        assert len(controller.asked) == 2
        await ids.stop()

    run(story())


@pytest.mark.parametrize("refusal", [NotController("elsewhere"), StaleBrokerEpoch("registered anew")])
def test_a_controller_that_gives_none_is_reported_as_14_and_asked_again(refusal: Exception) -> None:
    async def story() -> None:
        ids, controller = made()
        controller.refuses = refusal
        with pytest.raises(CoordinatorLoadInProgress, match="gave no producer ids") as reported:
            await ids.next_id()
        assert reported.value.retriable
        assert await ids.next_id() == 10, "the block of the failed request may have been given to it"
        await ids.stop()

    run(story())


def test_a_failed_prefetch_harms_nobody() -> None:
    async def story() -> None:
        ids, controller = made()
        given = [await ids.next_id() for _ in range(8)]
        controller.refuses = NotController("elsewhere")
        given += [await ids.next_id() for _ in range(2)]
        await asyncio.sleep(0.01)
        given += [await ids.next_id() for _ in range(3)]
        assert given == [*range(10), 20, 21, 22]
        await ids.stop()

    run(story())


def test_one_waiter_that_gives_up_takes_nothing_from_the_others() -> None:
    async def story() -> None:
        ids, controller = made()
        controller.gate.clear()
        first, second = (asyncio.ensure_future(ids.next_id()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        controller.gate.set()
        assert await second == 0
        await ids.stop()

    run(story())


def test_exhausted_producer_id_block_is_followed_by_another() -> None:
    """The task that fetched it is done then, and awaiting it does not suspend."""

    async def story() -> None:
        ids, controller = made()
        controller.count = 1
        rounds, fetch = itertools.count(1), ids._fetch

        def fetch_that_suspends() -> asyncio.Task[None]:
            assert next(rounds) < 100, "it spins, and nothing else on this loop will ever run"
            return fetch()

        ids._fetch = fetch_that_suspends  # type: ignore[method-assign]
        controller.gate.clear()
        first = asyncio.ensure_future(ids.next_id())
        for _ in range(3):
            await asyncio.sleep(0)
        controller.gate.set()  # the fetch ends in the next turn of the loop, and these two begin in it
        others = [asyncio.ensure_future(ids.next_id()) for _ in range(2)]
        assert sorted(await asyncio.gather(first, *others)) == [0, 1, 2]
        await ids.stop()

    run(story())


def test_an_empty_block_is_refused() -> None:
    async def story() -> None:
        ids, controller = made()
        controller.count = 0
        with pytest.raises(CoordinatorLoadInProgress, match="a block of 0 producer ids"):
            await ids.next_id()
        await ids.stop()

    run(story())


def test_a_stop_ends_those_who_wait() -> None:
    async def story() -> None:
        ids, controller = made()
        controller.gate.clear()
        waiting = asyncio.ensure_future(ids.next_id())
        await asyncio.sleep(0)
        await ids.stop()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(story())
