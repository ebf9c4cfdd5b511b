"""Commands for the fork server: one JSON command a line, answered in order by one reply a line.

They arrive over the pipes of the process that started it (its owner), and over a socket in the data folder of each
cluster that it runs.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from typing import Any, Final, Self

import msgspec

from kraft.launcher.python import environment

SOCKET_FILE: Final = "nodes.sock"
"""Socket in the data folder, for its owner alone (mode 0600)."""
LINE_BYTES_MAX: Final = 1024 * 1024
"""Longest line of a command: it has room for an environment and a configuration."""
READ_AT_START: Final = (
    "PYTHON", "LD_", "MALLOC_", "GLIBC_", "OPENSSL_", "AIOHTTP_", "UV_", "LC_", "LANG", "TZ", "KRAFT_LEAN_LOADING",
)  # fmt: skip
"""Prefixes of variables that a program reads when it begins, and a fork therefore never."""
_LIMITS: Final = ("NOFILE", "AS", "CORE", "DATA", "FSIZE", "MEMLOCK", "NPROC", "STACK")


class Inherited(msgspec.Struct, kw_only=True, frozen=True):
    """The properties that a program inherits from its parent. A fork gets them, and is made only if it can have them
    too."""

    user: tuple[int, int]
    umask: int
    limits: Mapping[str, tuple[int, int]]
    variables: Mapping[str, str]

    @classmethod
    def own(cls) -> Self:
        umask = os.umask(0)
        os.umask(umask)
        return cls(
            user=(os.geteuid(), os.getegid()),
            umask=umask,
            limits={name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in _LIMITS},
            variables=environment(),
        )

    def why_not_of(self, process: Inherited) -> str:
        """The reason why a fork of that process cannot have these; empty when it can."""
        if self.user != process.user:
            return "it belongs to another user"
        if self.limits != process.limits:
            return "its resource limits are different"
        mine, its = _read_at_start(self.variables), _read_at_start(process.variables)
        differing = sorted(name for name in mine.keys() | its.keys() if mine.get(name) != its.get(name))
        return f"it began with another {differing[0]}" if differing else ""


def _read_at_start(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name.startswith(READ_AT_START)}


class StartNode(msgspec.Struct, kw_only=True, frozen=True):
    config: str
    node_id: int
    data: str
    log: str
    """File for its output."""
    variables: dict[str, str] = {}
    """Variables of its environment, besides those of the process that starts it."""
    parent_pid: int | None = None
    """The process with which the node ends, cleanly."""
    inherited: Inherited | None = None
    """Properties of the process that asks; None: those of the fork server."""


class Prepare(msgspec.Struct, kw_only=True, frozen=True):
    """Read a configuration, and find ports. The reply has its data folder and warnings; nothing is started."""

    config: str | None = None
    """Path of a cluster.toml; None: `text`, or else the built-in one."""
    text: str | None = None
    data: str | None = None
    is_temporary: bool = False
    """Its data folder is made by the fork server, as `data` if that is set, and removed at the end."""
    free_ports: bool = False
    secure: bool = False
    """With TLS, a user and ACLs (`kraft/launcher/secured.py`)."""
    owner_pid: int | None = None
    """Its nodes are killed when this process ends, for any reason. None: they live on."""
    ends_users: bool = False
    """The end also kills every process that has the data folder in its KRAFT_DATA."""


class Launch(msgspec.Struct, kw_only=True, frozen=True):
    """Start the nodes of a prepared cluster. The reply has its run file."""

    data: str
    parent_pid: int | None = None
    """Its nodes stop cleanly when this process ends."""
    has_witness: bool = False
    """Whether the nodes' disks keep a witness of durable data, which a power loss needs."""


class Command(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """A command. Its answer is one `Reply` with the same id."""

    id: int
    start: StartNode | None = None
    reap: tuple[int, ...] = ()
    """Nodes of the owner that have ended: their process ids may be used again."""
    prepare: Prepare | None = None
    launch: Launch | None = None
    keep: str = ""
    """Data folder of a temporary cluster: it is not removed at the end."""
    end: str = ""
    """Data folder of a cluster: its remaining processes are killed, and a temporary folder is removed."""


class Reply(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    id: int
    pid: int = 0
    error: str = ""
    is_refused: bool = False
    """With an error: a fork is not possible, but a program is."""
    document: dict[str, Any] = {}
    """The prepared cluster, or the run."""
