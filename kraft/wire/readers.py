"""Readers of messages, made once per class: one `unpack_from` for each run of fields of fixed size.

A run takes the first byte of what follows along: the length of a string, bytes or an array (KIP-482: a varint, one byte
below 128), or the number of tagged fields. So a small structure is read by one call. For FetchTopic the source is

    def read_FetchTopic(frame, offset):
        m = new(FetchTopic)
        raw_topic_id, n, = unpack_2(frame, offset)
        offset += 17
        m.topic_id = uuid_of(raw_topic_id)
        if n == 1: m.partitions = ()
        else:
            if n > 127: n, offset = long_varint(frame, offset, n)
            if not n: raise ValueError('partitions is null')
            m.partitions, offset = array(frame, offset, n, read_FetchPartition)
        t = frame[offset]
        offset += 1
        if t: offset = tagged_fields(m, frame, offset, t, FetchTopic)
        return m, offset

Bytes are a stranger's: whatever they are, a reader raises one of `REFUSALS`, and no array reserves memory before there
are as many bytes left as it claims items. An unknown tagged field or error code is refused, as kio refuses it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any
from uuid import UUID

from kraft.wire.generated import Function
from kraft.wire.structures import ENTITY, Shape
from kraft.wire.varints import long_varint, varint_at

Reader = Callable[[memoryview, int], tuple[Any, int]]
"""(frame, offset) -> value and the offset of what follows."""
Convert = Callable[[Any], Any] | Sequence[bool] | Mapping[int, int]
"""A function, or what to look the value up in."""
REFUSALS = (struct.error, LookupError, ValueError)

UUIDS_REMEMBERED = 4_096
"""Topic ids: the same few come in every request."""
MOMENT_MS_MAX = 253_402_300_799_999
"""The end of the year 9999."""
DURATION_MS_MAX = (2**63 - 1) // 1000
_NIL = bytes(16)
_BOOLS = (False, True)

FIXED = {
    "bool": "B",
    "int8": "b",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "error_code": "h",
    "timedelta_i32": "i",
    "timedelta_i64": "q",
    "datetime_i64": "q",
    "uuid": "16s",
}
"""Struct codes of the types whose values have one size."""


@cache
def reader_of(structure: Any) -> Reader:
    source = Function(f"read_{structure.__name__}", "frame, offset")
    lines = _Lines(source, is_flexible=structure.IS_FLEXIBLE)
    plain = [shape for shape in structure.SHAPES if shape.tag is None]
    tagged = [shape for shape in structure.SHAPES if shape.tag is not None]
    source.line(f"m = {source.value('new', object.__new__)}({source.value('structure', structure)})")
    for shape in plain:
        lines.field(shape, f"m.{shape.name}")
    for shape in tagged:
        source.line(f"m.{shape.name} = {source.value('default', shape.default)}")
    lines.end(structure)
    source.line("return m, offset")
    return source.compiled()


@cache
def _tags_of(structure: Any) -> Mapping[int, tuple[str, Reader]]:
    return {
        shape.tag: (shape.name, _reader_of_one(shape, is_flexible=True))
        for shape in structure.SHAPES
        if shape.tag is not None
    }


def _reader_of_one(shape: Shape, *, is_flexible: bool) -> Reader:
    """Of a tagged field, or of an item of an array."""
    if shape.kind == ENTITY and not shape.is_array:
        return reader_of(shape.structure)
    source = Function(f"read_{shape.name}", "frame, offset")
    lines = _Lines(source, is_flexible=is_flexible)
    lines.field(shape, "value")
    lines.flush()
    source.line("return value, offset")
    return source.compiled()


class _Lines:
    """Writes the lines that read fields. What has a fixed size is held back until something follows that has not."""

    def __init__(self, source: Function, *, is_flexible: bool) -> None:
        self._source = source
        self._is_flexible = is_flexible
        self._run: list[tuple[str, str]] = []
        """Variable and struct code."""
        self._conversions: list[str] = []
        """Lines that follow the run."""

    def field(self, shape: Shape, target: str) -> None:
        if shape.is_array or shape.kind in ("string", "bytes", "records"):
            self._variable(shape, target)
        elif shape.kind == ENTITY:
            self.flush()
            self._source.line(f"{target}, offset = {self._source.mention(reader_of(shape.structure))}(frame, offset)")
        else:
            self._fixed(shape, target)

    def _fixed(self, shape: Shape, target: str) -> None:
        convert = _conversion(shape.kind)
        if convert is None:
            self._run.append((target, FIXED[shape.kind]))
        else:
            self._run.append((f"raw_{shape.name}", FIXED[shape.kind]))
            self._conversions.append(f"{target} = {self._converted(convert, f'raw_{shape.name}')}")

    def _converted(self, convert: Convert, raw: str) -> str:
        if callable(convert):
            return f"{self._source.mention(convert)}({raw})"
        return f"{self._source.value('known', convert)}[{raw}]"

    def _variable(self, shape: Shape, target: str) -> None:
        """`n` is the length and 1, as the flexible versions write it: 0 is null. Empty is what comes most often."""
        source = self._source
        self._run.append(("n", "B" if self._is_flexible else "i" if shape.is_array else "h"))
        self.flush()
        if not self._is_flexible:
            source.line("n += 1")
        empty = "()" if shape.is_array else "''" if shape.kind == "string" else "b''"
        source.line(f"if n == 1: {target} = {empty}")
        source.line("else:")
        if self._is_flexible:
            source.line(f"    if n > 127: n, offset = {self._source.mention(long_varint)}(frame, offset, n)")
        if not shape.is_nullable:
            source.line(f"    if not n: raise ValueError('{shape.name} is null')")
        source.line(f"    {target}, offset = {self._rest(shape)}")

    def _rest(self, shape: Shape) -> str:
        """The call that reads `n - 1` items or bytes."""
        if not shape.is_array:
            return f"{self._source.mention(_string if shape.kind == 'string' else _bytes)}(frame, offset, n)"
        if shape.kind in FIXED and _conversion(shape.kind) is None:
            return f"{self._source.mention(_numbers)}(frame, offset, n, {FIXED[shape.kind]!r})"
        return f"{self._source.mention(_array)}(frame, offset, n, {self._source.mention(self._item_reader(shape))})"

    def _item_reader(self, shape: Shape) -> Reader:
        return _reader_of_one(replace(shape, is_array=False, is_nullable=False), is_flexible=self._is_flexible)

    def end(self, structure: Any) -> None:
        if self._is_flexible:
            self._run.append(("t", "B"))
        self.flush()
        if self._is_flexible:
            known = self._source.value("structure", structure)
            self._source.line(f"if t: offset = {self._source.mention(_tagged_fields)}(m, frame, offset, t, {known})")

    def flush(self) -> None:
        if len(self._run) == 1 and self._run[0][1] == "B":
            self._source.line(f"{self._run[0][0]} = frame[offset]")
            self._source.line("offset += 1")
        elif self._run:
            layout = struct.Struct(">" + "".join(code for _, code in self._run))
            targets = ", ".join(target for target, _ in self._run)
            self._source.line(f"{targets}, = {self._source.value('unpack', layout.unpack_from)}(frame, offset)")
            self._source.line(f"offset += {layout.size}")
        for conversion in self._conversions:
            self._source.line(conversion)
        self._run, self._conversions = [], []


# --- what the lines call ------------------------------------------------------------------------------------------


def _conversion(kind: str) -> Convert | None:
    """From what `struct` gives; None: that is the value."""
    match kind:
        case "bool":
            return _BOOLS
        case "error_code":
            return _error_codes()
        case "uuid":
            return uuid_of
        case "datetime_i64":
            return _moment
        case "timedelta_i64":
            return _duration
    return None


@cache
def _error_codes() -> dict[int, int]:
    from kio.schema.errors import ErrorCode

    return {member.value: member.value for member in ErrorCode}


@lru_cache(UUIDS_REMEMBERED)
def uuid_of(data: bytes) -> UUID | None:
    return None if data == _NIL else UUID(bytes=data)


def _moment(ms: int) -> int:
    if not -1 <= ms <= MOMENT_MS_MAX:
        raise ValueError(f"{ms} ms is no moment between 1970 and 9999")
    return ms


def _duration(ms: int) -> int:
    if abs(ms) > DURATION_MS_MAX:
        raise ValueError(f"{ms} ms is more than 64 bits hold in microseconds")
    return ms


def _string(frame: memoryview, offset: int, n: int) -> tuple[str | None, int]:
    data, end = _bytes(frame, offset, n)
    return (None if data is None else data.decode()), end


def _bytes(frame: memoryview, offset: int, n: int) -> tuple[bytes | None, int]:
    if not n:
        return None, offset
    end = offset + n - 1
    if not offset <= end <= len(frame):
        raise ValueError(f"{n - 1} bytes wanted, {len(frame) - offset} are left")
    return frame[offset:end].tobytes(), end


def _count(frame: memoryview, offset: int, n: int) -> int:
    """Of an array. An item has one byte at least."""
    if not 0 < n <= len(frame) - offset + 1:
        raise ValueError(f"an array of {n - 1} items in {len(frame) - offset} bytes")
    return n - 1


def _array(frame: memoryview, offset: int, n: int, read: Reader) -> tuple[tuple[Any, ...] | None, int]:
    if not n:
        return None, offset
    if n == 2:
        item, offset = read(frame, offset)
        return (item,), offset
    items = []
    for _ in range(_count(frame, offset, n)):
        item, offset = read(frame, offset)
        items.append(item)
    return tuple(items), offset


def _numbers(frame: memoryview, offset: int, n: int, code: str) -> tuple[tuple[int, ...] | None, int]:
    if not n:
        return None, offset
    layout = struct.Struct(f">{_count(frame, offset, n)}{code}")
    return layout.unpack_from(frame, offset), offset + layout.size


def _tagged_fields(m: Any, frame: memoryview, offset: int, t: int, structure: Any) -> int:
    """A count, whose first byte is `t`; then tag, length and value of each."""
    if t > 127:
        t, offset = long_varint(frame, offset, t)
    known = _tags_of(structure)
    for _ in range(t):
        tag, size = frame[offset], frame[offset + 1]
        if tag < 0x80 and size < 0x80:
            offset += 2
        else:
            tag, offset = varint_at(frame, offset)
            size, offset = varint_at(frame, offset)
        name, read = known[tag]
        value, end = read(frame, offset)
        if end != offset + size:
            raise ValueError(f"{name} has {end - offset} bytes and claims {size}")
        setattr(m, name, value)
        offset = end
    return offset
