"""Output of a running scenario: a live view on a terminal, one line per event in a pipe."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Final

from kraft.chaos.live import (
    TIMELINE_LINES_MAX,
    NobodyWatches,
    NodeLine,
    count_rows,
    finding_lines,
    node_lines,
    verdict_lines,
    verdict_rows,
)
from kraft.chaos.story_source import steps_in
from kraft.cli.output import write_rows

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from kraft.chaos.checkers.verdict import Verdict
    from kraft.chaos.model import Scenario
    from kraft.chaos.soak.result import SoakResult
    from kraft.chaos.worlds.snapshot import Snapshot

REFRESH_PER_SECOND: Final = 8
BAR_WIDTH: Final = 24
STANDING_STYLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "active": "green",
        "voter": "green",
        "fenced": "yellow",
        "shutting down": "yellow",
        "paused": "yellow",
        "down": "red",
    }
)


class PipeView(NobodyWatches):
    """Lines, each with the scenario's name in front when several run at a time."""

    def __init__(self, say: Callable[[str], None], *, prefix: str = "") -> None:
        self._say = say
        self._prefix = prefix

    def begun(self, scenario: Scenario) -> None:
        self._line(f"{scenario.name}: {scenario.sentence}")

    def phase(self, text: str) -> None:
        self._line(text)

    def step(self, number: int, text: str) -> None:
        self._line(f"step {number}: {text}")

    def happened(self, text: str, *, after_ms: int) -> None:
        self._line(f"{after_ms / 1000:7.2f} s  {text}")

    def _line(self, text: str) -> None:
        self._say(f"{self._prefix}{text}")


class TerminalView(NobodyWatches):
    """A context manager. When the scenario ends, only the timeline stays; the verdict follows below it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._title: tuple[str, str] = ("", "")
        self._phase = self._step = ""
        self._number = self._steps = 0
        self._timeline: deque[str] = deque(maxlen=TIMELINE_LINES_MAX)
        self._nodes: Sequence[NodeLine] = ()
        self._is_over = False
        self._begun = time.monotonic()
        self._live = Live(
            console=Console(file=sys.stdout, highlight=False),
            refresh_per_second=REFRESH_PER_SECOND,
            get_renderable=self._draw,
        )

    def __enter__(self) -> TerminalView:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over = True
        self._live.__exit__(kind, error, traceback)

    def begun(self, scenario: Scenario) -> None:
        self._title = (scenario.name, scenario.sentence)
        self._number, self._steps = 0, steps_in(scenario)
        self._begun = time.monotonic()

    def phase(self, text: str) -> None:
        self._phase = text
        if self._number == self._steps:
            self._step = ""

    def step(self, number: int, text: str) -> None:
        self._number, self._step = number, text

    def happened(self, text: str, *, after_ms: int) -> None:
        self._timeline.append(f"{after_ms / 1000:6.2f} s  {text}")

    def looked(self, snapshot: Snapshot) -> None:
        self._nodes = node_lines(snapshot)

    def _draw(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        title = Text.assemble((self._title[0], "bold"), ("  " + self._title[1], ""))
        timeline = [_line(text, style="" if self._is_over else "dim") for text in self._timeline]
        if self._is_over:
            return Group(title, *timeline)
        nodes = [_node(line) for line in self._nodes]
        return Group(title, *nodes, *timeline, self._progress())

    def _progress(self) -> Table:
        """A bar of the steps; work before and after the story has its name beside it."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        elapsed_s = time.monotonic() - self._begun
        done = max(0, self._number - 1) if self._step else self._number
        bar = ProgressBar(total=max(1, self._steps), completed=done, width=BAR_WIDTH)
        doing = self._step or self._phase
        text = f"{elapsed_s:5.1f} s  step {self._number} of {self._steps}  {doing}"
        line = Table.grid(padding=(0, 1))
        line.add_row(bar, _line(text, style="bold"))
        return line


def _line(text: str, *, style: str = "") -> Text:
    """One line, however narrow the terminal is."""
    from rich.text import Text

    return Text(text, style=style, overflow="ellipsis", no_wrap=True)


def _node(line: NodeLine) -> Text:
    shown = _line(f"node {line.node}  ")
    shown.append(f"{line.standing:<13}", style=STANDING_STYLES.get(line.standing, ""))
    return shown.append(line.roles)


def show_counts(verdict: Verdict, *, say: Callable[[str], None]) -> None:
    """Show the counts of a history without expectations."""
    write_rows(count_rows(verdict), ("records", "found", "meaning"), as_json=False, title=verdict.scenario)
    for line in finding_lines(verdict):
        say(line)


def show_verdict(verdict: Verdict, *, say: Callable[[str], None]) -> None:
    """Show the table, then every loss with its cause."""
    write_rows(verdict_rows(verdict), ("records", "found", "expected"), as_json=False)
    for line in verdict_lines(verdict):
        say(line)


def show_soak(result: SoakResult, *, say: Callable[[str], None]) -> None:
    """Show the strikes, the verdict, and every problem."""
    if result.verdict is not None:
        show_verdict(result.verdict, say=say)
    faults = ", ".join(f"{count} {kind}" for kind, count in sorted(result.faults.items()))
    say(f"faults: {faults or 'none'}")
    if result.whole_ms:
        say(f"healthy again {len(result.whole_ms)} times, after {max(result.whole_ms) / 1_000:.1f} s at most")
    group = result.group
    say(
        f"group: {group.joined} members joined, {group.left} left, {group.silent} fell silent, {group.evicted} were "
        f"evicted; {group.read:,} records read, {group.commits:,} commits"
    )
    for growth in result.growth:
        memory, files = growth.memory_bytes, growth.open_files
        say(
            f"node {growth.node}: {memory[0] / 1e6:.0f} MB in the first quarter, {memory[1] / 1e6:.0f} MB in the last; "
            f"{files[0]:.0f} open files, {files[1]:.0f} in the last"
        )
    for problem in result.problems:
        say(f"PROBLEM: {problem}")
    if result.directory is not None:
        say(f"everything is kept in {result.directory}")
