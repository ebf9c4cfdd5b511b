"""The metadata log's interface: committed records in order, and compare-and-set appends.

Offsets count records, not Raft entries, so that a broker epoch is the offset of its registration (B1) and an observer
fetches `[offset, ...)`. The one implementation is Raft over PySyncObj; tests have an in-memory one, and one contract
suite runs on both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from kraft.values import value
from metadata.image import MetadataImage
from metadata.records import Record


@value(kw_only=True)
class Committed:
    """One committed append, already applied."""

    base_offset: int
    """Offset of its first record."""
    image: MetadataImage
    """The image after its last record."""
    decode: Callable[[], tuple[Record, ...]]
    """Decodes its records again: decoded, they take ten times the memory that they have in the log, and few callers
    need them."""

    @property
    def records(self) -> tuple[Record, ...]:
        return self.decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotInstalled:
    """The image was replaced as a whole: at start, or because this node was too far behind."""

    image: MetadataImage


@value(kw_only=True)
class Leadership:
    """The quorum's leader, as far as this node knows. `leader_id` is -1 when none is known."""

    leader_id: int
    term: int
    is_self: bool


class AppendLost(Exception):
    """This append is certainly not in the log: this node does not lead, the queue is full, or the compare-and-set
    failed."""


class AppendUnknown(Exception):
    """It is unknown whether this append will be in the log: leadership was lost or its deadline passed."""


@value(kw_only=True)
class MetadataSlice:
    """Committed records for an observer. `records[i]` is one encoded record with offset `base_offset + i`."""

    base_offset: int
    records: tuple[bytes, ...]
    controller_epoch: int
    end_offset: int
    """Offset after the last committed record on this voter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotNeeded:
    """The requested offset lies before the log: fetch the snapshot that ends at `end_offset`."""

    end_offset: int
    epoch: int


class MetadataLog(Protocol):
    """The log that the active controller, the publisher and the observers' fetches use. Called on the node's main
    loop."""

    @property
    def image(self) -> MetadataImage:
        """The latest committed image on this node."""
        ...

    @property
    def leadership(self) -> Leadership: ...

    @property
    def met(self) -> frozenset[int]:
        """The voters that this node is in contact with, including itself if it is one."""
        ...

    async def append(self, records: Sequence[Record], *, controller_epoch: int, expected_offset: int) -> MetadataImage:
        """Commit all records as one entry, if the image is still at `expected_offset` and the epoch is still current.

        `controller_epoch` is the epoch of the appending controller; a first append that consists of exactly one
        ControllerEpochRecord with a higher epoch claims that epoch. `expected_offset` is `image.offset` of the image
        that the records were decided on; it is not checked for a claim, which depends on no image. Returns the image
        after it.
        Raises AppendLost or AppendUnknown.
        """
        ...

    async def confirm(self) -> None:
        """Return after an entry that changes nothing was committed, in the term of the call: no leader of a later term
        had been elected when the call was made. Raises AppendLost or AppendUnknown."""
        ...

    def subscribe(
        self,
        on_change: Callable[[Committed | SnapshotInstalled], None],
        on_leadership: Callable[[Leadership], None],
    ) -> None:
        """Register callbacks, which run on the main loop, in log order, without gaps."""
        ...

    def read(self, from_offset: int, *, bytes_max: int) -> MetadataSlice | SnapshotNeeded: ...

    def read_snapshot(self, end_offset: int, *, position: int, bytes_max: int) -> tuple[bytes, int]:
        """A piece of the snapshot and its whole size. Raises SnapshotNotFound (98), PositionOutOfRange (99)."""
        ...

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
