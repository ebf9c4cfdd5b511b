"""Two thousand connections that guess passwords, or that begin to log in and never finish: others are served."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from kraft.protocol.errors import SaslAuthenticationFailed
from metadata.unauthenticated import KAFKA_LISTENER
from tests.clients.fuzz_before_login import (
    PASSWORD,
    User,
    address_of,
    secured_nodes,
)
from tests.integration.support.cluster import Cluster

pytestmark = pytest.mark.slow

CONNECTIONS = 2_000
SERVED_S = 10
HANDSHAKE = bytes.fromhex("00000011 0011 0001 00000001 ffff 0005") + b"PLAIN"
"""SaslHandshake for PLAIN."""


def guess(password: str) -> bytes:
    token = f"\0alice\0{password}".encode()
    body = bytes.fromhex("0024 0000 00000002 ffff") + struct.pack(">i", len(token)) + token
    return struct.pack(">i", len(body)) + body


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with secured_nodes(tmp_path_factory.mktemp("guessed")) as cluster:
        yield cluster


def answers(link: socket.socket) -> list[bytes]:
    """The frames that come until the connection ends."""
    data = b""
    try:
        while piece := link.recv(65_536):
            data += piece
    except OSError:
        pass
    found = []
    while len(data) >= 4:
        (size,) = struct.unpack_from(">i", data)
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found


def check_others(nodes: Cluster) -> None:
    """A user at another address logs in over both ports."""
    user = User.of(nodes)
    for logs_in, port in ((user.over_kafka, nodes.nodes[0].kafka), (user.over_http, nodes.nodes[0].rest)):
        began = time.monotonic()
        logs_in(address_of(port))
        assert time.monotonic() - began < SERVED_S


def test_who_guesses_is_limited_by_address_and_others_are_served(nodes: Cluster) -> None:
    address = address_of(nodes.nodes[0].kafka)
    with ExitStack() as stack:
        links = []
        for number in range(CONNECTIONS):
            link = stack.enter_context(socket.create_connection(address, timeout=30))
            link.sendall(HANDSHAKE + guess(f"guess {number}"))
            links.append(link)
            if number % 500 == 0:
                check_others(nodes)
        check_others(nodes)
        logins = [found[1] for link in links if len(found := answers(link)) > 1]
    assert len(logins) > 100
    assert {struct.unpack_from(">h", each, 4)[0] for each in logins} == {SaslAuthenticationFailed.code}
    with socket.create_connection(address, timeout=30) as right:
        right.sendall(HANDSHAKE + guess(PASSWORD))
        assert struct.unpack_from(">h", answers(right)[1], 4)[0] == SaslAuthenticationFailed.code, "no look any more"
    check_others(nodes)


def test_who_never_finishes_is_bounded_in_time_and_number(nodes: Cluster) -> None:
    address = address_of(nodes.nodes[0].kafka)
    with ExitStack() as stack:
        links = []
        for number in range(CONNECTIONS):
            link = stack.enter_context(socket.create_connection(address, timeout=KAFKA_LISTENER.wait_ms / 1_000 + 30))
            link.sendall(HANDSHAKE if number % 2 else HANDSHAKE[:9])
            links.append(link)
        began = time.monotonic()
        check_others(nodes)
        early = 0
        for link in links:
            answers(link)
            early += time.monotonic() - began < KAFKA_LISTENER.wait_ms / 1_000 / 2
        assert time.monotonic() - began < KAFKA_LISTENER.wait_ms / 1_000 + 20
    assert early >= CONNECTIONS - KAFKA_LISTENER.connections_max - 100, "the oldest made room"
