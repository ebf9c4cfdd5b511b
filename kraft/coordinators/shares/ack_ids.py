"""`ack_id`: what a receive over REST returns with each record, and an acknowledgement sends back. Opaque to clients.

It holds all that a node needs to know of the lock, so that none keeps anything between two requests, and a code of
authentication with a key of the cluster: a forged one, or one of another group, is refused by any node.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import struct
from typing import Final, NamedTuple
from uuid import UUID

from kraft.protocol.errors import InvalidRequest
from metadata.image import TopicIdPartition

VERSION: Final = 1
CODE_BYTES: Final = 16
_FORM: Final = struct.Struct(">B16siqiHqi16s")


class AckId(NamedTuple):
    """One record in the hands of a receiver."""

    where: TopicIdPartition
    offset: int
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


class AckIds:
    """Writes and reads the ids of one cluster."""

    def __init__(self, key: bytes) -> None:
        """`key`: all nodes of the cluster have the same."""
        self._key = key

    def text(self, group: str, ack_id: AckId) -> str:
        """The id as it stands in an answer."""
        where, *numbers, receipt = ack_id
        packed = _FORM.pack(VERSION, where.topic_id.bytes, where.partition, *numbers, receipt.bytes)
        return base64.urlsafe_b64encode(packed + self._code(group, packed)).decode().rstrip("=")

    def read(self, group: str, text: str) -> AckId:
        """Raises InvalidRequest 42 for what this cluster has not made for this group."""
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            data = b""
        packed, code = data[:-CODE_BYTES], data[-CODE_BYTES:]
        if len(packed) != _FORM.size or not hmac.compare_digest(code, self._code(group, packed)):
            raise InvalidRequest(f"this ack_id was not made for group {group!r}: send one as a receive has returned it")
        _, topic_id, partition, offset, leader_epoch, delivery_count, until_ms, lock_ms, receipt = _FORM.unpack(packed)
        return AckId(
            TopicIdPartition(UUID(bytes=topic_id), partition),
            offset,
            leader_epoch,
            delivery_count,
            until_ms,
            lock_ms,
            UUID(bytes=receipt),
        )

    def _code(self, group: str, packed: bytes) -> bytes:
        return hmac.digest(self._key, group.encode() + b"\0" + packed, "sha256")[:CODE_BYTES]
