"""A cluster of voters under one seed: real filters, journal, votes and snapshots; simulated time, network and disks.

One heap of events, so the same seed gives the same run in every process. `story` adds the faults and the ending.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from kraft.chaos.worlds.simulated.disk import Disk, SimulatedFiles
from metadata.quorum.filters import Message
from metadata.quorum.journal import Journal
from metadata.quorum.library import SUCCESS, configuration, load_private_copy
from metadata.quorum.pysyncobj_adapter import RaftParts
from metadata.quorum.raft import RaftNode
from metadata.quorum.snapshots import SnapshotStore
from metadata.quorum.transport import Filters
from metadata.quorum.votes import VoteStore
from tests.simulation.quorum.checks import Checks
from tests.simulation.quorum.network import Network
from tests.simulation.quorum.plan import ELECTION_MS, Plan, Violation

DIRECTORY = "/quorum"
RECONNECT_MS = 50
SNAPSHOT_STAGGER = 0.2
"""The snapshot lengths of voters differ, as in the engine."""


class Time:
    def __init__(self) -> None:
        self.us = 10**9

    def monotonic_us(self) -> int:
        return self.us

    def monotonic_ms(self) -> int:
        return self.us // 1000


class AppliedCommands:
    """Stands in for the image: what was applied at each index."""

    def __init__(self, on_apply: Callable[[int, bytes], None]) -> None:
        self.commands: dict[int, bytes] = {}
        self._on_apply = on_apply

    def apply(self, data: bytes, *, index: int) -> int:
        self._on_apply(index, data)
        self.commands[index] = data
        return index

    def snapshot(self) -> tuple[int, int, bytes]:
        return len(self.commands), 0, msgspec.msgpack.encode(self.commands)

    def install(self, body: bytes, *, index: int) -> None:
        self.commands = msgspec.msgpack.decode(body, type=dict[int, bytes])
        for at, command in self.commands.items():
            self._on_apply(at, command)


@dataclass
class Node:
    raft: RaftNode
    machine: AppliedCommands
    journal: Journal
    generation: int
    committed_before: int = 0
    """The last index that was acknowledged to anybody when this life began."""
    has_caught_up: bool = False
    was_leader: bool = False
    held: list[Callable[[], None]] = field(default_factory=list)
    is_paused: bool = False


class World:
    def __init__(self, seed: int, plan: Plan) -> None:
        self.plan = plan
        self.rng = random.Random(seed)
        self.time = Time()
        self.ids = list(range(1, plan.nodes + 1))
        self.disks = {i: Disk(random.Random(seed * 31 + i)) for i in self.ids}
        self.module = {i: load_private_copy(clock=self.time, rng=random.Random(seed * 17 + i)) for i in self.ids}  # type: ignore[arg-type]
        self.nodes: dict[int, Node] = {}
        self.generation = dict.fromkeys(self.ids, 0)
        self.checks = Checks()
        self.network = Network(plan, self.rng, self)
        self.wiped: set[int] = set()
        """Voters that have lost their disks; the others begin as voters that have met before."""
        self.healed = False
        self.elections = 0
        self.snapshots_loaded = 0
        self.caught_up = 0
        """How many lives of voters have caught up with the quorum."""
        self.settled = 0
        """How many newcomers have become voters."""
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = 0

    @property
    def acked(self) -> dict[bytes, int]:
        return self.checks.acked

    @property
    def leader(self) -> int | None:
        """The leader of the newest term."""
        leading = [(node.raft.term, i) for i, node in self.nodes.items() if node.raft.is_leader]
        return max(leading)[1] if leading else None

    # --- time ---------------------------------------------------------------------------------------------------

    @property
    def now_us(self) -> int:
        return self.time.us

    def after(self, ms: float, action: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (self.time.us + round(ms * 1000), self._sequence, action))

    def run_for(self, ms: float, *, until: Callable[[], bool] = lambda: False) -> bool:
        end = self.time.us + int(ms * 1000)
        while self._heap and self._heap[0][0] <= end:
            if until():
                return True
            at, _, action = heapq.heappop(self._heap)
            self.time.us = max(self.time.us, at)
            action()
        self.time.us = max(self.time.us, end)
        return until()

    # --- nodes --------------------------------------------------------------------------------------------------

    def start(self, i: int) -> None:
        if i in self.nodes:
            return
        files = SimulatedFiles(self.disks[i])
        if not files.exists(DIRECTORY):
            files.make_directories(DIRECTORY)
            files.sync_directory("/")
        self.generation[i] += 1
        generation = self.generation[i]
        machine = AppliedCommands(lambda index, command: self._on_apply(i, index, command))
        snapshots = SnapshotStore(
            files, DIRECTORY, images=machine, on_taken=lambda *_: self._count_snapshot(), on_failed=_raise
        )
        header = snapshots.header
        journal = self.plan.journal(
            files,
            DIRECTORY,
            votes=VoteStore(files, DIRECTORY),
            snapshot=None if header is None else (header.previous, header.last),
        )
        if journal.votes.is_newcomer and i not in self.wiped and not self.plan.strangers:
            journal.votes.settle()
            journal.votes.save(term=0, voted_for=None)
        raft, committed = self._raft(i, journal, snapshots, machine), max(self.acked.values(), default=0)
        self.nodes[i] = Node(raft, machine, journal, generation, committed_before=committed)
        self.after(self.rng.random() * 10, lambda: self._tick_forever(i, generation))

    def _raft(self, i: int, journal: Journal, snapshots: SnapshotStore, machine: AppliedCommands) -> RaftNode:
        peers = tuple(j for j in self.ids if j != i)
        link = _Link(self.network, i)
        pre_vote = self.plan.pre_vote(
            clock=self.time,  # type: ignore[arg-type]
            rng=self.rng,
            peers=peers,
            election_timeout_ms=ELECTION_MS,
        )
        newcomer = self.plan.newcomer(
            clock=self.time,  # type: ignore[arg-type]
            rng=self.rng,
            peers=peers,
            votes=journal.votes,
            on_settled=self._count_settled,
        )
        parts = RaftParts(
            configuration=configuration(
                election_timeout_ms=ELECTION_MS,
                heartbeat_ms=ELECTION_MS // 4,
                queue_max=10_000,
                batch_bytes=self.plan.batch_bytes,
            ),
            node_id=i,
            peers=peers,
            journal=journal,
            snapshots=snapshots,
            machine=machine,  # type: ignore[arg-type]
            filters=Filters([newcomer, *self.plan.filters(), pre_vote], link=link, journal=journal),
            pre_vote=pre_vote,
            newcomer=newcomer,
        )
        return RaftNode(self.module[i], parts, clock=self.time, link=link)  # type: ignore[arg-type]

    def _count_settled(self) -> None:
        self.settled += 1

    def _count_snapshot(self) -> None:
        self.snapshots_loaded += 1

    def _tick_forever(self, i: int, generation: int) -> None:
        node = self.nodes.get(i)
        if node is not None and node.generation == generation:
            self.tick(i)
            self.after(15 + self.rng.random() * 10, lambda: self._tick_forever(i, generation))

    def tick(self, i: int) -> None:
        node = self.nodes.get(i)
        if node is None or node.is_paused:
            return
        node.raft.tick()
        if node.journal.size_bytes > self.plan.snapshot_bytes * (1 + SNAPSHOT_STAGGER * self.ids.index(i)):
            node.raft.take_snapshot()
        self._check_leadership(i, node)
        self._check_catching_up(i, node)

    def crash(self, i: int, *, power: bool, restart_ms: float | None = None) -> None:
        if i not in self.nodes:
            return
        self.network.gone(i, self.ids)
        del self.nodes[i]
        if power:
            self.disks[i].lose_power()
        if restart_ms is not None:
            self.after(restart_ms, lambda: self.start(i))

    def wipe(self, i: int) -> bool:
        """A killed voter's disk is empty, if all others are voters: so much is promised."""
        others = [node for j, node in self.nodes.items() if j != i]
        if len(others) < len(self.ids) - 1 or any(node.journal.votes.is_newcomer for node in others):
            return False
        self.wiped.add(i)
        self.disks[i] = Disk(random.Random(self.rng.random()))
        return True

    def pause(self, i: int, ms: float) -> None:
        node = self.nodes.get(i)
        if node is None or node.is_paused:
            return
        node.is_paused = True
        self.after(ms, lambda: self._resume(node))

    def _resume(self, node: Node) -> None:
        node.is_paused = False
        held, node.held = node.held, []
        for action in held:
            action()

    # --- for the network ----------------------------------------------------------------------------------------

    def is_up(self, i: int) -> bool:
        return i in self.nodes

    def to(self, i: int, action: Callable[[], None]) -> None:
        node = self.nodes.get(i)
        if node is None:
            return

        def act() -> None:
            if self.nodes.get(i) is node:
                action()

        if node.is_paused:
            node.held.append(act)
        else:
            act()

    def on_connected(self, i: int, peer: int) -> None:
        self.nodes[i].raft.connected(peer)

    def on_disconnected(self, i: int, peer: int) -> None:
        self.nodes[i].raft.disconnected(peer)

    def on_message(self, i: int, peer: int, message: Message) -> None:
        node = self.nodes[i]
        node.raft.receive(peer, message)
        self._check_leadership(i, node)
        self.after(0.2, lambda: self.tick(i))

    def reconnect_forever(self) -> None:
        for a in self.ids:
            for b in self.ids[a:]:
                if self.healed or self.rng.random() < 0.5:
                    self.network.connect(a, b)
        self.after(RECONNECT_MS, self.reconnect_forever)

    # --- clients ------------------------------------------------------------------------------------------------

    def submit(self, i: int, command: bytes, answer: Callable[[Any, int], None] = lambda *_: None) -> None:
        def answered(result: Any, failure: int) -> None:
            if failure == SUCCESS:
                self.acked[command] = result
            answer(result, failure)

        self.nodes[i].raft.propose(command, answered)
        self.after(0.1, lambda: self.tick(i))

    # --- invariants ---------------------------------------------------------------------------------------------

    def _check_leadership(self, i: int, node: Node) -> None:
        if node.raft.is_leader and not node.was_leader:
            self.elections += 1
            held = {index: command for command, index, _ in node.raft.entries}
            self.checks.on_leader(i, term=node.raft.term, held=held)
        node.was_leader = node.raft.is_leader

    def _check_catching_up(self, i: int, node: Node) -> None:
        """A voter that reports to have caught up has all commands that were acknowledged before it began."""
        if not node.has_caught_up and node.raft.has_caught_up:
            node.has_caught_up = True
            self.caught_up += 1
            self.checks.on_caught_up(i, applied_index=node.raft.applied_index, committed=node.committed_before)

    def _on_apply(self, i: int, index: int, command: bytes) -> None:
        node = self.nodes.get(i)
        self.checks.on_apply(i, term=node.raft.term if node else 2**62, index=index, command=command)

    def check_acked(self) -> None:
        for i, node in self.nodes.items():
            self.checks.on_end(i, applied_index=node.raft.applied_index, commands=node.machine.commands)

    @property
    def is_converged(self) -> bool:
        """Every voter is there and has applied the leader's whole log."""
        if self.leader is None or len(self.nodes) < len(self.ids):
            return False
        end = self.nodes[self.leader].raft.last_entry[1]
        first = self.nodes[self.leader].machine.commands
        return all(
            node.raft.applied_index == end and node.machine.commands == first and not node.is_paused
            for node in self.nodes.values()
        )

    def __str__(self) -> str:
        """What each voter believes, for a failing seed."""
        return "\n".join(f"{i}: {node.raft}" for i, node in sorted(self.nodes.items()))


class _Link:
    def __init__(self, network: Network, i: int) -> None:
        self._network = network
        self._i = i

    def send(self, peer: int, message: Message) -> bool:
        return self._network.send(self._i, peer, message)


def _raise(problem: str) -> None:
    raise Violation(problem)
