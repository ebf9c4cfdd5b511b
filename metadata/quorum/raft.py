"""One voter, as the other modules see it: messages and ticks in, messages out. It uses no sockets, threads or tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from metadata.environment import Clock
from metadata.quorum.filters import FIRST_SENDABLE_INDEX, Message
from metadata.quorum.journal_format import Entry
from metadata.quorum.library import FOLLOWER, LEADER, NO_OP_COMMAND, NOT_LEADER, Voter, voter
from metadata.quorum.messages import checked
from metadata.quorum.pysyncobj_adapter import REGULAR_COMMAND, RaftParts, hardened
from metadata.quorum.state_machine import Result
from metadata.quorum.transport import PeerSender

Answer = Callable[[Result | None, int], None]


class RaftNode:
    """One voter. Every method raises OSError when the disk fails; the node must then be built again from disk."""

    def __init__(self, module: Any, parts: RaftParts, *, clock: Clock, link: PeerSender) -> None:
        self._parts = parts
        self._clock = clock
        self._link = link
        self._heard = (0, 0)
        """The newest term of a known leader, and the first commit index that this leader has sent."""
        for each in parts.filters._filters:
            each.raft = self
        parts.filters.refuse_forward = self._refuse_forward
        parts.snapshots.last_applied = self._last_applied
        self._raft = hardened(module, parts, clock=clock)
        if parts.snapshots.header is not None:
            self._raft._SyncObj__loadDumpFile(False)

    # --- input --------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        self._raft.doTick(0.0)

    def receive(self, peer: int, message: Any) -> None:
        """Process a message of a peer. Raises MalformedMessage."""
        message = checked(message)
        if message["type"] == "append_entries" and message["term"] > self._heard[0]:
            self._heard = (message["term"], message["commit_index"])
        self._parts.filters.receive(peer, message)

    def connected(self, peer: int) -> None:
        self._parts.snapshots.cancelTransmisstion(voter(peer))
        self._parts.filters.connected(peer)
        if self.leader_id == -1:
            self._parts.pre_vote.ask_again_soon()

    def disconnected(self, peer: int) -> None:
        self._parts.filters.disconnected(peer)

    def stand_soon(self, *, after_ms: float) -> None:
        """Let the election timeout end in `after_ms`. Safe at any time: the pre-vote decides."""
        self._raft._SyncObj__raftElectionDeadline = self._clock.monotonic_us() / 1_000_000 + after_ms / 1_000

    def leader_is_gone(self, *, after_ms: float) -> None:
        """Nothing listens at the leader's port any more."""
        self._parts.pre_vote.leader_is_gone()
        self._parts.pre_vote.ask_again_soon()
        self.stand_soon(after_ms=after_ms)

    def resign(self, *, stand_after_ms: float) -> None:
        """Lead no longer, as a leader without a majority does in the library; proposals may still be committed.

        The term stays: the others elect among themselves when they have had no message of a leader for long enough.
        """
        self._raft._SyncObj__setState(FOLLOWER)
        self._raft._SyncObj__raftLeader = None
        self.stand_soon(after_ms=stand_after_ms)

    def propose(self, command: bytes, answer: Answer) -> None:
        """Propose a command; a later tick calls `answer(result, failure)`, which must not raise (SO-S9)."""
        if self.is_leader:
            self._raft._applyCommand(command, answer, REGULAR_COMMAND)
        else:
            answer(None, NOT_LEADER)

    def take_snapshot(self) -> None:
        """Take a snapshot at the next tick."""
        self._raft.forceLogCompaction()

    def close(self) -> None:
        self._raft.destroy()

    # --- state --------------------------------------------------------------------------------------------------

    @property
    def term(self) -> int:
        term: int = self._raft._SyncObj__raftCurrentTerm
        return term

    @property
    def commit_index(self) -> int:
        index: int = self._raft._SyncObj__raftCommitIndex
        return index

    @property
    def applied_index(self) -> int:
        return int(self._raft.raftLastApplied)

    @property
    def is_leader(self) -> bool:
        state: int = self._raft._SyncObj__raftState
        return state == LEADER

    @property
    def leader_id(self) -> int:
        """The leader's id; -1 when none is known, or none has sent a message lately."""
        leader: Voter | None = self._raft._SyncObj__raftLeader
        if leader is None or (not self.is_leader and self._parts.pre_vote.is_leader_silent):
            return -1
        return leader.id

    @property
    def has_caught_up(self) -> bool:
        """Whether all is applied here that was committed when the first message of the present leader arrived.

        A leader is sure of its commit index after it has committed an entry of its own term (Raft 5.4.2), which each
        appends as it begins. So the condition is an applied entry of this term, and all up to the commit index of the
        leader's first message.
        """
        if self.leader_id == -1 or self.applied_index < FIRST_SENDABLE_INDEX:
            return False
        _, index, term = self._last_applied()[1]
        heard_term, committed = self._heard
        return term == self.term and (self.is_leader or (heard_term == term and index >= committed))

    @property
    def first_index(self) -> int:
        """Index of the log's first entry."""
        return self._parts.journal.first_index

    @property
    def last_entry(self) -> tuple[int, int]:
        return self._parts.journal.last_term, self._parts.journal.last_index

    @property
    def entries(self) -> list[Entry]:
        entries = self._parts.journal[:]
        assert isinstance(entries, list)
        return entries

    @property
    def has_unfinished_entries(self) -> bool:
        """A lone voter commits its appended entries only in its next tick."""
        return not self._parts.peers and self.is_leader and self.commit_index < self.last_entry[1]

    def __str__(self) -> str:
        """The voter's state, for a person that has to find out why it does not proceed."""
        raft = self._raft
        ends = {peer: (self.next_index(peer), self.match_index(peer)) for peer in self._parts.peers}
        return (
            f"term {self.term} leader {self.leader_id} commit {raft.raftCommitIndex} applied {self.applied_index} "
            f"log {self.first_index}..{self.last_entry[1]} (term {self.last_entry[0]}) "
            f"connected {sorted(each.id for each in raft._SyncObj__connectedNodes)} next and match {ends}"
        )

    def match_index(self, peer: int) -> int:
        return int(self._raft._SyncObj__raftMatchIndex.get(voter(peer), 0))

    # --- for the filters ----------------------------------------------------------------------------------------

    def next_index(self, peer: int) -> int | None:
        index = self._raft._SyncObj__raftNextIndex.get(voter(peer))
        return None if index is None else int(index)

    def set_next_index(self, peer: int, index: int) -> None:
        self._raft._SyncObj__raftNextIndex[voter(peer)] = index

    def propose_nothing(self, answer: Answer | None = None) -> None:
        """Append an empty entry. `answer(None, failure)` is called as by `propose`, if there is one."""
        if answer is None or self.is_leader:
            self._raft._applyCommand(b"", answer, NO_OP_COMMAND[0])
        else:
            answer(None, NOT_LEADER)

    def settle(self, candidate: int | None) -> None:
        self._parts.journal.sync()
        self._parts.journal.votes.settle()
        self._raft._SyncObj__setCurrentTerm(self.term, candidate)

    def send_to(self, peer: int, message: Message) -> None:
        self._link.send(peer, message)

    def _last_applied(self) -> tuple[Entry, Entry]:
        previous, last = self._raft._SyncObj__getEntries(self.applied_index - 1, 2)
        return previous, last

    def _refuse_forward(self, message: Message) -> None:
        answer = self._raft._SyncObj__commandsWaitingReply.pop(message.get("request_id"), None)
        if answer is not None:
            answer(None, NOT_LEADER)
