"""The hello and the seal, against everything a stranger may send."""

from __future__ import annotations

import hmac
import random
from dataclasses import dataclass

import msgspec
import pytest

from metadata.quorum.frame_auth import (
    HELLO_BYTES_MAX,
    Hello,
    Refused,
    Seal,
    check_hello,
    decode_hello,
    encode_hello,
    session_key,
)


@dataclass
class Pair:
    dialer: Seal
    acceptor: Seal


def hello(**changes: object) -> Hello:
    values = {"cluster_id": "c", "sender": 2, "receiver": 1, "nonce": bytes(16), "incarnation": b"x"}
    return Hello(**{**values, **changes})  # type: ignore[arg-type]


def pair(*, secrets: tuple[bytes, bytes] = (b"s", b"s"), nonce: bytes = bytes(16)) -> Pair:
    dialer, acceptor = hello(nonce=nonce), hello(sender=1, receiver=-1, nonce=b"n" * 16)
    keys = [session_key(secret, dialer=dialer, acceptor=acceptor) for secret in secrets]
    return Pair(Seal(keys[0], is_dialer=True), Seal(keys[1], is_dialer=False))


def sealed(seal: Seal, body: bytes) -> memoryview:
    return memoryview(b"".join(seal.close(body)))


def test_frames_pass_in_both_directions() -> None:
    both = pair()
    for body in (b"", b"one", bytes(100_000)):
        assert bytes(both.acceptor.open(sealed(both.dialer, body))) == body
        assert bytes(both.dialer.open(sealed(both.acceptor, body))) == body


def test_a_seal_is_hmac_sha256_of_the_number_and_the_body() -> None:
    key = bytes(range(32))
    seal, secret = Seal(key, is_dialer=True), hmac.digest(key, b"dialer", "sha256")
    for number, body in enumerate((b"", b"one", bytes(1000))):
        assert seal.close(body) == (hmac.digest(secret, number.to_bytes(8, "big") + body, "sha256"), body)


def test_a_changed_bit_anywhere_is_refused() -> None:
    frame = bytes(sealed(pair().dialer, b"body"))
    for position in range(len(frame)):
        changed = bytearray(frame)
        changed[position] ^= 1
        with pytest.raises(Refused):
            pair().acceptor.open(memoryview(changed))


def test_a_replayed_a_skipped_and_a_reflected_frame_are_refused() -> None:
    both = pair()
    first, second = sealed(both.dialer, b"1"), sealed(both.dialer, b"2")
    with pytest.raises(Refused):
        both.acceptor.open(second)
    both.acceptor.open(first)
    with pytest.raises(Refused):
        both.acceptor.open(first)
    with pytest.raises(Refused):
        both.dialer.open(first)


def test_a_frame_of_another_session_or_secret_is_refused() -> None:
    frame = sealed(pair().dialer, b"1")
    with pytest.raises(Refused):
        pair(nonce=b"o" * 16).acceptor.open(frame)
    with pytest.raises(Refused, match="secrets differ"):
        pair(secrets=(b"s", b"t")).acceptor.open(sealed(pair().dialer, b"1"))


@pytest.mark.parametrize("frame", [b"", b"x", b"\x00" * 31, b"\x00" * 33])
def test_a_short_frame_is_refused(frame: bytes) -> None:
    with pytest.raises(Refused):
        pair().acceptor.open(memoryview(frame))


def test_garbage_is_no_hello() -> None:
    rng = random.Random(1)
    for _ in range(300):
        with pytest.raises(Refused):
            decode_hello(rng.randbytes(rng.randrange(100)))
    whole = encode_hello(hello())
    assert decode_hello(whole) == hello()
    for size in range(len(whole)):
        with pytest.raises(Refused):
            decode_hello(whole[:size])
    with pytest.raises(Refused, match="limit"):
        decode_hello(bytes(HELLO_BYTES_MAX + 1))
    with pytest.raises(Refused, match="protocol"):
        decode_hello(encode_hello(msgspec.structs.replace(hello(), protocol="other")))
    with pytest.raises(Refused, match="nonce"):
        decode_hello(encode_hello(hello(nonce=b"short")))


@pytest.mark.parametrize(
    ("theirs", "ours", "reason"),
    [
        ({"version": 1}, {}, "protocol version 1; this node speaks 2"),
        ({"cluster_id": "d"}, {}, "cluster id 'd'"),
        ({"sender": 1}, {}, "our own node id"),
        ({"sender": 9}, {}, "not one of the voters"),
        ({"receiver": 3}, {}, "looking for node 3"),
        ({}, {"receiver": 3}, "address of node 3 leads to node 2"),
    ],
)
def test_a_hello_that_does_not_fit_is_refused(theirs: dict[str, object], ours: dict[str, object], reason: str) -> None:
    mine = hello(**{"sender": 1, "receiver": -1, **ours})
    check_hello(hello(), ours=hello(sender=1, receiver=-1), voters=[2, 3])
    with pytest.raises(Refused, match=reason):
        check_hello(hello(**theirs), ours=mine, voters=[2, 3])
