"""How many records, headers and values a body holds, before anything is made of them. Pure.

A record of two bytes becomes an object of a hundred, so a body's length does not bound what it costs. Counting runs in
the compiled parser, makes nothing that it keeps, and stops at the first item too many.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Struct

from kraft.http.errors import HttpError

TOO_LARGE = 413
FREE = 2_048
"""So many items and values may stand in any body; for each further one a body has some bytes."""
VALUE_BYTES, RECORD_BYTES = 12, 12
"""The shortest that clients write: `{"value":1},`, and a third of `{"topic":"t","partition":0,"offset":1},`."""
ENTRY_BYTES = 32
NESTED_BYTES, NESTED_MAX = 40, 16_384
"""Objects and lists: each takes hundreds of bytes of memory, and 3 us, until it is validated."""


@dataclass(slots=True)
class _Left:
    items: int
    headers: int


class _TooMany(Exception):
    pass


_left: ContextVar[_Left] = ContextVar("_left")


class _Header(Struct, gc=False):
    def __post_init__(self) -> None:
        left = _left.get()
        left.headers -= 1
        if left.headers < 0:
            raise _TooMany


class _Item(Struct, gc=False):
    headers: list[_Header] | None = None

    def __post_init__(self) -> None:
        left = _left.get()
        left.items -= 1
        if left.items < 0:
            raise _TooMany


class _Headers(Struct, gc=False):
    headers: list[_Header] | None = None


class _Records(Struct):
    records: list[_Item]


class _Entries(Struct):
    entries: list[_Item]


_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    "records": msgspec.json.Decoder(_Records),
    "entries": msgspec.json.Decoder(_Entries),
    "headers": msgspec.json.Decoder(_Headers),
}


def objects_max(body: bytes | bytearray) -> int:
    """A bound of the objects in a body of JSON: its opening braces, or the half of its bytes where it is short."""
    size = len(body)
    return size // 2 if size <= 2 * FREE else body.count(b"{")


def check_counts(
    body: bytes | bytearray, field: str, *, objects: int, items_max: int, headers_max: int, code: int
) -> None:
    """Counts `records` or `entries`, or the `headers` of one record: at most `items_max`, and no more than the body's
    length pays for.

    Raises HttpError with `code` beyond the bounds; what is no JSON is left to its parser.

    Each record and each header is an object: where the body's `objects_max` is no more than may be, nothing is counted.
    """
    bytes_each = RECORD_BYTES if field == "records" else ENTRY_BYTES
    items_max = min(items_max, _paid(body, bytes_each))
    if objects <= items_max:
        return
    headers_max = min(headers_max, _paid(body, bytes_each))
    left = _Left(items_max, headers_max)
    token = _left.set(left)
    try:
        _DECODERS[field].decode(body)
    except _TooMany:
        if left.items < 0:
            raise HttpError(code, f"more than {items_max} {field} in a request; send them in several") from None
        raise HttpError(code, f"more than {headers_max} headers in a request; send them in several") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    finally:
        _left.reset(token)


def check_values(body: bytes | bytearray, *, values_max: int) -> None:
    """Counts the values of a body that is not records: at most `values_max`, and no more than its length pays for.

    Raises HttpError 413. All but the first value of each list follow a comma. Of the values, fewer may be objects and
    lists."""
    values_max = min(values_max, _paid(body, VALUE_BYTES))
    if body.count(b",") > values_max:
        raise HttpError(TOO_LARGE, f"more than {values_max} values in a body; send them with several requests")
    nested_max = min(values_max, NESTED_MAX, _paid(body, NESTED_BYTES))
    if body.count(b"{") + body.count(b"[") > nested_max:
        raise HttpError(
            TOO_LARGE, f"more than {nested_max} objects and lists in a body; send them with several requests"
        )


def _paid(body: bytes | bytearray, bytes_each: int) -> int:
    return FREE + len(body) // bytes_each
