"""Acknowledgements over REST that come again: at the same leader, and at the next one."""

from __future__ import annotations

import pytest

from kraft.protocol.errors import InvalidRecordState, NotEnoughReplicas
from replication.shares import settled
from replication.shares.acknowledgements import Part
from replication.shares.partition import Fetched, ShareLimits, SharePartition, loaded
from replication.shares.settled import Lease, Settled
from replication.shares.states import AcknowledgeType, StateBatch

ACCEPT, RELEASE, REJECT, RENEW = (
    AcknowledgeType.ACCEPT,
    AcknowledgeType.RELEASE,
    AcknowledgeType.REJECT,
    AcknowledgeType.RENEW,
)
LOCK_MS = 30_000
LIMITS = ShareLimits(lock_duration_ms=LOCK_MS)


def leader(*, epoch: int = 5, start: int = 0, batches: tuple[StateBatch, ...] = ()) -> SharePartition:
    return loaded(start, batches, state_epoch=1, leader_epoch=epoch, limits=LIMITS)


def hand_out(partition: SharePartition, member: str, count: int, *, now_ms: int = 0, lock_ms: int = 0) -> None:
    partition.acquire(
        member,
        Fetched(partition.start_offset, count, [(partition.start_offset, count - 1)]),
        max_records=count,
        batch_size=count,
        is_strict=True,
        now_ms=now_ms,
        lock_ms=lock_ms,
    )


def lease(
    offset: int, kind: AcknowledgeType = ACCEPT, *, member: str = "a", epoch: int = 5, count: int = 1, lock_ms: int = 0
) -> Lease:
    return Lease(member, Part(offset, offset, kind, ""), epoch, count, LOCK_MS, lock_ms)


def settle(partition: SharePartition, asked: Lease, *, at_ms: int = 0) -> None:
    """Also writes it."""
    partition.settle(asked, now_ms=at_ms, wall_ms=at_ms)
    if partition.begin_write() is not None:
        partition.end_write(None, at_ms)


def is_refused(partition: SharePartition, asked: Lease, *, at_ms: int = 0) -> bool:
    try:
        assert partition.settle(asked, now_ms=at_ms, wall_ms=at_ms) is None
    except InvalidRecordState:
        return True
    return False


@pytest.mark.parametrize("kind", [ACCEPT, RELEASE, REJECT])
def test_the_same_again_has_the_same_answer_until_the_lock_would_have_run_out(kind: AcknowledgeType):
    partition = leader()
    hand_out(partition, "a", 3)
    settle(partition, lease(0, kind))
    assert not is_refused(partition, lease(0, kind), at_ms=LOCK_MS - 1)
    assert is_refused(partition, lease(0, kind), at_ms=LOCK_MS)
    for other in {ACCEPT, RELEASE, REJECT} - {kind}:
        assert is_refused(partition, lease(0, other)), "another word"
    assert is_refused(partition, lease(0, kind, member="b")), "another receiver"


def test_while_the_write_goes_on_the_same_again_waits_for_it():
    partition = leader()
    hand_out(partition, "a", 3)
    first = partition.settle(lease(0), now_ms=0, wall_ms=0)
    assert first is not None
    assert partition.settle(lease(0), now_ms=0, wall_ms=0) is first
    assert partition.begin_write() is not None
    assert partition.settle(lease(0), now_ms=0, wall_ms=0) is first
    partition.end_write(NotEnoughReplicas("no"), 0)
    assert partition.settle(lease(0), now_ms=0, wall_ms=0) is not first, "it has failed: it begins anew"


def test_a_lock_lasts_as_its_receiver_asked_and_a_renewal_as_well():
    partition = leader()
    hand_out(partition, "a", 2, lock_ms=1_000)
    assert partition.deadline_ms() == 1_000
    assert partition.settle(lease(0, RENEW, lock_ms=5_000), now_ms=500, wall_ms=500) is None
    partition.expire(1_000)
    assert is_refused(partition, lease(1), at_ms=1_000)
    settle(partition, lease(0), at_ms=5_499)
    assert is_refused(partition, lease(0, RENEW), at_ms=5_499), "nothing is locked any more"


def test_accepted_by_one_receiver_it_is_never_accepted_by_another():
    partition = leader()
    hand_out(partition, "a", 1)
    partition.expire(LOCK_MS)
    hand_out(partition, "b", 1, now_ms=LOCK_MS)
    settle(partition, lease(0, member="b", count=2), at_ms=LOCK_MS)
    assert partition.start_offset == 1
    assert is_refused(partition, lease(0), at_ms=LOCK_MS)


@pytest.mark.parametrize(
    ("kind", "state", "is_taken"),
    [
        (ACCEPT, 2, True), (ACCEPT, 4, False), (ACCEPT, 0, False),
        (REJECT, 4, True), (REJECT, 3, True), (REJECT, 2, False),
        (RELEASE, 0, True), (RELEASE, 4, True), (RELEASE, 2, False),
        (RENEW, 2, False), (RENEW, 0, False),
    ],
)  # fmt: skip
def test_the_next_leader_answers_by_the_state_that_it_has_loaded(kind: AcknowledgeType, state: int, is_taken: bool):
    partition = leader(epoch=6, batches=(StateBatch(3, 3, state, 1),))
    assert is_refused(partition, lease(3, kind), at_ms=LOCK_MS - 1) is not is_taken
    assert is_refused(partition, lease(3, kind), at_ms=LOCK_MS), "its lock would have run out"
    assert is_refused(partition, lease(3, kind, count=2)), "another delivery"
    assert is_refused(partition, lease(3, kind, epoch=4)), "a leader was between the two"
    assert is_refused(partition, lease(2, kind)), "handed out, and never acknowledged"


def test_below_the_start_offset_that_the_next_leader_has_loaded_all_is_settled():
    partition = leader(epoch=6, start=4)
    assert not is_refused(partition, lease(3))
    assert is_refused(partition, lease(4))
    assert is_refused(partition, lease(3, RENEW))


def test_a_leader_that_loads_its_states_again_answers_as_at_the_first_time():
    first, again = leader(epoch=6, start=3), leader(epoch=6, start=4)
    again.before = first.before
    assert not is_refused(again, lease(2))
    assert is_refused(again, lease(3)), "somebody else has accepted it since the first time"


def test_it_remembers_until_the_last_lock_of_a_receiver_would_have_ended():
    partition = leader()
    hand_out(partition, "kafka", 1)
    assert partition.remembers_until_ms == 0, "its session ends the lock"
    partition.release("kafka")
    hand_out(partition, "a", 1, lock_ms=2_000)
    settle(partition, lease(0, RENEW, count=2, lock_ms=2_000), at_ms=500)
    assert partition.remembers_until_ms == 2_500


def test_what_the_next_leader_itself_hands_out_is_not_the_old_receivers():
    partition = leader(epoch=6)
    hand_out(partition, "b", 1)
    settle(partition, lease(0, member="b", epoch=6))
    assert is_refused(partition, lease(0)), "two would have accepted it"


def test_the_memory_is_bounded_and_the_earliest_end_goes_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(settled, "SETTLED_MAX", 3)
    memory = Settled()
    for number, until_ms in enumerate((50, 10, 40, 30)):
        memory.add(f"m{number}", Part(0, 0, ACCEPT, ""), first=0, last=0, until_ms=until_ms, now_ms=0)
    found = [memory.has(f"m{number}", Part(0, 0, ACCEPT, ""), 0) for number in range(4)]
    assert (len(memory), found) == (3, [True, False, True, True])
    memory.add("late", Part(0, 0, ACCEPT, ""), first=0, last=0, until_ms=90, now_ms=60)
    assert len(memory) == 1
