"""The places of those who have not authenticated: bounded, and nobody can keep others out by holding them."""

from __future__ import annotations

import dataclasses
import logging
from contextlib import ExitStack

import pytest

from kraft.runtime.tcp import REST_BYTES_MAX
from metadata.environment import FrameConnection
from metadata.unauthenticated import KAFKA_LISTENER, QUORUM_LISTENER, UnauthenticatedConnections


class Caller:
    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.is_closed = False

    def abort(self) -> None:
        self.is_closed = True


def come(connections: UnauthenticatedConnections, stack: ExitStack, *peers: str) -> list[Caller]:
    callers = [Caller(peer) for peer in peers]
    for caller in callers:
        connection: FrameConnection = caller  # type: ignore[assignment]
        stack.enter_context(connections.waiting(connection))
    return callers


def places(count: int) -> UnauthenticatedConnections:
    return UnauthenticatedConnections(dataclasses.replace(KAFKA_LISTENER, connections_max=count))


def test_the_oldest_of_the_address_with_most_makes_room():
    with ExitStack() as stack:
        connections = places(4)
        first, *crowd = come(connections, stack, "10.0.0.1:1", "6.6.6.6:1", "6.6.6.6:2", "6.6.6.6:3")
        come(connections, stack, "6.6.6.6:4", "10.0.0.2:1")
        assert [each.is_closed for each in crowd] == [True, True, False]
        assert not first.is_closed, "somebody else's crowd cost it its place"
        assert len(connections) == 4
    assert len(connections) == 0


def test_an_ipv6_address_is_an_address():
    with ExitStack() as stack:
        connections = places(3)
        (node,) = come(connections, stack, "fe80::1:9092")
        come(connections, stack, *(f"fe80::2:{port}" for port in range(10)))
        assert not node.is_closed


def test_a_crowd_is_said_once(caplog: pytest.LogCaptureFixture):
    with ExitStack() as stack, caplog.at_level(logging.WARNING):
        come(places(4), stack, *(f"6.6.6.6:{port}" for port in range(1_000)))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "6.6.6.6" in caplog.text


def test_who_has_authenticated_has_no_place_here():
    connections = places(1)
    with ExitStack() as stack:
        come(connections, stack, "10.0.0.1:1")
    with ExitStack() as stack:
        (second,) = come(connections, stack, "10.0.0.2:1")
        assert not second.is_closed


@pytest.mark.parametrize("limits", [KAFKA_LISTENER, QUORUM_LISTENER])
def test_all_strangers_of_a_listener_together_cost_little(limits: object):
    assert isinstance(limits, type(KAFKA_LISTENER))
    assert limits.frame_bytes_max <= REST_BYTES_MAX, "no frame of a stranger is worth a buffer of its own"
    assert limits.connections_max * limits.frame_bytes_max <= 16 * 1024 * 1024
    assert limits.wait_ms <= 10_000
