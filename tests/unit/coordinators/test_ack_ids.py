"""Ids of acknowledgements: what was made for a group is read for it, and nothing else."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kraft.coordinators.shares.ack_ids import TYPES, AckId, AckIds, Lock, Settlement, id_of
from kraft.protocol.errors import InvalidRequest
from metadata.image import TopicIdPartition
from replication.shares.acknowledgements import GROUP_DELAY
from replication.shares.states import AcknowledgeType

IDS = AckIds(b"key of the cluster")
LARGEST = Lock(
    TopicIdPartition(UUID(int=2**128 - 1), 2**31 - 1),
    2**63 - 2**16,
    2**16 - 1,
    2**31 - 1,
    2**16 - 1,
    2**63 - 1,
    2**31 - 1,
    UUID(int=7),
)
SMALLEST = Lock(TopicIdPartition(UUID(int=0), 0), 0, 1, 0, 1, 0, 0, UUID(int=0))


def written(lock: Lock, offset: int) -> str:
    return id_of(IDS.token("group", lock, owner=""), lock, offset)


@pytest.mark.parametrize("lock", [LARGEST, SMALLEST])
def test_an_id_is_read_as_it_was_written(lock: Lock):
    read = IDS.reader("group", owner="")
    for offset in (lock.first, lock.first + lock.size - 1):
        text = written(lock, offset)
        assert read(text) == AckId(lock, offset)
        assert len(text) <= 120
    assert len(lock.member) == 36, "the longest id that a member may have"


def test_each_changed_character_is_refused():
    text = written(LARGEST, LARGEST.first)
    for at in range(len(text)):
        forged = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
        with pytest.raises(InvalidRequest, match="was not made for group"):
            IDS.reader("group", owner="")(forged)


@pytest.mark.parametrize("place", ["", "3", "-1", "1.0", "+1", " 1", "²", "٣", "9" * 5_000])
def test_a_record_that_the_lock_does_not_have_is_refused(place: str):
    lock = SMALLEST._replace(size=3)
    read, token = IDS.reader("group", owner=""), IDS.token("group", lock, owner="")
    assert read(f"{token}.2").offset == 2
    with pytest.raises(InvalidRequest, match="was not made for group"):
        read(f"{token}.{place}")


@pytest.mark.parametrize("text", ["", "A", "====", "ä" * 10, "no id", "A" * 200, "\0", ".", ".0"])
def test_what_is_no_id_is_refused(text: str):
    with pytest.raises(InvalidRequest):
        IDS.reader("group", owner="")(text)


def test_another_group_and_another_cluster_refuse_it():
    text = written(SMALLEST, 0)
    assert IDS.reader("group", owner="")(text).lock == SMALLEST
    with pytest.raises(InvalidRequest):
        IDS.reader("other", owner="")(text)
    with pytest.raises(InvalidRequest):
        AckIds(b"another key").reader("group", owner="")(text)


def test_another_user_and_nobody_refuse_it():
    text = id_of(IDS.token("group", SMALLEST, owner="User:alice"), SMALLEST, 0)
    assert IDS.reader("group", owner="User:alice")(text).lock == SMALLEST
    for other in ("", "User:bob", "User:alice\0"):
        with pytest.raises(InvalidRequest):
            IDS.reader("group", owner=other)(text)
    with pytest.raises(InvalidRequest):
        IDS.reader("group", owner="User:alice")(written(SMALLEST, 0))


class Ack(NamedTuple):
    ack_id: str
    type: str = "accept"
    reason: str = ""
    lock_ms: int | None = None
    delay_ms: int | None = None


LOCKS = [SMALLEST._replace(size=3), SMALLEST._replace(first=3, size=3), SMALLEST._replace(first=9, size=1)]
ACKS = st.builds(
    Ack,
    st.sampled_from([*(written(lock, lock.first + place) for lock in LOCKS for place in range(lock.size)), "", "x.0"]),
    st.sampled_from(["accept", "renew"]),
    st.sampled_from(["", "bad"]),
    st.sampled_from([None, 1_000]),
    st.sampled_from([None, 0]),
)


@given(st.lists(st.one_of(ACKS, st.just(Ack(written(LOCKS[0], 1)))), max_size=12))
@example([Ack(written(LOCKS[0], place)) for place in range(3)] + [Ack(written(LOCKS[1], 3))])
@example([Ack(written(LOCKS[0], 0)), Ack(""), Ack(""), Ack(written(LOCKS[0], 1))])
def test_settlements_are_what_the_ids_are_one_by_one(acks: list[Ack]):
    read, one_by_one, bad = IDS.reader("group", owner=""), [], set()
    for at, each in enumerate(acks):
        try:
            lock, offset = read(each.ack_id)
        except InvalidRequest:
            bad.add(at)
            continue
        delay_ms = GROUP_DELAY if each.delay_ms is None else each.delay_ms
        one_by_one.append(Settlement(lock, offset, offset, TYPES[each.type], each.reason, each.lock_ms or 0, delay_ms))
    found, errors = IDS.settlements("group", acks, owner="")
    assert errors.keys() == bad
    assert [
        each._replace(first=offset, last=offset) for each in found for offset in range(each.first, each.last + 1)
    ] == one_by_one


def test_records_in_a_row_are_one_settlement():
    acks = [Ack(written(LOCKS[0], place)) for place in range(3)]
    assert IDS.settlements("group", acks, owner="") == ([Settlement(LOCKS[0], 0, 2, AcknowledgeType.ACCEPT)], {})
