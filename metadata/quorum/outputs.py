"""Reports of the Raft half to the main half, in the order of the events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from metadata.image import MetadataImage
from metadata.quorum.log import AppendLost, AppendUnknown, Leadership, SnapshotInstalled
from metadata.quorum.state_machine import Applied


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    error: Exception | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Met:
    """The other voters that this one is connected with now, and those that refuse it as a duplicate: another process
    has its id."""

    voters: frozenset[int]
    refusing: frozenset[int]


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """Reported once: all entries that were committed before this voter first met a leader are applied and reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendEnded:
    token: int
    outcome: MetadataImage | AppendLost | AppendUnknown | None
    """None: an empty entry was to be committed, and is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotTaken:
    """A snapshot is on disk; `body` is the encoded image that ends at `end_offset`."""

    end_offset: int
    controller_epoch: int
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Emitted:
    event: str
    fields: dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A broken invariant: the node must stop."""

    error: BaseException


Output: TypeAlias = (
    Started | Met | CaughtUp | Applied | SnapshotInstalled | SnapshotTaken | Leadership | AppendEnded | Emitted | Failed
)
