"""Damaged and missing files: of the quorum, of the logs, or all files of a node.

What is promised of the quorum: one voter at a time may lose its files or find them damaged, while all others are voters
with theirs. A damaged voter refuses to start; then the run does what its operator would do, and empties its folder.
`_decaying` holds the voters that may refuse, and no other may.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kraft.chaos.worlds.simulated.cluster import METADATA_FOLDER, SimulatedNode
from metadata.quorum.durable import QuorumStorageError
from metadata.quorum.votes import FILE_NAME as VOTE_FILE
from metadata.quorum.votes import VoteStore
from replication.storage.names import (
    CLEAN_SHUTDOWN_FILE,
    EPOCHS_FILE,
    HIGH_WATERMARKS_FILE,
    INDEX_SUFFIX,
    LOG_SUFFIX,
    PARTITION_METADATA_FILE,
    RECOVERY_POINTS_FILE,
    SNAPSHOT_SUFFIX,
    TIME_INDEX_SUFFIX,
)
from tests.simulation.coincidences import Coincidences
from tests.simulation.files import files_of, partition_of
from tests.simulation.plan import Event

VOTERS_MIN = 3
OPERATOR_S = 0.2
END_BYTES = 100
LOGS_FOLDER = "/data/logs"
LOCKS = (".lock",)
HARMLESS = ("commit",)
"""Files that a voter does not need to keep its promises: it starts without them."""
PARTITION_KINDS = (
    INDEX_SUFFIX,
    TIME_INDEX_SUFFIX,
    SNAPSHOT_SUFFIX,
    EPOCHS_FILE,
    PARTITION_METADATA_FILE,
    LOG_SUFFIX,
)
FOLDER_KINDS = (RECOVERY_POINTS_FILE, HIGH_WATERMARKS_FILE, CLEAN_SHUTDOWN_FILE)
LOSING_KINDS = (LOG_SUFFIX, PARTITION_METADATA_FILE)
"""Without these a log has lost something: its records, or whose they are. All else can be made again."""


class Decay(Coincidences):
    _decaying: frozenset[int] = frozenset()

    async def _quorum_rot(self, event: Event) -> None:
        """A bit of a file of the quorum flips while its node is down, or runs on for a while before it starts again."""
        node = self._node(event.numbers[0])
        found = _quorum_files(node)
        found += [path for path in found if path.endswith(("/journal", "/records"))] * 3
        if not found:
            return
        path = found[event.numbers[1] % len(found)]
        if event.numbers[3] // 8 % 2:
            await self._while_down(node, event, lambda: self._flip(node, path, event))
        elif self._is_free(node):
            self._busy.add(node.node_id)
            if self._flip(node, path, event):
                await asyncio.sleep(event.lasts_ms / 1000)
            if node.is_running:
                node.kill()
            await self._bring_back(node)

    def _flip(self, node: SimulatedNode, path: str, event: Event) -> bool:
        name = path.rpartition("/")[2]
        files = node.machine.environment.files
        size = files.size(path) if files.exists(path) else 0
        if not size or not self._may_lose(node, name):
            return False
        # The newest entries are those that may be on this disk alone; what no CRC covers stands at the beginning.
        part = event.numbers[3] // 16 % 4
        span = min(size, END_BYTES) if part < 2 else size
        offset = event.numbers[2] * span // 10_000 + (size - span if part == 0 else 0)
        node.machine.disk.flip_bit(path, offset=offset, bit=event.numbers[3] % 8)
        self._oracle.note(f"a bit flipped in {path} of node {node.node_id}")
        self._oracle.count(f"quorum rot: {name}")
        return True

    async def _wipe_voter(self, event: Event) -> None:
        """The folder of the metadata is gone, of a voter or of an observer."""
        node = self._node(event.numbers[0])
        await self._while_down(node, event, lambda: self._may_lose(node) and self._empty(node, METADATA_FOLDER))

    async def _wipe_all(self, event: Event) -> None:
        """A new machine under the old id."""
        node = self._node(event.numbers[0])

        def wipe() -> None:
            if self._may_lose(node):
                self._oracle.count("node wiped")
                self._empty(node, METADATA_FOLDER)
                self._empty(node, "/data")
                self._oracle.promise.disk_lost(node.node_id)

        await self._while_down(node, event, wipe)

    async def _wipe_helper(self, event: Event) -> None:
        """One of three voters is isolated, so the leader commits with the other's help alone; that one is wiped, the
        leader dies, and the first, who has never seen the entry, comes back."""
        leader, voters = self._controller(), [self.cluster.nodes[voter] for voter in self._plan.voters]
        if leader is None or len(voters) != VOTERS_MIN or not all(map(self._is_free, voters)):
            return
        others = [each for each in voters if each is not leader]
        helper, third = others if event.numbers[0] % 2 else reversed(others)
        links = [(third.machine.name, each.machine.name) for each in (leader, helper)]
        for link in links:
            self._world.network.cut(*link)
        await self._change_retention(leader, event.numbers[1])
        if self._controller() is leader and self._is_free(leader) and self._is_free(helper) and self._may_lose(helper):
            self._oracle.count("voter wiped that had committed with the leader alone")
            self._busy |= {leader.node_id, helper.node_id}
            helper.kill()
            self._empty(helper, METADATA_FOLDER)
            leader.kill()
            await self._heal_in(0, links)
            await self._bring_back(helper)
            await asyncio.sleep(event.lasts_ms / 1000)
            await self._bring_back(leader)
        await self._heal_in(0, links)

    async def _wipe_file(self, event: Event) -> None:
        node, unnamed = self._node(event.numbers[0]), []

        def wipe() -> None:
            files = _named_files(node)
            kinds = sorted(files)
            if not kinds:
                return
            kind = kinds[event.numbers[1] % len(kinds)]
            path = files[kind][event.numbers[2] % len(files[kind])]
            if path.startswith(METADATA_FOLDER) and not self._may_lose(node, kind):
                return
            key = partition_of(node, path)
            node.machine.environment.files.remove(path)
            node.machine.environment.files.sync_directory(path.rpartition("/")[0])
            self._oracle.note(f"{path} of node {node.node_id} is gone")
            self._oracle.count(f"file wiped: {kind}")
            if kind in LOSING_KINDS and key is not None:
                self._oracle.promise.rotted(node.node_id, key)
            if kind == PARTITION_METADATA_FILE:
                unnamed.append(path)

        await self._while_down(node, event, wipe)
        for path in unnamed:
            await self._move_away(node, path)

    async def _move_away(self, node: SimulatedNode, path: str) -> None:
        """The owner of the log is unknown: the product reports it, and leaves it to the operator."""
        files, folder = node.machine.environment.files, path.rpartition("/")[0]
        while files.exists(folder) and not files.exists(path):
            if self._is_free(node):
                self._oracle.count("log without its topic's id moved away")
                self._busy.add(node.node_id)
                node.kill()
                files.remove_tree(folder)
                await self._bring_back(node)
            await asyncio.sleep(OPERATOR_S)

    # --- one at a time ------------------------------------------------------------------------------------------

    def _is_free(self, node: SimulatedNode) -> bool:
        is_free = node.is_running and node.node_id not in self._busy and not node.machine.process.is_paused
        return is_free and len(self._busy) < self._plan.down_max

    async def _while_down(self, node: SimulatedNode, event: Event, change: Callable[[], object]) -> None:
        """Killed, or stopped in order."""
        if not self._is_free(node):
            return
        self._busy.add(node.node_id)
        await self._take_down(node, in_order=event.numbers[3] % 2 == 1)
        change()
        await asyncio.sleep(event.lasts_ms / 1000)
        await self._bring_back(node)

    async def _take_down(self, node: SimulatedNode, *, in_order: bool) -> None:
        """Stop by a controlled shutdown; kill if that takes too long, or was not requested."""
        process = node.machine.process
        if in_order:
            try:
                await node.stop()
            except TimeoutError:
                self._oracle.note(f"node {node.node_id} did not stop in time")
        if node.machine.process is process:
            node.kill()

    def _may_lose(self, node: SimulatedNode, name: str = "") -> bool:
        """Is it within the promise that this node loses its metadata? From then on it may refuse to start."""
        if name in HARMLESS or node.node_id not in self._plan.voters:
            return True
        others = [self.cluster.nodes[voter] for voter in self._plan.voters if voter != node.node_id]
        if len(others) < VOTERS_MIN - 1 or any(each.node_id in self._decaying or _is_new(each) for each in others):
            return False
        self._decaying |= {node.node_id}
        return True

    def _empty(self, node: SimulatedNode, folder: str) -> None:
        files = node.machine.environment.files
        if files.exists(folder):
            files.remove_tree(folder)
            files.sync_directory(folder.rpartition("/")[0] or "/")
        if folder == METADATA_FOLDER and node.node_id in self._plan.voters:
            self._oracle.count("voter wiped")
            self._oracle.quorum.voter_wiped(node.node_id)

    async def _bring_back(self, node: SimulatedNode) -> None:
        await super()._bring_back(node)
        self._decaying -= {node.node_id}

    def _refused(self, node: SimulatedNode, error: Exception) -> None:
        is_observer = node.node_id not in self._plan.voters
        if not isinstance(error, QuorumStorageError) or not (is_observer or node.node_id in self._decaying):
            super()._refused(node, error)
            return
        self._oracle.count("damaged quorum files refused")
        self._empty(node, METADATA_FOLDER)


def _is_new(node: SimulatedNode) -> bool:
    files = node.machine.environment.files
    return not files.exists(f"{METADATA_FOLDER}/{VOTE_FILE}") or VoteStore(files, METADATA_FOLDER).is_newcomer


def _quorum_files(node: SimulatedNode) -> list[str]:
    files = node.machine.environment.files
    found = files.list_directory(METADATA_FOLDER) if files.exists(METADATA_FOLDER) else []
    paths = [f"{METADATA_FOLDER}/{name}" for name in found if name not in LOCKS]
    return [path for path in paths if files.size(path)]


def _named_files(node: SimulatedNode) -> dict[str, list[str]]:
    """Kind -> the files of it that are there."""
    found = {path.rpartition("/")[2]: [path] for path in _quorum_files(node)}
    files = node.machine.environment.files
    for kind in FOLDER_KINDS:
        if files.exists(f"{LOGS_FOLDER}/{kind}"):
            found[kind] = [f"{LOGS_FOLDER}/{kind}"]
    for kind in PARTITION_KINDS:
        paths = files_of(node, (kind,))
        if paths:
            found[kind] = paths
    return found
