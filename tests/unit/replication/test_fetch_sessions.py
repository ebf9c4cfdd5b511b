"""KIP-227: sessions on both sides."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from uuid import UUID

import pytest

from kraft.protocol.errors import FetchSessionIdNotFound, InvalidFetchSessionEpoch, TopicAuthorizationFailed
from metadata.environment import ConnectionClosed
from metadata.image import TopicIdPartition
from replication.requests import CONSUMER, FetchedPartition, FetchPartition, FetchRequest, FetchResponse
from replication.sessions.cache import EVICTION_MS, SESSION_EPOCH_MAX, SessionCache
from replication.sessions.client import FollowerSession
from tests.unit.replication.harness.cluster import Cluster
from tests.unit.replication.harness.virtual import environment, run

TOPIC = UUID(int=1)


def question(partition: int, offset: int = 0) -> FetchPartition:
    return FetchPartition(
        topic_id=TOPIC,
        partition=partition,
        current_leader_epoch=0,
        fetch_offset=offset,
        last_fetched_epoch=-1,
        log_start_offset=0,
        bytes_max=1_000,
    )


def request(
    *,
    replica: int = 2,
    session_id: int = 0,
    epoch: int = 0,
    partitions: tuple[int, ...] = (),
    forget: tuple[int, ...] = (),
) -> FetchRequest:
    return FetchRequest(
        replica_id=replica,
        replica_epoch=-1,
        wait_ms_max=0,
        bytes_min=1,
        bytes_max=1_000,
        session_id=session_id,
        session_epoch=epoch,
        partitions=tuple(question(p) for p in partitions),
        forgotten=tuple(TopicIdPartition(TOPIC, p) for p in forget),
    )


def cache(slots: int) -> SessionCache:
    env = environment(1)
    return SessionCache(clock=env.clock, rng=random.Random(1), slots_max=slots)


def test_a_follower_that_begins_again_leaves_no_session_behind() -> None:
    """Found by a soak: followers were restarted for an hour, and their leader kept what it knew of each life."""

    async def story() -> None:
        sessions = cache(10)
        consumer = sessions.open(request(replica=CONSUMER, partitions=(0,)))
        other = sessions.open(request(replica=3, partitions=(0,)))
        lives = [sessions.open(request(replica=2, partitions=(0, 1))) for _ in range(5)]
        assert len(sessions) == 3
        with pytest.raises(FetchSessionIdNotFound):
            sessions.open(request(replica=2, session_id=lives[-2].session_id, epoch=1))
        for replica, session in ((2, lives[-1]), (3, other), (CONSUMER, consumer)):
            assert sessions.open(request(replica=replica, session_id=session.session_id, epoch=1)) is session
        sessions.open(request(replica=CONSUMER, partitions=(0,)))
        assert len(sessions) == 4, "consumers have as many as they like"

    run(story())


def test_a_session_remembers_adds_and_forgets() -> None:
    async def story() -> None:
        sessions = cache(2)
        opened = sessions.open(request(partitions=(0, 1)))
        assert opened.session_id != 0
        assert not opened.is_incremental
        again = sessions.open(request(session_id=opened.session_id, epoch=1, partitions=(2,), forget=(0,)))
        assert again is opened
        assert again.is_incremental
        assert [key.partition for key in again.partitions] == [1, 2]
        with pytest.raises(InvalidFetchSessionEpoch):
            sessions.open(request(session_id=opened.session_id, epoch=1))
        with pytest.raises(FetchSessionIdNotFound):
            sessions.open(request(session_id=opened.session_id, replica=3, epoch=2))
        sessions.open(request(session_id=opened.session_id, epoch=-1))
        assert len(sessions) == 0

    run(story())


def test_after_the_last_epoch_comes_the_first_and_never_0() -> None:
    """KIP-227: 0 would begin a new session."""

    async def story() -> None:
        sessions = cache(1)
        opened = sessions.open(request(partitions=(0,)))
        opened.next_epoch = SESSION_EPOCH_MAX
        follower = FollowerSession()
        follower.on_response(FetchResponse(session_id=opened.session_id))
        follower.epoch = SESSION_EPOCH_MAX
        for epoch in (2**31 - 1, 1, 2):
            assert follower.epoch == epoch
            assert sessions.open(request(session_id=opened.session_id, epoch=epoch)) is opened
            follower.on_response(FetchResponse(session_id=opened.session_id))

    run(story())


def test_a_full_cache_gives_way_to_followers_and_drops_the_unused() -> None:
    async def story() -> None:
        sessions = cache(1)
        consumer = sessions.open(request(replica=CONSUMER, partitions=(0,)))
        assert consumer.session_id
        assert sessions.open(request(replica=CONSUMER)).session_id == 0
        follower = sessions.open(request(replica=2))
        assert follower.session_id
        with pytest.raises(FetchSessionIdNotFound):
            sessions.open(request(replica=CONSUMER, session_id=consumer.session_id, epoch=1))
        assert sessions.open(request(replica=3)).session_id == 0
        await asyncio.sleep(EVICTION_MS / 1_000 + 1)
        assert sessions.open(request(replica=3)).session_id
        assert len(sessions) == 1

    run(story())


def test_a_leader_keeps_one_session_of_a_follower_whose_answers_are_lost() -> None:
    async def story() -> None:
        async with Cluster(nodes=2) as cluster:
            key = cluster.create(partitions=20, replicas=(1, 2))
            assert (await cluster.produce(key, b"a")).error_code == 0
            leader = cluster.nodes[1].manager
            fetch, broken, lost = leader.fetch.response, [True], [0]

            async def lossy(request: FetchRequest) -> FetchResponse:
                answer = await fetch(request)
                if broken[0]:
                    lost[0] += 1
                    raise ConnectionClosed("the answer is lost")
                return answer

            leader.fetch.response = lossy  # type: ignore[method-assign]
            await asyncio.sleep(20)
            assert lost[0] >= 20
            assert leader.status().fetch_sessions == 1
            broken[0] = False
            await asyncio.sleep(2)
            assert (await cluster.produce(key, b"b")).error_code == 0

    run(story())


def test_a_fetch_that_waits_ends_when_its_reader_may_read_no_longer() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create()
            fetch = cluster.nodes[cluster.partition(key).leader].manager.fetch
            denied: list[str] = []
            asked = replace(question(0), topic_id=key.topic_id)
            waits = replace(request(replica=CONSUMER), wait_ms_max=60_000, partitions=(asked,))
            waiting = asyncio.ensure_future(fetch.response(replace(waits, may_read=lambda _: not denied)))
            others = asyncio.ensure_future(fetch.response(waits))
            fetch.on_acls(object())
            await asyncio.sleep(5)
            assert not waiting.done(), "a change that takes nothing from it"
            denied.append("all")
            begun_s = asyncio.get_running_loop().time()
            fetch.on_acls(object())
            answer = await waiting
            assert asyncio.get_running_loop().time() - begun_s <= 1
            assert [each.error_code for each in answer.partitions] == [TopicAuthorizationFailed.code]
            assert not others.done(), "a reader that nothing is checked of"
            others.cancel()

    run(story())


def test_a_partition_that_got_records_is_served_last_next_time() -> None:
    async def story() -> None:
        session = cache(1).open(request(partitions=(0, 1, 2)))
        first = session.partitions[TopicIdPartition(TOPIC, 0)]
        session.respond([(first, FetchedPartition(topic_id=TOPIC, partition=0, records=b"x"))])
        assert [key.partition for key in session.awake] == [1, 2, 0]

    run(story())


def test_the_follower_names_only_what_changed() -> None:
    session = FollowerSession()
    keys = [TopicIdPartition(TOPIC, p) for p in range(3)]
    wanted = {key: question(key.partition) for key in keys}
    assert session.changes(wanted, keys) == (tuple(wanted.values()), ())
    session.on_response(FetchResponse(session_id=5))
    assert (session.session_id, session.epoch) == (5, 1)
    assert session.changes(wanted, ()) == session.changes(wanted, keys) == ((), ())
    session.on_response(FetchResponse(session_id=5))
    moved = {keys[0]: question(0, offset=4), keys[1]: wanted[keys[1]]}
    assert session.changes(moved, keys) == ((question(0, offset=4),), (keys[2],))
    assert session.changes(moved, keys) == ((), ())
    session.on_response(FetchResponse(error_code=71))
    assert session.epoch == 0
    assert session.changes(moved, ()) == (tuple(moved.values()), ())


def test_swapping_one_partition_for_another_forgets_the_first() -> None:
    session = FollowerSession()
    first, second = TopicIdPartition(TOPIC, 0), TopicIdPartition(TOPIC, 1)
    session.changes({first: question(0)}, [first])
    session.on_response(FetchResponse(session_id=5))
    changed, forgotten = session.changes({second: question(1)}, [second, first])
    assert [fetch.partition for fetch in changed] == [1]
    assert [key.partition for key in forgotten] == [0]


def test_an_idle_round_names_nothing_and_a_lost_session_is_opened_again() -> None:
    async def story() -> None:
        async with Cluster(nodes=2) as cluster:
            key = cluster.create(partitions=20, replicas=(1, 2))
            await cluster.produce(key, b"a")
            await asyncio.sleep(2)
            cluster.requests.clear()
            await asyncio.sleep(2)
            assert cluster.requests
            assert all(not r.partitions and r.session_id for r in cluster.requests)
            cluster.nodes[1].manager.fetch._sessions._sessions.clear()
            assert (await cluster.produce(key, b"b")).error_code == 0
            assert any(len(r.partitions) == 20 and r.session_epoch == 0 for r in cluster.requests)

    run(story())


def test_fetches_that_wait_are_woken_in_the_order_in_which_they_came() -> None:
    """In any process: objects in a set have the order of their addresses."""

    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create()
            manager = cluster.nodes[cluster.partition(key).leader].manager
            follower = next(node for node in cluster.nodes if node != cluster.partition(key).leader)
            woken: list[int] = []

            async def wait(number: int) -> None:
                asked = replace(question(0), topic_id=key.topic_id)
                waits = replace(request(replica=follower), wait_ms_max=60_000, partitions=(asked,))
                await manager.fetch.response(waits)
                woken.append(number)

            tasks = [asyncio.ensure_future(wait(number)) for number in range(20)]
            await asyncio.sleep(0)
            manager.fetch.wake_followers([follower])
            await asyncio.gather(*tasks)
            assert woken == sorted(woken)

    run(story())


@pytest.mark.parametrize("is_trusted", [True, False])
def test_an_offset_beyond_the_end_is_out_of_range_for_who_surely_leads(is_trusted: bool) -> None:
    """Found by a soak: a leader that was relieved, and cut off, told so who had read its successor's records."""

    async def story() -> None:
        asked = 0

        async def proof() -> bool:
            nonlocal asked
            asked += 1
            return is_trusted

        async with Cluster() as cluster:
            key = cluster.create()
            await cluster.produce(key, b"a")
            manager = cluster.nodes[1].manager
            manager.fetch._is_trusted = proof  # type: ignore[attr-defined]

            async def fetched(offset: int, replica: int = CONSUMER) -> int:
                part = replace(question(0, offset), topic_id=key.topic_id, current_leader_epoch=-1)
                asking = replace(request(replica=replica), partitions=(part,))
                return (await manager.fetch.response(asking)).partitions[0].error_code

            assert await fetched(0) == 0
            assert await fetched(1) == 0
            assert asked == 0, "what is there is answered at once"
            assert await fetched(2) == (1 if is_trusted else 6)
            assert asked == 1
            await manager.offsets.delete_records(key, offset=1, timeout_ms=5_000)
            assert await fetched(0) == 1, "below the start nobody has anything"
            assert await fetched(7, replica=2) == 1, "followers send the epoch"
            assert asked == 1

    run(story())
