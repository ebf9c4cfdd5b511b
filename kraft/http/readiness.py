"""Decides which routes answer before this node's metadata has caught up with the quorum; no other place does.

A node that has just started knows of no topic, or of those of an hour ago. Its answers (a topic does not exist, a
member was evicted) would be wrong, and clients would believe them. So each route answers 503 with Retry-After and
LEADER_NOT_AVAILABLE, the code that means that nothing was done, unless its declaration has `answers_early`. A route
that answers early names in a header what the node waits for.
"""

from __future__ import annotations

from typing import Final, Protocol

from aiohttp import web

from kraft.protocol.errors import LeaderNotAvailable

AWAITS_HEADER: Final = "X-Awaits"


class Awaiting(Protocol):
    """What a node waits for, in words; each is empty when it waits for nothing."""

    def metadata(self) -> str:
        """Before its metadata has caught up with the quorum. Once empty it stays so."""
        ...

    def service(self) -> str:
        """Before it takes part in the cluster, and whenever it does not."""
        ...


class Nothing:
    """Implements `Awaiting` where there is no quorum to wait for."""

    def metadata(self) -> str:
        return ""

    def service(self) -> str:
        return ""


def refuse_early(awaiting: Awaiting, *, node_id: int) -> None:
    """Raises LeaderNotAvailable, which is 503, for a route that does not answer early."""
    if reason := awaiting.metadata():
        raise LeaderNotAvailable(
            f"node {node_id} does not know the cluster yet and has done nothing; it waits: {reason}"
        )


def add_awaits_header(response: web.StreamResponse, awaiting: Awaiting) -> None:
    """Adds a header to an early answer that names what this node waits for."""
    if reason := awaiting.metadata():
        # A message of a controller may be in it: no line break, and nothing but ASCII.
        response.headers[AWAITS_HEADER] = " ".join(reason.split()).encode("ascii", "backslashreplace").decode()
