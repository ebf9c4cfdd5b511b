"""A cluster of voters under one seed: real filters, journal, votes and snapshots; simulated time, network and disks.

One heap of events, so the same seed gives the same run in every process. Faults: lost and one-way slow links,
partitions, pauses, kills, power loss of one or all. Checked throughout: one leader a term, leader completeness,
agreement of what is applied at each index; after all is healed: acknowledged commands are there, and commits go on.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from metadata.quorum.filters import Message, MessageFilter, standard_filters
from metadata.quorum.journal import Journal
from metadata.quorum.library import SUCCESS, configuration, load_private_copy
from metadata.quorum.prevote import PreVote
from metadata.quorum.raft import Filters, RaftNode, RaftParts
from metadata.quorum.snapshots import SnapshotStore
from metadata.quorum.votes import VoteStore
from tests.simulation.disk import Disk, SimulatedFiles

DIRECTORY = "/quorum"
ELECTION_MS = 200


class Violation(AssertionError):
    """An invariant does not hold."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    nodes: int = 3
    faults_ms: int = 10_000
    fault_every_ms: float = 350
    drop: float = 0.25
    crash: float = 0.15
    pause: float = 0.2
    partition: float = 0.25
    power: float = 0.5
    outage: float = 0.05
    orphan: float = 0.1
    latency_ms: tuple[float, float] = (0.5, 20)
    slow_ms: float = 800
    commands_per_s: float = 40
    large_bytes: int = 30_000
    large_share: float = 0.1
    snapshot_bytes: int = 10**9
    batch_bytes: int = 2**16
    filters: Callable[[], list[MessageFilter]] = standard_filters
    journal: type[Journal] = Journal
    pre_vote: type[PreVote] = PreVote


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
        self.links: dict[tuple[int, int], int] = {}
        """Epoch of each live connection."""
        self.epochs = 0
        self.blocked: set[tuple[int, int]] = set()
        self.denied: set[tuple[int, int]] = set()
        self.slow: dict[tuple[int, int], float] = {}
        self.last_delivery: dict[tuple[int, int, int], int] = {}
        self.applied: dict[int, bytes] = {}
        self.applied_terms: dict[int, int] = {}
        self.leaders: dict[int, int] = {}
        self.acked: dict[bytes, int] = {}
        self.healed = False
        self.elections = 0
        self.snapshots_loaded = 0
        self._commands = 0
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = 0

    # --- time ---------------------------------------------------------------------------------------------------

    def after(self, ms: float, action: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (self.time.us + int(ms * 1000), self._sequence, action))

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
        self.nodes[i] = Node(self._raft(i, journal, snapshots, machine), machine, journal, generation)
        self.after(self.rng.random() * 10, lambda: self._tick_forever(i, generation))

    def _raft(self, i: int, journal: Journal, snapshots: SnapshotStore, machine: AppliedCommands) -> RaftNode:
        peers = tuple(j for j in self.ids if j != i)
        link = _Link(self, i)
        pre_vote = self.plan.pre_vote(
            clock=self.time,  # type: ignore[arg-type]
            rng=self.rng,
            peers=peers,
            election_timeout_ms=ELECTION_MS,
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
            filters=Filters([*self.plan.filters(), pre_vote], link=link, journal=journal),
            pre_vote=pre_vote,
        )
        return RaftNode(self.module[i], parts, clock=self.time, link=link)  # type: ignore[arg-type]

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
        if node.journal.size_bytes > self.plan.snapshot_bytes:
            node.raft.take_snapshot()
        self._check_leadership(i, node)

    def crash(self, i: int, *, power: bool, restart: bool = True) -> None:
        if i not in self.nodes:
            return
        for peer in self.ids:
            self.disconnect(i, peer)
        del self.nodes[i]
        if power:
            self.disks[i].lose_power()
        if restart:
            self.after(50 + self.rng.random() * 1500, lambda: self.start(i))

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

    def _to(self, i: int, action: Callable[[Node], None]) -> None:
        node = self.nodes.get(i)
        if node is None:
            return

        def act() -> None:
            if self.nodes.get(i) is node:
                action(node)

        if node.is_paused:
            node.held.append(act)
        else:
            act()

    @property
    def leader(self) -> int | None:
        """Of the newest term."""
        leading = [(node.raft.term, i) for i, node in self.nodes.items() if node.raft.is_leader]
        return max(leading)[1] if leading else None

    # --- invariants ---------------------------------------------------------------------------------------------

    def _check_leadership(self, i: int, node: Node) -> None:
        if node.raft.is_leader and not node.was_leader:
            self.elections += 1
            term = node.raft.term
            if self.leaders.setdefault(term, i) != i:
                raise Violation(f"two leaders in term {term}: {self.leaders[term]} and {i}")
            held = {index: command for command, index, _ in node.raft.entries}
            first = min(held)
            for index, command in self.applied.items():
                if index >= first and self.applied_terms[index] < term and held.get(index, b"")[1:] != command:
                    raise Violation(f"leader {i} of term {term} lacks committed entry {index}")
        node.was_leader = node.raft.is_leader

    def _on_apply(self, i: int, index: int, command: bytes) -> None:
        known = self.applied.setdefault(index, command)
        if known != command:
            raise Violation(f"{i} applies {command[:20]!r} at {index}, where {known[:20]!r} was applied")
        node = self.nodes.get(i)
        self.applied_terms.setdefault(index, node.raft.term if node else 2**62)

    def check_acked(self) -> None:
        for i, node in self.nodes.items():
            for command, index in self.acked.items():
                if index <= node.raft.applied_index and node.machine.commands.get(index) != command:
                    raise Violation(f"{i} has lost {command[:20]!r}, acknowledged at {index}")

    # --- network ------------------------------------------------------------------------------------------------

    def connect(self, a: int, b: int) -> None:
        pair = _pair(a, b)
        if pair in self.links or pair in self.denied or a not in self.nodes or b not in self.nodes:
            return
        if (a, b) in self.blocked or (b, a) in self.blocked:
            return
        self.epochs += 1
        self.links[pair] = self.epochs
        self._to(a, lambda node: node.raft.connected(b))
        self._to(b, lambda node: node.raft.connected(a))

    def disconnect(self, a: int, b: int) -> None:
        if self.links.pop(_pair(a, b), None) is not None:
            self._to(a, lambda node: node.raft.disconnected(b))
            self._to(b, lambda node: node.raft.disconnected(a))

    def send(self, a: int, b: int, message: Message) -> bool:
        epoch = self.links.get(_pair(a, b))
        if epoch is None:
            return False
        if (a, b) in self.blocked:
            return True
        data = msgspec.msgpack.encode(message)
        low, high = self.plan.latency_ms
        delay_ms = low + self.rng.random() * (high - low) + self.slow.get((a, b), 0)
        at = max(self.time.us + int(delay_ms * 1000), self.last_delivery.get((a, b, epoch), 0))
        self.last_delivery[a, b, epoch] = at
        self.after((at - self.time.us) / 1000, lambda: self._arrive(a, b, epoch, data))
        return True

    def _arrive(self, a: int, b: int, epoch: int, data: bytes) -> None:
        is_orphan = self.links.get(_pair(a, b)) != epoch
        if is_orphan and self.rng.random() >= self.plan.orphan:
            return

        def handle(node: Node) -> None:
            node.raft.receive(a, msgspec.msgpack.decode(data))
            self._check_leadership(b, node)
            self.after(0.2, lambda: self.tick(b))

        self._to(b, handle)

    def reconnect_forever(self) -> None:
        for a in self.ids:
            for b in self.ids[a:]:
                if self.healed or self.rng.random() < 0.5:
                    self.connect(a, b)
        self.after(50, self.reconnect_forever)

    # --- clients and faults -------------------------------------------------------------------------------------

    def submit(self, i: int, command: bytes, answer: Callable[[Any, int], None] = lambda *_: None) -> None:
        def answered(result: Any, failure: int) -> None:
            if failure == SUCCESS:
                self.acked[command] = result
            answer(result, failure)

        self.nodes[i].raft.propose(command, answered)
        self.after(0.1, lambda: self.tick(i))

    def client_forever(self) -> None:
        live = [i for i, node in self.nodes.items() if not node.is_paused]
        if live:
            leaders = [i for i in live if self.nodes[i].raft.is_leader]
            i = self.rng.choice(leaders) if leaders and self.rng.random() < 0.8 else self.rng.choice(live)
            self._commands += 1
            large = self.plan.large_bytes if self.rng.random() < self.plan.large_share else 0
            self.submit(i, b"c%d." % self._commands + bytes(large))
        self.after(self.rng.expovariate(self.plan.commands_per_s) * 1000, self.client_forever)

    def fault_forever(self) -> None:
        if self.healed:
            return
        plan, dice = self.plan, self.rng.random()
        a, b = self.rng.sample(self.ids, 2)
        if self.rng.random() < plan.outage:
            for i in self.ids:
                self.crash(i, power=self.rng.random() < plan.power)
        elif dice < plan.drop:
            self.disconnect(a, b)
        elif dice < plan.drop + plan.crash:
            self.crash(a, power=self.rng.random() < plan.power)
        elif dice < plan.drop + plan.crash + plan.pause:
            self.pause(a, self.rng.random() * 1000)
        elif dice < plan.drop + plan.crash + plan.pause + plan.partition:
            self._partition(a, b)
        else:
            self.slow[a, b] = self.rng.random() * plan.slow_ms
            self.after(self.rng.random() * 2000, lambda: self.slow.pop((a, b), None))
        self.after(self.rng.expovariate(1 / plan.fault_every_ms), self.fault_forever)

    def _partition(self, a: int, b: int) -> None:
        self.blocked |= {(a, b), (b, a)}
        self.after(100 + self.rng.random() * 2000, lambda: self.blocked.difference_update({(a, b), (b, a)}))
        if self.rng.random() < 0.7:
            self.disconnect(a, b)

    def run(self) -> None:
        """A whole story: faults, healing, and the checks after it."""
        for i in self.ids:
            self.start(i)
        self.reconnect_forever()
        self.client_forever()
        self.after(1000, self.fault_forever)
        self.run_for(self.plan.faults_ms)
        self.healed = True
        self.blocked.clear()
        self.slow.clear()
        self.run_for(6000)
        before = len(self.acked)
        self.run_for(3000, until=lambda: len(self.acked) > before + 5)
        if len(self.acked) <= before:
            raise Violation("no commit in 3 s, 6 s after all was healed")
        self.check_acked()


class _Link:
    def __init__(self, world: World, i: int) -> None:
        self._world = world
        self._i = i

    def send(self, peer: int, message: Message) -> bool:
        return self._world.send(self._i, peer, message)


def _pair(a: int, b: int) -> tuple[int, int]:
    return (a, b) if a < b else (b, a)


def _raise(problem: str) -> None:
    raise Violation(problem)
