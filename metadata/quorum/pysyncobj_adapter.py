"""The library's Raft with our journal, snapshots, state machine and network.

`HardenedRaft` is a mixin before the private copy's `SyncObj`. It overrides, by their mangled names, the parts that the
library cannot replace otherwise. Objects that the library creates through a global of its module are replaced there
(`hardened`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from types import ModuleType
from typing import Any

from metadata.environment import Clock
from metadata.quorum.journal import Journal
from metadata.quorum.library import LEADER, NO_OP_COMMAND, OUR_COMMAND, Commands, Voter, replace_globals, voter
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
    may_lead: Callable[[], bool] = lambda: True
    may_apply: Callable[[], bool] = lambda: True
    """Whether there is room for one more applied entry."""


class HardenedRaft:
    """Overrides of SyncObj. Name-mangled, hence the exact version and the checksum in `library`."""

    # The fields that a tick reads, as the library declares them.
    _commit_index: int
    _SyncObj__raftState: int
    _SyncObj__raftLastApplied: int = 1
    _SyncObj__raftCurrentTerm: int
    _SyncObj__raftElectionDeadline: float
    _SyncObj__newAppendEntriesTime: float
    _SyncObj__startTime: float
    _SyncObj__numOneSecondDumps: int
    _SyncObj__lastResponseTime: Mapping[Voter, float]
    _SyncObj__commandsQueue: Commands
    _SyncObj__forceLogCompaction: bool
    _SyncObj__lastSerializedEntry: int | None
    """The entry before the last one that the newest snapshot of this life covers."""

    def __init__(self, parts: RaftParts, *, clock: Clock) -> None:
        self._parts = parts
        self._clock = clock
        super().__init__(  # type: ignore[call-arg]
            parts.node_id, parts.peers, parts.configuration, nodeClass=voter, transport=parts.filters
        )

    def __dir__(self) -> tuple[str, ...]:
        """At each start and snapshot the library searches all names for methods to replicate: there are none."""
        return ()

    def _set_commit_index(self, index: int) -> None:
        """The commit index never falls behind the applied entries (SO-L13).

        The library's own falls behind when a snapshot is newer than the commit index saved before a crash, when one is
        installed, and when a repeated message truncates for a moment. A follower that then asks for the entries after
        its commit index asks for an entry before the beginning of its log, and can accept no answer, ever.
        """
        applied = self._SyncObj__raftLastApplied
        self._commit_index = index if index > applied else applied

    _SyncObj__raftCommitIndex = property(attrgetter("_commit_index"), _set_commit_index)

    def _SyncObj__parseChangeClusterRequest(self, _command: bytes) -> None:  # noqa: N802
        """SO-S10: the voters are static."""

    def _SyncObj__doApplyCommand(self, command: bytes) -> Result | None:  # noqa: N802
        if command[0] != REGULAR_COMMAND:
            assert command == NO_OP_COMMAND, f"an entry of kind {command[0]} in the log"
            return None
        index: int = self.raftLastApplied + 1  # type: ignore[attr-defined]
        return self._parts.machine.apply(memoryview(command)[1:], index=index)

    def _SyncObj__applyLogEntries(self) -> bool:  # noqa: N802
        """The library applies all committed entries at once: a restart, or a voter that was away, would decode the
        whole log into memory. Ours continues in a later tick when there is room again."""
        committed, has_applied = self._commit_index, False
        try:
            while self._SyncObj__raftLastApplied < committed and self._parts.may_apply():
                self._commit_index = self._SyncObj__raftLastApplied + 1
                has_applied |= super()._SyncObj__applyLogEntries()  # type: ignore[misc]
        finally:
            self._commit_index = committed
        return has_applied

    def _SyncObj__connectedToAnyone(self) -> bool:  # noqa: N802
        """The library calls it only when the election timeout is over: the place for the pre-vote (SO-L6)."""
        parts = self._parts
        return parts.may_lead() and not parts.newcomer.is_newcomer and parts.pre_vote.may_stand()

    def _SyncObj__loadDumpFile(self, clearJournal: bool) -> None:  # noqa: N802, N803
        """SO-S11: the library ignores a failed load and continues with an empty image."""
        super()._SyncObj__loadDumpFile(clearJournal)  # type: ignore[misc]
        header, applied = self._parts.snapshots.header, self.raftLastApplied  # type: ignore[attr-defined]
        assert header is not None, "a snapshot was installed and is missing"
        assert applied == header.last[1], f"a snapshot up to {header.last[1]} was loaded, but {applied} is applied"
        self._set_commit_index(self._commit_index)

    def _onTick(self, timeToWait: float = 0.0) -> None:  # noqa: N802, N803
        parts = self._parts
        parts.journal.sync()  # SO-S6: a leader counts itself only for what is durable
        parts.newcomer.tick()
        if self._is_idle():
            self._SyncObj__forceLogCompaction = False
        else:
            super()._onTick(timeToWait)  # type: ignore[misc]
        # Entries have been sent: our fsync runs at the same time as the followers'.
        parts.filters.flush_acks(term=self._SyncObj__raftCurrentTerm)

    def _is_idle(self) -> bool:
        """The library's tick would change nothing and send nothing: true for most, and each tick checks everything."""
        parts, applied = self._parts, self._SyncObj__raftLastApplied
        now_s = self._clock.monotonic_us() / 1_000_000
        if (
            self._SyncObj__commandsQueue
            or self._commit_index > applied
            or now_s - self._SyncObj__startTime > self._SyncObj__numOneSecondDumps
            or not parts.snapshots.is_idle
            or (self._SyncObj__forceLogCompaction and self._SyncObj__lastSerializedEntry != applied - 1)
        ):
            return False
        if self._SyncObj__raftState != LEADER:
            return self._SyncObj__raftElectionDeadline >= now_s
        if self._SyncObj__newAppendEntriesTime < now_s or self._SyncObj__raftCommitIndex < parts.journal.last_index:
            return False
        fallback_s = now_s - parts.configuration.leaderFallbackTimeout
        heard = [at_s for at_s in self._SyncObj__lastResponseTime.values() if at_s > fallback_s]
        return 2 * (1 + len(heard)) > len(parts.peers) + 1


def hardened(module: ModuleType, parts: RaftParts, *, clock: Clock) -> Any:
    """The voter: a class of the private copy `module` with our overrides."""
    replace_globals(
        module,
        createJournal=lambda _file: parts.journal,
        Serializer=lambda *_settings: parts.snapshots,
        FastQueue=Commands,
    )
    return type("QuorumRaft", (HardenedRaft, module.SyncObj), {})(parts, clock=clock)
