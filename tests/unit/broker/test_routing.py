"""Where requests go, what is tried again and what never is."""

from __future__ import annotations

import pytest

from kraft.broker.routing import PRODUCE_RETRY_MS, Router
from kraft.chaos.worlds.simulated.clock import SimulatedClock
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.errors import InvalidRequiredAcks, LeaderNotAvailable, OffsetOutOfRange, UnknownTopicId
from metadata.environment import ConnectionClosed, NotConnected
from metadata.image import TopicIdPartition
from replication.requests import (
    FetchedPartition,
    FetchResponse,
    OffsetAnswer,
    ProduceOptions,
    ProduceOutcome,
    ReadOptions,
)
from tests.unit.broker.support import (
    BATCH,
    P0,
    P1,
    TOPIC,
    HandLog,
    ScriptedLeader,
    move_leader,
    publisher_on,
    router_on,
    run,
    two_partitions,
    with_brokers,
)

STORED = ProduceOutcome(base_offset=5, last_offset=5, is_appended=True)
MOVED_BEFORE_APPEND = ProduceOutcome(error_code=6)
SEQUENCED = build_batch([NewRecord(None, b"v", [], 0)], producer_id=1, producer_epoch=0, base_sequence=0)
LOST_AFTER_APPEND = ProduceOutcome(error_code=6, is_appended=True)


def _router(clock: SimulatedClock, log: HandLog, **leaders: ScriptedLeader) -> Router:
    return router_on(clock, publisher_on(clock, log), {int(name[1:]): leader for name, leader in leaders.items()})


def test_each_partition_goes_to_its_leader_and_has_its_own_outcome() -> None:
    async def main(clock: SimulatedClock) -> None:
        log, local, remote = HandLog(), ScriptedLeader(STORED), ScriptedLeader(ProduceOutcome(error_code=10))
        router = _router(clock, log, n1=local, n2=remote)
        two_partitions(log)
        outcomes = await router.produce({P0: BATCH, P1: BATCH}, ProduceOptions(-1, 1000))
        assert outcomes == {P0: STORED, P1: ProduceOutcome(error_code=10)}
        assert (local.calls, remote.calls) == (1, 1)

    run(main)


@pytest.mark.parametrize("first", [MOVED_BEFORE_APPEND, ConnectionRefusedError("dead")])
def test_a_produce_that_was_surely_not_appended_follows_the_new_leader(first: object) -> None:
    async def main(clock: SimulatedClock) -> None:
        log, old, new = HandLog(), ScriptedLeader(*[first] * 10), ScriptedLeader(STORED)
        router = _router(clock, log, n1=old, n2=new)
        two_partitions(log, leaders=(1, 1))
        clock.call_later(300, lambda: move_leader(log, partition=0, leader=2))
        outcomes = await router.produce({P0: BATCH}, ProduceOptions(-1, 30_000))
        assert outcomes == {P0: STORED}
        assert clock.monotonic_ms() >= 300

    run(main)


def test_a_produce_is_sent_again_to_a_new_leader_that_has_not_heard_of_it_yet() -> None:
    async def main(clock: SimulatedClock) -> None:
        log, new = HandLog(), ScriptedLeader(MOVED_BEFORE_APPEND, STORED)
        router = _router(clock, log, n1=new)
        two_partitions(log)
        assert await router.produce({P0: BATCH}, ProduceOptions(-1, 30_000)) == {P0: STORED}
        assert clock.monotonic_ms() <= PRODUCE_RETRY_MS, "without any news here"

    run(main)


@pytest.mark.parametrize("unknown", [LOST_AFTER_APPEND, ConnectionClosed("cut"), TimeoutError()])
def test_a_produce_whose_outcome_is_unknown_is_never_sent_again(unknown: object) -> None:
    async def main(clock: SimulatedClock) -> None:
        log, old, new = HandLog(), ScriptedLeader(unknown), ScriptedLeader(STORED)
        router = _router(clock, log, n1=old, n2=new)
        two_partitions(log, leaders=(1, 1))
        clock.call_later(1, lambda: move_leader(log, partition=0, leader=2))
        outcome = (await router.produce({P0: BATCH}, ProduceOptions(-1, 30_000)))[P0]
        assert outcome.error_code in (6, 7)
        assert outcome.is_appended
        assert new.calls == 0

    run(main)


@pytest.mark.parametrize("unknown", [LOST_AFTER_APPEND, ConnectionClosed("cut"), TimeoutError()])
def test_a_batch_with_a_producer_id_is_sent_again_and_recognised(unknown: object) -> None:
    async def main(clock: SimulatedClock) -> None:
        log, old, new = HandLog(), ScriptedLeader(unknown), ScriptedLeader(STORED)
        router = _router(clock, log, n1=old, n2=new)
        two_partitions(log, leaders=(1, 1))
        clock.call_later(1, lambda: move_leader(log, partition=0, leader=2))
        assert await router.produce({P0: SEQUENCED}, ProduceOptions(-1, 30_000)) == {P0: STORED}
        assert new.calls == 1

    run(main)


def test_what_an_earlier_attempt_may_have_appended_stays_in_doubt() -> None:
    async def main(clock: SimulatedClock) -> None:
        log, old = HandLog(), ScriptedLeader(ConnectionClosed("cut"))
        router = _router(clock, log, n1=old, n2=ScriptedLeader(ProduceOutcome(error_code=19)))
        two_partitions(log, leaders=(1, 1))
        clock.call_later(1, lambda: move_leader(log, partition=0, leader=2))
        outcome = (await router.produce({P0: SEQUENCED}, ProduceOptions(-1, 30_000)))[P0]
        assert (outcome.error_code, outcome.is_appended) == (19, True)

    run(main)


def test_a_partition_that_stays_without_leader_is_refused_within_a_second() -> None:
    async def main(clock: SimulatedClock) -> None:
        log = HandLog()
        router = _router(clock, log)
        two_partitions(log, leaders=(-1, -1))
        outcome = (await router.produce({P0: BATCH}, ProduceOptions(1, 30_000)))[P0]
        assert outcome.error_code == LeaderNotAvailable.code
        assert not outcome.is_appended
        assert clock.monotonic_ms() <= 1_000

    run(main)


def test_produce_without_connection_ends_in_time() -> None:
    """Found by the simulation (power 20019): each attempt took its time, and each time there was newer metadata."""

    async def main(clock: SimulatedClock) -> None:
        log = HandLog()

        async def fail_slowly() -> None:
            await clock.sleep(2_300)
            move_leader(log, partition=0, leader=1)

        leader = ScriptedLeader(*(NotConnected("no connection within 2300 ms"),) * 5, on_call=fail_slowly)
        router = _router(clock, log, n1=leader)
        two_partitions(log, leaders=(1, 1))
        outcome = (await router.produce({P0: BATCH}, ProduceOptions(0, 300)))[P0]
        assert outcome.error_code == LeaderNotAvailable.code
        assert leader.calls == 1

    run(main)


FAILED_LOG = ProduceOutcome(error_code=56)


def test_produce_refused_by_full_disk_goes_to_next_leader() -> None:
    """KIP-858. This node's own metadata may stand still: its metadata log is on the full disk, too."""

    async def main(clock: SimulatedClock) -> None:
        log, full, other = HandLog(), ScriptedLeader(FAILED_LOG), ScriptedLeader(MOVED_BEFORE_APPEND, STORED)
        router = _router(clock, log, n1=full, n2=other)
        two_partitions(log, leaders=(1, 1))
        with_brokers(log, 1, 2, 3)
        assert await router.produce({P0: BATCH}, ProduceOptions(-1, 30_000)) == {P0: STORED}
        assert (full.calls, other.calls) == (1, 2)
        assert clock.monotonic_ms() < 3 * PRODUCE_RETRY_MS

    run(main)


def test_a_failed_log_without_another_live_isr_member_is_reported_at_once() -> None:
    async def main(clock: SimulatedClock) -> None:
        log = HandLog()
        router = _router(clock, log, n1=ScriptedLeader(FAILED_LOG))
        two_partitions(log, leaders=(1, 1))
        with_brokers(log, 1)
        assert await router.produce({P0: BATCH}, ProduceOptions(-1, 30_000)) == {P0: FAILED_LOG}
        assert clock.monotonic_ms() == 0

    run(main)


def test_acks_other_than_kafkas_are_refused() -> None:
    async def main(clock: SimulatedClock) -> None:
        log = HandLog()
        router = _router(clock, log)
        with pytest.raises(InvalidRequiredAcks, match="acks was 2"):
            await router.produce({P0: BATCH}, ProduceOptions(2, 1))

    run(main)


def _fetched(**fields: object) -> FetchResponse:
    partition = FetchedPartition(topic_id=TOPIC, partition=0, **fields)  # type: ignore[arg-type]
    return FetchResponse(partitions=(partition,))


def test_a_read_is_routed_again_until_a_leader_answers() -> None:
    async def main(clock: SimulatedClock) -> None:
        log = HandLog()
        old = ScriptedLeader(ConnectionClosed("cut"), _fetched(error_code=6))
        new = ScriptedLeader(_fetched(high_watermark=9, log_start_offset=0, records=b"xyz"))
        router = _router(clock, log, n1=old, n2=new)
        two_partitions(log, leaders=(1, 1))
        clock.call_later(35, lambda: move_leader(log, partition=0, leader=2))
        records = await router.read(P0, 0, ReadOptions(bytes_max=100, bytes_min=1, wait_ms_max=500))
        assert (bytes(records.data), records.high_watermark, old.calls, new.calls) == (b"xyz", 9, 2, 1)

    run(main)


def test_an_offset_out_of_range_is_the_answer_and_reports_what_the_range_is() -> None:
    async def main(clock: SimulatedClock) -> None:
        log, leader = HandLog(), ScriptedLeader(_fetched(error_code=1, log_start_offset=4, high_watermark=9))
        router = _router(clock, log, n1=leader)
        two_partitions(log, leaders=(1, 1))
        with pytest.raises(OffsetOutOfRange, match="starts at 4 and its high watermark is 9"):
            await router.read(P0, 99, ReadOptions(bytes_max=100, bytes_min=1, wait_ms_max=500))

    run(main)


def test_an_unknown_topic_is_waited_for_no_longer_than_the_leader_wait() -> None:
    async def main(clock: SimulatedClock) -> None:
        router = _router(clock, HandLog())
        with pytest.raises(UnknownTopicId):
            await router.list_offset(TopicIdPartition(TOPIC, 0), -1)
        assert clock.monotonic_ms() <= 1_100

    run(main)


def test_offsets_and_deletes_go_to_the_leader() -> None:
    async def main(clock: SimulatedClock) -> None:
        log, leader = HandLog(), ScriptedLeader(OffsetAnswer(offset=3), 2)
        router = _router(clock, log, n1=leader)
        two_partitions(log, leaders=(1, 1))
        assert (await router.list_offset(P0, -1)).offset == 3
        assert await router.delete_records(P0, offset=2, timeout_ms=100) == 2

    run(main)
