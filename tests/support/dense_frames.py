"""The requests with the most items that fit into so many bytes: made from the generated messages, for each API and
version that clients are served.

One array of a message is filled, the arrays around it have one item each, or as many as fit with one item inside; keys
are empty, all the same, or all different. An API, a version or a field that is added later is among them without a
change here.
"""

from __future__ import annotations

import struct
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, ClassVar, TypeVar, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from kraft.protocol import apis, codec
from kraft.protocol.encoding import Message, TopLevel
from kraft.protocol.varints import varint

API_VERSIONS = 18
API_VERSIONS_VERSIONS = range(5)
KEYS = ("empty", "same", "distinct")
IN_A_BYTE = "distinct, numbers in a byte"
KNOWN = "t"
"""A topic, a group and a transactional id have this name where a key is the same each time: what exists costs more."""
SCALARS = {
    "acks": -1,
    "timeout_ms": 1_000,
    "session_timeout_ms": 10_000,
    "rebalance_timeout_ms": 10_000,
    "replica_id": -1,
}
"""Values of fields whose default is refused first."""
NAMES = {"group_id", "key", "transactional_id", "protocol_type", "protocol_name", "v3_and_below_transactional_id"}
UNKNOWN_TAG = 99
TAGS_OF_HEADER, KNOWN_TAGS = "tags of the header", "known tags"
ALL_TAGS = ("unknown tags", TAGS_OF_HEADER, KNOWN_TAGS)
BYTE_VALUES = 128
"""Distinct values where a number has too few bytes for all items, such as the type of a resource: they come again."""
Path = tuple[str, ...]
KindT = TypeVar("KindT")
FoundT = TypeVar("FoundT")


@dataclass(frozen=True)
class DenseFrame:
    """A request without the length in front of it."""

    api: str
    version: int
    shape: str
    data: bytes

    def __str__(self) -> str:
        return f"{self.api} v{self.version} {self.shape} ({len(self.data)} bytes)"


@dataclass(frozen=True)
class Shape(ABC):
    """What a dense frame of one version of an API is full of."""

    key: int
    version: int

    @abstractmethod
    def __str__(self) -> str: ...

    @abstractmethod
    def data(self, *, size: int) -> bytes | None:
        """A request of at most so many bytes; None for a version that has no such array."""

    def frame(self, *, size: int) -> DenseFrame | None:
        data = self.data(size=size)
        return None if data is None else DenseFrame(request_kind(self.key).__name__, self.version, str(self), data)


@dataclass(frozen=True)
class LongArray(Shape):
    """A long array at the end of a path, or one of a single item in each of many."""

    path: Path
    keys: str
    has_many_outer: bool

    def __str__(self) -> str:
        return f"{'.'.join(self.path)} {self.keys}{', one in each' if self.has_many_outer else ''}"

    def exists(self) -> bool:
        """Whether the version has such an array."""
        kind = request_kind(self.key)
        return has_array(kind, self.version, self.path, self.keys, has_many_outer=self.has_many_outer)

    def data(self, *, size: int) -> bytes | None:
        kind = request_kind(self.key)
        body = _filled(kind, self.version, self.path, self.keys, has_many_outer=self.has_many_outer, size=size)
        return None if body is None else _framed(kind, self.version, body)


@dataclass(frozen=True)
class ManyTags(Shape):
    """Many tagged fields: of the body, with a number that nobody knows or that is known, or of the header."""

    where: str

    def __str__(self) -> str:
        return self.where

    def data(self, *, size: int) -> bytes:
        kind, count = request_kind(self.key), size // 2
        body = b"".join(codec.encode_body(_made(kind, self.version), self.version))
        tag = b"\0" if self.where == KNOWN_TAGS else varint(UNKNOWN_TAG)
        tags = varint(count) + (tag + b"\0") * count
        if self.where == TAGS_OF_HEADER:
            return _framed(kind, self.version, body, tags=tags)
        return _framed(kind, self.version, body[:-1] + tags)


def frames(key: int, version: int, *, size: int) -> Iterator[DenseFrame]:
    """All of them for one version of an API, each at most `size` bytes."""
    for shape in (*array_shapes(key, version), *tag_shapes(key, version)):
        frame = shape.frame(size=size)
        if frame is not None:
            yield frame


def shapes(key: int, version: int) -> list[Shape]:
    """What frames of one version of an API can be full of."""
    arrays_there = (each for each in array_shapes(key, version) if each.exists())
    return [*arrays_there, *tag_shapes(key, version)]


def array_shapes(
    key: int, version: int, *, all_keys: Sequence[str] = KEYS, paths: Sequence[Path] | None = None
) -> Iterator[LongArray]:
    for path in arrays(request_kind(key)) if paths is None else paths:
        for keys in all_keys:
            for has_many_outer in (False, True) if len(path) > 1 else (False,):
                yield LongArray(key, version, path, keys, has_many_outer)


def tag_shapes(key: int, version: int) -> Sequence[ManyTags]:
    """None for versions of old, which have no tagged fields."""
    is_flexible = version >= request_kind(key).FLEXIBLE_FROM
    return [ManyTags(key, version, each) for each in ALL_TAGS] if is_flexible else []


def long_arrays(
    key: int, version: int, *, size: int, all_keys: Sequence[str] = KEYS, paths: Sequence[Path] | None = None
) -> Iterator[DenseFrame]:
    """Those with a long array, at the end of one of the paths."""
    for shape in array_shapes(key, version, all_keys=all_keys, paths=paths):
        frame = shape.frame(size=size)
        if frame is not None:
            yield frame


def versions(key: int) -> range:
    if key == API_VERSIONS:
        return API_VERSIONS_VERSIONS
    return apis.BY_KEY[key].clients


def _of_a_class(function: Callable[[KindT], FoundT]) -> Callable[[KindT], FoundT]:
    """`functools.cache`; mypy takes no class whose instances are equal by value for hashable."""
    return cache(function)


@cache
def request_kind(key: int) -> type[TopLevel]:
    """The generated class of an API's request."""
    name = apis.BY_KEY[key].name
    snake = "".join("_" + each.lower() if each.isupper() else each for each in name).lstrip("_")
    found: type[TopLevel] = getattr(import_module(f"kraft.protocol.messages.{snake}_request"), f"{name}RequestData")
    return found


@_of_a_class
def arrays(kind: type[Message]) -> Sequence[Path]:
    """The way to each array of a message, from the outside in."""
    found: list[Path] = []
    for name, item in _items(kind).items():
        found.append((name,))
        if isinstance(item, type) and issubclass(item, Message):
            found += [(name, *inner) for inner in arrays(item)]
    return found


@_of_a_class
def _hints(kind: type[Message]) -> dict[str, Any]:
    return get_type_hints(kind)


@_of_a_class
def _items(kind: type[Message]) -> dict[str, type]:
    hints = _hints(kind)
    found = {name: _item(hints[name]) for name in kind.__slots__}
    return {name: item for name, item in found.items() if item is not None}


def _item(hint: Any) -> type | None:
    """The type of the items of an array; None for another type."""
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(each for each in get_args(hint) if each is not type(None))
    if get_origin(hint) is None or get_origin(hint) is ClassVar:
        return None
    item: type = get_args(hint)[0]
    return item


def _made(kind: type[Message], version: int, **fields: Any) -> Any:
    """With values that get as far as possible. The arrays that are not given are empty."""
    names = [name for name in kind.__slots__ if name not in fields]
    given = {name: KNOWN for name in names if name in NAMES} | {
        name: SCALARS[name] for name in names if name in SCALARS
    }
    empty: dict[str, Any] = {name: () for name in names if name in _items(kind)}
    return kind.make(**{**empty, **given, **fields})  # type: ignore[attr-defined]


def _filled(
    kind: type[TopLevel], version: int, path: Path, keys: str, *, has_many_outer: bool, size: int
) -> bytes | None:
    """None: this version has no such array."""

    def body(count: int) -> bytes:
        return b"".join(codec.encode_body(_nested(kind, version, path, keys, count, has_many_outer), version))

    try:
        few, more = len(body(200)), len(body(300))
        if more <= few:
            return None
        count = max(1, int((size - few) / ((more - few) / 100)) + 200)
        while len(found := body(count)) > size:
            count = count * size // len(found) - 1
    except struct.error:
        if keys != "distinct":
            return None
        return _filled(kind, version, path, IN_A_BYTE, has_many_outer=has_many_outer, size=size)
    except (AttributeError, TypeError):
        return None
    return found


def has_array(kind: type[TopLevel], version: int, path: Path, keys: str, *, has_many_outer: bool) -> bool:
    """Whether the length of a message grows with the items of that array."""

    def length(count: int) -> int:
        made = _nested(kind, version, path, keys, count, has_many_outer)
        return sum(map(len, codec.encode_body(made, version)))

    try:
        return length(2) > length(1)
    except (AttributeError, TypeError, struct.error):
        return False


def _nested(kind: type[Any], version: int, path: Path, keys: str, count: int, has_many_outer: bool) -> Any:
    item = _items(kind)[path[0]]
    if len(path) == 1 or has_many_outer:
        values = [_value(item, version, keys, number, path[1:]) for number in range(count)]
    else:
        inner = _nested(item, version, path[1:], keys, count, False)
        values = [_keyed(inner, KNOWN)]
    return _made(kind, version, **{path[0]: values})


def _value(item: type[Any], version: int, keys: str, number: int, inner: Path) -> Any:
    text = {"empty": "", "same": KNOWN}.get(keys, short_name(number))
    place = {"distinct": number, IN_A_BYTE: number % BYTE_VALUES}.get(keys, 0)
    if item is str:
        return text
    if item is int:
        return place
    if item is UUID:
        return UUID(int=place + 1)
    if not issubclass(item, Message):
        return text.encode()
    arrays_inside = {}
    if inner:
        first = _items(item)[inner[0]]
        arrays_inside = {inner[0]: [_value(first, version, keys, 0, inner[1:])]}
    return _keyed(_made(item, version, **arrays_inside), text, place)


def _keyed(message: Any, text: str, place: int = 0) -> Any:
    """Its first text is the key, and so are its first number and its id."""
    hints = _hints(type(message))
    seen: set[type] = set()
    for name in message.__slots__:
        for kind, value in ((str, text), (int, place), (UUID, UUID(int=place + 1))):
            if hints[name] in (kind, kind | None) and kind not in seen:
                seen.add(kind)
                setattr(message, name, value)
    return message


@cache
def short_name(number: int) -> str:
    digits = "abcdefghijklmnopqrstuvwxyz0123456789"
    text = digits[number % 36]
    while number := number // 36:
        text += digits[number % 36]
    return text


def _framed(kind: type[TopLevel], version: int, body: bytes, *, tags: bytes = b"\0") -> bytes:
    head = struct.pack(">hhih", kind.API_KEY, version, 7, -1)
    return head + (tags if version >= kind.FLEXIBLE_FROM else b"") + body
