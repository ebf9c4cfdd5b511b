"""Kafka's messages as plain objects: one class for each structure of kio's schemas, with the fields as we use them.

kio's own classes are frozen, which costs 2 us for a small object, and hold enums and timedeltas that we turn into
numbers anyway. A class made here has the same fields under the same names, except that error codes are Kafka's
numbers, durations and moments are in ms (-1: no moment), and nested structures are classes made here.
`maker_of` is the way to a new one: a function, because calling a class with keywords costs three times as much.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from datetime import datetime, timedelta
from enum import Enum
from functools import cache
from types import UnionType
from typing import Any, ClassVar, get_args, get_origin

from metadata.values import keyword_maker

ENTITY = "entity"
_ZEROS = {"int32": 0, "int64": 0}
REQUIRED = MISSING
"""Default of a field that has none."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shape:
    """One field: what it is on the wire."""

    name: str
    kind: str
    """Kafka's type of the value or of the array's items; `ENTITY` for a nested structure."""
    structure: Any
    """The nested structure's class."""
    is_array: bool
    is_nullable: bool
    tag: int | None
    """Of a tagged field (KIP-482)."""
    default: Any


class Structure:
    """Equal by its fields; not to be changed once it is made."""

    __slots__: tuple[str, ...] = ()
    SHAPES: ClassVar[tuple[Shape, ...]] = ()
    IS_FLEXIBLE: ClassVar[bool] = True
    VERSION: ClassVar[int] = 0

    def __new__(cls, **values: Any) -> Any:
        structure: Any = cls
        return maker_of(structure)(**values)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__name__}({values})"


@cache
def structure_of(schema: Any) -> Any:
    """The class for one of kio's dataclasses, or of ours that look like them (`kraft.wire.extensions`)."""
    shapes = tuple(_shape(field) for field in fields(schema))
    body = {
        "__slots__": tuple(shape.name for shape in shapes),
        "__doc__": schema.__doc__,
        "__module__": schema.__module__,
        "SHAPES": shapes,
        "IS_FLEXIBLE": schema.__flexible__,
        "VERSION": int(schema.__version__),
    }
    return type(schema.__name__, (Structure,), body)


@cache
def maker_of(structure: Any) -> Callable[..., Any]:
    return keyword_maker(structure, {shape.name: shape.default for shape in structure.SHAPES})


# --- shapes -----------------------------------------------------------------------------------------------------


def _shape(field: Field[Any]) -> Shape:
    item, is_array, is_nullable = _item_of(field.type)
    is_entity = is_dataclass(item)
    return Shape(
        name=field.name,
        kind=ENTITY if is_entity else field.metadata["kafka_type"],
        structure=structure_of(item) if is_entity else None,
        is_array=is_array,
        is_nullable=is_nullable,
        tag=field.metadata.get("tag"),
        default=_default(field),
    )


def _item_of(kind: Any) -> tuple[Any, bool, bool]:
    """The type of one value; whether a tuple is around it; whether the field may be null."""
    if isinstance(kind, UnionType):
        (inner,) = (option for option in get_args(kind) if option is not type(None))
        item, is_array, _ = _item_of(inner)
        return item, is_array, True
    if get_origin(kind) is tuple:
        return _item_of(get_args(kind)[0])[0], True, False
    return kind, False, False


def _default(field: Field[Any]) -> Any:
    """A tagged field always has one, by which it is left out: zeros when the schema says nothing."""
    if field.default is MISSING and "tag" in field.metadata:
        kind: Any = field.type
        nested = structure_of(kind)
        return nested(**{shape.name: _ZEROS[shape.kind] for shape in nested.SHAPES})
    if field.metadata.get("kafka_type") == "datetime_i64" and field.default is None:
        return -1
    return _as_we_use_it(field.default)


def _as_we_use_it(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, timedelta):
        return value // timedelta(milliseconds=1)
    assert not isinstance(value, datetime), value
    if is_dataclass(value) and not isinstance(value, type):
        return structure_of(type(value))(
            **{field.name: _as_we_use_it(getattr(value, field.name)) for field in fields(value)}
        )
    return value
