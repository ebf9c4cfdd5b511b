"""A share partition, rule by rule; each bug that Kafka's had (KAFKA-...) is a test here."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kraft.protocol.errors import CoordinatorNotAvailable, InvalidRecordState, InvalidRequest, ShareSessionLimitReached
from replication.shares import partition as shares
from replication.shares.acknowledgements import DELAY_MS_MAX, AcknowledgementBatch, Part, checked
from replication.shares.partition import (
    Acquired,
    DeadLetters,
    Fetched,
    ShareLimits,
    SharePartition,
    StateWrite,
    loaded,
)
from replication.shares.sessions import SessionKey, ShareSessions
from replication.shares.states import AcknowledgeType, DeliveryState, StateBatch, combined

GAP, ACCEPT, RELEASE, REJECT, RENEW = AcknowledgeType
LOCK_MS = 1_000
LIMITS = ShareLimits(delivery_count=5, record_locks=2_000, lock_duration_ms=LOCK_MS)


def partition_of(*batches: StateBatch, start: int = 0, limits: ShareLimits = LIMITS) -> SharePartition:
    return loaded(start, batches, state_epoch=1, leader_epoch=1, limits=limits)


def acquire(
    partition: SharePartition,
    *batches: tuple[int, int],
    member: str = "a",
    at: int | None = None,
    end: int | None = None,
    max_records: int = 500,
    is_strict: bool = False,
    now_ms: int = 0,
) -> list[Acquired]:
    first = partition.next_fetch_offset() if at is None else at
    fetched = Fetched(first, batches[-1][1] + 1 if end is None else end, batches)
    return partition.acquire(
        member, fetched, max_records=max_records, batch_size=500, is_strict=is_strict, now_ms=now_ms
    )


def acknowledge(
    partition: SharePartition, first: int, last: int, kind: AcknowledgeType, *, member: str = "a", now_ms: int = 0
) -> StateWrite:
    """Written and done."""
    partition.acknowledge(member, [Part(first, last, kind, "")], now_ms)
    return write(partition)


def write(partition: SharePartition) -> StateWrite:
    begun = partition.begin_write()
    assert begun is not None
    partition.end_write(None, now_ms=0)
    return begun


def bounds(partition: SharePartition) -> list[tuple[int, int, str, int]]:
    return [(run.first, run.last, run.state.name, run.delivery_count) for run in partition.runs()]


def test_what_is_accepted_in_order_is_one_offset_for_the_share_coordinator():
    partition = partition_of()
    assert acquire(partition, (0, 99)) == [(0, 99, 1)]
    assert partition.in_flight == 100
    written = acknowledge(partition, 0, 99, ACCEPT)
    assert (written.start_offset, written.batches, written.delivery_complete_count) == (100, [], 0)
    assert (partition.start_offset, partition.in_flight, bounds(partition)) == (100, 0, [])
    assert partition.begin_write() is None


def test_what_is_accepted_behind_an_open_record_counts_as_complete():
    partition = partition_of()
    acquire(partition, (0, 99))
    written = acknowledge(partition, 10, 99, ACCEPT)
    assert (written.start_offset, written.batches) == (0, [StateBatch(10, 99, DeliveryState.ACKNOWLEDGED, 1)])
    assert (written.delivery_complete_count, partition.delivery_complete_count, partition.in_flight) == (90, 90, 10)


def test_batches_are_handed_out_whole_unless_the_member_is_strict():
    assert acquire(partition_of(), (0, 9), (10, 19), (20, 29), max_records=15) == [(0, 19, 1)]
    assert acquire(partition_of(), (0, 9), (10, 19), (20, 29), max_records=15, is_strict=True) == [(0, 14, 1)]


def test_new_records_come_in_pieces_that_end_where_batches_do():
    partition = partition_of()
    fetched = Fetched(0, 50, [(first, first + 9) for first in range(0, 50, 10)])
    got = partition.acquire("a", fetched, max_records=500, batch_size=15, is_strict=False, now_ms=0)
    assert got == [(0, 19, 1), (20, 39, 1), (40, 49, 1)]


def test_beyond_the_limit_of_locks_only_released_records_are_handed_out():
    """KAFKA-19808, KAFKA-19555: also when what is asked for begins within a batch."""
    partition = partition_of(limits=ShareLimits(record_locks=100, lock_duration_ms=LOCK_MS))
    acquire(partition, *((first, first + 29) for first in range(0, 300, 30)))
    assert (partition.in_flight, partition.can_acquire()) == (120, False), "up to the end of a batch"
    assert acquire(partition, (120, 149), at=120) == []
    acknowledge(partition, 40, 44, RELEASE)
    assert partition.can_acquire()
    assert acquire(partition, (30, 59), (60, 89), (90, 119), (120, 149), at=40, member="b") == [(40, 44, 2)]
    acknowledge(partition, 0, 39, ACCEPT)
    assert acquire(partition, (120, 149), max_records=500, is_strict=True) == [(120, 139, 1)], "80 are open: 20 more"


def test_a_record_that_nobody_acknowledges_holds_up_nobody():
    partition = partition_of(limits=ShareLimits(record_locks=100, lock_duration_ms=LOCK_MS))
    acquire(partition, (0, 0), member="stuck")
    for first in range(1, 5_001, 50):
        assert acquire(partition, (first, first + 49)) == [(first, first + 49, 1)]
        acknowledge(partition, first, first + 49, ACCEPT)
    assert (partition.start_offset, partition.in_flight) == (0, 1)
    assert len(bounds(partition)) == 2


def test_runs_behind_a_stuck_record_have_a_bound(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(shares, "RUNS_MAX", 20)
    partition = partition_of()
    acquire(partition, (0, 99), max_records=1, is_strict=True, member="stuck")
    for offset in range(1, 100):
        if not acquire(partition, (0, 99), max_records=1, is_strict=True):
            break
        acknowledge(partition, offset, offset, ACCEPT if offset % 2 else REJECT)
    assert len(bounds(partition)) == 20
    assert not partition.can_acquire()


# --- acknowledge ----------------------------------------------------------------------------------------------------


def test_a_record_whose_acceptance_is_not_written_yet_is_not_handed_out_again():
    """KAFKA-19463."""
    partition = partition_of()
    acquire(partition, (0, 9))
    partition.acknowledge("a", [Part(0, 9, RELEASE, "")], 0)
    assert (partition.next_fetch_offset(), partition.start_offset) == (10, 0)
    assert acquire(partition, (0, 9), at=0, member="b") == []
    write(partition)
    assert partition.next_fetch_offset() == 0


@pytest.mark.parametrize(
    ("first", "last", "member", "error"),
    [
        (0, 9, "b", InvalidRecordState),
        (5, 15, "a", InvalidRecordState),
        (0, 20, "a", InvalidRequest),
        (2**62, 2**63 - 1, "a", InvalidRequest),
    ],
)
def test_a_member_acknowledges_what_it_holds_or_nothing(first: int, last: int, member: str, error: type[Exception]):
    partition = partition_of()
    acquire(partition, (0, 9))
    acquire(partition, (10, 19), member="c")
    before = bounds(partition)
    with pytest.raises(error):
        partition.acknowledge(member, [Part(0, 2, ACCEPT, ""), Part(first, last, ACCEPT, "")][first < 3 :], 0)
    assert (bounds(partition), partition.begin_write()) == (before, None)


def test_an_acknowledgement_counts_once():
    partition = partition_of()
    acquire(partition, (0, 9))
    partition.acknowledge("a", [Part(3, 5, ACCEPT, "")], 0)
    with pytest.raises(InvalidRecordState):
        partition.acknowledge("a", [Part(5, 5, ACCEPT, "")], 0)
    write(partition)
    with pytest.raises(InvalidRecordState):
        partition.acknowledge("a", [Part(3, 5, ACCEPT, "")], 0)


def test_what_is_done_with_may_be_acknowledged_again_without_effect():
    partition = partition_of()
    acquire(partition, (0, 9))
    acknowledge(partition, 0, 9, ACCEPT)
    assert partition.acknowledge("b", [Part(0, 9, REJECT, "")], 0) is None
    assert partition.begin_write() is None


def test_one_write_is_under_way_and_what_comes_meanwhile_is_in_the_next():
    partition = partition_of()
    acquire(partition, (0, 9))
    first = partition.acknowledge("a", [Part(0, 1, ACCEPT, "")], 0)
    begun = partition.begin_write()
    later = [partition.acknowledge("a", [Part(n, n, ACCEPT, "")], 0) for n in (2, 3)]
    assert partition.begin_write() is None
    assert begun is not None
    assert begun.acknowledgements == [first]
    partition.end_write(None, 0)
    following = partition.begin_write()
    assert following is not None
    assert (following.acknowledgements, following.start_offset) == (later, 4)


def test_after_a_failed_write_the_records_are_locked_as_before():
    partition = partition_of()
    acquire(partition, (0, 9), now_ms=0)
    answer = partition.acknowledge("a", [Part(0, 9, ACCEPT, "")], 10)
    partition.begin_write()
    assert partition.deadline_ms() is None
    partition.end_write(CoordinatorNotAvailable("gone"), 20)
    assert answer is not None
    assert isinstance(answer.error, CoordinatorNotAvailable)
    assert (bounds(partition), partition.deadline_ms()) == ([(0, 9, "ACQUIRED", 1)], LOCK_MS)
    assert acknowledge(partition, 0, 9, ACCEPT).start_offset == 10


def test_after_a_failed_write_they_are_available_if_the_lock_has_run_out():
    partition = partition_of()
    acquire(partition, (0, 9), now_ms=0)
    partition.acknowledge("a", [Part(0, 9, ACCEPT, "")], 10)
    partition.begin_write()
    assert not partition.expire(LOCK_MS), "not while its acceptance may be written"
    partition.end_write(CoordinatorNotAvailable("gone"), LOCK_MS)
    assert (bounds(partition), partition.next_fetch_offset()) == ([(0, 9, "AVAILABLE", 1)], 0)


# --- locks ----------------------------------------------------------------------------------------------------------


def test_a_lock_runs_out_and_is_renewed():
    partition = partition_of()
    acquire(partition, (0, 9), now_ms=0)
    assert partition.acknowledge("a", [Part(0, 4, RENEW, "")], 600) is None
    assert partition.deadline_ms() == LOCK_MS
    assert partition.expire(LOCK_MS)
    assert bounds(partition) == [(0, 4, "ACQUIRED", 1), (5, 9, "AVAILABLE", 1)]
    assert partition.deadline_ms() == 600 + LOCK_MS
    with pytest.raises(InvalidRecordState):
        partition.acknowledge("a", [Part(5, 5, ACCEPT, "")], LOCK_MS)
    assert partition.expire(600 + LOCK_MS)
    assert partition.deadline_ms() is None


def test_a_closed_session_releases_what_its_member_holds_and_the_count_stays():
    """KAFKA-19972; also where single offsets were acknowledged (KAFKA-19953)."""
    partition = partition_of()
    acquire(partition, (0, 9))
    acquire(partition, (10, 19), member="b")
    acknowledge(partition, 4, 4, ACCEPT)
    assert partition.release("a")
    assert bounds(partition) == [
        (0, 3, "AVAILABLE", 1),
        (4, 4, "ACKNOWLEDGED", 1),
        (5, 9, "AVAILABLE", 1),
        (10, 19, "ACQUIRED", 1),
    ]
    assert [batch[:2] for batch in write(partition).batches] == [(0, 3), (5, 9)]
    assert not partition.release("a")


def test_ten_thousand_members_come_and_go_and_leave_nothing_behind():
    """Some accept what they hold, some lose their connection with it, and some are silent."""
    partition, sessions = partition_of(), ShareSessions()
    accepted: list[int] = []

    def take(member: str, now_ms: int) -> int:
        at = partition.next_fetch_offset()
        (taken,) = acquire(partition, (at, at), member=member, max_records=1, is_strict=True, now_ms=now_ms)
        assert taken[:2] == (at, at)
        return at

    for wave in range(100):
        now_ms, names = wave * 2 * LOCK_MS, [f"{wave}-{number}" for number in range(100)]
        held = {}
        for name in names:
            sessions.begin(SessionKey("g", name), 0, name, sessions_max=100)
            held[name] = take(name, now_ms)
        with pytest.raises(ShareSessionLimitReached):
            sessions.begin(SessionKey("g", "late"), 0, "late", sessions_max=100)
        for number, name in enumerate(names):
            if number % 3 == 0:
                acknowledge(partition, held[name], held[name], ACCEPT, member=name)
                accepted.append(held[name])
            elif number % 3 == 1:
                assert sessions.disconnected(name) == [SessionKey("g", name)]
                partition.release(name)
            sessions.close(SessionKey("g", name))
        partition.expire(now_ms + LOCK_MS)
        write(partition)
    while partition.next_fetch_offset() <= partition.end_offset:
        offset = take("last", now_ms)
        acknowledge(partition, offset, offset, ACCEPT, member="last")
        accepted.append(offset)
    assert len(set(accepted)) == len(accepted)
    assert len(accepted) + partition.counts.archived_at_limit == partition.start_offset == partition.end_offset + 1
    assert (len(sessions), sessions.has_group("g"), len(list(partition.runs()))) == (0, False, 0)
    assert len(partition._locks) <= shares.LOCK_ENTRIES_SPARE + 1


def test_locks_that_end_early_are_forgotten():
    partition = partition_of()
    for offset in range(5_000):
        acquire(partition, (offset, offset))
        acknowledge(partition, offset, offset, ACCEPT)
    assert len(partition._locks) <= shares.LOCK_ENTRIES_SPARE + 1


# --- delivery counts and dead letters -------------------------------------------------------------------------------


def test_a_bad_record_is_isolated_and_only_it_is_archived():
    """KAFKA-19903: the member releases all that it gets together with the bad record."""
    partition = partition_of()
    poison, handed_out = 137, 0
    accepted: set[int] = set()
    while got := acquire(partition, (0, 499)):
        handed_out += len(got)
        for first, last, _ in got:
            is_bad = first <= poison <= last
            acknowledge(partition, first, last, RELEASE if is_bad else ACCEPT)
            accepted |= set() if is_bad else set(range(first, last + 1))
    assert partition.start_offset == 500
    assert set(range(500)) - accepted == {poison}
    assert handed_out == 3 + 1 + 250 + 1, "whole three times, then in halves, of which one is bad, then alone"


def test_a_record_at_its_last_delivery_is_handed_out_alone():
    partition = partition_of(StateBatch(0, 3, DeliveryState.AVAILABLE, 1), StateBatch(4, 6, DeliveryState.AVAILABLE, 4))
    assert acquire(partition, (0, 9)) == [(0, 3, 2)]
    assert [acquire(partition, (4, 9)) for _ in range(4)] == [[(4, 4, 5)], [(5, 5, 5)], [(6, 6, 5)], [(7, 9, 1)]]


@pytest.mark.parametrize("ending", ["released", "timed out", "closed"])
def test_at_the_limit_a_record_is_archived_however_its_lock_ends(ending: str):
    partition = partition_of(StateBatch(0, 0, DeliveryState.AVAILABLE, 4))
    assert acquire(partition, (0, 0)) == [(0, 0, 5)]
    if ending == "released":
        acknowledge(partition, 0, 0, RELEASE)
    elif ending == "timed out":
        partition.expire(LOCK_MS)
    else:
        partition.release("a")
    assert partition.start_offset == 1
    assert partition.counts.archived_at_limit == 1


def dead_letters(partition: SharePartition) -> list[DeadLetters]:
    assert partition.begin_write() is not None
    return partition.end_write(None, 0)


def test_a_rejected_record_is_written_as_archiving_then_sent_then_archived():
    limits = ShareLimits(has_dead_letters=True)
    partition = partition_of(limits=limits)
    acquire(partition, (0, 9))
    partition.acknowledge("a", [Part(3, 4, REJECT, "no such customer")], 0)
    assert dead_letters(partition) == [(3, 4, 1, "no such customer")]
    assert (partition.in_flight, bounds(partition)[1]) == (10, (3, 4, "ARCHIVING", 1))
    partition.dead_lettered(DeadLetters(3, 4, 1, ""))
    assert write(partition).batches == [StateBatch(3, 4, DeliveryState.ARCHIVED, 1)]
    assert partition.waiting_dead_letters() == []


def test_the_next_leader_sends_what_was_archiving_again():
    """KAFKA-20672."""
    partition = partition_of(StateBatch(2, 3, DeliveryState.ARCHIVING, 5))
    assert [letters[:3] for letters in partition.waiting_dead_letters()] == [(2, 3, 5)]
    assert acquire(partition, (0, 5)) == [(0, 1, 1), (4, 5, 1)]


def test_a_dead_letter_waits_for_its_state_to_be_written():
    partition = partition_of(StateBatch(0, 0, DeliveryState.AVAILABLE, 4), limits=ShareLimits(has_dead_letters=True))
    acquire(partition, (0, 0))
    partition.release("a")
    partition.begin_write()
    assert partition.end_write(CoordinatorNotAvailable("gone"), 0) == []
    assert [letters[:3] for letters in dead_letters(partition)] == [(0, 0, 5)]


def test_a_dead_letter_on_its_way_is_sent_once():
    """The neighbours are one batch of the second write."""
    partition = partition_of(limits=ShareLimits(has_dead_letters=True))
    acquire(partition, (0, 1))
    partition.acknowledge("a", [Part(0, 0, REJECT, "")], 0)
    assert [letters[:3] for letters in dead_letters(partition)] == [(0, 0, 1)]
    partition.acknowledge("a", [Part(1, 1, REJECT, "")], 0)
    assert [letters[:3] for letters in dead_letters(partition)] == [(1, 1, 1)]


# --- what the log has lost ------------------------------------------------------------------------------------------


def test_what_retention_deletes_is_counted_and_what_is_locked_may_end():
    """KAFKA-19476: the lock runs out, or the record is accepted, after the log start has moved."""
    partition = partition_of()
    acquire(partition, (0, 9))
    acknowledge(partition, 0, 3, RELEASE)
    assert partition.log_started(20) == 14
    assert (partition.start_offset, partition.end_offset, partition.in_flight) == (20, 19, 0)
    partition.acknowledge("a", [Part(4, 6, ACCEPT, "")], 0)
    assert write(partition).start_offset == 20
    assert partition.counts.lost_by_retention == 14
    assert partition.expire(LOCK_MS)
    assert (bounds(partition), partition.counts.lost_by_retention) == ([], 17)
    assert (partition.next_fetch_offset(), partition.delivery_complete_count) == (20, 0)


def test_offsets_without_records_are_archived():
    """Control batches, aborted transactions, and what was compacted away; at the end of the log too."""
    partition = partition_of()
    assert acquire(partition, (2, 4), (8, 9), at=0, end=11) == [(2, 4, 1), (8, 9, 1)]
    assert partition.start_offset == 2
    assert bounds(partition)[1:2] == [(5, 7, "ARCHIVED", 0)]
    assert partition.end_offset == 10
    acknowledge(partition, 2, 4, ACCEPT)
    assert acknowledge(partition, 8, 9, ACCEPT).start_offset == 11


def test_records_that_were_compacted_away_meanwhile_are_archived():
    partition = partition_of(StateBatch(0, 9, DeliveryState.AVAILABLE, 1))
    assert acquire(partition, (6, 9), at=0) == [(6, 9, 2)]
    assert (partition.start_offset, partition.counts.gaps) == (6, 6)


def test_a_start_that_moves_by_itself_is_written():
    partition = partition_of()
    partition.acquire("a", Fetched(0, 1, []), max_records=1, batch_size=1, is_strict=False, now_ms=0)
    assert write(partition).start_offset == 1
    partition.log_started(7)
    assert write(partition).start_offset == 7


# --- what the next leader knows -------------------------------------------------------------------------------------


def test_offsets_between_batches_are_handed_out_by_the_next_leader():
    partition = partition_of(
        StateBatch(2, 3, DeliveryState.ACKNOWLEDGED, 1), StateBatch(6, 6, DeliveryState.AVAILABLE, 2)
    )
    assert partition.next_fetch_offset() == 0
    assert acquire(partition, (0, 9)) == [(0, 1, 1), (4, 5, 1), (6, 6, 3), (7, 9, 1)]
    assert partition.delivery_complete_count == 2


@pytest.mark.parametrize("batches", [[(0, 5), (5, 9)], [(0, 9), (3, 4)]])
def test_state_that_overlaps_is_refused(batches: Sequence[tuple[int, int]]):
    """KAFKA-19632, KAFKA-19954: nothing is handed out by it."""
    with pytest.raises(ValueError, match="has not ended"):
        partition_of(*(StateBatch(first, last, 0, 1) for first, last in batches))


def test_batches_are_combined_as_the_share_coordinator_keeps_them():
    old = [StateBatch(0, 9, 0, 1), StateBatch(10, 19, 2, 1), StateBatch(30, 39, 4, 3)]
    new = [StateBatch(5, 14, 0, 2), StateBatch(30, 34, 0, 1), StateBatch(40, 44, 4, 3)]
    assert [batch[:4] for batch in combined(old, new, 3)] == [
        (3, 4, 0, 1), (5, 14, 0, 2), (15, 19, 2, 1), (30, 44, 4, 3),
    ]  # fmt: skip
    assert combined(combined(old, new, 3), new, 3) == combined(old, new, 3), "twice is once"
    assert combined(old, new, 45) == []


def test_of_two_times_of_one_delivery_the_later_one_counts():
    early, late = StateBatch(0, 9, 0, 1, 500), StateBatch(5, 14, 0, 1, 900)
    assert combined([early], [late], 0) == combined([late], [early], 0)
    assert combined([early], [late], 0) == [StateBatch(0, 4, 0, 1, 500), late]
    assert combined([late], [StateBatch(5, 14, 0, 2)], 0) == [StateBatch(5, 14, 0, 2)], "delivered again meanwhile"


# --- too old ---------------------------------------------------------------------------------------------------------


def test_what_is_too_old_was_not_delivered_and_goes_to_dead_letters():
    partition = partition_of(StateBatch(0, 1, DeliveryState.AVAILABLE, 2), limits=ShareLimits(has_dead_letters=True))
    assert acquire(partition, (0, 9)) == [(0, 1, 3), (2, 9, 1)]
    partition.expire_records("a", [(1, 3), (9, 9)])
    assert bounds(partition) == [
        (0, 0, "ACQUIRED", 3),
        (1, 1, "ARCHIVING", 2),
        (2, 3, "ARCHIVING", 0),
        (4, 8, "ACQUIRED", 1),
        (9, 9, "ARCHIVING", 0),
    ]
    counts = partition.counts
    assert (counts.expired, counts.acquired, counts.redelivered) == (4, 6, 1)
    assert dict(counts.deliveries) == {3: 1, 1: 5}
    assert partition.begin_write() is not None
    letters = partition.end_write(None, now_ms=0)
    assert {(each.first_offset, each.last_offset, each.reason) for each in letters} == {
        (1, 1, "expired"),
        (2, 3, "expired"),
        (9, 9, "expired"),
    }


def test_without_dead_letters_the_start_passes_what_is_too_old():
    partition = partition_of()
    acquire(partition, (0, 9))
    partition.expire_records("a", [(0, 4)])
    assert (partition.start_offset, partition.in_flight, partition.deadline_ms()) == (5, 5, LOCK_MS)
    assert write(partition).start_offset == 5


# --- later ----------------------------------------------------------------------------------------------------------


def test_what_is_released_for_later_is_not_handed_out_before():
    partition = partition_of()
    acquire(partition, (0, 9))
    partition.acknowledge("a", [Part(0, 4, RELEASE, "", 700)], now_ms=100)
    partition.wall_ahead_ms = 50_000
    assert write(partition).batches == [StateBatch(0, 4, DeliveryState.AVAILABLE, 1, 50_800)]
    assert (partition.next_fetch_offset(), partition.deadline_ms()) == (10, 800)
    assert acquire(partition, (0, 9), at=0) == []
    assert not partition.expire(799)
    assert partition.expire(800)
    assert partition.deadline_ms() == LOCK_MS, "of what is still locked"
    assert acquire(partition, (0, 9), member="b", now_ms=800) == [(0, 4, 2)]


def test_the_group_doubles_its_back_off_up_to_its_maximum():
    limits = ShareLimits(delivery_count=25, retry_backoff_ms=100, retry_backoff_max_ms=700)
    assert [limits.backoff_ms(count) for count in (0, 1, 2, 3, 4, 25)] == [100, 100, 200, 400, 700, 700]
    partition = partition_of(limits=limits)
    now_ms = 0
    for wait_ms in (100, 200, 400, 700, 700):
        (got,) = acquire(partition, (0, 0), now_ms=now_ms)
        acknowledge(partition, 0, 0, RELEASE, now_ms=now_ms)
        assert partition.deadline_ms() == now_ms + wait_ms, got
        now_ms += wait_ms
        partition.expire(now_ms)


def test_a_release_with_a_time_of_its_own_has_no_back_off():
    partition = partition_of(limits=ShareLimits(retry_backoff_ms=1_000))
    acquire(partition, (0, 1))
    partition.acknowledge("a", [Part(0, 0, RELEASE, "", 0), Part(1, 1, RELEASE, "", 20)], now_ms=0)
    write(partition)
    assert (partition.next_fetch_offset(), partition.deadline_ms()) == (0, 20)


def test_a_lock_that_runs_out_has_the_back_off_and_a_closed_session_has_not():
    limits = ShareLimits(lock_duration_ms=LOCK_MS, retry_backoff_ms=300)
    partition = partition_of(limits=limits)
    acquire(partition, (0, 0))
    acquire(partition, (1, 1), member="b")
    partition.release("b")
    assert partition.next_fetch_offset() == 1
    partition.expire(LOCK_MS)
    assert (partition.next_fetch_offset(), partition.deadline_ms()) == (1, LOCK_MS + 300)


def test_a_release_that_was_not_written_delays_nothing():
    partition = partition_of()
    acquire(partition, (0, 0))
    partition.acknowledge("a", [Part(0, 0, RELEASE, "", 5_000)], now_ms=0)
    partition.begin_write()
    partition.end_write(CoordinatorNotAvailable("gone"), now_ms=10)
    assert partition.deadline_ms() == LOCK_MS
    acknowledge(partition, 0, 0, ACCEPT)
    assert partition.start_offset == 1


def test_the_next_leader_goes_on_with_a_delay_within_its_maximum():
    batches = [StateBatch(0, 0, 0, 1, 10_500), StateBatch(1, 1, 0, 1, 9_000), StateBatch(2, 2, 0, 1, 2**60)]
    partition = loaded(0, batches, state_epoch=1, leader_epoch=2, limits=LIMITS, now_ms=77, wall_ms=10_000)
    assert (partition.next_fetch_offset(), partition.deadline_ms()) == (1, 577)
    assert [run.not_before_ms for run in partition.runs()] == [577, 0, 77 + DELAY_MS_MAX]
    assert partition.is_settled, "the next one would know the same"


def test_records_that_are_delayed_are_in_flight():
    partition = partition_of(limits=ShareLimits(record_locks=3))
    acquire(partition, (0, 2))
    partition.acknowledge("a", [Part(0, 2, RELEASE, "", 50)], now_ms=0)
    write(partition)
    assert (partition.in_flight, partition.can_acquire()) == (3, False)
    partition.expire(50)
    assert partition.can_acquire()


# --- requests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "batches",
    [
        [(5, 4, [1])],
        [(-1, 4, [1])],
        [(0, 4, [1]), (4, 6, [1])],
        [(3, 4, [1]), (0, 1, [1])],
        [(0, 4, [])],
        [(0, 4, [1, 1])],
        [(0, 4, [5])],
        [(0, 4, [-1])],
        [(0, 4, [4])],
        [(0, 2**63 - 1, [1, 2])],
    ],
)
def test_acknowledgements_that_make_no_sense_are_refused(batches: Sequence[tuple[int, int, Sequence[int]]]):
    with pytest.raises(InvalidRequest):
        checked([AcknowledgementBatch(*each) for each in batches], may_renew=False)


def test_types_of_single_offsets_become_ranges():
    batches = [AcknowledgementBatch(0, 4, [1, 1, 2, 4, 4]), AcknowledgementBatch(7, 2**62, [1])]
    parts = checked(batches, may_renew=True)
    assert [part[:3] for part in parts] == [(0, 1, ACCEPT), (2, 2, RELEASE), (3, 4, RENEW), (7, 2**62, ACCEPT)]
