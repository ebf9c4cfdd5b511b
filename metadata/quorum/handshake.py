"""The handshake of a connection between two voters: both prove who they are, the dialer first.

    dialer  --hello-->  acceptor    dialer  <--hello--  acceptor
    dialer  --proof-->  acceptor    dialer  <--proof--  acceptor
    dialer  --go----->  acceptor

A proof is the first sealed frame of its side, with no body. A caller without the key gets no proof, and so nothing that
was made with the key. `go` is the dialer's second frame: it has seen the acceptor's proof, and accepts long frames from
now on, so that the acceptor may send them.
"""

from __future__ import annotations

from collections.abc import Sequence

from metadata.environment import FrameConnection
from metadata.quorum.frame_auth import Hello, Refused, Seal, check_hello, decode_hello, encode_hello, session_key

ANYBODY = -1
"""The receiver in the hello of a voter that was called."""
WRONG_PROOF = b"wrong proof"
"""Sent instead of a proof: it has no seal, so that the dialer refuses it and reports it on its side too."""


async def shake_hands(
    connection: FrameConnection, ours: Hello, *, voters: Sequence[int], key: bytes, frame_bytes_max: int
) -> tuple[Hello, Seal]:
    """Return the peer's hello, and the seal of all later frames, which may have up to `frame_bytes_max`.

    Raises Refused, ConnectionClosed.
    """
    is_dialer = ours.receiver != ANYBODY
    if is_dialer:
        connection.send([encode_hello(ours)])
    theirs = decode_hello(await connection.receive())
    if not is_dialer:
        connection.send([encode_hello(ours)])
    check_hello(theirs, ours=ours, voters=voters)
    dialer, acceptor = (ours, theirs) if is_dialer else (theirs, ours)
    seal = Seal(session_key(key, dialer=dialer, acceptor=acceptor), is_dialer=is_dialer)
    await (_prove_first if is_dialer else _prove_second)(connection, seal, frame_bytes_max)
    return theirs, seal


async def _prove_first(connection: FrameConnection, seal: Seal, frame_bytes_max: int) -> None:
    connection.send(seal.close(b""))
    seal.open(await connection.receive())
    connection.take_frames(bytes_max=frame_bytes_max)
    connection.send(seal.close(b""))


async def _prove_second(connection: FrameConnection, seal: Seal, frame_bytes_max: int) -> None:
    try:
        seal.open(await connection.receive())
    except Refused:
        connection.send([WRONG_PROOF])
        raise
    connection.take_frames(bytes_max=frame_bytes_max)
    connection.send(seal.close(b""))
    seal.open(await connection.receive())
