"""What the checker knows from the cluster: records read back, replicas' logs, samples, metadata, events, faults.

Everything here is a collected fact; nothing is judged. Records come from callables that begin a new iteration each
time, so that no log has to be held in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import msgspec

from kraft.chaos.history import Header, HistoryError

if TYPE_CHECKING:
    from metadata.image import MetadataImage
    from metadata.records import Record

EPOCH_UNKNOWN: Final = -1
CLOCKS_APART_US_MAX: Final = 5_000_000
"""An event's monotonic time is on our clock when it is this near to its wall time; else another host wrote it."""


class LogRecord(NamedTuple):
    """One record of a log. The epoch is the leader epoch of its batch, EPOCH_UNKNOWN when the source does not contain
    it."""

    offset: int
    epoch: int
    value: str


Records: TypeAlias = Callable[[], Iterator[LogRecord]]
"""Each call starts a new iteration, with ascending offsets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadBack:
    """One partition, read through REST from its first offset to its high watermark, after all faults are healed."""

    topic: str
    partition: int
    records: Records
    log_start_offset: int = 0
    high_watermark: int
    """The offset at which the read stopped."""
    leader: int = -1
    leader_epoch: int = EPOCH_UNKNOWN
    committed: Records | None = None
    """The records that a `read_committed` consumer receives; None: not read."""
    last_stable_offset: int | None = None
    """The offset at which such a consumer stops; None: not read."""
    isr: tuple[int, ...] = ()
    """The ISR in the final image, without dead nodes."""
    error: str | None = None
    """The reason why the partition could not be read to its end, or None. A missing record then proves nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLog:
    """The log of one replica, read from its files."""

    node: int
    topic: str
    partition: int
    records: Records
    log_start_offset: int = 0
    log_end_offset: int
    high_watermark: int = 0
    """The checkpointed high watermark: never above the real one."""
    epochs: tuple[tuple[int, int], ...] = ()
    """(leader epoch, start offset) pairs of leader-epoch-checkpoint."""
    error: str | None = None
    """Why the log could not be read to its end."""


class GroupOffset(NamedTuple):
    """The committed offset of a group for a partition, as the coordinator returned it after all faults were healed."""

    group: str
    topic: str
    partition: int
    offset: int


class LeaderSample(msgspec.Struct, frozen=True, kw_only=True):
    """What a leader reported about a partition at one moment."""

    at_us: int
    node: int
    """The node that reported it as the leader."""
    topic: str
    partition: int
    leader_epoch: int
    high_watermark: int
    log_end_offset: int
    isr: tuple[int, ...]
    topic_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VoterMetadata:
    """The committed metadata of one voter: its image, and the records after its snapshot."""

    node: int
    image: MetadataImage
    first_offset: int = 0
    """The offset of the first of `records`; earlier records are only in the image."""
    records: tuple[tuple[int, Record], ...] = ()
    """(metadata offset, record), ascending."""
    term: int | None = None
    """The term in its vote file; None: not read."""
    log_image: MetadataImage | None = None
    """The image with the end of its log, which its saved commit index does not cover yet; None: not read."""

    @property
    def newest(self) -> MetadataImage:
        """What was committed is in the longest log, also before a voter has saved that it is committed."""
        return self.image if self.log_image is None else self.log_image


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a node's events.jsonl."""

    at_us: int
    """The time on the clock of the history."""
    node: int
    event: str
    fields: dict[str, Any] = {}


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One line of faults.jsonl: what the run did to the cluster."""

    at_us: int
    until_us: int | None = None
    """None: until the end of the run, or a fault without duration."""
    fault: str
    """kill, stop, pause, restart, power_loss, wipe, flip, disk_full; cut, blackhole, delay, bandwidth, drop_answer,
    close; answer, delay_answer, close_after; config, reassign, elect, delete_topic, delete_records."""
    nodes: tuple[int, ...] = ()
    links: tuple[str, ...] = ()
    """A link, such as `1->2 fetch`."""
    text: str
    """A sentence, such as `killed node 1 (leader of t-0) with -9`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All evidence of a run. Only the history is required."""

    readback: Sequence[ReadBack] = ()
    """If empty, the checker uses the reads of the history instead."""
    replicas: Sequence[ReplicaLog] = ()
    committed: Sequence[GroupOffset] | None = None
    """The committed offsets of all groups of the history; None: not read."""
    samples: Sequence[LeaderSample] = ()
    """In ascending order of time."""
    voters: Sequence[VoterMetadata] = ()
    events: Sequence[Event] = ()
    """The events of all nodes, in ascending order of time."""
    faults: Sequence[Fault] = ()
    """In ascending order of time."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Other facts that the report shows."""


def read_events(path: str | Path, header: Header) -> list[Event]:
    """The lines of an events.jsonl, of one node or of several, sorted by time. Raises HistoryError."""
    events = [_event(fields, header) for fields in _objects(path)]
    events.sort(key=lambda event: event.at_us)
    return events


def read_faults(path: str | Path) -> list[Fault]:
    """Raises HistoryError."""
    decode = msgspec.json.Decoder(Fault).decode
    faults = []
    with Path(path).open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                faults.append(decode(line))
            except msgspec.DecodeError as error:
                raise HistoryError(f"{path}:{number}: this is no fault: {error}") from error
    return sorted(faults, key=lambda fault: fault.at_us)


def write_faults(path: str | Path, faults: Sequence[Fault]) -> None:
    encode = msgspec.json.Encoder().encode
    with Path(path).open("wb") as file:
        file.writelines(encode(fault) + b"\n" for fault in faults)


def _objects(path: str | Path) -> Iterator[dict[str, Any]]:
    with Path(path).open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                fields = msgspec.json.decode(line)
                if not {"at_ms", "node_id", "event"} <= fields.keys():
                    raise ValueError("an event has at_ms, node_id and event")
            except (ValueError, AttributeError, RecursionError) as error:
                if not line.endswith(b"\n"):
                    return  # a node that was killed wrote half a line
                raise HistoryError(f"{path}:{number}: this is no event: {error}") from error
            yield fields


def _event(fields: dict[str, Any], header: Header) -> Event:
    at_us = header.us_of_wall(fields.pop("at_ms"))
    monotonic_us = fields.pop("monotonic_us", None)
    if monotonic_us is not None and abs(monotonic_us - at_us) < CLOCKS_APART_US_MAX:
        at_us = monotonic_us
    fields.pop("sequence", None)
    return Event(at_us=at_us, node=fields.pop("node_id"), event=fields.pop("event"), fields=fields)
