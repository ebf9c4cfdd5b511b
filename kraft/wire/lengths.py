"""Checks that no array of a stranger's request claims more items than there are bytes left.

kio's decoder reserves memory for as many items as an array announces, and the process dies when it cannot have it. So
before a peer has proved that it knows the secret, its requests are walked here first. Flexible versions only (KIP-482);
the others that a stranger may send have no arrays.
"""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import Any

from kraft.wire.varints import Reader

_SIZES = {
    **dict.fromkeys(("int8", "uint8", "bool"), 1),
    **dict.fromkeys(("int16", "uint16", "error_code"), 2),
    **dict.fromkeys(("int32", "uint32", "timedelta_i32"), 4),
    **dict.fromkeys(("int64", "uint64", "float64", "timedelta_i64", "datetime_i64"), 8),
    "uuid": 16,
}


def check_lengths(entity_class: Any, frame: memoryview, offset: int) -> None:
    """Raises ValueError."""
    if entity_class.__flexible__:
        _walk(entity_class, Reader(frame, offset))


def _walk(entity_class: Any, reader: Reader) -> None:
    plain, tagged = _layout(entity_class)
    for shape in plain:
        _walk_field(shape, reader)
    for tag, value in reader.tagged_fields().items():
        if tag in tagged:
            _walk_field(tagged[tag], Reader(value, 0))


def _walk_field(shape: tuple[bool, bool, Any], reader: Reader) -> None:
    is_array, is_nullable_entity, item = shape
    if is_array:
        count = reader.varint() - 1
        if count > len(reader.frame) - reader.offset:
            raise ValueError(f"an array of {count} items in {len(reader.frame) - reader.offset} bytes")
        for _ in range(count):
            _walk_item(item, reader)
    elif not is_nullable_entity or reader.take(1)[0] == 1:
        _walk_item(item, reader)


def _walk_item(item: Any, reader: Reader) -> None:
    if not isinstance(item, str):
        _walk(item, reader)
    elif item in _SIZES:
        reader.take(_SIZES[item])
    else:
        reader.take(max(reader.varint() - 1, 0))


@cache
def _layout(entity_class: Any) -> tuple[list[tuple[bool, bool, Any]], dict[int, tuple[bool, bool, Any]]]:
    """Per field: is it an array, is it a nullable entity, and its items' type name or entity class."""
    from kio.serial import _introspect as kio

    plain, tagged = [], {}
    for field in fields(entity_class):
        found = kio.classify_field(field)
        is_entity = isinstance(found, kio.EntityField | kio.EntityTupleField)
        item: Any = found.type_ if is_entity else kio.get_schema_field_type(field)
        tag = kio.get_field_tag(field)
        is_nullable = isinstance(found, kio.EntityField) and tag is None and kio.is_optional(field)
        shape = (found.is_array, is_nullable, item)
        if tag is None:
            plain.append(shape)
        else:
            tagged[int(tag)] = shape
    return plain, tagged
