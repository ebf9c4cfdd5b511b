"""Writers of messages, made once per class: one `pack` for each run of fields of fixed size, one `+=` between arrays.

For FetchTopic the source is

    def write_FetchTopic(out, m):
        partitions = m.partitions
        out += pack_0(uuid_bytes(m.topic_id)), length(partitions),
        for item in partitions or (): write_FetchPartition(out, item)
        out += b'\\0',

and for FetchPartition, whose number of tagged fields (KIP-482), 0, is the `x` of its struct,

    def write_FetchPartition(out, m):
        out += pack_0(m.partition, m.current_leader_epoch, m.fetch_offset, ...),

Payloads are parts of their own, the buffers that they were. Numbers out of range raise struct.error.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any
from uuid import UUID

from kraft.wire.generated import Function
from kraft.wire.readers import FIXED
from kraft.wire.structures import ENTITY, Shape
from kraft.wire.varints import varint
from metadata.environment import Buffer

Writer = Callable[[list[Buffer], Any], None]
"""Appends the bytes of one value to a list of parts."""

_NULL = b"\0"
_EMPTY = b"\1"
_NIL = bytes(16)
_OLD_LENGTH = struct.Struct(">i")
_OLD_STRING_LENGTH = struct.Struct(">h")
_SHORT = tuple(varint(value) for value in range(128))


@cache
def writer_of(structure: Any) -> Writer:
    source = Function(f"write_{structure.__name__}", "out, m")
    lines = _Lines(source, is_flexible=structure.IS_FLEXIBLE)
    tagged = [shape for shape in structure.SHAPES if shape.tag is not None]
    for shape in structure.SHAPES:
        if shape.tag is None:
            lines.field(shape, f"m.{shape.name}")
    if structure.IS_FLEXIBLE:
        lines.tags(sorted(tagged, key=lambda shape: shape.tag or 0))
    lines.flush()
    return source.compiled()


def _writer_of_one(shape: Shape, *, is_flexible: bool) -> Writer:
    """Of a tagged field, or of an item of an array."""
    if shape.kind == ENTITY and not shape.is_array:
        return writer_of(shape.structure)
    source = Function(f"write_{shape.name}", "out, value")
    lines = _Lines(source, is_flexible=is_flexible)
    lines.field(shape, "value")
    lines.flush()
    return source.compiled()


class _Lines:
    """Writes the lines that write fields. Numbers are held back to be packed together, parts to be added at once."""

    def __init__(self, source: Function, *, is_flexible: bool) -> None:
        self._source = source
        self._is_flexible = is_flexible
        self._run: list[tuple[str, str]] = []
        """Expression and struct code."""
        self._parts: list[str] = []
        """Expressions of bytes."""

    def field(self, shape: Shape, value: str) -> None:
        if shape.is_array and shape.kind == ENTITY:
            self._entities(shape, value)
        elif shape.is_array:
            self._array(shape, value)
        elif shape.kind == ENTITY:
            self.flush()
            self._source.line(f"{self._source.mention(writer_of(shape.structure))}(out, {value})")
        elif shape.kind == "string":
            self._part(f"{self._source.mention(_string if self._is_flexible else _old_string)}({value})")
        elif shape.kind in ("bytes", "records"):
            assert self._is_flexible, shape
            self._source.line(f"{shape.name} = {value}")
            self._part(f"{self._source.mention(_length)}({shape.name})")
            self._part(f"b'' if {shape.name} is None else {shape.name}")
        else:
            self._run.append(self._packed(shape, value))

    def _entities(self, shape: Shape, value: str) -> None:
        self._source.line(f"{shape.name} = {value}")
        self._part(f"{self._source.mention(_length if self._is_flexible else _old_length)}({shape.name})")
        self.flush()
        self._source.line(
            f"for item in {shape.name} or (): {self._source.mention(writer_of(shape.structure))}(out, item)"
        )

    def _array(self, shape: Shape, value: str) -> None:
        assert self._is_flexible or shape.kind == "string", shape
        if shape.kind in FIXED and shape.kind != "uuid":
            self._part(f"{self._source.mention(_numbers)}({value}, {FIXED[shape.kind]!r})")
            return
        write = _writer_of_one(replace(shape, is_array=False), is_flexible=self._is_flexible)
        length = _length if self._is_flexible else _old_length
        self._part(
            f"{self._source.mention(_items)}({value}, {self._source.mention(length)}, {self._source.mention(write)})"
        )

    def tags(self, tagged: Sequence[Shape]) -> None:
        """Their number, and those that differ from their default."""
        if not tagged and self._run:
            self._run.append(("", "x"))
            return
        if not tagged:
            self._part(repr(_NULL))
            return
        self._source.line("tagged = []")
        for shape in tagged:
            self._source.line(f"value = m.{shape.name}")
            self._source.line(f"if {self._differs(shape)}: tagged.append({self._tag(shape)})")
        self._part(f"{self._source.value('short', _SHORT)}[len(tagged)]")
        self._part("*tagged")

    def _differs(self, shape: Shape) -> str:
        """Whether `value` is another than the default."""
        default = self._source.value("default", shape.default)
        if shape.kind != ENTITY or shape.is_array:
            return f"value is not {default} and value != {default}"
        fields = [inner.name for inner in shape.structure.SHAPES]
        others = " or ".join(f"value.{name} != {default}.{name}" for name in fields)
        return f"value is not {default} and ({others})"

    def _tag(self, shape: Shape) -> str:
        """Tag, length and value. Those of a fixed size are packed at once."""
        fixed = self._fixed(shape)
        if not fixed:
            return f"{self._source.mention(_tagged)}({self._source.value('shape', shape)}, value)"
        layout = "".join(code for _, code in fixed)
        head = varint(shape.tag or 0) + varint(struct.calcsize(f">{layout}"))
        pack = self._source.value("pack", struct.Struct(f">{len(head)}s{layout}").pack)
        values = ", ".join(expression for expression, _ in fixed if expression)
        return f"{pack}({head!r}, {values})"

    def _fixed(self, shape: Shape) -> list[tuple[str, str]]:
        """Expressions and struct codes of a `value` of fixed size; none for others."""
        if shape.is_array or shape.kind in ("string", "bytes", "records"):
            return []
        if shape.kind != ENTITY:
            return [self._packed(shape, "value")]
        inner: Sequence[Shape] = shape.structure.SHAPES
        if any(each.is_array or each.tag is not None or each.kind not in FIXED for each in inner):
            return []
        return [*(self._packed(each, f"value.{each.name}") for each in inner), ("", "x")]

    def _packed(self, shape: Shape, value: str) -> tuple[str, str]:
        if shape.kind == "uuid":
            return f"{self._source.mention(_uuid_bytes)}({value})", "16s"
        return value, "?" if shape.kind == "bool" else FIXED[shape.kind]

    def _part(self, expression: str) -> None:
        self._pack()
        self._parts.append(expression)

    def _pack(self) -> None:
        if self._run:
            pack = struct.Struct(">" + "".join(code for _, code in self._run)).pack
            values = ", ".join(expression for expression, _ in self._run if expression)
            self._parts.append(f"{self._source.value('pack', pack)}({values})")
        self._run = []

    def flush(self) -> None:
        self._pack()
        if len(self._parts) == 1:
            self._source.line(f"out.append({self._parts[0]})")
        elif self._parts:
            self._source.line(f"out += ({', '.join(self._parts)})")
        self._parts = []


# --- what the lines call ------------------------------------------------------------------------------------------


def _uuid_bytes(value: UUID | None) -> bytes:
    return _NIL if value is None else value.int.to_bytes(16, "big")


def _length(value: Sequence[Any] | Buffer | None) -> bytes:
    """Of an array or of bytes: one too high, 0 is null (KIP-482)."""
    if value is None:
        return _NULL
    size = len(value) + 1
    return _SHORT[size] if size < 128 else varint(size)


def _string(value: str | None) -> bytes:
    if not value:
        return _NULL if value is None else _EMPTY
    data = value.encode()
    return _length(data) + data


def _numbers(values: Sequence[int] | None, code: str) -> bytes:
    return _length(values) + struct.pack(f">{len(values)}{code}", *values) if values else _length(values)


def _items(values: Sequence[Any] | None, length: Callable[[Any], bytes], write: Writer) -> bytes:
    out: list[Buffer] = [length(values)]
    for value in values or ():
        write(out, value)
    return b"".join(out)


@cache
def _tag_writer(shape: Shape) -> tuple[bytes, Writer]:
    assert shape.tag is not None
    return varint(shape.tag), _writer_of_one(shape, is_flexible=True)


def _tagged(shape: Shape, value: Any) -> bytes:
    tag, write = _tag_writer(shape)
    out: list[Buffer] = []
    write(out, value)
    data = b"".join(out)
    return tag + varint(len(data)) + data


def _old_length(values: Sequence[Any] | None) -> bytes:
    return _OLD_LENGTH.pack(-1 if values is None else len(values))


def _old_string(value: str | None) -> bytes:
    if value is None:
        return _OLD_STRING_LENGTH.pack(-1)
    data = value.encode()
    return _OLD_STRING_LENGTH.pack(len(data)) + data
