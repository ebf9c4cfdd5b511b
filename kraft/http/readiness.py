"""Who is answered before this node's metadata has caught up with the quorum: the one place that decides it.

A node that has just started knows of no topic, or of those of an hour ago. From that it would say that a topic does
not exist, or that a member was evicted, and be believed. So each route is closed until then unless its declaration
says otherwise: 503 with Retry-After and LEADER_NOT_AVAILABLE, by which clients know that nothing was done. What
answers early says in a header what is awaited.
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
    if awaited := awaiting.metadata():
        raise LeaderNotAvailable(
            f"node {node_id} does not know the cluster yet and has done nothing; it waits: {awaited}"
        )


def tell_awaited(response: web.StreamResponse, awaiting: Awaiting) -> None:
    """Says in a header of an early answer what this node waits for."""
    if awaited := awaiting.metadata():
        # What a controller has said may be in it: no line break, and nothing but ASCII.
        response.headers[AWAITS_HEADER] = " ".join(awaited.split()).encode("ascii", "backslashreplace").decode()
