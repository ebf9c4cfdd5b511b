"""Faults of a node's disk: power loss, wiping, damaged segments, deleted indexes, and a full disk."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Final, Literal, TypeAlias

from kraft.chaos.worlds.processes.nodes import Nodes
from kraft.chaos.worlds.processes.power import Loss, lose_power, reset_witness
from kraft.chaos.worlds.processes.timeline import Timeline
from kraft.chaos.worlds.spec import ScenarioError
from kraft.runtime.witness import FULL_FILE

SegmentChoice: TypeAlias = Literal["closed", "active"]
BATCH_HEADER_BYTES: Final = 61
BATCH_LENGTH_AT: Final = 8
"""The length field of a batch: how many bytes follow it."""
FLIP: Final = 0x55


class Disks:
    def __init__(self, nodes: Nodes, timeline: Timeline, rng: random.Random) -> None:
        self._nodes = nodes
        self._timeline = timeline
        self._rng = rng
        self._full: dict[int, int] = {}
        """Node -> number of its fault in the timeline."""

    async def power_loss(self, *nodes: int) -> dict[int, Loss]:
        """SIGKILL to all of these nodes at once; all data without fsync is lost. No nodes: the whole cluster."""
        nodes = nodes or self._nodes.ids
        running = [node for node in nodes if self._nodes.pid(node) is not None]
        await self._nodes.take_down("power_loss", running, text="took the power from {}")
        return {node: lose_power(self._nodes.data(node), self._nodes.witness(node)) for node in nodes}

    async def wipe(self, *nodes: int) -> None:
        """Remove all data of a node except its events. The node must not run."""
        for node in nodes:
            self._must_be_down(node, "wiped")
            for entry in self._nodes.data(node).iterdir():
                if entry.is_dir():
                    shutil.rmtree(entry)
            reset_witness(self._nodes.data(node), self._nodes.witness(node))
            self._timeline.begin("wipe", nodes=[node], text=f"wiped the disk of node {node}")

    async def corrupt(
        self,
        node: int,
        topic: str,
        partition: int = 0,
        *,
        segment: SegmentChoice = "active",
        offset: int | None = None,
    ) -> Path:
        """Flip bits of one byte in a segment of a node that does not run; returns the file.

        `offset`: position in the file; by default in the records of a batch, where only the CRC reveals it.
        """
        self._must_be_down(node, "spoiled")
        path = self._segment(node, topic, partition, segment)
        position = byte_of_records(path.read_bytes(), self._rng, str(path)) if offset is None else offset
        with path.open("r+b") as file:
            file.seek(position)
            byte = file.read(1)
            file.seek(position)
            file.write(bytes([byte[0] ^ FLIP]))
        self._timeline.begin(
            "flip",
            nodes=[node],
            text=f"flipped bits at byte {position} of {path.name} of {topic}-{partition} on node {node}",
        )
        return path

    async def tear_tail(self, node: int, topic: str, partition: int = 0, *, bytes_lost: int | None = None) -> Path:
        """Cut the active segment in the middle of its last batch, on a node that does not run."""
        self._must_be_down(node, "torn")
        path = self._segment(node, topic, partition, "active")
        size = path.stat().st_size
        if size == 0:
            raise ScenarioError(f"{path} is empty: there is no tail to tear")
        lost = self._rng.randrange(1, min(size, BATCH_HEADER_BYTES)) if bytes_lost is None else bytes_lost
        os.truncate(path, size - lost)
        self._timeline.begin(
            "flip",
            nodes=[node],
            text=f"tore {lost} bytes off the end of {path.name} of {topic}-{partition} on node {node}",
        )
        return path

    async def delete_index(self, node: int, topic: str, partition: int = 0) -> tuple[Path, ...]:
        """Remove the offset and time indexes of a partition on a node that does not run."""
        self._must_be_down(node, "robbed of its indexes")
        folder = self._partition(node, topic, partition)
        gone = tuple(sorted(path for path in folder.iterdir() if path.suffix in (".index", ".timeindex")))
        for path in gone:
            path.unlink()
        self._timeline.begin("flip", nodes=[node], text=f"deleted the indexes of {topic}-{partition} on node {node}")
        return gone

    async def delete_log(self, node: int, topic: str, partition: int = 0) -> Path:
        """Remove the folder of a partition on a node that does not run, as on a replaced disk."""
        self._must_be_down(node, "deleted")
        folder = self._partition(node, topic, partition)
        shutil.rmtree(folder)
        reset_witness(self._nodes.data(node), self._nodes.witness(node))
        self._timeline.begin("wipe", nodes=[node], text=f"deleted the log of {topic}-{partition} on node {node}")
        return folder

    async def fill(self, *nodes: int) -> None:
        """From now on no file grows there: ENOSPC."""
        for node in nodes:
            self._nodes.witness(node).mkdir(parents=True, exist_ok=True)
            (self._nodes.witness(node) / FULL_FILE).touch()
            self._full[node] = self._timeline.begin("disk_full", nodes=[node], text=f"filled the disk of node {node}")

    async def free(self, *nodes: int) -> None:
        for node in nodes:
            (self._nodes.witness(node) / FULL_FILE).unlink(missing_ok=True)
            if node in self._full:
                self._timeline.end(self._full.pop(node))

    @property
    def full(self) -> frozenset[int]:
        return frozenset(self._full)

    # --- files ------------------------------------------------------------------------------------------------------

    def _must_be_down(self, node: int, done: str) -> None:
        if self._nodes.pid(node) is not None:
            raise ScenarioError(f"node {node} runs: its files can only be {done} while it does not")

    def _partition(self, node: int, topic: str, partition: int) -> Path:
        folder = self._nodes.log_directory(node) / f"{topic}-{partition}"
        if not folder.is_dir():
            raise ScenarioError(f"node {node} has no replica of {topic}-{partition}: there is no folder {folder}")
        return folder

    def _segment(self, node: int, topic: str, partition: int, which: SegmentChoice) -> Path:
        segments = sorted(self._partition(node, topic, partition).glob("*.log"))
        if which == "closed" and len(segments) < 2:
            raise ScenarioError(
                f"{topic}-{partition} on node {node} has no closed segment; give it a small segment.bytes"
            )
        if not segments:
            raise ScenarioError(f"{topic}-{partition} on node {node} has no segments")
        return segments[-1] if which == "active" else segments[0]


def byte_of_records(data: bytes, rng: random.Random, path: str) -> int:
    """The position of a byte in the records of a batch, where only the CRC reveals a change."""
    spans, at = [], 0
    while at + BATCH_HEADER_BYTES < len(data):
        end = at + BATCH_LENGTH_AT + 4 + int.from_bytes(data[at + BATCH_LENGTH_AT : at + BATCH_LENGTH_AT + 4])
        spans.append(range(at + BATCH_HEADER_BYTES, min(end, len(data))))
        at = end
    if not spans:
        raise ScenarioError(f"{path} holds no records that could be spoiled")
    return rng.choice(rng.choice(spans))
