"""Strangers at the quorum's port: they know names, and no secret."""

from __future__ import annotations

import random
import struct

import pytest

from kraft.launcher.runfile import load_run
from metadata.quorum.frame_auth import MAC_BYTES, NONCE_BYTES, Hello, encode_hello
from metadata.quorum.handshake import WRONG_PROOF
from metadata.unauthenticated import QUORUM_LISTENER
from tests.integration.attacks.attack import (
    Attack,
    Target,
    at_once,
    connected,
    framed,
    sent,
    spoken,
    until_closed,
    withstand,
)
from tests.integration.support.cluster import Cluster

ANNOUNCED = struct.pack(">i", 8 * 1024 * 1024)
CROWD = 200


def voters_hello(target: Target, *, sender: int = 2) -> bytes:
    run = load_run(target.cluster.data)
    assert run is not None
    nonce = random.Random(7).randbytes(NONCE_BYTES)
    return encode_hello(
        Hello(cluster_id=run.cluster_id, sender=sender, receiver=target.node_id, nonce=nonce, incarnation=nonce)
    )


def says(*frames: bytes, answer_bytes_max: int = 0) -> Attack:
    """Frames of a stranger, on many connections at once. Each is closed, with at most so many bytes of an answer."""

    def run(target: Target) -> None:
        with connected(target.quorum, 20) as connections:
            for connection in connections:
                sent(connection, b"".join(framed(frame) for frame in frames))
            for connection in connections:
                assert len(until_closed(connection)) <= answer_bytes_max

    what = " and ".join(f"{len(frame)} bytes" for frame in frames)
    return Attack(sends=f"frames of {what}", comes_back=f"at most {answer_bytes_max} bytes and the end", run=run)


def long_frames(target: Target) -> None:
    with connected(target.quorum, CROWD) as connections:
        for connection in connections:
            sent(connection, ANNOUNCED)
            sent(connection, bytes(64 * 1024))
        for connection in connections:
            assert until_closed(connection) == b""


def silence(target: Target) -> None:
    with connected(target.quorum, 3 * CROWD) as connections:
        for connection in connections:
            assert until_closed(connection) == b""


def trickle(target: Target) -> None:
    hello = framed(voters_hello(target))
    with connected(target.quorum, 20) as connections:
        for byte in hello[:-1]:
            taken = [sent(connection, bytes([byte])) for connection in connections]
            if not any(taken):
                break
        for connection in connections:
            assert until_closed(connection) == b""


def guess(target: Target) -> None:
    """A voter's hello, then proofs. What comes back is a hello and that the proof is wrong, never one of ours."""
    rng = random.Random(1)
    for _ in range(30):
        with connected(target.quorum) as (connection,):
            sent(connection, framed(voters_hello(target)) + framed(rng.randbytes(MAC_BYTES)))
            answer = until_closed(connection)
        (length,) = struct.unpack_from(">i", answer)
        assert answer[4 + length :] == framed(WRONG_PROOF), answer


def wait_for_proof(target: Target) -> None:
    """A voter's hello and nothing more: the acceptor shows its hello, and no proof before the dialer's."""
    with connected(target.quorum, 20) as connections:
        for connection in connections:
            sent(connection, framed(voters_hello(target)))
        for connection in connections:
            answer = until_closed(connection)
            (length,) = struct.unpack_from(">i", answer)
            assert len(answer) == 4 + length, "more than a hello"


def storm(target: Target) -> None:
    """As fast as one stranger can. What the node says about it must not fill its disk."""
    before = spoken(target)
    for _ in range(40):
        with connected(target.quorum, 50) as connections:
            for connection in connections:
                sent(connection, framed(b"\xc1" * 100))
            for connection in connections:
                assert until_closed(connection) == b""
    assert spoken(target) - before < 64 * 1024


ATTACKS = {
    "a storm": Attack(sends="2,000 refused hellos", comes_back="the end, and a few lines in the log", run=storm),
    "garbage": says(b"\xc1" * 100),
    "text that is no UTF-8": says(b"\x81\xa8protocol\xa3\xff\xfe\xfd"),
    "nested msgpack": says(b"\x81\xa6sender" + b"\x91" * 4_000),
    "an empty frame": says(b""),
    "HTTP": says(b"GET / HTTP/1.1\r\n\r\n"),
    "a hello of the largest size": says(b"\x81\xaacluster_id\xda\x0f\x00" + b"x" * 0xF00),
    "more than a hello may be": says(bytes(QUORUM_LISTENER.frame_bytes_max + 1)),
    "a negative length": Attack(
        sends="a frame of -1 bytes",
        comes_back="the end",
        run=lambda target: _ends(target, struct.pack(">i", -1)),
    ),
    "long frames": Attack(
        sends=f"{CROWD} frames that announce 8 MiB, and 64 KiB of each",
        comes_back="a reset, judged by the length",
        run=long_frames,
        memory_mib_max=32,
    ),
    "silence": Attack(
        sends=f"nothing, on {3 * CROWD} connections", comes_back="the end, within seconds", run=silence, outwaits=True
    ),
    "a trickle": Attack(
        sends="a hello, byte by byte, and never the last", comes_back="the end", run=trickle, outwaits=True
    ),
    "guessed proofs": Attack(sends="a voter's hello and a proof without the key", comes_back="a refusal", run=guess),
    "a voter's hello": Attack(
        sends="a voter's hello and no proof", comes_back="a hello, no proof, the end", run=wait_for_proof
    ),
}


def _ends(target: Target, data: bytes) -> None:
    with connected(target.quorum) as (connection,):
        sent(connection, data)
        assert until_closed(connection) == b""


@pytest.mark.parametrize("name", at_once(ATTACKS))
def test_the_quorums_port_withstands(attacked_cluster: Cluster, name: str):
    leader = attacked_cluster.status()["controller_id"]
    withstand(attacked_cluster, ATTACKS[name], node_id=1)
    assert attacked_cluster.status()["controller_id"] == leader, "the quorum has elected another leader"
