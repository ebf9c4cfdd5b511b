"""Authentication between voters, as pure functions: the hello, the session key, and the seal on every frame.

A connection begins with one hello from each side (msgpack, not secret). The nonces and names in both and the cluster's
key produce a key that no other session has; each later frame is `HMAC-SHA256 (32) | body`, computed with a counter and
the direction, so that nothing can be forged, replayed, reordered or reflected.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Sequence

import msgspec

from kraft.protocol.primitives import Buffer
from metadata.decode_errors import DECODE_ERRORS
from metadata.unauthenticated import QUORUM_LISTENER

PROTOCOL_VERSION = 2
"""Version 1: the acceptor proved itself at the same time as the dialer, and the key was the secret itself."""
HELLO_BYTES_MAX = QUORUM_LISTENER.frame_bytes_max
NONCE_BYTES = 16
MAC_BYTES = 32
_PROTOCOL = "kraft-quorum"
_COUNTER = struct.Struct(">Q")


REASON_LENGTH_MAX = 300
"""Limit for text of a peer that is not authenticated, which goes into our events."""


class Refused(Exception):
    """This connection cannot be trusted; it alone is closed."""


class Hello(msgspec.Struct, kw_only=True, frozen=True):
    protocol: str = _PROTOCOL
    version: int = PROTOCOL_VERSION
    cluster_id: str
    sender: int
    receiver: int
    nonce: bytes
    incarnation: bytes
    """Random per process: two processes with one node id differ in it."""


def encode_hello(hello: Hello) -> bytes:
    return msgspec.msgpack.encode(hello)


def decode_hello(data: Buffer) -> Hello:
    """The hello of a frame. Raises Refused."""
    if len(data) > HELLO_BYTES_MAX:
        raise Refused(f"a hello of {len(data)} bytes; the limit is {HELLO_BYTES_MAX}")
    try:
        hello = msgspec.msgpack.decode(data, type=Hello)
    except DECODE_ERRORS as error:
        raise Refused(f"not a hello of the quorum: {type(error).__name__} {error}"[:REASON_LENGTH_MAX]) from error
    if hello.protocol != _PROTOCOL or len(hello.nonce) != NONCE_BYTES:
        raise Refused(f"not a hello of the quorum: protocol {hello.protocol!r:.50}, nonce of {len(hello.nonce)} bytes")
    return hello


def check_hello(theirs: Hello, *, ours: Hello, voters: Sequence[int]) -> None:
    """Check a hello. `ours.receiver` is the voter that was dialed, -1 on the side that was called. Raises Refused."""
    if theirs.version != PROTOCOL_VERSION:
        raise Refused(f"protocol version {theirs.version}; this node speaks {PROTOCOL_VERSION}")
    if theirs.cluster_id != ours.cluster_id:
        raise Refused(f"cluster id {theirs.cluster_id!r:.80}; ours is {ours.cluster_id!r}")
    if theirs.sender == ours.sender:
        raise Refused(f"it has our own node id {ours.sender}: two nodes with one id, or an address that leads back")
    if theirs.sender not in voters:
        raise Refused(f"node {theirs.sender} is not one of the voters {list(voters)}")
    if theirs.receiver not in (ours.sender, -1):
        raise Refused(f"it is looking for node {theirs.receiver} and has reached node {ours.sender}")
    if ours.receiver not in (theirs.sender, -1):
        raise Refused(f"the address of node {ours.receiver} leads to node {theirs.sender}")


def session_key(cluster_key: bytes, *, dialer: Hello, acceptor: Hello) -> bytes:
    names = (PROTOCOL_VERSION, dialer.cluster_id, dialer.sender, acceptor.sender, dialer.nonce, acceptor.nonce)
    return hmac.digest(cluster_key, msgspec.msgpack.encode(names), "sha256")


class Seal:
    """The seals of both directions of a session. A frame that does not have the next number is refused."""

    def __init__(self, key: bytes, *, is_dialer: bool) -> None:
        out, into = (b"dialer", b"acceptor") if is_dialer else (b"acceptor", b"dialer")
        self._sending = hmac.new(hmac.digest(key, out, "sha256"), digestmod=hashlib.sha256)
        self._receiving = hmac.new(hmac.digest(key, into, "sha256"), digestmod=hashlib.sha256)
        self._sent = self._received = 0

    def close(self, body: bytes) -> tuple[bytes, bytes]:
        mac = _mac(self._sending, self._sent, body)
        self._sent += 1
        return mac, body

    def open(self, frame: memoryview) -> memoryview:
        """The body of a frame. Raises Refused."""
        mac, body = frame[:MAC_BYTES], frame[MAC_BYTES:]
        if not hmac.compare_digest(mac, _mac(self._receiving, self._received, body)):
            raise Refused("a frame has the wrong seal: the secrets differ, or it was changed or replayed on the way")
        self._received += 1
        return body


def _mac(base: hmac.HMAC, counter: int, body: Buffer) -> bytes:
    mac = base.copy()
    mac.update(_COUNTER.pack(counter))
    mac.update(body)
    return mac.digest()
