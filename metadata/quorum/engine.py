"""The Raft half of the quorum: runs on the Raft loop, owns the files, the link and the voter.

It ticks the voter after messages, after proposals and regularly; it reports events as a list of outputs, once per tick.
When the disk fails (full, or an I/O error) it drops the voter with all its memory, and builds it again from disk as
soon as a probe can be written: anything that was never acknowledged may be forgotten. Any other exception of the
library leaves it in an unknown state, and stops the node.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from metadata.environment import DirectoryLock, Environment, TimerHandle
from metadata.quorum.assembly import open_journal, raft_parts
from metadata.quorum.config import QuorumConfig
from metadata.quorum.durable import QuorumStorageError, probe_disk
from metadata.quorum.filters import MessageFilter, standard_filters
from metadata.quorum.identity import claim_directory
from metadata.quorum.journal import Journal
from metadata.quorum.library import load_private_copy
from metadata.quorum.link import Link, LinkIdentity
from metadata.quorum.log import AppendLost
from metadata.quorum.messages import MalformedMessage
from metadata.quorum.outputs import AppendEnded, CaughtUp, Failed, Met, Output, Started
from metadata.quorum.proposals import Proposals
from metadata.quorum.raft import RaftNode
from metadata.quorum.raft_reports import Report
from metadata.quorum.snapshots import SnapshotStore
from metadata.quorum.state_machine import MetadataStateMachine

TICK_MS = 50
"""Time between ticks when nothing happens; an event with a time of its own (a candidacy) has a timer of its own."""
TICK_LATE_MS = 500
"""A tick that is so late was delayed by a blocked loop or a slow disk; half an election timeout, so it is reported."""
STAGGER_MS = 40
"""Time between the candidacies of voters, in order of their ids, after a start or the loss of a leader."""
PROBE_DISK_MS = 1_000
PROBE_BYTES = 64 * 1024
SNAPSHOT_RETRY_MS = 30_000
SNAPSHOT_STAGGER = 0.2
"""Each further voter takes snapshots after this share more of the log, so that not all do at once (SO-S2)."""


class QuorumEngine:
    def __init__(
        self,
        environment: Environment,
        config: QuorumConfig,
        *,
        deliver: Callable[[list[Output]], None],
        filters: Callable[[], list[MessageFilter]] = standard_filters,
        is_hanging: Callable[[], bool] = lambda: False,
    ) -> None:
        """`is_hanging`: the main loop does not turn, so this node could lead nobody."""
        assert config.node_id in config.voters, f"node {config.node_id} is not one of {sorted(config.voters)}"
        self._clock = environment.clock
        self._files = environment.files
        self._rng = environment.rng
        self._config = config
        self._report = Report(deliver)
        self._proposals = Proposals(self._report.add)
        self._make_filters = filters
        self._is_hanging = is_hanging
        self._node: RaftNode | None = None
        """None before the start, while the disk fails, and after the end."""
        self._journal: Journal | None = None
        self._module = load_private_copy(clock=environment.clock, rng=environment.rng)
        self._machine = MetadataStateMachine(on_applied=self._report.applied, on_installed=self._report.installed)
        identity = LinkIdentity(cluster_id=config.cluster_id, node_id=config.node_id, key=config.key)
        peers = {peer: config.voters[peer] for peer in config.peers}
        self._link = Link(
            environment,
            identity,
            peers=peers,
            listen=config.listen,
            handler=self,
            listen_tls=config.listen_tls,
            dial_tls=config.dial_tls,
        )
        self._met: frozenset[int] = frozenset()
        self._refusing: frozenset[int] = frozenset()
        """Voters that are connected with another process that has this node's id."""
        self._has_caught_up = False
        self._timer: TimerHandle | None = None
        self._due_ms = 0
        self._is_woken = False
        self._snapshot_above_bytes = config.snapshot_bytes * (1 + SNAPSHOT_STAGGER * config.rank)
        self._snapshot_not_before_ms = 0
        self._stopping = asyncio.Event()

    # --- life ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Open, report Started, and serve until `stop`."""
        config, lock = self._config, None
        try:
            lock = claim_directory(self._files, config.directory, cluster_id=config.cluster_id, node_id=config.node_id)
            self._open()
            await self._link.start()
        except Exception as error:  # noqa: BLE001 - every error that prevents the start is reported to its caller
            self._close(lock)
            self._report_now(Started(error=error))
            return
        self._report_now(Started(error=None))
        await self._serve()
        self._close(lock)

    async def _serve(self) -> None:
        self._stand_in_turn()
        self._on_timer()
        link = asyncio.get_running_loop().create_task(self._link.run())
        link.add_done_callback(self._on_link_ended)
        await self._stopping.wait()
        await self._link.close_port()
        link.cancel()
        await asyncio.gather(link, return_exceptions=True)
        self._link.disconnect_all()

    def _on_link_ended(self, link: asyncio.Task[None]) -> None:
        error = None if link.cancelled() else link.exception()
        if error is not None:
            self._fail(error)
            self._flush()

    def stop(self) -> None:
        self._stopping.set()

    def _close(self, lock: DirectoryLock | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._node is not None and self._journal is not None:
            with contextlib.suppress(OSError):  # it only helps the next start and a person that reads the files
                self._journal.onOneSecondTimer()
        self._drop_node()
        self._flush()
        if lock is not None:
            lock.release()

    # --- the voter ----------------------------------------------------------------------------------------------

    def _open(self) -> None:
        snapshots = SnapshotStore(
            self._files,
            self._config.directory,
            images=self._machine,
            on_taken=self._report.snapshot_taken,
            on_failed=self._on_snapshot_failed,
        )
        journal = open_journal(self._files, self._config.directory, snapshots)
        if journal.torn_bytes:
            self.emit("quorum_journal_torn_tail_cut", bytes=journal.torn_bytes)
        if journal.votes.is_newcomer:
            self.emit("quorum_newcomer")
        parts = raft_parts(
            self._config,
            journal=journal,
            snapshots=snapshots,
            machine=self._machine,
            filters=self._make_filters(),
            link=self._link,
            clock=self._clock,
            rng=self._rng,
            on_settled=self._on_settled,
            may_lead=self._may_lead,
            may_apply=lambda: not self._report.is_full,
        )
        self._journal = journal
        self._node = RaftNode(self._module, parts, clock=self._clock, link=self._link)

    def _drop_node(self) -> None:
        node, self._node = self._node, None
        if node is not None:
            node.close()
        self._proposals.give_up()

    # --- ticking ------------------------------------------------------------------------------------------------

    def _on_timer(self) -> None:
        if self._stopping.is_set():
            return
        now_ms, wait_ms = self._clock.monotonic_ms(), TICK_MS if self._node else PROBE_DISK_MS
        if self._timer is not None and now_ms - self._due_ms > TICK_LATE_MS:
            self.emit("quorum_tick_late", late_ms=now_ms - self._due_ms)
        self._due_ms = now_ms + wait_ms
        self._timer = self._clock.call_later(wait_ms, self._on_timer)
        if self._node is None:
            self._try_reopen()
        else:
            self._tick()

    def _wake(self) -> None:
        """Tick once for all events of this turn of the loop."""
        if not self._is_woken:
            self._is_woken = True
            asyncio.get_running_loop().call_soon(self._tick)

    def _stand(self, decide: Callable[..., None], *, after_ms: int) -> None:
        """Tick at that moment and not up to TICK_MS later: voters become candidates one after the other."""
        decide(after_ms=after_ms)
        self._clock.call_later(after_ms + 1, self._wake)

    def _stand_in_turn(self) -> None:
        assert self._node is not None
        self._stand(self._node.stand_soon, after_ms=STAGGER_MS * (1 + self._config.rank))

    def _on_settled(self) -> None:
        self.emit("quorum_newcomer_settled")
        self._stand_in_turn()

    def _tick(self) -> None:
        self._is_woken = False
        node = self._node
        if node is None or self._stopping.is_set():
            return
        if node.is_leader and not self._may_lead():
            self.emit("quorum_leadership_given_up", term=node.term)
            self._guarded(node.resign, stand_after_ms=2 * self._config.election_timeout_ms)
        self._guarded(node.tick)
        if self._node is not None:
            if node.has_unfinished_entries:
                self._wake()
            self._maybe_take_snapshot(node)
            if not self._has_caught_up and node.has_caught_up:
                self._has_caught_up = True
                self._report.add(CaughtUp())
        self._flush()

    def _may_lead(self) -> bool:
        """A lone voter may always lead: no other could."""
        return not self._config.peers or not self._is_hanging()

    def _guarded(self, step: Callable[..., None], *arguments: Any, **options: Any) -> None:
        try:
            step(*arguments, **options)
        except MalformedMessage:
            raise
        except OSError as error:
            self._suspend(error)
        except Exception as error:  # noqa: BLE001 - every exception that escapes the library must stop the node
            self._fail(error)

    def _maybe_take_snapshot(self, node: RaftNode) -> None:
        assert self._journal is not None
        is_large = self._journal.size_bytes > self._snapshot_above_bytes
        if is_large and self._clock.monotonic_ms() >= self._snapshot_not_before_ms:
            node.take_snapshot()

    # --- failing ------------------------------------------------------------------------------------------------

    def _suspend(self, error: OSError) -> None:
        self.emit("quorum_suspended", error=str(error))
        self._drop_node()
        self._link.disconnect_all()

    def _try_reopen(self) -> None:
        try:
            probe_disk(self._files, f"{self._config.directory}/probe", size=PROBE_BYTES)
            self._link.disconnect_all()  # the new voter must be informed of each session, also of those made meanwhile
            self._open()
        except OSError:
            return  # still failing; the timer tries again
        except QuorumStorageError as error:
            self._fail(error)
            return
        self.emit("quorum_resumed")
        self._flush()

    def _fail(self, error: BaseException) -> None:
        self._drop_node()
        self._stopping.set()
        self._report.add(Failed(error=error))

    # --- proposals ----------------------------------------------------------------------------------------------

    def propose(self, token: int, command: bytes) -> None:
        """Append a command. One AppendEnded with the token is the answer."""
        node = self._node
        if node is None or not node.is_leader:
            self._report_now(AppendEnded(token=token, outcome=AppendLost("this node does not lead the quorum")))
            return
        self._guarded(node.propose, command, self._proposals.begin(token))
        self._wake()

    def confirm(self, token: int) -> None:
        """Commit an entry that changes nothing. The answer is that of `propose`; the outcome of a success is None."""
        node = self._node
        if node is None or not node.is_leader:
            self._report_now(AppendEnded(token=token, outcome=AppendLost("this node does not lead the quorum")))
            return
        self._guarded(node.propose_nothing, self._proposals.begin(token, is_nothing=True))
        self._wake()

    # --- what the main loop reports -----------------------------------------------------------------------------

    def taken(self, size: int) -> None:
        """The main loop has processed commands of so many bytes."""
        was_full = self._report.is_full
        self._report.taken(size)
        if was_full:
            self._wake()

    # --- what the link reports ----------------------------------------------------------------------------------

    def on_connected(self, peer: int) -> None:
        self._meet(self._met | {peer})
        if self._node is not None:
            self._guarded(self._node.connected, peer)
            self._wake()

    def on_disconnected(self, peer: int) -> None:
        self._meet(self._met - {peer})
        if self._node is not None:
            self._guarded(self._node.disconnected, peer)
            self._wake()

    def on_duplicate(self, peer: int) -> None:
        self._refusing |= {peer}
        self._meet(self._met)
        self._wake()

    def _meet(self, voters: frozenset[int]) -> None:
        """Report the connected voters with the next flush."""
        self._met = voters
        self._report.add(Met(voters=voters, refusing=self._refusing))

    def on_message(self, peer: int, message: Any) -> None:
        if peer in self._refusing:
            self._refusing -= {peer}
            self._meet(self._met)
        if self._node is not None:
            self._guarded(self._node.receive, peer, message)
            self._wake()

    def on_refused(self, peer: int) -> None:
        """Nothing listens at the leader's port: become a candidate now; the others see the same (the pre-vote asks
        them)."""
        node = self._node
        if node is not None and node.leader_id == peer:
            rank = [voter for voter in sorted(self._config.voters) if voter != peer].index(self._config.node_id)
            self._stand(node.leader_is_gone, after_ms=STAGGER_MS * rank)
            self._wake()

    # --- reporting ----------------------------------------------------------------------------------------------

    def emit(self, event: str, /, **fields: object) -> None:
        self._report.emit(event, **fields)

    def _on_snapshot_failed(self, problem: str) -> None:
        self._snapshot_not_before_ms = self._clock.monotonic_ms() + SNAPSHOT_RETRY_MS
        self.emit("quorum_snapshot_failed", problem=problem)

    def _report_now(self, output: Output) -> None:
        self._report.add(output)
        self._flush()

    def _flush(self) -> None:
        node = self._node
        if node is None:
            self._report.no_voter()
        else:
            self._report.leadership(leader_id=node.leader_id, term=node.term, is_self=node.is_leader)
        self._report.flush()
