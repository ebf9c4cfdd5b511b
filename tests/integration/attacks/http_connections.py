"""HTTP connections that never become a request, and those that never end one: run by `test_patience.py`."""

from __future__ import annotations

from kraft.http.limits import Limits
from tests.integration.attacks.attack import Attack, Target, connected, sent, until_closed

IDLE = 200
BEGINNINGS = (b"", b"G", b"\r\n\r\n", b"GET /topics HTTP/1.1\r\nHost: localhost\r\nX: ")
HEAD = b"GET /topics HTTP/1.1\r\nHost: localhost\r\nX: "


def silence(target: Target) -> None:
    """All at once, so that the test waits once."""
    with connected(target.rest, len(BEGINNINGS) * IDLE) as connections:
        for number, connection in enumerate(connections):
            sent(connection, BEGINNINGS[number % len(BEGINNINGS)])
        for number, connection in enumerate(connections):
            answer = until_closed(connection)
            assert not answer or (BEGINNINGS[number % len(BEGINNINGS)] and answer.startswith(b"HTTP/1.1 408 ")), answer


def trickle(target: Target) -> None:
    with connected(target.rest, 20) as connections:
        for connection in connections:
            connection.settimeout(0.2)  # short: nothing is answered while the header trickles in
            sent(connection, HEAD)
        open_ones = list(connections)
        for _ in range(Limits().header_wait_ms // 100 * 3):
            for connection in list(open_ones):
                sent(connection, b"x")
                try:
                    if not connection.recv(1_000, 0):
                        open_ones.remove(connection)
                except TimeoutError:
                    continue
                except ConnectionError:
                    open_ones.remove(connection)
            if not open_ones:
                return
        raise AssertionError(f"{len(open_ones)} connections trickle on")


ATTACKS = {
    "silence": Attack(
        sends=f"nothing, a letter, empty lines and a head without an end, on {IDLE} connections each",
        comes_back="408, or nothing, and the end",
        run=silence,
        outwaits=True,
    ),
    "a trickle": Attack(
        sends="a header, byte by byte, for ever", comes_back="408 and the end", run=trickle, outwaits=True
    ),
}
