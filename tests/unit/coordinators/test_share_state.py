"""What the share coordinator decides about one share partition, and its records, which are Kafka's bytes."""

from __future__ import annotations

from uuid import UUID

import pytest

from kraft.coordinators.shares.decide import Write, initialize, read, snapshot, within_log, write
from kraft.coordinators.shares.records import MalformedRecord, _key_and_value, decode_record
from kraft.coordinators.shares.state import NO_EPOCH, ShareKey, ShareState, Snapshot, Update, changed
from kraft.protocol.errors import FencedLeaderEpoch, FencedStateEpoch, InvalidRequest
from replication.shares.states import NO_COUNT, NO_OFFSET, DeliveryState, StateBatch

KEY = ShareKey("group", UUID("01234567-89ab-cdef-0123-456789abcdef"), 7)


def beginning(*, state_epoch: int = 1, start_offset: int) -> Snapshot:
    return initialize(None, state_epoch=state_epoch, start_offset=start_offset, leader_epoch=NO_EPOCH, now_ms=1)


def begun(*, state_epoch: int = 3, start_offset: int = 0) -> ShareState:
    state = changed(
        None, initialize(None, state_epoch=state_epoch, start_offset=start_offset, leader_epoch=NO_EPOCH, now_ms=1)
    )
    assert state is not None
    return state


def written(
    state: ShareState, *, leader: int = 1, epoch: int = 3, start: int = 0, complete: int = 0, updates_max: int = 500,
    batches: tuple[StateBatch, ...] = (),
) -> ShareState:  # fmt: skip
    request = Write(
        state_epoch=epoch, leader_epoch=leader, start_offset=start, delivery_complete_count=complete, batches=batches
    )
    after = changed(state, write(state, request, updates_max=updates_max, now_ms=9))
    assert after is not None
    return after


def test_a_share_partition_belongs_to_the_partition_of_its_key():
    assert KEY.coordinator_key == "group:ASNFZ4mrze8BI0VniavN7w:7"


def test_who_reads_first_under_an_epoch_fences_those_before():
    state = begun()
    assert state.snapshot.leader_epoch == -1
    state = changed(state, read(state, leader_epoch=4))  # type: ignore[assignment]
    assert state.snapshot.leader_epoch == 4
    assert read(state, leader_epoch=4) is None, "nothing to write"
    for request in (lambda: read(state, leader_epoch=3), lambda: written(state, leader=3)):
        with pytest.raises(FencedLeaderEpoch):
            request()


def test_an_epoch_of_minus_one_is_not_compared_and_replaces_nothing():
    """KAFKA-20743, KAFKA-20694, KAFKA-19456."""
    state = written(begun(), leader=4)
    assert read(state, leader_epoch=-1) is None
    state = written(state, leader=-1, epoch=-1)
    assert (state.snapshot.leader_epoch, state.snapshot.state_epoch) == (4, 3)


def test_a_group_that_starts_over_fences_what_was_written_for_it_before():
    state = written(begun(), leader=4, start=9, batches=(StateBatch(12, 13, DeliveryState.ACKNOWLEDGED, 1),))
    again = initialize(state, state_epoch=5, start_offset=2, leader_epoch=3, now_ms=20)
    assert (again.snapshot_epoch, again.state_epoch, again.start_offset, again.batches) == (1, 5, 2, ())
    assert again.leader_epoch == 4
    later = initialize(state, state_epoch=5, start_offset=2, leader_epoch=7, now_ms=20)
    assert later.leader_epoch == 7, "the start offset is one of the log as epoch 7 has it"
    after = changed(state, again)
    assert after is not None
    with pytest.raises(FencedStateEpoch):
        written(after, leader=4, epoch=3)
    with pytest.raises(FencedStateEpoch):
        initialize(after, state_epoch=4, start_offset=0, leader_epoch=NO_EPOCH, now_ms=0)


def test_what_the_log_has_lost_is_forgotten():
    """U11."""
    ranges = (StateBatch(10, 19, DeliveryState.ACKNOWLEDGED, 1), StateBatch(20, 29, DeliveryState.AVAILABLE, 2))
    state = written(begun(), leader=4, start=9, complete=10, batches=ranges).snapshot
    kept = within_log(state, 15)
    assert (kept.start_offset, kept.delivery_complete_count) == (9, 5)
    assert kept.batches == [StateBatch(10, 14, DeliveryState.ACKNOWLEDGED, 1)]
    none = within_log(state, 4)
    assert (none.start_offset, none.delivery_complete_count, none.batches) == (4, 0, [])


def test_nothing_is_read_or_written_before_it_is_initialized():
    with pytest.raises(InvalidRequest):
        read(None, leader_epoch=1)
    with pytest.raises(InvalidRequest):
        write(
            None,
            Write(state_epoch=1, leader_epoch=1, start_offset=0, delivery_complete_count=0, batches=()),
            updates_max=1,
            now_ms=0,
        )


def test_after_so_many_updates_comes_a_snapshot_with_all_of_them_in_it():
    state = begun()
    for offset in (1, 3, 5):
        state = written(
            state, complete=offset, batches=(StateBatch(offset, offset, DeliveryState.ARCHIVED, 1),), updates_max=2
        )
    assert (state.updates, state.snapshot.snapshot_epoch, state.snapshot.written_ms) == (0, 1, 9)
    assert [batch.first_offset for batch in state.snapshot.batches] == [1, 3, 5]
    assert state.snapshot.created_ms == 1


def test_a_start_offset_never_goes_back_and_takes_its_count_along():
    state = written(begun(), start=5, complete=3)
    assert written(state, start=5, complete=2).snapshot.delivery_complete_count == 3
    older = written(state, start=4, complete=9).snapshot
    assert (older.start_offset, older.delivery_complete_count) == (5, 3)
    assert written(state, start=8, complete=0).snapshot.delivery_complete_count == 0
    assert written(state, start=5, complete=NO_COUNT).snapshot.delivery_complete_count == 3


def test_without_a_start_offset_there_is_no_count():
    """KAFKA-20034."""
    assert beginning(start_offset=NO_OFFSET).delivery_complete_count == NO_COUNT
    assert beginning(start_offset=0).delivery_complete_count == 0


def test_an_update_of_an_older_snapshot_changes_nothing():
    state = begun()
    late = Update(snapshot_epoch=0, leader_epoch=9, start_offset=9, delivery_complete_count=0, batches=())
    newer = changed(state, snapshot(state, now_ms=2))
    assert changed(newer, late) == newer
    assert changed(None, late) is None


SNAPSHOT = Snapshot(
    snapshot_epoch=1,
    state_epoch=2,
    leader_epoch=3,
    start_offset=4,
    delivery_complete_count=5,
    created_ms=6,
    written_ms=7,
    batches=[StateBatch(8, 9, 2, 1)],
)
UPDATE = Update(
    snapshot_epoch=1,
    leader_epoch=3,
    start_offset=-1,
    delivery_complete_count=NO_COUNT,
    batches=[StateBatch(8, 9, 0, 2)],
)


@pytest.mark.parametrize("change", [SNAPSHOT, UPDATE, None])
def test_a_record_is_read_as_it_was_written(change: Snapshot | Update | None):
    assert decode_record(*_key_and_value(KEY, change)) == (KEY, change)


def test_records_are_kafkas_bytes():
    key = "0005" + b"group".hex() + "0123456789abcdef0123456789abcdef" + "00000007"
    snapshot_bytes = (
        "0000" "00000001" "00000002" "00000003" "0000000000000004" "0000000000000006" "0000000000000007"
        "02" "0000000000000008" "0000000000000009" "02" "0001" "00"
        "01" "00" "04" "00000005"
    )  # fmt: skip
    assert [part and part.hex() for part in _key_and_value(KEY, SNAPSHOT)] == ["0000" + key, snapshot_bytes]
    update_bytes = (
        "0000" "00000001" "00000003" "ffffffffffffffff" "02" "0000000000000008" "0000000000000009" "00" "0002" "00" "00"
    )  # fmt: skip
    assert [part and part.hex() for part in _key_and_value(KEY, UPDATE)] == ["0001" + key, update_bytes]
    assert _key_and_value(KEY, None)[1] is None


def test_what_a_later_version_writes_is_skipped_and_rubbish_is_named():
    key, value = _key_and_value(KEY, SNAPSHOT)
    assert value is not None
    assert decode_record(b"\0\2" + key[2:], value) is None
    assert decode_record(key, b"\0\1" + value[2:]) is None
    for broken in ((b"\0", value), (key[:-1], value), (key, value[:-3])):
        with pytest.raises(MalformedRecord):
            decode_record(*broken)
