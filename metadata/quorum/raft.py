"""The library's Raft with our journal, snapshots, state machine and network put in its place.

`HardenedRaft` is mixed in front of the private copy's `SyncObj`. It overrides, by their mangled names, what the
library gives no other way to replace. `RaftNode` is what the rest sees: messages and ticks in, messages out; it
knows no sockets, threads or tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from metadata.environment import Clock
from metadata.quorum.filters import Message, MessageFilter
from metadata.quorum.journal import Journal
from metadata.quorum.journal_format import Entry
from metadata.quorum.library import NO_OP_COMMAND, NOT_LEADER, OUR_COMMAND, Voter
from metadata.quorum.messages import checked
from metadata.quorum.prevote import PreVote
from metadata.quorum.snapshots import SnapshotStore
from metadata.quorum.state_machine import MetadataStateMachine, Result

REGULAR_COMMAND = OUR_COMMAND[0]
Answer = Callable[[Result | None, int], None]


class PeerSender(Protocol):
    def send(self, peer: int, message: Message) -> bool: ...


class Filters:
    """The library's transport: each message passes the filters, in order, on its way in and out.

    Acks are kept until the end of the tick, so that one fsync covers all of them (S6, group commit).
    """

    ready = True

    def __init__(self, filters: Sequence[MessageFilter], *, link: PeerSender, journal: Journal) -> None:
        self._filters = filters
        self._link = link
        self._journal = journal
        self._acks: list[tuple[int, Message]] = []
        self._handle: Callable[[Voter, Message], None] = _ignore
        self._connected: Callable[[Voter], None] = _ignore
        self._disconnected: Callable[[Voter], None] = _ignore
        self.refuse_forward: Callable[[Message], None] = _ignore

    # --- from the library ---------------------------------------------------------------------------------------

    def send(self, voter: Voter, message: Message) -> bool:
        if message["type"] == "apply_command":
            self.refuse_forward(message)  # S15: a command is proposed to the local leader or not at all
            return False
        outgoing = _passed([each.outgoing for each in self._filters], voter.id, message)
        if outgoing is None:
            return False
        if outgoing["type"] == "next_node_idx":
            self._acks.append((voter.id, outgoing))
            return True
        if outgoing["type"] in ("request_vote", "response_vote"):
            self.flush_acks(term=outgoing["term"])
        return self._link.send(voter.id, outgoing)

    def flush_acks(self, *, term: int) -> None:
        """Make durable what was received, then say so. Acks of an older term are dropped (S5)."""
        self._journal.sync()
        acks, self._acks = self._acks, []
        for peer, message in acks:
            if message["term"] == term:
                self._link.send(peer, message)

    def setOnMessageReceivedCallback(self, callback: Callable[[Voter, Message], None]) -> None:  # noqa: N802
        self._handle = callback

    def setOnNodeConnectedCallback(self, callback: Callable[[Voter], None]) -> None:  # noqa: N802
        self._connected = callback

    def setOnNodeDisconnectedCallback(self, callback: Callable[[Voter], None]) -> None:  # noqa: N802
        self._disconnected = callback

    def setOnReadonlyNodeConnectedCallback(self, callback: object) -> None: ...  # noqa: N802
    def setOnReadonlyNodeDisconnectedCallback(self, callback: object) -> None: ...  # noqa: N802
    def setOnUtilityMessageCallback(self, name: str, callback: object) -> None: ...  # noqa: N802
    def destroy(self) -> None: ...

    # --- from the link ------------------------------------------------------------------------------------------

    def connected(self, peer: int) -> None:
        self._acks = [ack for ack in self._acks if ack[0] != peer]
        for each in self._filters:
            each.connected(peer)
        self._connected(Voter(peer))

    def disconnected(self, peer: int) -> None:
        self._acks = [ack for ack in self._acks if ack[0] != peer]
        self._disconnected(Voter(peer))

    def receive(self, peer: int, message: Message) -> None:
        incoming = _passed([each.incoming for each in self._filters], peer, message)
        if incoming is None:
            return
        try:
            self._handle(Voter(peer), incoming)
        finally:
            self._journal.end_of_message()
        for each in self._filters:
            each.handled(peer)


def _passed(filters: Sequence[Callable[[int, Message], Message | None]], peer: int, message: Message) -> Message | None:
    for each in filters:
        changed = each(peer, message)
        if changed is None:
            return None
        message = changed
    return message


def _ignore(*_arguments: object) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftParts:
    configuration: Any
    node_id: int
    peers: tuple[int, ...]
    journal: Journal
    snapshots: SnapshotStore
    machine: MetadataStateMachine
    filters: Filters
    pre_vote: PreVote


class HardenedRaft:
    """Overrides of SyncObj. Name-mangled, hence the exact version and the checksum in `library`."""

    def __init__(self, parts: RaftParts) -> None:
        self._parts = parts
        super().__init__(  # type: ignore[call-arg]
            parts.node_id, parts.peers, parts.configuration, nodeClass=Voter, transport=parts.filters
        )
        # Runs at the end of a tick, when entries are on their way: our fsync overlaps the followers'.
        self.addOnTickCallback(parts.journal.sync)  # type: ignore[attr-defined]

    # The library assigns its own journal and serializer in its constructor; a property drops that.
    @property
    def _SyncObj__raftLog(self) -> Journal:  # noqa: N802
        return self._parts.journal

    @_SyncObj__raftLog.setter
    def _SyncObj__raftLog(self, _journal: object) -> None: ...  # noqa: N802

    @property
    def _SyncObj__serializer(self) -> SnapshotStore:  # noqa: N802
        return self._parts.snapshots

    @_SyncObj__serializer.setter
    def _SyncObj__serializer(self, _serializer: object) -> None: ...  # noqa: N802

    def _SyncObj__parseChangeClusterRequest(self, _command: bytes) -> None:  # noqa: N802
        """S10: the voters are static."""

    def _SyncObj__doApplyCommand(self, command: bytes) -> Result | None:  # noqa: N802
        if command[0] != REGULAR_COMMAND:
            assert command == NO_OP_COMMAND, f"an entry of kind {command[0]} in the log"
            return None
        index: int = self.raftLastApplied + 1  # type: ignore[attr-defined]
        return self._parts.machine.apply(command[1:], index=index)

    def _SyncObj__connectedToAnyone(self) -> bool:  # noqa: N802
        """Asked only when the election timeout is over: the place for the pre-vote (L6)."""
        return self._parts.pre_vote.may_stand()

    def _SyncObj__loadDumpFile(self, clearJournal: bool) -> None:  # noqa: N802, N803
        """S11: the library swallows a failed load and goes on with an empty image."""
        super()._SyncObj__loadDumpFile(clearJournal)  # type: ignore[misc]
        header, applied = self._parts.snapshots.header, self.raftLastApplied  # type: ignore[attr-defined]
        assert header is not None, "a snapshot was installed and is not there"
        assert applied == header.last[1], f"a snapshot up to {header.last[1]} was loaded, but {applied} is applied"

    def _onTick(self, timeToWait: float = 0.0) -> None:  # noqa: N802, N803
        self._parts.journal.sync()  # S6: a leader counts itself only for what is durable
        super()._onTick(timeToWait)  # type: ignore[misc]
        self._parts.filters.flush_acks(term=self.raftCurrentTerm)  # type: ignore[attr-defined]


class RaftNode:
    """One voter. Everything raises OSError when the disk fails; the node must then be built again from disk."""

    def __init__(self, module: Any, parts: RaftParts, *, clock: Clock, link: PeerSender) -> None:
        self._parts = parts
        self._clock = clock
        self._link = link
        for each in parts.filters._filters:
            each.raft = self
        parts.filters.refuse_forward = self._refuse_forward
        self._raft = type("QuorumRaft", (HardenedRaft, module.SyncObj), {})(parts)
        if parts.snapshots.header is not None:
            self._raft._SyncObj__loadDumpFile(False)

    # --- input --------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        self._raft.doTick(0.0)

    def receive(self, peer: int, message: Any) -> None:
        """Raises MalformedMessage."""
        self._parts.filters.receive(peer, checked(message))

    def connected(self, peer: int) -> None:
        self._parts.filters.connected(peer)
        if self.leader_id == -1:
            self._parts.pre_vote.ask_again_soon()

    def disconnected(self, peer: int) -> None:
        self._parts.filters.disconnected(peer)

    def stand_soon(self, *, after_ms: float) -> None:
        """Let the election timeout be over in `after_ms`. Safe at any time: the pre-vote decides."""
        self._raft._SyncObj__raftElectionDeadline = self._clock.monotonic_us() / 1_000_000 + after_ms / 1_000

    def leader_is_gone(self, *, after_ms: float) -> None:
        """Nothing listens at the leader's port any more."""
        self._parts.pre_vote.leader_is_gone()
        self._parts.pre_vote.ask_again_soon()
        self.stand_soon(after_ms=after_ms)

    def propose(self, command: bytes, answer: Answer) -> None:
        """`answer(result, failure)` comes from a later tick, and must not raise (S9)."""
        if self.is_leader:
            self._raft._applyCommand(command, answer, REGULAR_COMMAND)
        else:
            answer(None, NOT_LEADER)

    def take_snapshot(self) -> None:
        """At the next tick."""
        self._raft.forceLogCompaction()

    def close(self) -> None:
        self._raft.destroy()

    # --- state --------------------------------------------------------------------------------------------------

    @property
    def term(self) -> int:
        return int(self._raft.raftCurrentTerm)

    @property
    def commit_index(self) -> int:
        return int(self._raft.raftCommitIndex)

    @property
    def applied_index(self) -> int:
        return int(self._raft.raftLastApplied)

    @property
    def is_leader(self) -> bool:
        return bool(self._raft._isLeader())

    @property
    def leader_id(self) -> int:
        """-1 when none is known, or none was heard of lately."""
        if not self.is_leader and self._parts.pre_vote.is_leader_silent:
            return -1
        leader = self._raft._getLeader()
        return -1 if leader is None else int(leader.id)

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
        """A lone voter commits what it appended only in its next tick."""
        return not self._parts.peers and self.is_leader and self.commit_index < self.last_entry[1]

    def match_index(self, peer: int) -> int:
        return int(self._raft._SyncObj__raftMatchIndex.get(Voter(peer), 0))

    # --- for the filters ----------------------------------------------------------------------------------------

    def next_index(self, peer: int) -> int | None:
        index = self._raft._SyncObj__raftNextIndex.get(Voter(peer))
        return None if index is None else int(index)

    def set_next_index(self, peer: int, index: int) -> None:
        self._raft._SyncObj__raftNextIndex[Voter(peer)] = index

    def send_to(self, peer: int, message: Message) -> None:
        self._link.send(peer, message)

    def _refuse_forward(self, message: Message) -> None:
        answer = self._raft._SyncObj__commandsWaitingReply.pop(message.get("request_id"), None)
        if answer is not None:
            answer(None, NOT_LEADER)
