"""Requests about partitions and the metadata log over a real connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pytest

from kraft.protocol.errors import (
    InconsistentClusterId,
    KafkaStorageError,
    NotEnoughReplicas,
    OffsetOutOfRange,
    PolicyViolation,
    SnapshotNotFound,
)
from kraft.wire.channels import forward
from kraft.wire.channels.controller import WireBrokerProbe
from kraft.wire.channels.forward import RemotePartitionClient
from kraft.wire.channels.metadata_log import MetadataSourceChannel
from kraft.wire.channels.replicas import EpochQuestion, WireLeaderChannel, WireReplicaQuery
from kraft.wire.metadata_fetches import MetadataFetches
from metadata.controller.requests import ReplicaLogEnd
from metadata.environment import ConnectionClosed, Environment
from metadata.image import MetadataImage, TopicIdPartition
from metadata.quorum.log import Leadership, MetadataSlice, SnapshotNeeded
from replication.partition.log import AbortedTransaction, EpochEnd
from replication.requests import (
    CONSUMER,
    FetchedPartition,
    FetchPartition,
    FetchRequest,
    FetchResponse,
    OffsetAnswer,
    ProduceOptions,
    ProduceOutcome,
)
from tests.unit.wire.fakes import CLUSTER, T0, T1, TOPIC, loopback, run, until

PARTITION = FetchPartition(
    topic_id=TOPIC,
    partition=0,
    current_leader_epoch=3,
    fetch_offset=2**40,
    last_fetched_epoch=2,
    log_start_offset=5,
    bytes_max=1_048_576,
)
TIMEOUT_MS = 20_000
REQUEST = FetchRequest(
    replica_id=2,
    replica_epoch=2**33,
    wait_ms_max=500,
    bytes_min=1,
    bytes_max=10_485_760,
    session_id=77,
    session_epoch=3,
    partitions=(PARTITION, replace(PARTITION, partition=1), replace(PARTITION, topic_id=UUID(int=5))),
    forgotten=(TopicIdPartition(TOPIC, 9), TopicIdPartition(UUID(int=6), 1)),
)
FETCHED = FetchedPartition(
    topic_id=TOPIC, partition=0, high_watermark=9, last_stable_offset=8, log_start_offset=1, records=b"batches"
)


def test_a_followers_fetch_arrives_whole() -> None:
    answer = FetchResponse(
        session_id=77,
        partitions=(
            FETCHED,
            replace(FETCHED, partition=1, records=b"", diverging_epoch=EpochEnd(2, 100)),
            replace(FETCHED, topic_id=UUID(int=5), error_code=6, current_leader=(3, 9), records=b""),
        ),
    )

    async def main() -> None:
        async with loopback() as world:
            world.replicas.fetch_answer = answer
            peers = world.peers()
            assert await WireLeaderChannel(peers, 1).fetch(REQUEST, timeout_ms=TIMEOUT_MS) == answer
            assert world.replicas.fetched == [REQUEST]
            await peers.close()

    run(main())


def test_a_read_of_committed_records_reports_it_and_receives_what_was_aborted() -> None:
    aborted = (AbortedTransaction(2**40, 5), AbortedTransaction(9, 7))
    answer = FetchResponse(partitions=(replace(FETCHED, aborted=aborted),))
    request = replace(REQUEST, replica_id=CONSUMER, is_read_committed=True)

    async def main() -> None:
        async with loopback() as world:
            world.replicas.fetch_answer = answer
            peers = world.peers()
            assert await RemotePartitionClient(peers, 1).fetch(request) == answer
            assert world.replicas.fetched == [request]
            await peers.close()

    run(main())


def test_a_session_error_is_an_answer_and_not_an_exception() -> None:
    async def main() -> None:
        async with loopback() as world:
            world.replicas.fetch_answer = FetchResponse(error_code=71)
            peers = world.peers()
            assert (await WireLeaderChannel(peers, 1).fetch(REQUEST, timeout_ms=TIMEOUT_MS)).error_code == 71
            await peers.close()

    run(main())


def test_big_fetch_responses_arrive_whole() -> None:
    pieces = [bytes([n]) * size for n, size in enumerate((1, 100_000, 1_048_576, 9_000_000, 32_767, 32_768))]
    partitions = tuple(replace(FETCHED, partition=n, records=memoryview(piece)) for n, piece in enumerate(pieces))

    async def main() -> None:
        async with loopback() as world:
            world.replicas.fetch_answer = FetchResponse(partitions=partitions)
            peers = world.peers()
            answer = await WireLeaderChannel(peers, 1).fetch(REQUEST, timeout_ms=TIMEOUT_MS)
            assert [bytes(item.records) for item in answer.partitions] == pieces
            await peers.close()

    run(main())


def test_a_long_poll_holds_up_nothing_behind_it() -> None:
    async def main() -> None:
        release = asyncio.Event()

        async def on_fetch(request: FetchRequest) -> FetchResponse:
            if request.wait_ms_max:
                await release.wait()
            return FetchResponse(session_id=request.wait_ms_max)

        async with loopback() as world:
            world.replicas.on_fetch = on_fetch
            peers = world.peers()
            channel = RemotePartitionClient(peers, 1)
            waiting = asyncio.create_task(channel.fetch(REQUEST))
            await until(lambda: bool(world.replicas.fetched))
            assert (await channel.fetch(replace(REQUEST, wait_ms_max=0))).session_id == 0
            assert not waiting.done()
            release.set()
            assert (await waiting).session_id == 500
            await peers.close()

    run(main())


def test_read_from_silent_leader_ends_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forward, "ANSWER_SLACK_MS", 30)

    async def main() -> None:
        async def on_fetch(_request: FetchRequest) -> FetchResponse:
            await asyncio.Event().wait()
            raise AssertionError

        async with loopback() as world:
            world.replicas.on_fetch = on_fetch
            peers = world.peers()
            await peers.connection(1, "forward", timeout_ms=60_000, lane="reads")
            with pytest.raises(TimeoutError, match=r"within (40|39|38) ms"):
                await RemotePartitionClient(peers, 1).fetch(replace(REQUEST, wait_ms_max=0, bytes_max=10_000))
            await peers.close()

    run(main())


def test_produce_outcomes_arrive_whole() -> None:
    outcomes = {
        T0: ProduceOutcome(
            base_offset=10,
            last_offset=19,
            log_append_time_ms=1_700_000_000_123,
            log_start_offset=3,
            leader_id=1,
            leader_epoch=7,
            is_appended=True,
        ),
        T1: ProduceOutcome(error_code=20, message="ISR shrank ✗", is_appended=True, isr=(1, 2), min_isr=3, leader_id=1),
    }

    async def main() -> None:
        async with loopback() as world:
            world.replicas.outcomes = outcomes
            peers = world.peers()
            batches = {T0: b"batch 0", T1: memoryview(bytes(200_000))}
            assert await RemotePartitionClient(peers, 1).produce(batches, ProduceOptions(-1, 61_234)) == outcomes
            got, options = world.replicas.produced[0]
            assert {key: bytes(value) for key, value in got.items()} == {T0: b"batch 0", T1: bytes(200_000)}
            assert options == ProduceOptions(-1, 61_234)
            await peers.close()

    run(main())


def test_a_produce_refused_as_a_whole_raises() -> None:
    async def main() -> None:
        async with loopback() as world:
            world.replicas.error = NotEnoughReplicas("1 of 2")
            peers = world.peers()
            with pytest.raises(NotEnoughReplicas, match="1 of 2"):
                await RemotePartitionClient(peers, 1).produce({T0: b"x"}, ProduceOptions(-1, 60_000))
            await peers.close()

    run(main())


def test_acks_0_is_never_answered_and_an_error_closes_the_connection() -> None:
    async def main() -> None:
        async with loopback() as world:
            peers = world.peers()
            channel = RemotePartitionClient(peers, 1)
            assert await channel.produce({T0: b"x"}, ProduceOptions(0, 60_000)) == {T0: ProduceOutcome()}
            assert (await channel.list_offset(T0, -1)).offset == 7
            assert world.replicas.produced == [({T0: b"x"}, ProduceOptions(0, 60_000))]
            connection = await peers.connection(1, "forward", timeout_ms=20_000)
            world.replicas.error = KafkaStorageError("disk")
            await channel.produce({T0: b"x"}, ProduceOptions(0, 60_000))
            await until(lambda: connection.is_closed)
            await peers.close()

    run(main())


def test_offsets_are_asked_by_topic_id() -> None:
    async def main() -> None:
        async with loopback() as world:
            peers = world.peers()
            channel, leader = RemotePartitionClient(peers, 1), WireLeaderChannel(peers, 1)
            assert await channel.list_offset(T1, -2) == OffsetAnswer(offset=7, timestamp=8, leader_epoch=9)
            assert (await channel.list_offset(T1, -1, is_read_committed=True)).offset == 7
            assert await channel.delete_records(T0, offset=4, timeout_ms=60_000) == 5
            question = EpochQuestion(replica_id=2, partition=T1, current_leader_epoch=4, epoch=3)
            assert await leader.offset_for_leader_epoch(question) is None
            world.replicas.epoch_end = EpochEnd(3, 50)
            assert await leader.offset_for_leader_epoch(question) == EpochEnd(3, 50)
            asked = [(T1, -2, False), (T1, -1, True), (T0, 4, 60_000), (T1, 4, 3), (T1, 4, 3)]
            assert world.replicas.asked == asked
            await peers.close()

    run(main())


def test_errors_about_offsets_keep_their_message() -> None:
    async def main() -> None:
        async with loopback() as world:
            peers = world.peers()
            channel = RemotePartitionClient(peers, 1)
            world.replicas.error = OffsetOutOfRange("offset 9 is above 5")
            with pytest.raises(OffsetOutOfRange, match="above 5"):
                await channel.list_offset(T0, -1)
            world.replicas.error = PolicyViolation("compacted only")
            with pytest.raises(PolicyViolation, match="compacted only"):
                await channel.delete_records(T0, offset=4, timeout_ms=60_000)
            await peers.close()

    run(main())


def test_log_ends_are_asked_of_any_replica() -> None:
    ends = [
        ReplicaLogEnd(topic_id=TOPIC, partition=0, last_epoch=4, log_end_offset=100, high_watermark=90),
        ReplicaLogEnd(topic_id=TOPIC, partition=1, last_epoch=-1, log_end_offset=0, high_watermark=0),
        ReplicaLogEnd(topic_id=TOPIC, partition=2, last_epoch=-1, log_end_offset=-1, high_watermark=-1, error_code=56),
    ]

    async def main() -> None:
        async with loopback() as world:
            world.replicas.ends = ends
            peers = world.peers()
            query = WireReplicaQuery(peers, timeout_ms=20_000)
            wanted = [T0, T1, TopicIdPartition(TOPIC, 2)]
            assert list(await query.log_ends(1, wanted)) == ends
            assert world.replicas.asked == [tuple(wanted)]
            await peers.close()

    run(main())


def test_a_probe_distinguishes_refused_from_alive() -> None:
    async def main() -> None:
        async with loopback() as world:
            peers = world.peers()
            probe = WireBrokerProbe(peers, timeout_ms=20_000)
            assert not await probe.is_refused(1)
            await world.server.stop()
            assert await probe.is_refused(1)

    run(main())


# --- the metadata log ---------------------------------------------------------------------------------------------


class FakeMetadataLog:
    def __init__(self) -> None:
        self.image = MetadataImage(controller_epoch=4)
        self.leadership = Leadership(leader_id=1, term=9, is_self=True)
        self.records: list[bytes] = []
        self.start_offset = 0
        self.on_change: Callable[[object], None] = lambda change: None

    def subscribe(self, on_change: Callable[[object], None], on_leadership: Callable[[object], None]) -> None:
        self.on_change = on_change

    def read(self, from_offset: int, *, bytes_max: int) -> MetadataSlice | SnapshotNeeded:
        if from_offset < self.start_offset:
            return SnapshotNeeded(end_offset=self.start_offset, epoch=3)
        return MetadataSlice(
            base_offset=from_offset,
            records=tuple(self.records[from_offset - self.start_offset :]),
            controller_epoch=4,
            end_offset=self.start_offset + len(self.records),
        )

    def read_snapshot(self, end_offset: int, *, position: int, bytes_max: int) -> tuple[bytes, int]:
        if end_offset != self.start_offset:
            raise SnapshotNotFound(f"no snapshot ends at {end_offset}")
        return b"0123456789"[position : position + bytes_max], 10


def _fetches(log: FakeMetadataLog) -> Callable[[Environment], MetadataFetches]:
    return lambda environment: MetadataFetches(log, clock=environment.clock, cluster_id=CLUSTER)  # type: ignore[arg-type]


def test_metadata_records_arrive_one_by_one() -> None:
    log = FakeMetadataLog()
    log.records = [b'{"n":%d}' % n for n in range(500)]

    async def main() -> None:
        async with loopback(metadata=_fetches(log)) as world:
            peers = world.peers()
            source = MetadataSourceChannel(peers, cluster_id=CLUSTER)
            fetched = await source.fetch(1, offset=100, wait_ms_max=0, bytes_max=1_000_000)
            assert fetched.result == log.read(100, bytes_max=0)
            assert (fetched.leader_id, fetched.leader_epoch) == (1, 4)
            await peers.close()

    run(main())


def test_an_observer_at_the_end_waits_and_wakes() -> None:
    log = FakeMetadataLog()

    async def main() -> None:
        async with loopback(metadata=_fetches(log)) as world:
            peers = world.peers()
            source = MetadataSourceChannel(peers, cluster_id=CLUSTER)
            empty = await source.fetch(1, offset=0, wait_ms_max=5, bytes_max=1_000)
            assert empty.result == MetadataSlice(base_offset=0, records=(), controller_epoch=4, end_offset=0)
            waiting = asyncio.create_task(source.fetch(1, offset=0, wait_ms_max=10_000, bytes_max=1_000))
            await asyncio.sleep(0.02)
            log.records.append(b"new")
            log.on_change(None)
            result = (await waiting).result
            assert isinstance(result, MetadataSlice)
            assert result.records == (b"new",)
            await peers.close()

    run(main())


def test_an_observer_far_behind_fetches_the_snapshot_in_pieces() -> None:
    log = FakeMetadataLog()
    log.start_offset = 50

    async def main() -> None:
        async with loopback(metadata=_fetches(log)) as world:
            peers = world.peers()
            source = MetadataSourceChannel(peers, cluster_id=CLUSTER)
            fetched = await source.fetch(1, offset=3, wait_ms_max=0, bytes_max=1_000)
            assert fetched.result == SnapshotNeeded(end_offset=50, epoch=3)
            data = b""
            while len(data) < 10:
                piece = await source.fetch_snapshot(1, end_offset=50, epoch=3, position=len(data), bytes_max=4)
                assert (piece.position, piece.size) == (len(data), 10)
                data += piece.data
            assert data == b"0123456789"
            with pytest.raises(SnapshotNotFound, match="ends at 49"):
                await source.fetch_snapshot(1, end_offset=49, epoch=3, position=0, bytes_max=4)
            await peers.close()

    run(main())


def test_an_observer_of_another_cluster_is_refused() -> None:
    async def main() -> None:
        async with loopback(metadata=_fetches(FakeMetadataLog())) as world:
            peers = world.peers()
            with pytest.raises(InconsistentClusterId):
                await MetadataSourceChannel(peers, cluster_id="other").fetch(1, offset=0, wait_ms_max=0, bytes_max=1)
            await peers.close()

    run(main())


def test_a_node_that_is_no_voter_has_no_metadata() -> None:
    async def main() -> None:
        async with loopback() as world:
            peers = world.peers()
            source = MetadataSourceChannel(peers, cluster_id=CLUSTER)
            with pytest.raises(SnapshotNotFound, match="no voter"):
                await source.fetch_snapshot(1, end_offset=1, epoch=1, position=0, bytes_max=1)
            await peers.close()

    run(main())


def test_a_connection_lost_in_flight_leaves_the_outcome_unknown() -> None:
    async def main() -> None:
        async with loopback() as world:
            never = asyncio.Event()

            async def on_fetch(request: FetchRequest) -> FetchResponse:
                await never.wait()
                raise AssertionError

            world.replicas.on_fetch = on_fetch
            peers = world.peers()
            waiting = asyncio.create_task(WireLeaderChannel(peers, 1).fetch(REQUEST, timeout_ms=TIMEOUT_MS))
            await until(lambda: bool(world.replicas.fetched))
            await world.server.stop()
            with pytest.raises(ConnectionClosed, match="unknown"):
                await waiting
            await peers.close()

    run(main())
