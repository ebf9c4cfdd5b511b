"""Filters between the network and the library's Raft: one for each fault that a message can trigger in it.

A filter sees each outgoing and incoming message, and passes it on, changed or not, or drops it by returning None. The
ids (SO-S1, SO-L1, ...) are faults of pysyncobj 0.3.17, listed in docs/rules.md; each docstring names its fault. Random
seeds fail when SnapshotKeepsCommit is removed; each of the others has a story of its own
(`tests/simulation/quorum/test_quorum_filters_needed.py`), which shows whether safety, progress or work is lost.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

Message: TypeAlias = dict[str, Any]

FIRST_SENDABLE_INDEX = 2
"""Entry 1 is made by each voter itself."""


class RaftView(Protocol):
    """The view of the Raft that a filter has."""

    @property
    def term(self) -> int: ...
    @property
    def commit_index(self) -> int: ...
    @property
    def is_leader(self) -> bool: ...
    @property
    def last_entry(self) -> tuple[int, int]:
        """(term, index) of the last entry: logs are compared by it."""
        ...

    def next_index(self, peer: int) -> int | None: ...
    def set_next_index(self, peer: int, index: int) -> None: ...
    def send_to(self, peer: int, message: Message) -> None:
        """Send a message without passing the filters."""
        ...

    def propose_nothing(self) -> None:
        """Append an entry that changes nothing, as the leader."""
        ...

    def settle(self, candidate: int | None) -> None:
        """Make a newcomer a voter that has voted for `candidate` in its term; its log is durable before that."""
        ...


class MessageFilter:
    raft: RaftView
    kinds: frozenset[str] | None = None
    """Types of the messages that the filter sees; None: all. If it changes the type, the other filters still use the
    old one."""

    def connected(self, peer: int) -> None: ...
    def outgoing(self, _peer: int, message: Message) -> Message | None:
        return message

    def incoming(self, _peer: int, message: Message) -> Message | None:
        return message

    def handled(self, peer: int) -> None:
        """The library has handled the last message that this filter has seen."""


class AckTerms(MessageFilter):
    """SO-S5: acks have no term, so a late one counts in a later term of the same leader. Ours have one.

    Without this filter an acknowledged append is lost. That takes five voters: with three, the voter with the late ack
    and the leader are a majority, and no other candidate can win.
    """

    kinds = frozenset({"next_node_idx"})

    def outgoing(self, _peer: int, message: Message) -> Message | None:
        return {**message, "term": self.raft.term} if message["type"] == "next_node_idx" else message

    def incoming(self, _peer: int, message: Message) -> Message | None:
        is_stale = message["type"] == "next_node_idx" and message["term"] != self.raft.term
        return None if is_stale else message


class ResetSequence(MessageFilter):
    """SO-L1, leader's side: obey a reset only if it answers a message sent since the last reset.

    Several batches in flight are each answered by a reset of its own, and the last one wins every time. Beside
    ResetToCommit it saves work and is not needed for progress: without it a rejoin under load sends five times as much.
    """

    kinds = frozenset({"append_entries", "next_node_idx"})

    def __init__(self) -> None:
        self._sent: dict[int, int] = {}
        self._received: dict[int, int] = {}
        self._sent_at_reset: dict[int, int] = {}

    def connected(self, peer: int) -> None:
        self._sent[peer] = self._received[peer] = self._sent_at_reset[peer] = 0

    def outgoing(self, peer: int, message: Message) -> Message | None:
        if message["type"] == "append_entries":
            self._sent[peer] = self._sent.get(peer, 0) + 1
            return {**message, "sequence": self._sent[peer]}
        if message["type"] == "next_node_idx":
            return {**message, "sequence": self._received.get(peer, 0)}
        return message

    def incoming(self, peer: int, message: Message) -> Message | None:
        if message["type"] == "append_entries":
            self._received[peer] = message["sequence"]
        elif message["type"] == "next_node_idx" and message["reset"]:
            if message["sequence"] <= self._sent_at_reset.get(peer, 0):
                return {**message, "reset": False}
            self._sent_at_reset[peer] = self._sent.get(peer, 0)
        return message


class ResetToCommit(MessageFilter):
    """SO-L1, follower's side: ask for the entries after the commit index. They always match, so one reset is enough.

    Without it the leader steps back one entry for each exchange: thirty times as long, for sixty divergent entries. It
    needs a commit index that is not behind the log's beginning (SO-L13, see `hardened`).
    """

    kinds = frozenset({"next_node_idx"})

    def outgoing(self, _peer: int, message: Message) -> Message | None:
        if message["type"] != "next_node_idx" or not message["reset"]:
            return message
        after_commit = max(FIRST_SENDABLE_INDEX, self.raft.commit_index + 1)
        return {**message, "next_node_idx": min(message["next_node_idx"], after_commit)}


class VotesOnce(MessageFilter):
    """SO-S14: the library counts votes without looking at the voter. Each voter counts once a term.

    On our own link no message arrives twice, because its frames are numbered and sealed. The filter is kept because two
    leaders of one term must never exist, whatever link is used.
    """

    kinds = frozenset({"response_vote"})

    def __init__(self) -> None:
        self._term = 0
        self._voters: set[int] = set()

    def incoming(self, peer: int, message: Message) -> Message | None:
        if message["type"] != "response_vote":
            return message
        if message["term"] != self._term:
            if message["term"] < self._term:
                return None
            self._term, self._voters = message["term"], set()
        if peer in self._voters:
            return None
        self._voters.add(peer)
        return message


class SnapshotKeepsCommit(MessageFilter):
    """SO-S1: a piece of a snapshot does not describe our log, so it must not commit entries of it."""

    kinds = frozenset({"append_entries"})

    def incoming(self, _peer: int, message: Message) -> Message | None:
        if message["type"] == "append_entries" and "prevLogIdx" not in message:
            return {**message, "commit_index": min(message["commit_index"], self.raft.commit_index)}
        return message


class HigherTerm(MessageFilter):
    """SO-L6: a leader of an old term gets no answer, and so never learns of the new term. Report it.

    Without it a voter whose term is higher stays out: it obeys no leader, and wins no pre-vote. Its rejection becomes a
    vote request that cannot win, the one message from which the library adopts a term.
    """

    kinds = frozenset({"append_entries", "higher_term"})

    def incoming(self, peer: int, message: Message) -> Message | None:
        if message["type"] == "append_entries" and message["term"] < self.raft.term:
            self.raft.send_to(peer, {"type": "higher_term", "term": self.raft.term})
            return None
        if message["type"] == "higher_term":
            if message["term"] <= self.raft.term:
                return None
            return {"type": "request_vote", "term": message["term"], "last_log_index": 0, "last_log_term": -1}
        return message


class NextIndexKept(MessageFilter):
    """SO-S4, leader's side: an ack sets next_index back to entries in flight, and all of them are sent again.

    It only saves work, as long as the journal's truncations are tentative.
    """

    kinds = frozenset({"next_node_idx"})

    def __init__(self) -> None:
        self._before: int | None = None

    def incoming(self, peer: int, message: Message) -> Message | None:
        is_ack = message["type"] == "next_node_idx" and message["success"] and not message["reset"]
        self._before = self.raft.next_index(peer) if is_ack else None
        return message

    def handled(self, peer: int) -> None:
        if self._before is None:
            return
        now = self.raft.next_index(peer)
        if now is not None and now < self._before:
            self.raft.set_next_index(peer, self._before)


def standard_filters() -> list[MessageFilter]:
    """All filters in the order of arrival. Pre-votes are a filter too (see `prevote`), after these."""
    return [
        AckTerms(),
        ResetSequence(),
        ResetToCommit(),
        VotesOnce(),
        SnapshotKeepsCommit(),
        HigherTerm(),
        NextIndexKept(),
    ]
