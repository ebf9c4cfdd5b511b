"""`history.jsonl`: the operations of the clients and their results, one JSON object per line, in order of completion.

The first line is the header: `{"history": 1, "scenario": "s", "seed": 1, "settings": {}, "start_us": 5, "wall_ms": 9}`.
Each further line is one operation; `op` is its kind: `produce`, `read`, `commit`, `transaction`, `receive` or
`acknowledge`. Times are microseconds on one monotonic clock, that of the process that ran the clients; `start_us` and
`wall_ms` name the same instant on both. `settings` has Kafka's names; those of one topic are under `topics`, by name.
Values are unique in a run: `<process>:<counter>`, counted in the order of sending. The writer buffers at most
`BUFFER_BYTES_MAX`; the reader holds one line.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Literal, NamedTuple, TypeAlias

import msgspec

from kraft.client.outcome import Outcome

FORMAT: Final = 1
BUFFER_BYTES_MAX: Final = 256 * 1024
"""A writer passes its lines to the operating system when it holds more than this."""

Acks: TypeAlias = Literal["0", "1", "all"]


class HistoryError(ValueError):
    """A line of the file is not part of a history; the message begins with `path:line:`."""


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
    """The number of the operation in its process, in the order in which operations began."""
    invoke_us: int
    complete_us: int
    topic: str
    partition: int
    acks: Acks
    node: int = -1
    """The node that answered, or else the last node that received the request."""
    records: tuple[tuple[str | None, str], ...]
    """(key, value) pairs."""
    outcome: Outcome
    kafka_code: int | None = None
    offsets: tuple[int, ...] | None = None
    """The offset of each record, if the answer contained offsets."""
    attempts: tuple[Attempt, ...] = ()
    error: str | None = None
    transaction: int | None = None
    """The number of the transaction of the records; None: not in a transaction."""
    expires_at_ms: int | None = None
    """The wall clock time in the header kraft.expires.at of the records; None: they have none."""


class Read(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", tag="read"):
    process: str
    index: int
    invoke_us: int
    complete_us: int
    topic: str
    partition: int
    node: int = -1
    offset: int
    """The offset at which the read began."""
    next_offset: int | None = None
    """The offset after the last record, as the answer contains it, or None."""
    high_watermark: int | None = None
    records: tuple[tuple[int, str], ...] = ()
    """(offset, value) pairs."""
    outcome: Outcome
    kafka_code: int | None = None
    error: str | None = None
    group: str | None = None
    """The group of the member that received the records."""
    generation: int | None = None
    """The generation in which the member read; None: its client does not know it."""
    since_us: int | None = None
    """The time before which the committed offset of the group was not requested; None: unknown."""
    is_read_committed: bool = False
    """The client read with `read_committed`."""


class Commit(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", tag="commit"):
    """A member of a group commits its offsets."""

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
    """The generation in which the commit was certainly sent; None: unknown."""
    outcome: Outcome
    kafka_code: int | None = None
    error: str | None = None


Asked: TypeAlias = Literal["commit", "abort", "nothing"]


class Transaction(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", tag="transaction"):
    """A transaction, from its first record to its end. Its records are separate produce operations before it."""

    process: str
    index: int
    invoke_us: int
    complete_us: int
    node: int = -1
    transactional_id: str
    number: int
    """The number of the transaction in its process; its produce operations contain it."""
    producer_id: int = -1
    epoch: int = -1
    """The state that the client knows."""
    asked: Asked
    """The end that the client requested; `nothing`: the client ended before, or gave the transaction up."""
    attempts: int = 1
    """The number of times that the end was sent."""
    offsets: tuple[tuple[str, str, int, int], ...] = ()
    """(group, topic, partition, offset) of each offset that is committed with it."""
    outcome: Outcome
    """The outcome of the end: `ok` means that the request was carried out."""
    kafka_code: int | None = None
    error: str | None = None


class Delivered(NamedTuple):
    """A record that a worker of a queue received."""

    partition: int
    offset: int
    delivery: int
    """The delivery count in the answer."""
    value: str


class Receive(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", tag="receive"):
    """A worker of a share group receives records, each locked for it."""

    process: str
    index: int
    invoke_us: int
    complete_us: int
    node: int = -1
    group: str
    topic: str
    records: tuple[Delivered, ...] = ()
    lock_ms: int
    """The time for which the worker asked to lock the records."""
    outcome: Outcome
    kafka_code: int | None = None
    error: str | None = None


Word: TypeAlias = Literal["accept", "release", "reject", "renew"]


class Acknowledge(msgspec.Struct, frozen=True, kw_only=True, tag_field="op", tag="acknowledge"):
    """A worker acknowledges records of one receive; records with different results are separate operations."""

    process: str
    index: int
    invoke_us: int
    """The time of the first attempt."""
    complete_us: int
    node: int = -1
    group: str
    topic: str
    receive: int
    """The index of the receive operation of the same process."""
    word: Word
    records: tuple[tuple[int, int], ...]
    """(partition, offset) pairs."""
    attempts: int = 1
    outcome: Outcome
    """`info`: no attempt succeeded, and the outcome of at least one is unknown."""
    kafka_code: int | None = None
    error: str | None = None


Operation: TypeAlias = Produce | Read | Commit | Transaction | Receive | Acknowledge


class HistoryWriter:
    """Writes a history. Has one owner. Lines reach the file when the buffer is full, on `flush` and on `close`."""

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
        """The operations in order of completion. Raises HistoryError at a line that is not an operation."""
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
