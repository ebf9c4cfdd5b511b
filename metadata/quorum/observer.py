"""The metadata log of a broker that is no voter: the reading side, pulled from any voter (KIP-595 observers).

Owns the published image and a durable copy of the records that it has read. Invariant: the image only grows; a voter
that is behind this observer is skipped, never followed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from kraft.protocol.errors import KafkaError, PositionOutOfRange, SnapshotNotFound
from metadata.environment import ConnectionClosed, Environment
from metadata.events import Events
from metadata.image import MetadataImage
from metadata.image_codec import decode_image
from metadata.quorum.log import (
    AppendLost,
    Committed,
    Leadership,
    MetadataSlice,
    SnapshotInstalled,
    SnapshotNeeded,
)
from metadata.quorum.observer_store import ObserverStore
from metadata.quorum.snapshots import SNAPSHOT_BYTES_MAX
from metadata.records import Record, decode_record
from metadata.retries import RETRY_BACKOFF_MS

FETCH_WAIT_MS = 500
FETCH_BYTES_MAX = 8 * 1024 * 1024
QUIET_MS_MAX = 10_000
"""A voter that has sent nothing new for so long may be cut off without knowing: the next one is asked."""
SNAPSHOT_PIECE_BYTES = 1024 * 1024


class MetadataFetched(Protocol):
    """A voter's answer, and its view of the quorum."""

    @property
    def result(self) -> MetadataSlice | SnapshotNeeded: ...
    @property
    def leader_id(self) -> int: ...
    @property
    def leader_epoch(self) -> int: ...


class SnapshotPiece(Protocol):
    @property
    def data(self) -> bytes: ...
    @property
    def size(self) -> int:
        """Size of the whole snapshot."""
        ...


class MetadataSource(Protocol):
    """The observer's connection to the voters."""

    async def fetch(self, voter_id: int, *, offset: int, wait_ms_max: int, bytes_max: int) -> MetadataFetched:
        """Fetch records. Raises KafkaError, OSError, TimeoutError or ConnectionClosed when that voter cannot answer."""
        ...

    async def fetch_snapshot(
        self, voter_id: int, *, end_offset: int, epoch: int, position: int, bytes_max: int
    ) -> SnapshotPiece:
        """Fetch a piece of a snapshot. Raises as `fetch` does."""
        ...


class VoterBehind(Exception):
    """This voter is behind this observer, or may be behind the other voters."""


OnChange = Callable[[Committed | SnapshotInstalled], None]
OnLeadership = Callable[[Leadership], None]


class ObserverLog:
    def __init__(
        self,
        environment: Environment,
        *,
        cluster_id: str,
        node_id: int,
        directory: str,
        voters: Sequence[int],
        source: MetadataSource,
        snapshot_bytes: int,
        events: Events,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        """`on_fatal` must stop the node: the voters' records do not fit this node's image."""
        assert voters, "an observer needs voters"
        self._clock = environment.clock
        self._files = environment.files
        self._workers = environment.workers
        self._identity = (cluster_id, node_id)
        self._directory = directory
        self._snapshot_bytes = snapshot_bytes
        self._voters = sorted(voters)
        self._asking = node_id % len(self._voters)
        """Index of the current voter; observers begin with different ones."""
        self._source = source
        self._events = events
        self._on_fatal = on_fatal
        self._met: frozenset[int] = frozenset()
        """The voters whose last answer was a success."""
        self._store: ObserverStore | None = None
        self._image = MetadataImage()
        self._leadership = Leadership(leader_id=-1, term=0, is_self=False)
        self._subscribers: list[tuple[OnChange, OnLeadership]] = []
        self._task: asyncio.Task[None] | None = None
        self._news_at_ms = environment.clock.monotonic_ms()

    # --- MetadataLog --------------------------------------------------------------------------------------------

    @property
    def image(self) -> MetadataImage:
        return self._image

    @property
    def leadership(self) -> Leadership:
        return self._leadership

    @property
    def met(self) -> frozenset[int]:
        return self._met

    async def start(self) -> None:
        """Begin to follow. Raises QuorumStorageError when another node owns the folder, OSError when it is not
        usable."""
        store, image = await self._workers.run(self._open)
        self._store = store
        if store.problem is not None:
            self._events.emit("metadata_copy_dropped", problem=store.problem)
        if image.next_offset:
            self._publish_image(image)
        self._task = asyncio.get_running_loop().create_task(self._follow())
        self._task.add_done_callback(self._on_ended)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._store is not None:
            self._store.close()

    def subscribe(self, on_change: OnChange, on_leadership: OnLeadership) -> None:
        self._subscribers.append((on_change, on_leadership))

    async def append(self, records: Sequence[Record], *, controller_epoch: int, expected_offset: int) -> MetadataImage:
        raise AppendLost("this node is an observer of the quorum: only a voter that leads may append")

    async def confirm(self) -> None:
        raise AppendLost("this node is an observer of the quorum: it never leads")

    def read(self, from_offset: int, *, bytes_max: int) -> MetadataSlice | SnapshotNeeded:
        """Refuse: observers read from voters only, nothing is kept here for others."""
        end_offset = self._image.next_offset
        if from_offset < end_offset:
            return SnapshotNeeded(end_offset=end_offset, epoch=self._image.controller_epoch)
        return MetadataSlice(
            base_offset=from_offset,
            records=(),
            controller_epoch=self._image.controller_epoch,
            end_offset=end_offset,
        )

    def read_snapshot(self, end_offset: int, *, position: int, bytes_max: int) -> tuple[bytes, int]:
        raise SnapshotNotFound("an observer has no snapshots for others: ask a voter")

    def _on_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._on_fatal(error)

    # --- following ----------------------------------------------------------------------------------------------

    def _open(self) -> tuple[ObserverStore, MetadataImage]:
        cluster_id, node_id = self._identity
        store = ObserverStore(
            self._files,
            self._directory,
            cluster_id=cluster_id,
            node_id=node_id,
            snapshot_bytes=self._snapshot_bytes,
        )
        return store, store.load()

    async def _follow(self) -> None:
        while True:
            voter = self._voters[self._asking]
            try:
                await self._fetch_from(voter)
                self._met |= {voter}
            except (KafkaError, OSError, TimeoutError, ConnectionClosed, VoterBehind) as error:
                if not isinstance(error, VoterBehind):
                    self._met -= {voter}
                self._events.emit("metadata_fetch_failed", voter=voter, error=str(error) or type(error).__name__)
                self._ask_next()
                await self._clock.sleep(RETRY_BACKOFF_MS)

    async def _fetch_from(self, voter: int) -> None:
        image = self._image
        fetched = await self._source.fetch(
            voter, offset=image.next_offset, wait_ms_max=FETCH_WAIT_MS, bytes_max=FETCH_BYTES_MAX
        )
        self._note_leader(Leadership(leader_id=fetched.leader_id, term=fetched.leader_epoch, is_self=False))
        match fetched.result:
            case MetadataSlice():
                self._take_slice(fetched.result, leader_id=fetched.leader_id)
            case SnapshotNeeded():
                await self._take_snapshot(voter, fetched.result)

    def _take_slice(self, piece: MetadataSlice, *, leader_id: int) -> None:
        image = self._image
        if piece.end_offset < image.next_offset or piece.controller_epoch < image.controller_epoch:
            raise VoterBehind(f"it is at offset {piece.end_offset}, this observer at {image.next_offset}")
        if not piece.records:
            self._check_quiet(leader_id)
            return
        self._news_at_ms = self._clock.monotonic_ms()
        assert piece.base_offset == image.next_offset, (piece.base_offset, image.next_offset)
        records = tuple(decode_record(record) for record in piece.records)
        after = image.apply(records)
        self._keep(after, piece.records, records)
        self._image = after
        self._publish(Committed(base_offset=piece.base_offset, image=after, decode=lambda: records))

    def _check_quiet(self, leader_id: int) -> None:
        if leader_id == -1:
            raise VoterBehind("it knows of no leader, and has nothing new")
        quiet_ms = self._clock.monotonic_ms() - self._news_at_ms
        if quiet_ms > QUIET_MS_MAX:
            self._news_at_ms = self._clock.monotonic_ms()
            self._ask_next()

    def _ask_next(self) -> None:
        self._asking = (self._asking + 1) % len(self._voters)

    def _keep(self, after: MetadataImage, encoded: tuple[bytes, ...], records: tuple[Record, ...]) -> None:
        assert self._store is not None
        try:
            self._store.append(after, encoded, records)
        except OSError as error:  # a full disk must not stop a broker from seeing the cluster
            self._events.emit("metadata_copy_behind", error=str(error))

    async def _take_snapshot(self, voter: int, needed: SnapshotNeeded) -> None:
        if needed.end_offset <= self._image.next_offset:
            raise VoterBehind(
                f"its snapshot ends at {needed.end_offset}, this observer is at {self._image.next_offset}"
            )
        body = bytearray()
        size = -1
        while len(body) != size:
            piece = await self._source.fetch_snapshot(
                voter,
                end_offset=needed.end_offset,
                epoch=needed.epoch,
                position=len(body),
                bytes_max=SNAPSHOT_PIECE_BYTES,
            )
            size = piece.size
            if size > SNAPSHOT_BYTES_MAX or (not piece.data and len(body) != size):
                raise PositionOutOfRange(f"a snapshot of {size} bytes returned {len(piece.data)} at {len(body)}")
            body += piece.data
        image = decode_image(bytes(body))
        assert image.next_offset == needed.end_offset, (image.next_offset, needed)
        assert self._store is not None
        try:
            await self._workers.run(self._store.save_snapshot, image)
        except OSError as error:
            self._events.emit("metadata_copy_behind", error=str(error))
        self._publish_image(image)

    # --- publishing ---------------------------------------------------------------------------------------------

    def _publish_image(self, image: MetadataImage) -> None:
        assert image.next_offset >= self._image.next_offset, (image.next_offset, self._image.next_offset)
        self._image = image
        self._publish(SnapshotInstalled(image=image))

    def _publish(self, change: Committed | SnapshotInstalled) -> None:
        for on_change, _ in self._subscribers:
            on_change(change)

    def _note_leader(self, leadership: Leadership) -> None:
        """Terms only rise; an older leader of a voter that lags is ignored."""
        if leadership != self._leadership and leadership.term >= self._leadership.term:
            self._leadership = leadership
            for _, on_leadership in self._subscribers:
                on_leadership(leadership)
