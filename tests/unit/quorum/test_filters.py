"""Each filter alone: what it lets pass, changes and drops."""

from __future__ import annotations

import random
from typing import Any

import pytest

from metadata.quorum import filters
from metadata.quorum.filters import Message, MessageFilter, standard_filters
from metadata.quorum.messages import KINDS, MalformedMessage, checked
from metadata.quorum.newcomer import Newcomer
from metadata.quorum.prevote import PreVote
from tests.simulation.quorum.world import Time


class Raft:
    def __init__(self) -> None:
        self.term = 5
        self.commit_index = 10
        self.is_leader = False
        self.last_entry = (5, 12)
        self.next = {2: 13}
        self.sent: list[tuple[int, Message]] = []

    def next_index(self, peer: int) -> int | None:
        return self.next.get(peer)

    def set_next_index(self, peer: int, index: int) -> None:
        self.next[peer] = index

    def send_to(self, peer: int, message: Message) -> None:
        self.sent.append((peer, message))


def _with(kind: type[MessageFilter]) -> tuple[Any, Raft]:
    raft = Raft()
    each = kind()
    each.raft = raft
    each.connected(2)
    return each, raft


def _ack(**changes: Any) -> Message:
    message = {"type": "next_node_idx", "next_node_idx": 13, "reset": False, "success": True, "term": 5, "sequence": 1}
    return {**message, **changes}


def _append(**changes: Any) -> Message:
    message = {
        "type": "append_entries",
        "term": 5,
        "commit_index": 12,
        "entries": [],
        "prevLogIdx": 1,
        "prevLogTerm": 0,
    }
    return {**message, "sequence": 1, **changes}


def test_all_filters_stand_between_the_network_and_the_library() -> None:
    assert [type(each) for each in standard_filters()] == [
        filters.AckTerms,
        filters.ResetSequence,
        filters.ResetToCommit,
        filters.VotesOnce,
        filters.SnapshotKeepsCommit,
        filters.HigherTerm,
        filters.NextIndexKept,
    ]


def test_an_ack_of_another_term_is_dropped_s5() -> None:
    each, _ = _with(filters.AckTerms)
    assert each.outgoing(2, {"type": "next_node_idx"})["term"] == 5
    assert each.incoming(2, _ack()) is not None
    assert each.incoming(2, _ack(term=4)) is None


def test_only_the_first_of_several_resets_in_flight_is_obeyed_l1() -> None:
    each, _ = _with(filters.ResetSequence)
    sequences = [each.outgoing(2, _append())["sequence"] for _ in range(3)]
    assert sequences == [1, 2, 3]
    assert [each.incoming(2, _ack(reset=True, sequence=s))["reset"] for s in sequences] == [True, False, False]
    each.outgoing(2, _append())
    assert each.incoming(2, _ack(reset=True, sequence=4))["reset"]


def test_a_reset_asks_for_what_follows_the_commit_index_l1() -> None:
    each, raft = _with(filters.ResetToCommit)
    assert each.outgoing(2, _ack(reset=True, next_node_idx=13))["next_node_idx"] == 11
    assert each.outgoing(2, _ack(reset=True, next_node_idx=4))["next_node_idx"] == 4
    assert each.outgoing(2, _ack(next_node_idx=13))["next_node_idx"] == 13
    raft.commit_index = 0
    assert each.outgoing(2, _ack(reset=True))["next_node_idx"] == 2


def test_a_voter_votes_once_a_term_s14() -> None:
    each, _ = _with(filters.VotesOnce)
    vote = {"type": "response_vote", "term": 5}
    assert each.incoming(2, vote) is vote
    assert each.incoming(2, vote) is None
    assert each.incoming(3, vote) is vote
    assert each.incoming(2, {"type": "response_vote", "term": 6}) is not None
    assert each.incoming(4, vote) is None


def test_a_snapshot_s_piece_does_not_move_the_commit_index_s1() -> None:
    each, _ = _with(filters.SnapshotKeepsCommit)
    piece = {"type": "append_entries", "term": 5, "commit_index": 12, "serialized": (b"", True, False)}
    assert each.incoming(2, piece)["commit_index"] == 10
    assert each.incoming(2, _append())["commit_index"] == 12


def test_a_leader_of_the_past_receives_the_term_l6() -> None:
    each, raft = _with(filters.HigherTerm)
    assert each.incoming(2, _append(term=4)) is None
    assert raft.sent == [(2, {"type": "higher_term", "term": 5})]
    assert each.incoming(2, {"type": "higher_term", "term": 5}) is None
    request = each.incoming(2, {"type": "higher_term", "term": 7})
    assert (request["type"], request["term"], request["last_log_term"]) == ("request_vote", 7, -1)


def test_an_ack_does_not_rewind_next_index_s4() -> None:
    each, raft = _with(filters.NextIndexKept)
    each.incoming(2, _ack(next_node_idx=8))
    raft.next[2] = 8
    each.handled(2)
    assert raft.next[2] == 13
    each.incoming(2, _ack(reset=True, success=False))
    raft.next[2] = 8
    each.handled(2)
    assert raft.next[2] == 8


@pytest.mark.parametrize(
    "message",
    [
        None,
        [],
        {"type": "apply_command", "command": b""},
        {"type": "apply_command_response", "request_id": 1},
        {"type": "timeout_now", "term": 9},
        {"type": "append_entries", "term": "9"},
        _append(term=True),
        _append(entries=[[b"", 1]]),
        _append(entries=[["text", 1, 1]]),
        _append(prevLogIdx="1"),
        {**_append(), "entries": None, "transmission": "start", "data": b""},
        {"type": "append_entries", "term": 1, "commit_index": 1, "sequence": 1, "serialized": [b"", 1, 0]},
        _ack(next_node_idx=None),
    ],
)
def test_what_no_voter_sends_is_refused(message: Any) -> None:
    with pytest.raises(MalformedMessage):
        checked(message)


def test_entries_get_the_types_that_the_library_stores() -> None:
    assert checked(_append(entries=[[b"c", 2, 1]]))["entries"] == [(b"c", 2, 1)]


class _Votes:
    term = 5
    is_newcomer = True


def _all_filters() -> list[MessageFilter]:
    common: dict[str, Any] = {"clock": Time(), "rng": random.Random(1), "peers": (2, 3)}
    pre_vote = PreVote(**common, election_timeout_ms=1000)
    newcomer = Newcomer(**common, votes=_Votes(), on_settled=lambda: None)  # type: ignore[arg-type]
    return [newcomer, *standard_filters(), pre_vote]


@pytest.mark.parametrize("is_incoming", [False, True])
def test_what_a_filter_is_not_shown_it_would_pass_unchanged(is_incoming: bool) -> None:
    whole = {**_append(), **_ack(), "last_log_index": 1, "last_log_term": 1, "round": 1, "life": 1, "index": 1}
    for each in _all_filters():
        raft = Raft()
        each.raft = raft
        assert each.kinds is not None
        assert each.kinds <= KINDS
        for kind in sorted(KINDS - each.kinds):
            message = {**whole, "type": kind}
            passed = each.incoming(2, message) if is_incoming else each.outgoing(2, message)
            each.handled(2)
            assert passed is message, (type(each).__name__, kind)
        assert raft.sent == []
        assert raft.next == {2: 13}
