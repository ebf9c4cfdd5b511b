"""The wait in an answer (KIP-219): `throttle_time_ms`, also in one whose body is written already."""

from __future__ import annotations

import struct
from typing import Final, TypeVar

from kraft.protocol import codec
from kraft.protocol.encoding import TopLevel, Written

FIELD: Final = "throttle_time_ms"
_PROBE: Final = 0x01020304
_BYTES: Final = 4
_FOUND: Final[dict[tuple[str, int], bool]] = {}
"""What was found out, for each type and version: there are as many as Kafka has."""
AnswerT = TypeVar("AnswerT", bound="TopLevel | None")


def wait_of(kind: type[TopLevel], version: int, response: TopLevel | None) -> int:
    """The wait that the handler has put into the answer; 0 for none. `kind`: the type of an answer that is written."""
    if not isinstance(response, Written):
        return int(getattr(response, FIELD, 0))
    if not _begins_with_it(kind, version):
        return 0
    (found,) = struct.unpack(">i", _head(response)[:_BYTES])
    return int(found)


def with_wait(kind: type[TopLevel], version: int, response: AnswerT, wait_ms: int) -> AnswerT | Written:
    """The answer with the wait, as it is where it has no such field. One that is written may be others', too: it is
    copied, apart from its bytes."""
    if isinstance(response, Written):
        if _begins_with_it(kind, version):
            head = _head(response)
            return type(response).make([struct.pack(">i", wait_ms), head[_BYTES:], *response.parts[1:]])
    elif response is not None and FIELD in response.__slots__:
        response.throttle_time_ms = wait_ms  # type: ignore[attr-defined]
    return response


def _head(response: Written) -> memoryview:
    """The first part."""
    return memoryview(response.parts[0]).cast("B")


def _begins_with_it(kind: type[TopLevel], version: int) -> bool:
    """Whether the field is the first of the body, as it is of every answer that is written before it is sent."""
    found = _FOUND.get((kind.__name__, version))
    if found is None:
        found = _FOUND[kind.__name__, version] = _looked_at(kind, version)
    return found


def _looked_at(kind: type[TopLevel], version: int) -> bool:
    if FIELD not in kind.__slots__:
        return False
    probe: TopLevel = kind.make(throttle_time_ms=_PROBE)  # type: ignore[attr-defined]
    return b"".join(codec.encode_body(probe, version)).startswith(struct.pack(">i", _PROBE))
