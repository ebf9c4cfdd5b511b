"""What a round of a follower costs where nothing happens, and that its leader still knows how long it is silent."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from metadata.image import TopicIdPartition
from replication.fetcher import replica_fetcher
from replication.manager.fetch import NEWS_WAIT_MS
from replication.manager.partition_reader import PartitionReader
from replication.purgatory import Purgatory
from replication.sessions import cache
from replication.sessions.cache import SessionPartition
from tests.unit.replication.harness.cluster import Cluster
from tests.unit.replication.harness.virtual import run

LAG_MS = 400
ROUND_MS = 50


def many(cluster: Cluster, count: int) -> list[TopicIdPartition]:
    return [
        cluster.create(topic=f"t{number}", topic_id=UUID(int=100 + number), replicas=(1, 2)) for number in range(count)
    ]


class Reads:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.keys: list[TopicIdPartition] = []
        read = PartitionReader.read

        def counted(reader: PartitionReader, partition, pass_) -> None:  # type: ignore[no-untyped-def]
            self.keys.append(partition.key)
            read(reader, partition, pass_)

        monkeypatch.setattr(PartitionReader, "read", counted)

    def take(self) -> list[TopicIdPartition]:
        taken, self.keys = self.keys, []
        return taken


class Looks:
    """How often anything was done for a partition because a round passed: on the leader, on the follower, by either."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        for owner, name in (
            (replica_fetcher, "_question"),
            (SessionPartition, "is_idle"),
            (PartitionReader, "read"),
            (Purgatory, "watch_also"),
        ):
            monkeypatch.setattr(owner, name, self._counting(getattr(owner, name)))
        watch = Purgatory.watch

        def counted(purgatory, operation, keys, *, wait_ms):  # type: ignore[no-untyped-def]
            self.count += len(list(keys))
            return watch(purgatory, operation, keys, wait_ms=wait_ms)

        monkeypatch.setattr(Purgatory, "watch", counted)

    def _counting(self, call):  # type: ignore[no-untyped-def]
        def counted(*args, **kwargs):  # type: ignore[no-untyped-def]
            self.count += 1
            return call(*args, **kwargs)

        return counted


def play(story) -> None:  # type: ignore[no-untyped-def]
    async def main() -> None:
        async with Cluster(nodes=2, replica_fetch_wait_max_ms=ROUND_MS, replica_lag_time_max_ms=LAG_MS) as cluster:
            await story(cluster)

    run(main())


async def rounds(cluster: Cluster, count: int) -> None:
    wanted = len(cluster.requests) + count
    await cluster.until(lambda: len(cluster.requests) >= wanted)


def test_only_partitions_in_which_something_happens_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(cluster: Cluster) -> None:
        keys = many(cluster, 20)
        await rounds(cluster, 4)
        reads = Reads(monkeypatch)
        await rounds(cluster, 5)
        assert reads.take() == []
        assert (await cluster.produce(keys[3], b"a")).error_code == 0
        await rounds(cluster, 4)
        assert set(reads.take()) == {keys[3]}
        await rounds(cluster, 5)
        assert reads.take() == []
        assert all(cluster.copies_agree(key) for key in keys)

    play(story)


@pytest.mark.parametrize("partitions", [10, 300])
def test_what_a_record_costs_does_not_rise_with_the_partitions_that_idle(
    monkeypatch: pytest.MonkeyPatch, partitions: int
) -> None:
    async def story(cluster: Cluster) -> None:
        keys = many(cluster, partitions)
        await rounds(cluster, 4)
        for session in cluster.nodes[1].manager.fetch._sessions._sessions.values():
            assert len(session.partitions) == partitions
            assert session.awake == {}
        monkeypatch.setattr(replica_fetcher, "LOOK_MS", 10**9)
        monkeypatch.setattr(cache, "IDLE_LOOK_MS", 10**9)
        looks = Looks(monkeypatch)
        for number in range(20):
            assert (await cluster.produce(keys[number % 3], b"a")).error_code == 0
        assert looks.count < 20 * 12, "of one partition, whatever the others are"
        await rounds(cluster, 4)
        assert all(cluster.copies_agree(key) for key in keys)

    play(story)


def test_what_nobody_reports_is_found_out_at_intervals() -> None:
    """Retention moves the start of a log on a leader or on a follower, and no round is made for it."""

    async def story(cluster: Cluster) -> None:
        key, other = many(cluster, 2)
        for _ in range(3):
            await cluster.produce(key, b"a")
            await cluster.produce(other, b"a")
        await rounds(cluster, 6)
        leader, follower = cluster.nodes[1].manager._registry, cluster.nodes[2].manager._registry
        leader.replicas[key].log.maybe_increment_log_start(2)
        follower.replicas[other].log.maybe_increment_log_start(1)
        moved_ms = leader.clock.monotonic_ms()
        await cluster.until(lambda: follower.replicas[key].log.log_start_offset == 2)
        await cluster.until(lambda: cluster.leader(other).followers[2].log_start_offset == 1)
        assert leader.clock.monotonic_ms() - moved_ms <= cache.IDLE_LOOK_MS + replica_fetcher.LOOK_MS + 4 * ROUND_MS

    play(story)


def test_a_session_that_is_dropped_is_forgotten_by_the_replicas() -> None:
    async def story(cluster: Cluster) -> None:
        keys = many(cluster, 3)
        await rounds(cluster, 6)
        replicas = cluster.nodes[1].manager._registry.replicas
        assert [len(replicas[key].idlers) for key in keys] == [1, 1, 1]
        fetcher = cluster.nodes[2].manager._fetchers._fetchers[1]
        fetcher._session.reset()
        cluster.nodes[1].manager.fetch._sessions._drop_sessions_of(2)
        assert [len(replicas[key].idlers) for key in keys] == [0, 0, 0]
        await rounds(cluster, 6)
        assert [len(replicas[key].idlers) for key in keys] == [1, 1, 1]
        assert cluster.nodes[1].manager.status().fetch_sessions == 1

    play(story)


def test_records_that_are_deleted_wait_for_no_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """S4: the client waits until the followers have deleted, too."""
    monkeypatch.setattr(cache, "IDLE_LOOK_MS", 10**9)

    async def story(cluster: Cluster) -> None:
        (key,) = many(cluster, 1)
        for _ in range(3):
            await cluster.produce(key, b"a")
        await rounds(cluster, 6)
        manager = cluster.nodes[1].manager
        assert await manager.offsets.delete_records(key, offset=2, timeout_ms=10 * ROUND_MS) == 2
        assert cluster.nodes[2].manager._registry.replicas[key].log.log_start_offset == 2

    play(story)


def test_with_two_followers_both_come_to_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with Cluster(nodes=3, replica_fetch_wait_max_ms=ROUND_MS) as cluster:
            cluster.create(replicas=(1, 2, 3))
            await rounds(cluster, 12)
            reads = Reads(monkeypatch)
            await rounds(cluster, 10)
            assert reads.take() == []

    run(main())


def test_silent_follower_leaves_isr_after_lag() -> None:
    """I1: counted from its last round, however long ago its last record was."""

    async def story(cluster: Cluster) -> None:
        (key,) = many(cluster, 1)
        await rounds(cluster, 60)
        clock = cluster.nodes[1].manager._registry.clock
        assert clock.monotonic_ms() > 5 * LAG_MS, "idle for longer than the lag"
        cluster.cut.add((2, 1))
        silent_ms = clock.monotonic_ms()
        await cluster.produce(key, b"a", timeout_ms=10)
        assert set(cluster.leader(key).isr.members) == {1, 2}, "it was there a round ago"
        await cluster.until(lambda: cluster.leader(key).isr.members == (1,))
        assert LAG_MS - ROUND_MS <= clock.monotonic_ms() - silent_ms <= 2 * LAG_MS

    play(story)


def test_a_partition_that_is_no_longer_asked_for_does_not_count_as_fetched() -> None:
    async def story(cluster: Cluster) -> None:
        key, other = many(cluster, 2)
        await rounds(cluster, 10)
        progress = cluster.leader(key).followers[2]
        assert progress.idling is not None
        fetcher = cluster.nodes[2].manager._fetchers._fetchers[1]
        fetcher.remove(key)
        await rounds(cluster, 3)
        ended_ms = progress.last_fetched_ms
        await rounds(cluster, 6)
        assert progress.last_fetched_ms == ended_ms
        still = cluster.leader(other).followers[2]
        assert still.last_fetched_ms > ended_ms

    play(story)


def test_a_follower_that_learns_late_of_a_new_partition_asks_for_it_soon() -> None:
    """Its leader knew of it before, and cannot end a poll of which it does not know that it lacks one."""

    async def main() -> None:
        async with Cluster(nodes=2, replica_fetch_wait_max_ms=60_000) as cluster:
            first = cluster.create(topic="first", topic_id=UUID(int=1), replicas=(1, 2))
            await cluster.until(lambda: cluster.leader(first).followers[2].end_offset == 0)
            clock = cluster.nodes[2].manager._registry.clock
            cluster.nodes[2].hears_metadata = False
            second = cluster.create(topic="second", topic_id=UUID(int=2), replicas=(1, 2))
            await rounds(cluster, 3)
            cluster.nodes[2].hears_metadata = True
            cluster.publish()
            learned_ms = clock.monotonic_ms()
            await cluster.until(lambda: cluster.leader(second).followers[2].end_offset == 0)
            assert clock.monotonic_ms() - learned_ms <= NEWS_WAIT_MS + 10
            assert cluster.requests[-1].session_epoch > 0, "in the session that it had"
            polls = len(cluster.requests)
            await cluster.until(lambda: clock.monotonic_ms() - learned_ms > 5_000)
            assert len(cluster.requests) - polls < 5, "and then waits as long as it may"

    run(main())


def test_a_follower_under_another_broker_epoch_is_looked_at_again() -> None:
    """KIP-903: the epoch under which it fetches is what the controller is told."""

    async def story(cluster: Cluster) -> None:
        (key,) = many(cluster, 1)
        await rounds(cluster, 6)
        fetch = cluster.nodes[1].manager.fetch
        (session,) = fetch._sessions._sessions.values()
        request = replace(
            cluster.requests[-1],
            wait_ms_max=0,
            replica_epoch=cluster.requests[-1].replica_epoch + 1,
            session_id=session.session_id,
            session_epoch=session.next_epoch,
            partitions=(),
        )
        fetch.begin(request)
        assert cluster.leader(key).followers[2].broker_epoch == request.replica_epoch

    play(story)
