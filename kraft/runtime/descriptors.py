"""Shares of the descriptors that a process may have (RLIMIT_NOFILE). Pure, except for queries of the system.

A reserve is first: the quorum and its connections, listening sockets, event loops, locks, and the short lives of
checkpoints. The rest is for files of logs, clients' connections and connections of nodes. Each keeps to its share, so
that none of them can take the last descriptor from another.
"""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Final

WANTED: Final = 65_536
"""The soft limit is raised to this, or to the hard limit if that is lower."""
RESERVE: Final = 192
"""Descriptors for everything that must continue when the other shares are used up."""
QUORUM_CONNECTIONS: Final = 64
"""Part of the reserve: connections that the quorum's listener accepts at once."""
LIMIT_MIN: Final = 320
"""A node does not start with fewer."""
FILES_PERCENT: Final = 55
CLIENTS_PERCENT: Final = 30
NODES_MIN: Final = 32
"""Connections of the Kafka listener, however few descriptors there are: each node has several to each other."""

_OPEN_NOW: Final = Path("/proc/self/fd")


class TooFewDescriptors(Exception):
    """The process may open fewer files than a node needs; the message has the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DescriptorShares:
    limit: int
    files: int
    """Files of logs that are open at once; any number of them may exist."""
    clients: int
    """Connections to the REST listener."""
    nodes: int
    """Connections to the Kafka listener."""


def share_out(limit: int) -> DescriptorShares:
    """The shares of a limit. Raises TooFewDescriptors."""
    if limit < LIMIT_MIN:
        raise TooFewDescriptors(
            f"this process may have {limit} open files and connections (RLIMIT_NOFILE), a node needs {LIMIT_MIN} or "
            "more: raise the hard limit (`ulimit -Hn`, LimitNOFILE= of systemd, --ulimit nofile= of a container)"
        )
    free = limit - RESERVE
    nodes = max(free * (100 - FILES_PERCENT - CLIENTS_PERCENT) // 100, NODES_MIN)
    clients = free * CLIENTS_PERCENT // 100
    return DescriptorShares(limit=limit, files=free - nodes - clients, clients=clients, nodes=nodes)


def raise_soft_limit() -> int:
    """Raise the soft limit towards `WANTED`, as far as the hard limit allows; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return WANTED if soft == resource.RLIM_INFINITY else soft


def open_now() -> int | None:
    """Number of descriptors that this process has; None where the system does not report it."""
    try:
        return len(os.listdir(_OPEN_NOW)) - 1  # one is that of the listing itself
    except OSError:
        return None
