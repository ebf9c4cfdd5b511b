"""`kraft top`: the cluster, its partitions with the bad ones first, groups and queues, in a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Final

import typer

from kraft.cli import top_view as view
from kraft.cli.options import DataOption, JsonOption, RestOption
from kraft.cli.output import CommandFailed, write, write_json
from kraft.cli.rest import DATA_DEFAULT, Rest
from kraft.client.response import segment
from kraft.launcher.python import PYTHON
from kraft.launcher.runfile import load_run

WIDTH: Final = 80
"""Columns of the text without a terminal."""
SHOWN_MAX: Final = 500
GROUPS_MAX: Final = 50
"""Groups whose lag is asked for; each costs a request."""
FAULTS: Final = {"K": "kill", "P": "pause", "R": "restart", "C": "cut", "H": "heal"}
"""Key -> the command of `kraft fault`."""


def top(
    once: Annotated[bool, typer.Option("--once", help="Print it once, and end.")] = False,
    interval: Annotated[float, typer.Option("--interval", min=0.2, max=60, help="Seconds between two looks.")] = 1.0,
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show nodes, partitions (the bad ones first), groups and queues, and refresh it until `x`.

    Keys: up and down choose a partition, enter shows it and why it is as it is, g groups, u queues, c the cluster. In
    a cluster that `kraft up` or `kraft exec` has started here: K kills a node, P pauses one, R brings one back, C cuts
    a link (with --faults), H heals all.
    """
    screen = Screen(Rest(rest, data), data=None if rest else os.path.abspath(data or DATA_DEFAULT))
    if as_json:
        write_json(screen.document())
    elif once or not (sys.stdin.isatty() and sys.stdout.isatty()):
        screen.look()
        for line in screen.snapshot(width=WIDTH, height=SHOWN_MAX):
            write(line.text.rstrip())
    else:
        _live(screen, interval_ms=round(interval * 1_000))


class Screen:
    """What is shown, and what the keys have chosen."""

    def __init__(self, rest: Rest, *, data: str | None) -> None:
        self._rest = rest
        self._data = data
        self.can_break = data is not None and load_run(data) is not None
        self.mode = "cluster"
        self.chosen = 0
        self.prompt: str | None = None
        """The command of `kraft fault` whose node is typed."""
        self.typed = ""
        self.note = ""
        self._state: dict[str, Any] = {}
        self._rows: list[dict[str, Any]] = []
        self._why: dict[str, Any] | None = None
        self._running: subprocess.Popen[str] | None = None

    def look(self) -> None:
        """Ask the cluster for what the screen shows. What does not answer is shown as that."""
        try:
            self._state = self._rest.get(f"/kraft/changes?limit={SHOWN_MAX}")["set"]
            if self.mode in ("groups", "queues"):
                self._rows = self._groups() if self.mode == "groups" else self._queues()
            if self.mode == "partition" and (name := self._name()) is not None:
                topic, _, number = name.rpartition("-")
                self._why = self._rest.get(f"/kraft/explain/partition/{segment(topic)}/{number}")
        except CommandFailed as error:
            self.note = str(error)
        if self._running is not None and self._running.poll() is not None:
            said = (self._running.communicate()[0] or "").strip().splitlines()
            self.note, self._running = (said[-1] if said else "done"), None

    def lines(self, *, width: int, height: int) -> list[view.Line]:
        """The screen, from what was looked at last."""
        foot = [view.Line(view.DIM, view.KEYS)]
        if self.can_break:
            foot.append(view.Line(view.DIM, view.FAULT_KEYS))
        if self.prompt is not None:
            ends = "1-2, or 1 for all its links" if self.prompt == "cut" else "its id"
            foot.insert(0, view.Line(view.HEAD, f"{self.prompt} ({ends}; enter, or escape): {self.typed}_"))
        elif self.note:
            foot.insert(0, view.Line(view.HEAD, self.note))
        room = height - len(foot)
        if self.mode == "partition" and (name := self._name()) is not None:
            shown = view.partition_lines(self._state, name, self._why, width=width)
        elif self.mode in ("groups", "queues"):
            shown = view.group_lines(self._rows, what=self.mode)
        else:
            shown = view.cluster_lines(self._state, chosen=self.chosen, height=room)
        return [*view.cut(shown, width=width, height=room), *view.cut(foot, width=width, height=len(foot))]

    def snapshot(self, *, width: int, height: int) -> list[view.Line]:
        """The cluster without keys; no partition is chosen. Raises CommandFailed where no node answers."""
        if not self._state:
            raise CommandFailed(self.note)
        return view.cut(view.cluster_lines(self._state, chosen=-1, height=height), width=width, height=height)

    def press(self, key: str) -> bool:
        """One key. False: the end."""
        if self.prompt is not None:
            self._type(key)
        elif key == "x":
            return False
        elif key in FAULTS and self.can_break:
            self.note = ""
            if key == "H":
                self._fault("heal")
            else:
                self.prompt, self.typed = FAULTS[key], ""
        elif key in ("up", "down"):
            last = max(0, len(view.shown_partitions(self._state)) - 1)
            self.chosen = min(max(0, self.chosen + (1 if key == "down" else -1)), last)
        else:
            self._why = None
            self.mode = {"enter": "partition", "g": "groups", "u": "queues"}.get(key, "cluster")
        return True

    def document(self) -> dict[str, Any]:
        """All screens, for programs."""
        self.look()
        state = self._state
        if not state:
            raise CommandFailed(self.note)
        return {
            "cluster": state.get("cluster", {}),
            "totals": state.get("totals", {}),
            "nodes": {key[5:]: row for key, row in state.items() if key.startswith("node/")},
            "partitions": [
                {**each._asdict(), "standing": view.STANDINGS[each.standing].lower()}
                | {"log_end_offsets": {node: row[5] for node, row in view.replicas_of(state, each.name).items()}}
                for each in view.partitions_of(state)
            ],
            "groups": self._listed(self._groups),
            "queues": self._listed(self._queues),
        }

    def _name(self) -> str | None:
        partitions = view.shown_partitions(self._state)
        return partitions[min(self.chosen, len(partitions) - 1)].name if partitions else None

    def _type(self, key: str) -> None:
        assert self.prompt is not None
        if key == "enter" and self.typed:
            self._fault(self.prompt, self.typed)
        if key in ("enter", "escape"):
            self.prompt = None
        elif key == "backspace":
            self.typed = self.typed[:-1]
        elif len(key) == 1 and (key.isdecimal() or key == "-") and len(self.typed) < 12:
            self.typed += key

    def _fault(self, *words: str) -> None:
        """Runs `kraft fault` beside the display; its last line is shown when it ends."""
        if self._running is not None:
            self.note = "the command before is still running"
            return
        assert self._data is not None, "keys that break need a folder"
        self.note = f"kraft fault {' '.join(words)} ..."
        self._running = subprocess.Popen(
            [*PYTHON, "-m", "kraft", "fault", *words, "--data", self._data],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _groups(self) -> list[dict[str, Any]]:
        return [self._row("consumer-groups", "consumer_group_id", each) for each in self._found("/consumer-groups")]

    def _queues(self) -> list[dict[str, Any]]:
        return [self._row("share-groups", "share_group_id", each) for each in self._found("/share-groups")]

    def _found(self, path: str) -> Sequence[dict[str, Any]]:
        found: Sequence[dict[str, Any]] = self._rest.get(self._rest.cluster(path))["data"]
        return found[:GROUPS_MAX]

    def _row(self, kind: str, name: str, group: dict[str, Any]) -> dict[str, Any]:
        one = self._rest.cluster(f"/{kind}/{segment(group[name])}")
        lags = [each["lag"] for each in self._rest.get(f"{one}/lags")["data"]]
        members = self._rest.get(f"{one}/consumers")["data"]
        lag = None if any(each < 0 for each in lags) else sum(lags)
        return {"name": group[name], "state": group["state"], "members": len(members), "lag": lag}

    def _listed(self, read: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]] | None:
        """None where their coordinators do not answer: the rest of the document is worth having."""
        try:
            return read()
        except CommandFailed:
            return None


def _live(screen: Screen, *, interval_ms: int) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(file=sys.stdout)
    with _keys() as read, Live(console=console, auto_refresh=False, screen=True) as live:
        next_ms = 0.0
        while True:
            if _now_ms() >= next_ms:
                screen.look()
                next_ms = _now_ms() + interval_ms
            shown = screen.lines(width=console.width, height=console.height)
            text = Text("\n").join(Text(each.text, style=each.style, no_wrap=True) for each in shown)
            live.update(text, refresh=True)
            key = read(max(0.0, next_ms - _now_ms()))
            if key and not screen.press(key):
                return
            if key in ("enter", "g", "u", "c"):
                next_ms = 0.0


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """A function that returns the next key, or nothing after so many ms."""
    import select
    import termios
    import tty

    names = {"\x1b[A": "up", "\x1b[B": "down", "\r": "enter", "\n": "enter", "\x1b": "escape", "\x7f": "backspace"}
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)

    def read(wait_ms: float) -> str:
        ready, _, _ = select.select([terminal], [], [], wait_ms / 1_000)
        if not ready:
            return ""
        text = os.read(terminal, 8).decode(errors="replace")
        return names.get(text, text[:1] if not text.startswith("\x1b") else "")

    try:
        yield read
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _now_ms() -> float:
    return time.monotonic() * 1_000
