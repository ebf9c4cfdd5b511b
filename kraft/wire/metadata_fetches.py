"""Observers' fetches of the metadata log: a long poll that wakes when something commits, and snapshots in pieces."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from kraft.protocol.errors import InconsistentClusterId
from metadata.environment import Clock
from metadata.quorum.log import MetadataLog, MetadataSlice, SnapshotNeeded

FETCH_BYTES_MAX = 8 * 1024 * 1024
"""Limit of one answer, also when the observer asks for more."""
WAIT_MS_MAX = 30_000


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataFetch:
    """What an observer asks for: committed records from an offset on."""

    cluster_id: str
    replica_id: int
    offset: int
    wait_ms_max: int
    bytes_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataFetched:
    """The answer: records, or the snapshot to load first where the log begins later than the offset."""

    result: MetadataSlice | SnapshotNeeded
    leader_id: int
    """-1: the asked voter knows of no leader."""
    leader_epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotFetch:
    """What an observer asks for: a piece of a snapshot, from a byte position on."""

    cluster_id: str
    replica_id: int
    end_offset: int
    epoch: int
    position: int
    bytes_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotPiece:
    """A piece of a snapshot, and the size of all of it in bytes."""

    data: bytes
    position: int
    size: int
    """Size of the whole snapshot."""


class MetadataFetches:
    """Observers' fetches of this voter's metadata log, and who of them waits. It has to be made before the log starts,
    because it subscribes to it.
    """

    def __init__(self, log: MetadataLog, *, clock: Clock, cluster_id: str) -> None:
        self._log = log
        self._clock = clock
        self._cluster_id = cluster_id
        self._changed = asyncio.Event()
        log.subscribe(lambda change: self._wake(), lambda leadership: self._wake())

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def fetch(self, request: MetadataFetch) -> MetadataFetched:
        """Committed records from the offset on; with none the answer waits until there are some, the leader changes, or
        `wait_ms_max` is over. An observer of another cluster is refused (Q8).
        """
        self._check_cluster(request.cluster_id)
        changed = self._changed
        answer = self._read(request)
        if not isinstance(answer.result, MetadataSlice) or answer.result.records:
            return answer
        try:
            async with self._clock.timeout(min(request.wait_ms_max, WAIT_MS_MAX)):
                await changed.wait()
        except TimeoutError:
            return answer
        return self._read(request)

    def _read(self, request: MetadataFetch) -> MetadataFetched:
        result = self._log.read(request.offset, bytes_max=min(request.bytes_max, FETCH_BYTES_MAX))
        leadership, image = self._log.leadership, self._log.image
        return MetadataFetched(result=result, leader_id=leadership.leader_id, leader_epoch=image.controller_epoch)

    def fetch_snapshot(self, request: SnapshotFetch) -> SnapshotPiece:
        """A piece of a snapshot that this voter has. Raises SnapshotNotFound 98 for one that it has not,
        PositionOutOfRange 99 beyond its end (Q7, KIP-630).
        """
        self._check_cluster(request.cluster_id)
        bytes_max = min(request.bytes_max, FETCH_BYTES_MAX)
        data, size = self._log.read_snapshot(request.end_offset, position=request.position, bytes_max=bytes_max)
        return SnapshotPiece(data=data, position=request.position, size=size)

    def _check_cluster(self, cluster_id: str) -> None:
        if cluster_id != self._cluster_id:
            raise InconsistentClusterId(f"this is cluster {self._cluster_id!r}, the request is for {cluster_id!r}")
