"""A follower gives up a long poll when it has more to ask for: at any moment, and without losing its own end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from replication.fetcher.leader_fetcher import ADDED_GRACE_MS, LeaderFetcher
from replication.requests import FetchRequest, FetchResponse
from tests.unit.replication.harness.cluster import Channel, Cluster
from tests.unit.replication.harness.virtual import run

FOLLOWER = 2


class Held:
    """Answers of the leader, each held back until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[FetchRequest] = []
        self.answers: list[tuple[asyncio.Future[FetchResponse], FetchResponse]] = []
        self.are_held = True
        fetch = Channel.fetch

        async def held(channel: Channel, request: FetchRequest, *, timeout_ms: int) -> FetchResponse:
            self.asked.append(request)
            response = await fetch(channel, request, timeout_ms=timeout_ms)
            if not self.are_held:
                return response
            gate: asyncio.Future[FetchResponse] = asyncio.get_running_loop().create_future()
            self.answers.append((gate, response))
            return await gate

        monkeypatch.setattr(Channel, "fetch", held)

    def let_go(self) -> None:
        gate, response = self.answers[-1]
        gate.set_result(response)


def play(monkeypatch: pytest.MonkeyPatch, story: Callable[[Cluster, Held, LeaderFetcher], Awaitable[None]]) -> None:
    """With a follower whose second fetch is answered, and the answer held back."""

    async def main() -> None:
        async with Cluster(nodes=2, replica_fetch_wait_max_ms=50) as cluster:
            held = Held(monkeypatch)
            key = cluster.create(replicas=(1, FOLLOWER))
            await cluster.until(lambda: len(held.answers) == 1)
            held.let_go()
            await cluster.until(lambda: len(held.answers) == 2)
            assert held.asked[-1].session_epoch > 0
            await story(cluster, held, cluster.nodes[FOLLOWER].manager._fetchers._fetchers[1])
            held.are_held = False
            assert (await cluster.produce(key, b"a")).error_code == 0
            assert cluster.copies_agree(key)

    run(main())


@pytest.mark.parametrize("order", ["never answered", "answered before", "answered after"])
def test_a_given_up_poll_is_asked_again_from_the_start(monkeypatch: pytest.MonkeyPatch, order: str) -> None:
    """The leader's session is unknown then, whether its answer came or not."""

    async def story(cluster: Cluster, held: Held, fetcher: LeaderFetcher) -> None:
        task, asked = fetcher._task, len(held.asked)
        assert task is not None
        fetcher._changed.set()
        if order == "answered before":
            held.let_go()
        fetcher._give_up(fetcher._fetches)
        fetcher._give_up(fetcher._fetches)
        if order == "answered after" and not held.answers[-1][0].done():
            held.let_go()
        await cluster.until(lambda: len(held.asked) > asked)
        assert held.asked[asked].session_epoch == 0
        assert not task.done()
        assert task.cancelling() == 0
        await cluster.until(lambda: len(held.answers) == 3)
        held.let_go()

    play(monkeypatch, story)


def test_one_that_has_ended_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(cluster: Cluster, held: Held, fetcher: LeaderFetcher) -> None:
        number, asked = fetcher._fetches, len(held.asked)
        held.let_go()
        await cluster.until(lambda: len(held.asked) > asked)
        fetcher._changed.set()
        fetcher._give_up(number)
        await cluster.until(lambda: len(held.answers) == 3)
        held.let_go()
        await cluster.until(lambda: len(held.asked) == asked + 2)
        assert held.asked[-1].session_epoch == held.asked[asked].session_epoch + 1
        await cluster.until(lambda: len(held.answers) == 4)
        held.let_go()

    play(monkeypatch, story)


@pytest.mark.parametrize("is_given_up_first", [True, False])
def test_a_loop_that_is_ended_while_it_gives_up_ends(monkeypatch: pytest.MonkeyPatch, is_given_up_first: bool) -> None:
    async def main() -> None:
        async with Cluster(nodes=2, replica_fetch_wait_max_ms=50) as cluster:
            held = Held(monkeypatch)
            cluster.create(replicas=(1, FOLLOWER))
            await cluster.until(lambda: len(held.answers) == 1)
            fetcher = cluster.nodes[FOLLOWER].manager._fetchers._fetchers[1]
            task = fetcher._task
            assert task is not None
            fetcher._changed.set()
            for end in (fetcher._give_up, lambda _: task.cancel())[:: 1 if is_given_up_first else -1]:
                end(fetcher._fetches)
            await asyncio.gather(task, return_exceptions=True)
            assert task.cancelled()

    run(main())


def test_a_partition_that_is_added_during_a_long_poll_is_asked_for_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with Cluster(nodes=2, replica_fetch_wait_max_ms=50) as cluster:
            held = Held(monkeypatch)
            cluster.create(replicas=(1, FOLLOWER))
            await cluster.until(lambda: len(held.answers) == 1)
            clock, asked = cluster.nodes[FOLLOWER].manager._registry.clock, len(held.asked)
            fetcher = cluster.nodes[FOLLOWER].manager._fetchers._fetchers[1]
            (followed,) = fetcher.followed.values()
            began_ms = clock.monotonic_ms()
            fetcher.add(followed.replica)
            await cluster.until(lambda: len(held.asked) > asked)
            assert ADDED_GRACE_MS <= clock.monotonic_ms() - began_ms <= ADDED_GRACE_MS + 20
            held.are_held = False

    run(main())
