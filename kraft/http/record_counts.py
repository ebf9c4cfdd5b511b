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
VALUES_MAX = 500_000
"""Values in a body that is not records: what 100,000 partitions with offset and metadata need."""


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


class _Records(Struct):
    records: list[_Item]


class _Entries(Struct):
    entries: list[_Item]


_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    "records": msgspec.json.Decoder(_Records),
    "entries": msgspec.json.Decoder(_Entries),
}


def check_counts(body: bytes | bytearray, field: str, *, items_max: int, headers_max: int, code: int) -> None:
    """Of `records` or `entries`. Raises HttpError with `code` beyond the bounds; what is no JSON is left to its parser.

    Each record and each header is an object, which is two bytes at least: where there are no more braces than records
    may be, nothing is counted, and where there is no room for more, not even they.
    """
    if len(body) <= 2 * items_max or body.count(b"{") <= items_max:
        return
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


def check_values(body: bytes | bytearray) -> None:
    """Of a body that is not records. Raises HttpError 413: all but the first value of each list follow a comma."""
    if body.count(b",") > VALUES_MAX:
        raise HttpError(TOO_LARGE, f"more than {VALUES_MAX} values in a body; send them with several requests")
