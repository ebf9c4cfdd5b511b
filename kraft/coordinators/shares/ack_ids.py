"""`ack_id`: what a receive over REST returns with each record, and an acknowledgement sends back. Opaque to clients.

It holds all that a node needs to know of the lock, so that none keeps anything between two requests, and a code of
authentication with a key of the cluster: a forged one, or one of another group or user, is refused by any node.
Records that were handed out together have one lock, whose token is made and checked once for all of them; the id of
each has its place behind the token. So a receiver can make ids of the records that it has, and of no others.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import struct
from collections.abc import Callable, Sequence
from hashlib import blake2b
from operator import attrgetter
from typing import Final, NamedTuple, Protocol
from uuid import UUID

from kraft.protocol.errors import InvalidRequest, KafkaError
from metadata.image import TopicIdPartition
from replication.shares.acknowledgements import GROUP_DELAY
from replication.shares.states import AcknowledgeType

VERSION: Final = 3
CODE_BYTES: Final = 16
_PLACE_CHARACTERS_MAX: Final = 5
_FORM: Final = struct.Struct(">B16siqHiHqi16s")
"""With the code a multiple of three bytes: base64 of it has no spare bits, and one form only."""


class Lock(NamedTuple):
    """Records that follow each other and are in the hands of one receiver."""

    where: TopicIdPartition
    first: int
    size: int
    """Offsets, from the first one on."""
    leader_epoch: int
    delivery_count: int
    until_ms: int
    """When the lock ends, by the wall clock of the node that answered the receive."""
    lock_ms: int
    """How long a renewal locks."""
    receipt: UUID
    """The receive that it belongs to: the member that holds the lock."""

    @property
    def member(self) -> str:
        """The id by which the leader knows the receiver."""
        return str(self.receipt)


class AckId(NamedTuple):
    """One of the records."""

    lock: Lock
    offset: int


class Asked(Protocol):
    """An acknowledgement of one record, as a client sends it."""

    @property
    def ack_id(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def lock_ms(self) -> int | None: ...
    @property
    def delay_ms(self) -> int | None: ...


class Settlement(NamedTuple):
    """Records of one lock that follow each other and get the same word."""

    lock: Lock
    first: int
    last: int
    type: AcknowledgeType
    reason: str = ""
    lock_ms: int = 0
    """How long a renewal locks; 0: as at the receive."""
    delay_ms: int = GROUP_DELAY
    """When a released record is there again."""


_WORD = attrgetter("type", "reason", "lock_ms", "delay_ms")
TYPES: Final = {kind.name.lower(): kind for kind in AcknowledgeType}
"""The words that clients send."""


class AckIds:
    """Writes and reads the ids of one cluster."""

    def __init__(self, key: bytes) -> None:
        """`key`: all nodes of the cluster have the same."""
        self._key = blake2b(key).digest()

    def token(self, group: str, lock: Lock, *, owner: str) -> str:
        """What the ids of all records of the lock begin with; `id_of` adds the place. `owner`: the principal that has
        received them, empty without one."""
        where, *numbers, receipt = lock
        packed = _FORM.pack(VERSION, where.topic_id.bytes, where.partition, *numbers, receipt.bytes)
        return base64.urlsafe_b64encode(packed + self._code(group, packed, owner)).decode()

    def reader(self, group: str, *, owner: str) -> Callable[[str], AckId]:
        """Reads the ids of one request, many of which have one token. What it returns raises InvalidRequest 42 for what
        this cluster has not made for this group and this principal."""
        known: dict[str, Lock] = {}

        def read(text: str) -> AckId:
            token, _, place = text.partition(".")
            lock = known.get(token)
            if lock is None:
                lock = known[token] = self._lock(group, token, owner)
            if place.isascii() and place.isdecimal() and len(place) <= _PLACE_CHARACTERS_MAX:
                number = int(place)
                if number < lock.size:
                    return AckId(lock, lock.first + number)
            raise _not_made_for(group)

        return read

    def settlements(
        self, group: str, asked: Sequence[Asked], *, owner: str
    ) -> tuple[list[Settlement], dict[int, KafkaError]]:
        """The acknowledgements of one request, and the errors of those with a bad id by their places. Most records are
        acknowledged in the order of their offsets: an id that goes on with the one before is not read."""
        read = self.reader(group, owner=owner)
        found: list[Settlement] = []
        bad: dict[int, KafkaError] = {}
        words = list(map(_WORD, asked))
        at = 0
        while at < len(asked):
            first = asked[at]
            try:
                lock, offset = read(first.ack_id)
            except InvalidRequest as error:
                bad[at] = error
                at += 1
                continue
            token, word, place = first.ack_id.partition(".")[0], words[at], offset - lock.first
            end, end_max = at + 1, min(at + lock.size - place, len(asked))
            while end < end_max and asked[end].ack_id == f"{token}.{place + end - at}" and words[end] == word:
                end += 1
            found.append(_settlement(lock, offset, offset + end - at - 1, first))
            at = end
        return found, bad

    def _lock(self, group: str, token: str, owner: str) -> Lock:
        try:
            data = base64.b64decode(token, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            data = b""
        packed, code = data[:-CODE_BYTES], data[-CODE_BYTES:]
        if len(packed) != _FORM.size or not hmac.compare_digest(code, self._code(group, packed, owner)):
            raise _not_made_for(group)
        _, topic_id, partition, *numbers, receipt = _FORM.unpack(packed)
        return Lock._make((TopicIdPartition(UUID(bytes=topic_id), partition), *numbers, UUID(bytes=receipt)))

    def _code(self, group: str, packed: bytes, owner: str) -> bytes:
        """Keyed BLAKE2b (RFC 7693), a sixtieth of the time of OpenSSL's HMAC. Each principal has a key of its own."""
        key = blake2b(owner.encode(), key=self._key).digest() if owner else self._key
        return blake2b(group.encode() + b"\0" + packed, key=key, digest_size=CODE_BYTES).digest()


def _settlement(lock: Lock, first: int, last: int, asked: Asked) -> Settlement:
    delay_ms = GROUP_DELAY if asked.delay_ms is None else asked.delay_ms
    return Settlement(lock, first, last, TYPES[asked.type], asked.reason, asked.lock_ms or 0, delay_ms)


def id_of(token: str, lock: Lock, offset: int) -> str:
    """The id of a record as it stands in an answer."""
    return f"{token}.{offset - lock.first}"


def _not_made_for(group: str) -> KafkaError:
    return InvalidRequest(f"this ack_id was not made for group {group!r}: send one as a receive has returned it")
