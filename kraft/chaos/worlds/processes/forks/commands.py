"""What the runner and the process that forks nodes tell each other: a JSON object a line. Pure."""

from __future__ import annotations

import msgspec


class StartNode(msgspec.Struct, kw_only=True, frozen=True):
    config: str
    node_id: int
    data: str
    log: str
    """File that gets its output."""
    variables: dict[str, str] = {}
    """Of its environment, besides those of the process that forks it."""


class Command(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """One line from the runner; answered by one `Reply` with the same id."""

    id: int
    start: StartNode | None = None
    reap: tuple[int, ...] = ()
    """Nodes that have ended: their process ids may be given away."""


class Reply(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    id: int
    pid: int = 0
    error: str = ""
