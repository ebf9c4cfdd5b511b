"""`kraft top`: the cluster, its partitions with the bad ones first, groups and queues, in a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Annotated, Any, Final, NamedTuple

import typer

from kraft.cli import top_view as view
from kraft.cli.options import DataOption, JsonOption, RestOption
from kraft.cli.output import CommandFailed, write, write_json
from kraft.cli.rest import DATA_DEFAULT, Rest
from kraft.cli.top_keys import keys_in
from kraft.client.response import segment
from kraft.launcher.python import PYTHON
from kraft.launcher.runfile import load_run
from kraft.testing.cluster import Cluster, ClusterFailed
from kraft.testing.faults import SOCKET_FILE

WIDTH: Final = 80
"""Columns of the text without a terminal."""
SHOWN_MAX: Final = 500
GROUPS_MAX: Final = 50
"""Groups whose lag is asked for; each costs a request."""
LOOK_TIMEOUT_MS: Final = 2_000
"""A node that is slower is passed over: keys wait meanwhile."""
NOTE_LINES_MAX: Final = 3
TURN_MS: Final = 50
"""How often it looks for answers and the ends of commands, while no key is pressed."""
FAULTS: Final = {"K": "kill", "P": "pause", "R": "restart", "C": "cut", "H": "heal"}
"""Key -> the command of `kraft fault`."""
MODES: Final = {"enter": "partition", "g": "groups", "u": "queues", "c": "cluster", "escape": "cluster"}


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


class Seen(NamedTuple):
    """What the cluster has answered for one screen."""

    mode: str
    name: str | None
    state: dict[str, Any]
    rows: list[dict[str, Any]] | None
    why: dict[str, Any] | None
    trouble: str
    """Why there is not all of it."""


class Screen:
    """What is shown, and what the keys have chosen."""

    def __init__(self, rest: Rest, *, data: str | None) -> None:
        self._rest = rest
        self._data = data
        self.can_break = data is not None and load_run(data) is not None
        self._has_links = data is not None and os.path.exists(os.path.join(data, SOCKET_FILE))
        self.mode = "cluster"
        self.chosen: str | None = None
        """The name of the chosen partition; None: the worst."""
        self.prompt: str | None = None
        """The command of `kraft fault` whose node is typed."""
        self.typed = ""
        self.note = ""
        """What a key has led to."""
        self.trouble = ""
        """Why what is shown is not of now."""
        self._place = 0
        self._state: dict[str, Any] = {}
        self._rows: list[dict[str, Any]] | None = None
        self._why: dict[str, Any] | None = None
        self._running: tuple[str, subprocess.Popen[str]] | None = None
        self._waiting: deque[tuple[str, ...]] = deque()
        """Commands whose keys were pressed while another one ran."""

    def look(self) -> None:
        """Ask the cluster for what the screen shows."""
        self.take(self.ask(self.mode, self._name()))

    def ask(self, mode: str, name: str | None) -> Seen:
        """What the cluster answers, in any thread; what does not answer is said."""
        state: dict[str, Any] = {}
        try:
            state = self._changes(f"limit={SHOWN_MAX}")
            rows = self._groups() if mode == "groups" else self._queues() if mode == "queues" else None
            why = None
            if mode == "partition" and name is not None:
                if f"p/{name}" not in state:  # one of thousands that are better
                    state = self._changes(f"limit=1&exact=true&filter={segment(name)}") | state
                topic, _, number = name.rpartition("-")
                why = self._rest.get(f"/kraft/explain/partition/{segment(topic)}/{number}")
        except CommandFailed as error:
            return Seen(mode, name, state, None, None, str(error))
        return Seen(mode, name, state, rows, why, "")

    def take(self, seen: Seen) -> None:
        """Show it, if the keys have not chosen something else meanwhile."""
        self._state, self.trouble = seen.state or self._state, seen.trouble
        if seen.mode == self.mode and not seen.trouble:
            self._rows = seen.rows
            if seen.name == self._name():
                self._why = seen.why

    def poll(self) -> None:
        """Shows how a command of a key has ended."""
        if self._running is None or self._running[1].poll() is None:
            return
        (command, process), self._running = self._running, None
        said = (process.communicate()[0] or "").strip().splitlines()
        self.note = f"{command}: {said[-1] if said else 'done'}"
        if self._waiting:
            self._fault(*self._waiting.popleft())

    @property
    def wanted(self) -> tuple[str, str | None]:
        """What has to be asked for: a screen, and a partition."""
        return self.mode, self._name()

    def _changes(self, query: str) -> dict[str, Any]:
        found: dict[str, Any] = self._rest.get(f"/kraft/changes?{query}", timeout_ms=LOOK_TIMEOUT_MS)["set"]
        return found

    def lines(self, *, width: int, height: int) -> list[view.Line]:
        """The screen, from what was looked at last."""
        foot = self._foot(width)
        room = height - len(foot)
        if not self._state:
            shown = [] if self.trouble else [view.Line(view.DIM, "the nodes are asked ...")]
        elif self.mode == "partition" and (name := self._name()) is not None:
            shown = view.partition_lines(self._state, name, self._why, width=width)
        elif self.mode in ("groups", "queues"):
            shown = view.group_lines(self._rows, what=self.mode, height=room)
        else:
            shown = view.cluster_lines(self._state, chosen=self._index(), width=width, height=room)
        blank = [view.Line(view.PLAIN, "")] * max(0, room - len(shown))
        return [*view.cut(shown, width=width, height=room), *blank, *view.cut(foot, width=width, height=len(foot))]

    def _foot(self, width: int) -> list[view.Line]:
        """What is asked or said, and the keys."""
        foot = [view.Line(view.BAD, line) for line in view.wrapped(self.trouble, width)[:NOTE_LINES_MAX]]
        if self.prompt is not None:
            ends = "1-2, or 1 for all its links" if self.prompt == "cut" else "its id"
            foot.append(view.Line(view.HEAD, f"{self.prompt} ({ends}; enter, or escape): {self.typed}_"))
        elif self.note:
            foot += [view.Line(view.HEAD, line) for line in view.wrapped(self.note, width)[-NOTE_LINES_MAX:]]
        foot.append(view.Line(view.DIM, view.KEYS))
        if self.can_break:
            foot.append(view.Line(view.DIM, view.LINK_KEYS if self._has_links else view.NODE_KEYS))
        return foot

    def snapshot(self, *, width: int, height: int) -> list[view.Line]:
        """The cluster without keys; no partition is chosen. Raises CommandFailed where no node answers."""
        if not self._state:
            raise CommandFailed(self.trouble)
        found = view.cluster_lines(self._state, chosen=-1, width=width, height=height)
        return view.cut(found, width=width, height=height)

    def press(self, key: str) -> bool:
        """One key. False: the end."""
        if self.prompt is not None:
            self._type(key)
        elif key == "x":
            return False
        elif key in FAULTS:
            self._ask(FAULTS[key])
        elif key in ("up", "down"):
            names = self._names()
            self._place = min(max(0, self._index() + (1 if key == "down" else -1)), max(0, len(names) - 1))
            self._choose(names)
        elif key in MODES:
            self.mode, self.note, self._rows = MODES[key], "", None
            if key == "enter":
                self._place = self._index()
                self._choose(self._names())
        return True

    def _ask(self, command: str) -> None:
        """A key that breaks or heals."""
        self.note = ""
        if not self.can_break:
            self.note = "keys break only a cluster that `kraft up` or `kraft exec` runs here, from this --data"
        elif command == "cut" and not self._has_links:
            self.note = "this cluster has no links that could be cut: start it with `kraft up --faults`"
        elif command == "heal":
            self._fault("heal")
        else:
            self.prompt, self.typed = command, ""

    def document(self) -> dict[str, Any]:
        """All screens, for programs."""
        self.look()
        state = self._state
        if not state:
            raise CommandFailed(self.trouble)
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

    def _names(self) -> list[str]:
        return [each.name for each in view.shown_partitions(self._state)]

    def _index(self) -> int:
        """The place of the chosen partition, which moves when it gets better or worse."""
        names = self._names()
        if self.chosen in names:
            return names.index(self.chosen)
        return min(self._place, max(0, len(names) - 1))

    def _choose(self, names: Sequence[str]) -> None:
        before, self.chosen = self.chosen, names[self._place] if names else None
        if self.chosen != before:
            self._why = None

    def _name(self) -> str | None:
        if self.chosen is not None:
            return self.chosen
        names = self._names()
        return names[self._index()] if names else None

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
            self._waiting.append(words)
            self.note = f"{self._running[0]} is still running; then kraft fault {' '.join(words)}"
            return
        assert self._data is not None, "keys that break need a folder"
        if words[0] == "restart" and _is_paused(self._data, words[1]):
            words = ("resume", *words[1:])
        command = " ".join(("kraft", "fault", *words))
        self.note = f"{command} ..."
        process = subprocess.Popen(
            [*PYTHON, "-m", "kraft", "fault", *words, "--data", self._data],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._running = command, process

    def _groups(self) -> list[dict[str, Any]]:
        return [self._row("consumer-groups", "consumer_group_id", each) for each in self._found("/consumer-groups")]

    def _queues(self) -> list[dict[str, Any]]:
        return [self._row("share-groups", "share_group_id", each) for each in self._found("/share-groups")]

    def _found(self, path: str) -> Sequence[dict[str, Any]]:
        found: Sequence[dict[str, Any]] = self._rest.get(self._rest.cluster(path))["data"]
        return found[:GROUPS_MAX]

    def _row(self, kind: str, name: str, group: Mapping[str, Any]) -> dict[str, Any]:
        """One whose coordinator does not answer has no numbers: the others are worth having."""
        one = self._rest.cluster(f"/{kind}/{segment(group[name])}")
        try:
            lags = [each["lag"] for each in self._rest.get(f"{one}/lags")["data"]]
            members = len(self._rest.get(f"{one}/consumers")["data"])
        except CommandFailed:
            return {"name": group[name], "state": group["state"], "members": None, "lag": None}
        lag = None if any(each < 0 for each in lags) else sum(lags)
        return {"name": group[name], "state": group["state"], "members": members, "lag": lag}

    def _listed(self, read: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]] | None:
        """None where their coordinators do not answer: the rest of the document is worth having."""
        try:
            return read()
        except CommandFailed:
            return None


def _is_paused(data: str, node: str) -> bool:
    try:
        cluster = Cluster.attach(data)
        return node.isdecimal() and int(node) in cluster.ids and cluster.state(int(node)) == "paused"
    except ClusterFailed:
        return False


def _live(screen: Screen, *, interval_ms: int) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(file=sys.stdout)
    looks = _Looks(screen.ask, interval_ms=interval_ms)
    drawn: list[view.Line] = []
    with _keys() as read, Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            if (seen := looks.next(screen.wanted)) is not None:
                screen.take(seen)
            screen.poll()
            shown = screen.lines(width=console.width, height=console.height)
            if shown != drawn:
                text = Text("\n").join(Text(each.text, style=each.style, no_wrap=True) for each in shown)
                live.update(text, refresh=True)
                drawn = shown
            key = read(TURN_MS)
            if key and not screen.press(key):
                return


class _Looks:
    """Asks in a thread of its own, so that keys and the screen do not wait for a node that does not answer."""

    def __init__(self, ask: Callable[[str, str | None], Seen], *, interval_ms: int) -> None:
        self._ask, self._interval_ms = ask, interval_ms
        self._answers: SimpleQueue[Seen | Exception] = SimpleQueue()
        self._asked: tuple[str, str | None] | None = None
        self._is_asking = False
        self._due_ms = 0.0

    def next(self, wanted: tuple[str, str | None]) -> Seen | None:
        """The next answer, once it is there. Another screen or partition is asked for at once."""
        found: Seen | None = None
        if self._is_asking and not self._answers.empty():
            answer, self._is_asking = self._answers.get(), False
            if isinstance(answer, Exception):
                raise answer
            found = answer
        is_due = _now_ms() >= self._due_ms or (wanted != self._asked and wanted[0] != "cluster")
        if not self._is_asking and is_due:
            self._asked, self._is_asking, self._due_ms = wanted, True, _now_ms() + self._interval_ms
            threading.Thread(target=self._answer, args=wanted, daemon=True).start()
        return found

    def _answer(self, mode: str, name: str | None) -> None:
        try:
            self._answers.put(self._ask(mode, name))
        except Exception as error:  # noqa: BLE001 - raised by the thread that shows it
            self._answers.put(error)


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """A function that returns the next key, or nothing after so many ms."""
    import select
    import termios
    import tty

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)
    waiting: deque[str] = deque()

    def read(wait_ms: float) -> str:
        if not waiting and select.select([terminal], [], [], wait_ms / 1_000)[0]:
            found = os.read(terminal, 256)
            waiting.extend(keys_in(found.decode(errors="replace")) if found else ["x"])
        return waiting.popleft() if waiting else ""

    try:
        yield read
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _now_ms() -> float:
    return time.monotonic() * 1_000
