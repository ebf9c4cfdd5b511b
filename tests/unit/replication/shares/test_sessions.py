"""Share sessions, rule by rule."""

from __future__ import annotations

from uuid import UUID

import pytest

from kraft.protocol.errors import (
    InvalidRequest,
    InvalidShareSessionEpoch,
    ShareSessionLimitReached,
    ShareSessionNotFound,
)
from metadata.image import TopicIdPartition
from replication.shares.sessions import EPOCH_MAX, PARTITIONS_MAX, SessionKey, ShareSessions

KEY, OTHER = SessionKey("g", "a"), SessionKey("g", "b")
P = [TopicIdPartition(UUID(int=1), number) for number in range(3)]
OLD, NEW = object(), object()


def test_epochs_count_up_and_after_the_last_comes_1():
    sessions = ShareSessions()
    session = sessions.begin(KEY, 0, OLD, sessions_max=9)
    assert sessions.begin(KEY, 1, OLD, sessions_max=9) is session
    assert sessions.go_on(KEY, 2, OLD) is session
    for wrong in (2, 4, 7):
        with pytest.raises(InvalidShareSessionEpoch):
            sessions.go_on(KEY, wrong, OLD)
    session.next_epoch = EPOCH_MAX
    sessions.go_on(KEY, EPOCH_MAX, OLD)
    assert session.next_epoch == 1


def test_acknowledgements_open_no_session_and_unknown_members_have_none():
    sessions = ShareSessions()
    with pytest.raises(InvalidShareSessionEpoch):
        sessions.go_on(KEY, 0, OLD)
    for epoch in (1, -1):
        with pytest.raises(ShareSessionNotFound):
            sessions.begin(KEY, epoch, OLD, sessions_max=9)


def test_a_session_is_opened_again_in_place_of_the_one_before():
    sessions = ShareSessions()
    sessions.begin(KEY, 0, OLD, sessions_max=1).update(P, ())
    assert not sessions.begin(KEY, 0, OLD, sessions_max=1).partitions
    assert len(sessions) == 1
    with pytest.raises(ShareSessionLimitReached):
        sessions.begin(OTHER, 0, OLD, sessions_max=1)
    sessions.close(KEY)
    sessions.begin(OTHER, 0, OLD, sessions_max=1)


def test_an_old_connection_does_not_end_the_new_session():
    """KAFKA-19950."""
    sessions = ShareSessions()
    sessions.begin(KEY, 0, OLD, sessions_max=9)
    sessions.begin(OTHER, 0, OLD, sessions_max=9)
    sessions.begin(KEY, 0, NEW, sessions_max=9)
    assert sessions.disconnected(OLD) == [OTHER]
    assert sessions.begin(KEY, 1, NEW, sessions_max=9)
    assert sessions.disconnected(NEW) == [KEY]
    assert len(sessions) == 0


def test_a_session_that_moved_to_another_connection_ends_with_that():
    sessions = ShareSessions()
    sessions.begin(KEY, 0, OLD, sessions_max=9)
    sessions.go_on(KEY, 1, NEW)
    assert sessions.disconnected(OLD) == []


def test_each_request_begins_with_another_partition():
    session = ShareSessions().begin(KEY, 0, OLD, sessions_max=9)
    assert session.in_turn() == []
    session.update(P, ())
    firsts = []
    for epoch in range(1, 4):
        session.next_epoch = epoch
        firsts.append(session.in_turn()[0])
        assert set(session.in_turn()) == set(P)
    assert set(firsts) == set(P)
    session.update((), [P[1], P[1]])
    assert list(session.partitions) == [P[0], P[2]]


def test_a_session_has_a_bound_for_its_partitions():
    session = ShareSessions().begin(KEY, 0, OLD, sessions_max=9)
    many = [TopicIdPartition(UUID(int=2), number) for number in range(PARTITIONS_MAX)]
    session.update(many[:-1], ())
    session.update([many[0], many[-1], many[-1]], ())
    with pytest.raises(InvalidRequest, match="at most 4096 partitions: forget others first"):
        session.update(P, ())
    assert list(session.partitions) == many
    session.update((), many[:3])
    session.update(P, ())
    assert len(session.partitions) == PARTITIONS_MAX
