"""The library's Raft with our journal, snapshots, state machine and network put in its place.

`HardenedRaft` is mixed in front of the private copy's `SyncObj`. It overrides, by their mangled names, what the
library gives no other way to replace.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from metadata.quorum.journal import Journal
from metadata.quorum.library import NO_OP_COMMAND, OUR_COMMAND, Voter
from metadata.quorum.newcomer import Newcomer
from metadata.quorum.prevote import PreVote
from metadata.quorum.snapshots import SnapshotStore
from metadata.quorum.state_machine import MetadataStateMachine, Result
from metadata.quorum.transport import Filters

REGULAR_COMMAND = OUR_COMMAND[0]


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
    newcomer: Newcomer


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

    @property
    def _SyncObj__raftCommitIndex(self) -> int:  # noqa: N802
        """Never behind what is applied (L13).

        The library's own falls behind when a snapshot is newer than the commit index saved before a crash, when one
        is installed, and when a message that comes twice truncates for a moment. A follower that then asks for what
        follows its commit index asks for an entry before the beginning of its log, and can accept no answer, ever.
        """
        return max(self._commit_index, self._SyncObj__raftLastApplied)  # type: ignore[attr-defined, no-any-return]

    @_SyncObj__raftCommitIndex.setter
    def _SyncObj__raftCommitIndex(self, index: int) -> None:  # noqa: N802
        self._commit_index = index

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
        return not self._parts.newcomer.is_newcomer and self._parts.pre_vote.may_stand()

    def _SyncObj__loadDumpFile(self, clearJournal: bool) -> None:  # noqa: N802, N803
        """S11: the library swallows a failed load and goes on with an empty image."""
        super()._SyncObj__loadDumpFile(clearJournal)  # type: ignore[misc]
        header, applied = self._parts.snapshots.header, self.raftLastApplied  # type: ignore[attr-defined]
        assert header is not None, "a snapshot was installed and is not there"
        assert applied == header.last[1], f"a snapshot up to {header.last[1]} was loaded, but {applied} is applied"

    def _onTick(self, timeToWait: float = 0.0) -> None:  # noqa: N802, N803
        self._parts.journal.sync()  # S6: a leader counts itself only for what is durable
        self._parts.newcomer.tick()
        super()._onTick(timeToWait)  # type: ignore[misc]
        self._parts.filters.flush_acks(term=self.raftCurrentTerm)  # type: ignore[attr-defined]
