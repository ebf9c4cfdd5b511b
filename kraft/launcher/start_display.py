"""The display while nodes start: one line in a pipe, one live table on a terminal.

A start of seconds needs no more. A long one reports every ten seconds what it waits for.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from kraft.launcher.readiness import NO_ANSWER, Waiting, in_words
from kraft.launcher.runfile import ClusterRun

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live

SAY_EVERY_MS: Final = 10_000
READY: Final = "ready"


class StartView(Protocol):
    def begin(self, run: ClusterRun) -> None:
        """The processes were started."""
        ...

    def show(self, waiting: Waiting) -> None:
        """Called at every look; nothing is waited for: ready."""
        ...

    def end(self) -> None:
        """The cluster is ready, or was given up."""
        ...


class LongWait:
    """Reports a long wait, at each change and not more often than every ten seconds."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said = ""
        self._said_ms = _now_ms()

    def show(self, waiting: Waiting) -> None:
        text = in_words(waiting)
        if text != self._said and _now_ms() - self._said_ms >= SAY_EVERY_MS:
            self._said, self._said_ms = text, _now_ms()
            self._say(text)


class StartInPipe:
    """Implements `StartView`."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._wait = LongWait(say)

    def begin(self, run: ClusterRun) -> None:
        self._say(headline(run))

    def show(self, waiting: Waiting) -> None:
        self._wait.show(waiting)

    def end(self) -> None:
        """Nothing to do: the printed lines stay."""


class StartOnTerminal:
    """Implements `StartView`: the table is removed at the end, before the table of the cluster."""

    def __init__(self) -> None:
        self._run: ClusterRun | None = None
        self._shown: Waiting = {}
        self._live: Live | None = None

    def begin(self, run: ClusterRun) -> None:
        from rich.console import Console
        from rich.live import Live

        self._run = run
        self._shown = {node.name: NO_ANSWER for node in run.nodes}
        console = Console(file=sys.stdout)
        self._live = Live(_drawn(run, self._shown), console=console, auto_refresh=False, transient=True)
        self._live.start(refresh=True)

    def show(self, waiting: Waiting) -> None:
        if waiting == self._shown:
            return
        assert self._live is not None
        assert self._run is not None
        self._shown = waiting
        self._live.update(_drawn(self._run, waiting), refresh=True)

    def end(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def start_view(say: Callable[[str], None], *, on_terminal: bool) -> StartView:
    return StartOnTerminal() if on_terminal else StartInPipe(say)


def headline(run: ClusterRun) -> str:
    return f"cluster {run.cluster_id}: starting {len(run.nodes)} nodes in {run.data}"


def rows(run: ClusterRun, waiting: Waiting) -> list[tuple[str, str, str]]:
    """Name, process id and state of each node; then the things that the whole cluster waits for."""
    names = {node.name for node in run.nodes}
    nodes = [(node.name, str(node.pid), waiting.get(node.name, READY)) for node in run.nodes]
    return nodes + [(what, "", state) for what, state in waiting.items() if what not in names]


def _drawn(run: ClusterRun, waiting: Waiting) -> Group:
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table("node", "pid", "waits for", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for row in rows(run, waiting):
        table.add_row(*map(Text, row))
    return Group(Text(headline(run)), table)


def _now_ms() -> int:
    return int(time.monotonic() * 1000)
