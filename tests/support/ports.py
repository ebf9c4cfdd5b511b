"""Addresses for processes that a test starts, and starts again: nobody else takes a port there in between."""

from __future__ import annotations

import random
import socket
import sys


def own_host() -> str:
    """A loopback address that no other test and no connection of this machine uses. macOS has only one."""
    if sys.platform == "darwin":
        return "127.0.0.1"
    rng = random.SystemRandom()
    return f"127.{rng.randint(1, 254)}.{rng.randint(1, 254)}.{rng.randint(1, 254)}"


def free_ports(count: int, *, host: str) -> list[int]:
    sockets = [socket.create_server((host, 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
