"""`history.jsonl`: what clients did and what they were told, one JSON object per line, in order of completion.

The first line is the header: `{"history": 1, "scenario": "s", "seed": 1, "settings": {}, "start_us": 5, "wall_ms": 9}`.
Each further line is one operation, told apart by `op`: `produce`, `read`, `commit` or `transaction`. Times are
microseconds on one monotonic clock, that of the process that ran the clients; `start_us` and `wall_ms` name the same
instant on both.
`settings` has Kafka's names; those of one topic are under `topics`, by name. Values are unique in a run:
`<process>:<counter>`, counted in the order of sending. The writer buffers at most `BUFFER_BYTES_MAX`; the reader
holds one line.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Literal, TypeAlias

import msgspec

from kraft.client.outcome import Outcome

FORMAT: Final = 1
BUFFER_BYTES_MAX: Final = 256 * 1024
"""A writer hands its lines to the operating system when it holds more than this."""

Acks: TypeAlias = Literal["0", "1", "all"]


class HistoryError(ValueError):
    """A line that is no part of a history; the message begins with `path:line:`."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    history: int = FORMAT
    scenario: str
    seed: int = 0
    settings: dict[str, Any] = {}
    start_us: int = 0
    """The instant of `wall_ms` on the clock of the operations."""
    wall_ms: int = 0

    def us_of_wall(self, at_ms: int) -> int:
        """An instant of the wall clock, for example an event's `at_ms`, on the clock of the operations."""
        return self.start_us + (at_ms - self.wall_ms) * 1000


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One request to one node. Attempts of an operation carry the same records."""

    node: int
    outcome: Outcome
    kafka_code: int | None = None
    invoke_us: int
    complete_us: int
    error: str | None = None


class Produce(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", tag="produce"):
    process: str
    index: int
    """Counts the operations of the process in the order in which they were begun."""
    invoke_us: int
    complete_us: int
    topic: str
    partition: int
    acks: Acks
    node: int = -1
    """The node that gave the answer, or the last that was asked."""
    records: tuple[tuple[str | None, str], ...]
    """(key, value) pairs."""
    outcome: Outcome
    kafka_code: int | None = None
    offsets: tuple[int, ...] | None = None
    """Of each record, when the answer told them."""
    attempts: tuple[Attempt, ...] = ()
    error: str | None = None
    transaction: int | None = None
    """Which of its process's transactions the records belong to; None: to none."""


class Read(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", tag="read"):
    process: str
    index: int
    invoke_us: int
    complete_us: int
    topic: str
    partition: int
    node: int = -1
    offset: int
    """Where the read began."""
    next_offset: int | None = None
    """Where the answer says to go on; None: it did not say."""
    high_watermark: int | None = None
    records: tuple[tuple[int, str], ...] = ()
    """(offset, value) pairs."""
    outcome: Outcome
    kafka_code: int | None = None
    error: str | None = None
    group: str | None = None
    """The records were given to a member of this group, to be processed by it."""
    generation: int | None = None
    """In which the member read; None: its client does not know."""
    since_us: int | None = None
    """The group's committed offset was asked for at this moment or later; None: nobody knows when."""
    is_read_committed: bool = False
    """Records of transactions that are open or were aborted were not asked for."""


class Commit(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", tag="commit"):
    """A member of a group says how far it has processed."""

    process: str
    index: int
    invoke_us: int
    complete_us: int
    node: int = -1
    group: str
    topic: str
    offsets: tuple[tuple[int, int], ...]
    """(partition, offset of the next record) pairs."""
    generation: int | None = None
    """In which it was certainly sent; None: nobody knows."""
    outcome: Outcome
    kafka_code: int | None = None
    error: str | None = None


Asked: TypeAlias = Literal["commit", "abort", "nothing"]


class Transaction(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", tag="transaction"):
    """From the first record of a transaction to its end. Its records are produces of their own, that come before it."""

    process: str
    index: int
    invoke_us: int
    complete_us: int
    node: int = -1
    transactional_id: str
    number: int
    """Counts the transactions of the process; its produces name it."""
    producer_id: int = -1
    epoch: int = -1
    """As far as the client knows."""
    asked: Asked
    """What its client asked for at the end; `nothing`: it was gone, or gave the transaction up, before."""
    attempts: int = 1
    """How often the end was sent."""
    offsets: tuple[tuple[str, str, int, int], ...] = ()
    """(group, topic, partition, offset) of each offset that is committed with it."""
    outcome: Outcome
    """Of the end: `ok` means that what was asked is done."""
    kafka_code: int | None = None
    error: str | None = None


Operation: TypeAlias = Produce | Read | Commit | Transaction


class HistoryWriter:
    """One owner. Lines reach the file when the buffer is full, on `flush` and on `close`."""

    def __init__(self, path: str | Path, header: Header, *, buffer_bytes_max: int = BUFFER_BYTES_MAX) -> None:
        self._file: IO[bytes] = open(path, "wb", buffering=0)  # noqa: SIM115 - closed by close()
        self._encoder = msgspec.json.Encoder()
        self._buffer = bytearray()
        self._buffer_bytes_max = buffer_bytes_max
        self.operations = 0
        self._append(header)

    def record(self, operation: Operation) -> None:
        self._append(operation)
        self.operations += 1

    def flush(self) -> None:
        if self._buffer:
            self._file.write(self._buffer)
            self._buffer.clear()

    def close(self) -> None:
        if not self._file.closed:
            self.flush()
            self._file.close()

    def __enter__(self) -> HistoryWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, line: Header | Operation) -> None:
        self._buffer += self._encoder.encode(line)
        self._buffer += b"\n"
        if len(self._buffer) > self._buffer_bytes_max:
            self.flush()


class History:
    """A history on disk. Its header is read at once; `operations()` reads the rest, once per call."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with self.path.open("rb") as lines:
            self.header = _decode_header(self.path, lines.readline())

    def operations(self) -> Iterator[Operation]:
        """In order of completion. Raises HistoryError at a line that is not an operation."""
        decode = msgspec.json.Decoder(Operation).decode
        with self.path.open("rb") as lines:
            lines.readline()
            for number, line in enumerate(lines, 2):
                try:
                    yield decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    raise HistoryError(f"{self.path}:{number}: {_explained(line, error)}") from error


def _decode_header(path: Path, line: bytes) -> Header:
    if not line.strip():
        raise HistoryError(f'{path}:1: the file is empty; the first line has to be a header like {{"history": 1, ...}}')
    try:
        header = msgspec.json.decode(line, type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HistoryError(f"{path}:1: this is no header of a history: {error}") from error
    if header.history != FORMAT:
        raise HistoryError(f"{path}:1: the history has format {header.history}; this program reads format {FORMAT}")
    return header


def _explained(line: bytes, error: Exception) -> str:
    if not line.endswith(b"\n"):
        return f"the last line is cut off after {len(line)} bytes; was the run killed? ({error})"
    if not line.strip():
        return "an empty line; each line is one operation"
    return str(error)
