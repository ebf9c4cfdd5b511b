"""What the messages of `kraft.protocol.messages` are made of: the values of Kafka's protocol, read and written.

Lengths come in two forms. Flexible versions (KIP-482) write an unsigned varint that is one too high, 0 being null.
Older ones write an int16 for strings and an int32 for the rest, -1 being null. Readers here take `n`, the flexible
form, for both. Bytes are a stranger's: whatever they are, a reader raises one of `REFUSALS`, and no array reserves
memory before there are as many bytes left as it claims items. Payloads are written as the buffers that they are, and
copied once when read; records are not even that.

A stranger's frame may have an item in each byte. Inside `counting` the items of all its arrays are counted before any
is made, and of many together (`KEPT_MAX`) none is kept: their array is `Many`, which reads them again each time.
"""

from __future__ import annotations

import array
import struct
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from itertools import islice
from typing import Any, ClassVar, TypeVar, overload
from uuid import UUID

from kraft.protocol.primitives import Buffer
from kraft.protocol.varints import long_varint, varint, varint_at

T = TypeVar("T")
Reader = Callable[[memoryview, int], tuple[T, int]]
"""(frame, offset) -> value and the offset of what follows."""
Writer = Callable[[list[Buffer], Any], None]
"""Appends the bytes of one value to a list of parts. Numbers out of range raise struct.error."""
TagReaders = Mapping[int, tuple[str, Reader[Any]]]
"""Tagged fields of a structure: the name and the reader of each tag."""
REFUSALS = (struct.error, LookupError, ValueError)

UUIDS_REMEMBERED = 4_096
"""Topic ids: the same few come in every request."""
KEPT_MAX = 1_024
"""Items of one array, with those of the arrays inside of them, that are kept as objects where items are counted."""
PLACES_EVERY = 64
"""Items between two of an array whose places in the frame are remembered."""
ZERO_UUID = UUID(int=0)
"""Kafka's value of a UUID that is not there."""

new = object.__new__
_NULL = b"\0"
_EMPTY = b"\1"
_SHORT = tuple(varint(value) for value in range(128))
_OLD_LENGTH = struct.Struct(">i")
_OLD_STRING_LENGTH = struct.Struct(">h")


class Message:
    """A message or a structure inside of one: equal by its fields, not to be changed once it is made.

    There is one class for all versions. A field that a version lacks has its default after reading, and is left out in
    writing. `make` is the way to a new one: a function, because calling a class with keywords costs twice as much.
    """

    __slots__: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__name__}({values})"


class TopLevel(Message):
    """A request, a response, or another message that stands for itself."""

    __slots__ = ()
    API_KEY: ClassVar[int] = -1
    """Key of a request, a response or a metadata record; -1: none of these."""
    VERSIONS: ClassVar[range] = range(0)
    FLEXIBLE_FROM: ClassVar[int]
    """The first version with tagged fields; beyond all versions when there is none."""
    READERS: ClassVar[Mapping[int, Reader[Any]]]
    """The layout of each version."""
    WRITERS: ClassVar[Mapping[int, Writer]]


def by_version(versions: range, since: Mapping[int, T]) -> dict[int, T]:
    """Each version and its reader or writer: `since` has the first of the versions that share one."""
    found = since[versions.start]
    return {version: (found := since.get(version, found)) for version in versions}


class Written(TopLevel):
    """The body of a message that was written before: an answer that is the same for many."""

    __slots__ = ("parts",)
    parts: Sequence[Buffer]
    WRITERS = dict.fromkeys(range(64), lambda out, message: out.extend(message.parts))
    """One writer for each version: the body may be of any."""

    @staticmethod
    def make(parts: Sequence[Buffer]) -> Written:
        """A body of these parts, which were written in the version that will be asked for."""
        m = new(Written)
        m.parts = parts
        return m


def _let_go(out: list[Buffer], message: WrittenOnce) -> None:
    out.extend(message.parts)
    message.parts = ()


class WrittenOnce(Written):
    """The same for one alone: its parts are let go as they are written, for a long answer is not to be there twice."""

    __slots__ = ()
    WRITERS = dict.fromkeys(range(64), _let_go)

    @staticmethod
    def make(parts: Sequence[Buffer]) -> WrittenOnce:
        m = new(WrittenOnce)
        m.parts = parts
        return m


# --- written ------------------------------------------------------------------------------------------------------


def length(value: Sequence[Any] | Buffer | None) -> bytes:
    if value is None:
        return _NULL
    size = len(value) + 1
    return _SHORT[size] if size < 128 else varint(size)


def old_length(value: Sequence[Any] | Buffer | None) -> bytes:
    return _OLD_LENGTH.pack(-1 if value is None else len(value))


def string(value: str | None) -> bytes:
    if not value:
        return _NULL if value is None else _EMPTY
    data = value.encode()
    return length(data) + data


def old_string(value: str | None) -> bytes:
    if value is None:
        return _OLD_STRING_LENGTH.pack(-1)
    data = value.encode()
    return _OLD_STRING_LENGTH.pack(len(data)) + data


def numbers(values: Sequence[int] | None, code: str) -> bytes:
    return length(values) + struct.pack(f">{len(values)}{code}", *values) if values else length(values)


def old_numbers(values: Sequence[int] | None, code: str) -> bytes:
    return old_length(values) + struct.pack(f">{len(values)}{code}", *values) if values else old_length(values)


def strings(values: Sequence[str] | None) -> bytes:
    return b"".join((length(values), *map(string, values))) if values else length(values)


def old_strings(values: Sequence[str] | None) -> bytes:
    return b"".join((old_length(values), *map(old_string, values))) if values else old_length(values)


def uuids(values: Sequence[UUID] | None) -> bytes:
    return b"".join((length(values), *[value.bytes for value in values])) if values else length(values)


def payloads(values: Sequence[Buffer] | None) -> bytes:
    if not values:
        return length(values)
    return b"".join((length(values), *[part for value in values for part in (length(value), value)]))


def tagged(tag: int, parts: Sequence[Buffer]) -> bytes:
    """One tagged field: its tag, the length of its value and the value (KIP-482)."""
    data = b"".join(parts)
    return varint(tag) + varint(len(data)) + data


def tag_count(tags: Sequence[bytes]) -> bytes:
    """The number of tagged fields, with which they begin."""
    return _SHORT[len(tags)]


# --- counted --------------------------------------------------------------------------------------------------------


class TooManyItems(Exception):
    """A message has more items than it may have; none of `REFUSALS`, for it may be well formed."""


class Counted:
    """How many items a message may have, and has had so far."""

    __slots__ = ("items", "items_max")

    def __init__(self, items_max: int) -> None:
        self.items = 0
        self.items_max = items_max

    def add(self, count: int) -> None:
        """Raises TooManyItems."""
        self.items += count
        if self.items > self.items_max:
            raise TooManyItems(f"more than {self.items_max} items")


_counted: ContextVar[Counted | None] = ContextVar("counted", default=None)
"""State of the message that is being read; each thread has its own."""


@contextmanager
def counting(items_max: int) -> Iterator[Counted]:
    """Whatever is read inside, in one turn of this thread, has at most so many items and tagged fields: TooManyItems is
    raised before one more is made.
    """
    token = _counted.set(counted := Counted(items_max))
    try:
        yield counted
    finally:
        _counted.reset(token)


class Many(Sequence[T]):
    """The items of a long array in a frame, each made when it is asked for. They have been read once: reading them
    again raises nothing.
    """

    __slots__ = ("_count", "_frame", "_places", "_read")

    def __init__(self, frame: memoryview, read: Reader[T], places: Sequence[int], count: int) -> None:
        """`places`: the offset of each `PLACES_EVERY`-th item."""
        self._frame, self._read, self._places, self._count = frame, read, places, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[T]:
        return self._from(0)

    def _from(self, first: int) -> Iterator[T]:
        frame, read = self._frame, self._read
        offset, skipped = self._places[first // PLACES_EVERY], first % PLACES_EVERY
        for number in range(first - skipped, self._count):
            item, offset = read(frame, offset)
            if number >= first:
                yield item

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        """A slice is made, all of it."""
        places = range(self._count)[index]
        if isinstance(places, int):
            return next(self._from(places))
        if not places:
            return ()
        assert places.step == 1, index
        return tuple(islice(self._from(places.start), len(places)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(other) == len(self) and all(map(_are_equal, self, other))

    __hash__ = None  # type: ignore[assignment]


def _are_equal(one: object, other: object) -> bool:
    return one == other


def _many(frame: memoryview, offset: int, count: int, read: Reader[T], counted: Counted) -> tuple[Sequence[T], int]:
    """Where items are counted: the array as it is, or as `Many` when there are more items in it than are kept."""
    before = counted.items
    counted.add(count)
    items: list[T] | None = []
    places = array.array("q")
    for number in range(count):
        if not number % PLACES_EVERY:
            places.append(offset)
        item, offset = read(frame, offset)
        if items is not None:
            items.append(item)
            if counted.items - before > KEPT_MAX:
                items = None
    return (Many(frame, read, places, count) if items is None else tuple(items)), offset


# --- read -----------------------------------------------------------------------------------------------------------


@lru_cache(UUIDS_REMEMBERED)
def uuid_of(data: bytes) -> UUID:
    return UUID(bytes=data)


def _ends_early(frame: memoryview, offset: int, n: int) -> ValueError:
    if n == 0:
        return ValueError(f"null at byte {offset}, where a value is required")
    return ValueError(f"{n - 1} bytes wanted at byte {offset}, {len(frame) - offset} are left")


def read_string(frame: memoryview, offset: int, n: int) -> tuple[str, int]:
    """The string of `n` - 1 bytes (UTF-8) at `offset`, and the offset of what follows. Raises ValueError when it is
    null or the frame ends before it, UnicodeDecodeError when it is no UTF-8.
    """
    end = offset + n - 1
    if not offset <= end <= len(frame):
        raise _ends_early(frame, offset, n)
    return str(frame[offset:end], "utf-8"), end


def read_bytes(frame: memoryview, offset: int, n: int) -> tuple[bytes, int]:
    """A copy of the `n` - 1 bytes at `offset`, and the offset of what follows. Raises ValueError when they are null or
    the frame ends before them.
    """
    end = offset + n - 1
    if not offset <= end <= len(frame):
        raise _ends_early(frame, offset, n)
    return frame[offset:end].tobytes(), end


def read_records(frame: memoryview, offset: int, n: int) -> tuple[memoryview, int]:
    """The `n` - 1 bytes at `offset`, not copied, so that a caller that keeps them keeps the whole frame; and the offset
    of what follows. Raises ValueError as `read_bytes` does.
    """
    end = offset + n - 1
    if not offset <= end <= len(frame):
        raise _ends_early(frame, offset, n)
    return frame[offset:end], end


def compact_string(frame: memoryview, offset: int, n: int) -> tuple[str, int]:
    """The string whose length begins with the byte `n`; the rest of it is at `offset`."""
    if n > 127:
        n, offset = long_varint(frame, offset, n)
    end = offset + n - 1
    if not offset <= end <= len(frame):
        raise _ends_early(frame, offset, n)
    return str(frame[offset:end], "utf-8"), end


def compact_bytes(frame: memoryview, offset: int, n: int) -> tuple[bytes, int]:
    """A copy of the bytes whose length begins with the byte `n`; the rest of it is at `offset`."""
    if n > 127:
        n, offset = long_varint(frame, offset, n)
    return read_bytes(frame, offset, n)


def compact_records(frame: memoryview, offset: int, n: int) -> tuple[Buffer, int]:
    """Read records as `read_records` does, with the length that begins with the byte `n`; the rest of it is at
    `offset`. Empty ones are a value of their own, so that they keep no frame.
    """
    if n == 1:
        return b"", offset
    if n > 127:
        n, offset = long_varint(frame, offset, n)
    end = offset + n - 1
    if not offset <= end <= len(frame):
        raise _ends_early(frame, offset, n)
    return frame[offset:end], end


def read_array(frame: memoryview, offset: int, n: int, read: Reader[T]) -> tuple[Sequence[T], int]:
    """`n` - 1 items, each read by `read`, and the offset of what follows. Raises ValueError when the frame has fewer
    bytes left than it claims items, or more items than are taken.
    """
    if n == 2:
        item, offset = read(frame, offset)
        return (item,), offset
    count = _count(frame, offset, n)
    counted = _counted.get()
    if counted is not None:
        return _many(frame, offset, count, read, counted)
    items = []
    for _ in range(count):
        item, offset = read(frame, offset)
        items.append(item)
    return tuple(items), offset


def read_numbers(frame: memoryview, offset: int, n: int, code: str) -> tuple[Sequence[int], int]:
    count = _count(frame, offset, n)
    counted = _counted.get()
    if counted is not None:
        counted.add(count)
        if count > KEPT_MAX:
            return _compact(frame, offset, count, code)
    layout = struct.Struct(f">{count}{code}")
    return layout.unpack_from(frame, offset), offset + layout.size


def _compact(frame: memoryview, offset: int, count: int, code: str) -> tuple[Sequence[int], int]:
    """Numbers that take no more memory than in the frame."""
    numbers = array.array(code)
    end = offset + count * numbers.itemsize
    if end > len(frame):
        raise ValueError(f"{end - offset} bytes wanted, {len(frame) - offset} are left")
    numbers.frombytes(frame[offset:end])
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers, end


def long_array(frame: memoryview, offset: int, n: int, read: Reader[T]) -> tuple[Sequence[T], int]:
    """Read an array as `read_array` does, with a length that begins with the byte `n` and goes on at `offset`."""
    n, offset = long_varint(frame, offset, n)
    return read_array(frame, offset, n, read)


def long_numbers(frame: memoryview, offset: int, n: int, code: str) -> tuple[Sequence[int], int]:
    """Read numbers as `read_numbers` does, with a length that begins with the byte `n` and goes on at `offset`."""
    n, offset = long_varint(frame, offset, n)
    return read_numbers(frame, offset, n, code)


def read_uuid(frame: memoryview, offset: int) -> tuple[UUID, int]:
    end = offset + 16
    if end > len(frame):
        raise ValueError(f"a UUID in {len(frame) - offset} bytes")
    return uuid_of(frame[offset:end].tobytes()), end


def string_item(frame: memoryview, offset: int) -> tuple[str, int]:
    """The string at `offset`, and the offset of what follows; so do the others of these functions with their types."""
    return compact_string(frame, offset + 1, frame[offset])


def string_or_null_item(frame: memoryview, offset: int) -> tuple[str | None, int]:
    n = frame[offset]
    return compact_string(frame, offset + 1, n) if n else (None, offset + 1)


def old_string_item(frame: memoryview, offset: int) -> tuple[str, int]:
    (size,) = _OLD_STRING_LENGTH.unpack_from(frame, offset)
    return read_string(frame, offset + 2, size + 1)


def bytes_item(frame: memoryview, offset: int) -> tuple[bytes, int]:
    return compact_bytes(frame, offset + 1, frame[offset])


def number_item(code: str) -> Reader[Any]:
    """The reader of a number with this struct code."""
    layout = struct.Struct(f">{code}")

    def read(frame: memoryview, offset: int) -> tuple[Any, int]:
        (value,) = layout.unpack_from(frame, offset)
        return value, offset + layout.size

    return read


def array_item(read: Reader[T]) -> Reader[Sequence[T]]:
    """The reader of an array of what `read` reads."""
    return lambda frame, offset: read_array(frame, *_after_length(frame, offset), read)


def numbers_item(code: str) -> Reader[Sequence[int]]:
    """The reader of an array of numbers with this struct code."""
    return lambda frame, offset: read_numbers(frame, *_after_length(frame, offset), code)


def or_null(read: Reader[T]) -> Reader[T | None]:
    """The reader of an array that may be null, and is read by `read` if it is not."""
    return lambda frame, offset: read(frame, offset) if frame[offset] else (None, offset + 1)


def _after_length(frame: memoryview, offset: int) -> tuple[int, int]:
    n, offset = varint_at(frame, offset)
    return offset, n


def read_tags(m: object, frame: memoryview, offset: int, t: int, known: TagReaders) -> int:
    """Reads tagged fields into `m` and returns the offset of what follows. The first byte of their count is `t`; then
    come tag, length and value of each. An unknown tag is skipped (KIP-482).
    """
    if t > 127:
        t, offset = long_varint(frame, offset, t)
    counted = _counted.get()
    if counted is not None:
        counted.add(t)
    for _ in range(t):
        tag, offset = varint_at(frame, offset)
        size, offset = varint_at(frame, offset)
        found = known.get(tag)
        end = offset + size
        if end > len(frame):
            raise ValueError(f"tagged field {tag} of {size} bytes, {len(frame) - offset} are left")
        if found is not None:
            name, read = found
            value, read_to = read(frame, offset)
            if read_to != end:
                raise ValueError(f"{name} has {read_to - offset} bytes and claims {size}")
            setattr(m, name, value)
        offset = end
    return offset


def _count(frame: memoryview, offset: int, n: int) -> int:
    """Most items of an array. An item has one byte at least."""
    if n == 0:
        raise _ends_early(frame, offset, n)
    if not 0 < n <= len(frame) - offset + 1:
        raise ValueError(f"an array of {n - 1} items in {len(frame) - offset} bytes")
    return n - 1
