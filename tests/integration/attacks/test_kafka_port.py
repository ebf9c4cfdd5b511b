"""Strangers at the Kafka port, where until now only nodes authenticate: they know the protocol, and no secret."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from kraft.wire import apis
from metadata.strangers import KAFKA_LISTENER
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

ANNOUNCED = struct.pack(">i", 100 * 1024 * 1024)
"""socket.request.max.bytes, which a node may use up."""
CROWD = 200
API_VERSIONS = framed(struct.pack(">hhih", 18, 0, 1, -1))
FLOOD = 200_000
"""Requests of one stranger that reads no answers: without a limit they cost some 50 MB."""
LONG_ARRAY = struct.pack(">i", 0x7FFFFFFF)


def long_frames(target: Target) -> None:
    with connected(target.kafka, 10) as connections:
        for connection in connections:
            sent(connection, ANNOUNCED)
        for _ in range(90):
            for connection in connections:
                sent(connection, bytes(1024 * 1024))
        for connection in connections:
            assert until_closed(connection) == b""


def silence(target: Target) -> None:
    """Frames are as long as they may be, and their last byte never comes."""
    with connected(target.kafka, 3 * CROWD) as connections:
        for connection in connections[::2]:
            sent(connection, framed(bytes(KAFKA_LISTENER.frame_bytes_max))[:-1])
        for connection in connections:
            assert until_closed(connection) == b""


def flood(target: Target) -> None:
    with connected(target.kafka, 3) as connections:
        for connection in connections:
            sent(connection, API_VERSIONS * FLOOD)
        for connection in connections:
            answers = until_closed(connection)
            assert len(answers) < KAFKA_LISTENER.frames_max * 2_000


def says(frame: bytes) -> Callable[[Target], None]:
    def run(target: Target) -> None:
        with connected(target.kafka, 20) as connections:
            for connection in connections:
                sent(connection, framed(frame))
                sent(connection, API_VERSIONS * KAFKA_LISTENER.frames_max)
            for connection in connections:
                assert len(until_closed(connection)) < KAFKA_LISTENER.frames_max * 2_000

    return run


def claims(target: Target) -> None:
    """In every API and version: an array or text of 2 GiB, in a short frame."""
    for api in apis.BY_KEY.values():
        for version in range(api.version_min, api.version + 1):
            for claim in (LONG_ARRAY * 8, b"\xff\xff\xff\xff\x07" * 8, b"\0\0\0\1" * 8, b"\x7f\xff" * 16):
                says_at_once(target, struct.pack(">hhih", api.key, version, 1, -1) + b"\0" + claim)


def says_at_once(target: Target, frame: bytes) -> None:
    with connected(target.kafka) as (connection,):
        sent(connection, framed(frame) + API_VERSIONS * KAFKA_LISTENER.frames_max)
        until_closed(connection)


def storm(target: Target) -> None:
    before = spoken(target)
    for _ in range(40):
        with connected(target.kafka, 50) as connections:
            for number, connection in enumerate(connections):
                sent(connection, ANNOUNCED if number % 2 else framed(b"\xff" * 100))
            for connection in connections:
                assert until_closed(connection) == b""
    assert spoken(target) - before < 64 * 1024


ATTACKS = {
    "a storm": Attack(sends="2,000 refused frames", comes_back="the end, and a few lines in the log", run=storm),
    "long frames": Attack(
        sends="ten frames that announce 100 MiB, and 90 MiB of each",
        comes_back="a reset, judged by the length",
        run=long_frames,
        memory_mib_max=32,
    ),
    "silence": Attack(
        sends=f"nothing, or all but the last byte of a frame, on {3 * CROWD} connections",
        comes_back="the end within 10 s",
        run=silence,
        outwaits=True,
    ),
    "a flood": Attack(
        sends=f"{FLOOD} ApiVersions, whose answers are not read", comes_back="a few answers and the end", run=flood
    ),
    "claims": Attack(
        sends="arrays and texts of 2 GiB, claimed in short frames of every API and version",
        comes_back="an error or the end",
        run=claims,
    ),
    "garbage": Attack(sends="what is no request", comes_back="the end", run=says(b"\xff" * 10_000)),
    "an empty frame": Attack(sends="a frame of no bytes", comes_back="the end", run=says(b"")),
    "HTTP": Attack(sends="a GET", comes_back="the end", run=says(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")),
    "a client id": Attack(
        sends="a client id that is no UTF-8",
        comes_back="the end",
        run=says(struct.pack(">hhih", 18, 0, 1, 4) + b"\xff" * 4),
    ),
}


@pytest.mark.parametrize("name", at_once(ATTACKS))
def test_the_kafka_port_withstands(attacked_cluster: Cluster, name: str):
    withstand(attacked_cluster, ATTACKS[name], node_id=1)
