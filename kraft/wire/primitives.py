"""What the generated messages (`kraft.wire.generated`) are made of: the values of Kafka's protocol, read and written.

Lengths come in two forms. Flexible versions (KIP-482) write an unsigned varint that is one too high, 0 being null.
Older ones write an int16 for strings and an int32 for the rest, -1 being null. Readers here take `n`, the flexible
form, for both. Bytes are a stranger's: whatever they are, a reader raises one of `REFUSALS`, and no array reserves
memory before there are as many bytes left as it claims items. Payloads are written as the buffers that they are, and
copied once when read; records are not even that.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, TypeVar
from uuid import UUID

from kraft.protocol.primitives import Buffer
from kraft.wire.varints import long_varint, varint, varint_at

T = TypeVar("T")
Reader = Callable[[memoryview, int], tuple[T, int]]
"""(frame, offset) -> value and the offset of what follows."""
Writer = Callable[[list[Buffer], Any], None]
"""Appends the bytes of one value to a list of parts. Numbers out of range raise struct.error."""
TagReaders = Mapping[int, tuple[str, Reader[Any]]]
"""Of the tagged fields of a structure: the name and the reader of each tag."""
REFUSALS = (struct.error, LookupError, ValueError)

UUIDS_REMEMBERED = 4_096
"""Topic ids: the same few come in every request."""
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
    """-1: neither request nor response."""
    VERSIONS: ClassVar[range] = range(0)
    FLEXIBLE_FROM: ClassVar[int]
    """The first version with tagged fields; beyond all versions when there is none."""
    READERS: ClassVar[Mapping[int, Reader[Any]]]
    """By version."""
    WRITERS: ClassVar[Mapping[int, Writer]]


class Written(TopLevel):
    """The body of a message that was written before: an answer that is the same for many."""

    __slots__ = ("parts",)
    parts: Sequence[Buffer]
    WRITERS = dict.fromkeys(range(64), lambda out, message: out.extend(message.parts))
    """Of whichever version it was written in."""

    @staticmethod
    def make(parts: Sequence[Buffer]) -> Written:
        """A body of these parts, which were written in the version that will be asked for."""
        m = new(Written)
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


def old_payloads(values: Sequence[Buffer] | None) -> bytes:
    if not values:
        return old_length(values)
    return b"".join((old_length(values), *[part for value in values for part in (old_length(value), value)]))


def tagged(tag: int, parts: Sequence[Buffer]) -> bytes:
    """One tagged field: its tag, the length of its value and the value (KIP-482)."""
    data = b"".join(parts)
    return varint(tag) + varint(len(data)) + data


def tag_count(tags: Sequence[bytes]) -> bytes:
    """The number of tagged fields, with which they begin."""
    return _SHORT[len(tags)]


# --- read -----------------------------------------------------------------------------------------------------------


@lru_cache(UUIDS_REMEMBERED)
def uuid_of(data: bytes) -> UUID:
    return UUID(bytes=data)


def is_null(name: str) -> ValueError:
    return ValueError(f"{name} is null")


def read_string(frame: memoryview, offset: int, n: int) -> tuple[str, int]:
    """The string of `n` - 1 bytes (UTF-8) at `offset`, and the offset of what follows. Raises ValueError when it is
    null or the frame ends before it, UnicodeDecodeError when it is no UTF-8.
    """
    end = offset + n - 1
    if not offset <= end <= len(frame):
        raise ValueError(f"{n - 1} bytes wanted, {len(frame) - offset} are left")
    return str(frame[offset:end], "utf-8"), end


def read_bytes(frame: memoryview, offset: int, n: int) -> tuple[bytes, int]:
    """A copy of the `n` - 1 bytes at `offset`, and the offset of what follows. Raises ValueError when they are null or
    the frame ends before them.
    """
    end = offset + n - 1
    if not offset <= end <= len(frame):
        raise ValueError(f"{n - 1} bytes wanted, {len(frame) - offset} are left")
    return frame[offset:end].tobytes(), end


def read_records(frame: memoryview, offset: int, n: int) -> tuple[memoryview, int]:
    """The `n` - 1 bytes at `offset`, not copied, so that who keeps them keeps the whole frame; and the offset of what
    follows.
    """
    end = offset + n - 1
    if not offset <= end <= len(frame):
        raise ValueError(f"{n - 1} bytes wanted, {len(frame) - offset} are left")
    return frame[offset:end], end


def read_array(frame: memoryview, offset: int, n: int, read: Reader[T]) -> tuple[tuple[T, ...], int]:
    """`n` - 1 items, each read by `read`, and the offset of what follows. Raises ValueError when the frame has fewer
    bytes left than it claims items.
    """
    if n == 2:
        item, offset = read(frame, offset)
        return (item,), offset
    items = []
    for _ in range(_count(frame, offset, n)):
        item, offset = read(frame, offset)
        items.append(item)
    return tuple(items), offset


def read_numbers(frame: memoryview, offset: int, n: int, code: str) -> tuple[tuple[int, ...], int]:
    layout = struct.Struct(f">{_count(frame, offset, n)}{code}")
    return layout.unpack_from(frame, offset), offset + layout.size


def read_uuid(frame: memoryview, offset: int) -> tuple[UUID, int]:
    end = offset + 16
    if end > len(frame):
        raise ValueError(f"a UUID in {len(frame) - offset} bytes")
    return uuid_of(frame[offset:end].tobytes()), end


def string_item(frame: memoryview, offset: int) -> tuple[str, int]:
    n, offset = varint_at(frame, offset)
    return read_string(frame, offset, n)


def old_string_item(frame: memoryview, offset: int) -> tuple[str, int]:
    (size,) = _OLD_STRING_LENGTH.unpack_from(frame, offset)
    return read_string(frame, offset + 2, size + 1)


def bytes_item(frame: memoryview, offset: int) -> tuple[bytes, int]:
    n, offset = varint_at(frame, offset)
    return read_bytes(frame, offset, n)


def old_bytes_item(frame: memoryview, offset: int) -> tuple[bytes, int]:
    (size,) = _OLD_LENGTH.unpack_from(frame, offset)
    return read_bytes(frame, offset + 4, size + 1)


def read_tags(m: object, frame: memoryview, offset: int, t: int, known: TagReaders) -> int:
    """Reads tagged fields into `m` and returns the offset of what follows. The first byte of their count is `t`; then
    come tag, length and value of each. An unknown tag is skipped (KIP-482).
    """
    if t > 127:
        t, offset = long_varint(frame, offset, t)
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
    """Of an array. An item has one byte at least."""
    if not 0 < n <= len(frame) - offset + 1:
        raise ValueError(f"an array of {n - 1} items in {len(frame) - offset} bytes")
    return n - 1
