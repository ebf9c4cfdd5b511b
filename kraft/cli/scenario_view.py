"""How a running scenario is shown: a live view on a terminal, one line per thing that happens in a pipe."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from kraft.cli.output import write_rows
from kraft.scenarios.live import (
    TIMELINE_LINES_MAX,
    NobodyWatches,
    count_rows,
    finding_lines,
    node_lines,
    verdict_lines,
    verdict_rows,
)

if TYPE_CHECKING:
    from rich.console import Group

    from kraft.scenarios.checker.verdict import Verdict
    from kraft.scenarios.model import Scenario
    from kraft.scenarios.snapshot import Snapshot

REFRESH_PER_SECOND = 8


class PipeView(NobodyWatches):
    """Lines, each with the scenario's name in front when several run at a time."""

    def __init__(self, say: Callable[[str], None], *, prefix: str = "") -> None:
        self._say = say
        self._prefix = prefix

    def begun(self, scenario: Scenario) -> None:
        self._line(f"{scenario.name}: {scenario.scenario.sentence}")

    def phase(self, text: str) -> None:
        self._line(text)

    def step(self, number: int, text: str) -> None:
        self._line(f"step {number}: {text}")

    def happened(self, text: str, *, after_ms: int) -> None:
        self._line(f"{after_ms / 1000:7.2f} s  {text}")

    def _line(self, text: str) -> None:
        self._say(f"{self._prefix}{text}")


class TerminalView(NobodyWatches):
    """A context manager. The view is replaced by the verdict when the scenario ends."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(
            console=Console(file=sys.stdout),
            refresh_per_second=REFRESH_PER_SECOND,
            transient=True,
            get_renderable=self._draw,
        )
        self._title = self._phase = self._step = ""
        self._number = self._steps = 0
        self._timeline: deque[str] = deque(maxlen=TIMELINE_LINES_MAX)
        self._nodes: list[str] = []

    def __enter__(self) -> TerminalView:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, traceback)

    def begun(self, scenario: Scenario) -> None:
        self._title = f"{scenario.name}: {scenario.scenario.sentence}"
        self._number, self._steps = 0, len(scenario.steps)
        self._timeline.clear()
        self._nodes = []

    def phase(self, text: str) -> None:
        self._phase, self._step = text, ""

    def step(self, number: int, text: str) -> None:
        self._number, self._step = number, text

    def happened(self, text: str, *, after_ms: int) -> None:
        self._timeline.append(f"{after_ms / 1000:7.2f} s  {text}")

    def looked(self, snapshot: Snapshot) -> None:
        self._nodes = node_lines(snapshot)

    def _draw(self) -> Group:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        progress = f"{self._phase}  {self._number} of {self._steps}  {self._step}".rstrip()
        parts = [
            Text(self._title, style="bold"),
            Text("\n".join(self._nodes) or "..."),
            Text("\n".join(self._timeline), style="dim"),
            Text(progress, overflow="ellipsis", no_wrap=True),
        ]
        return Group(*parts, ProgressBar(total=max(1, self._steps), completed=self._number, width=60))


def show_counts(verdict: Verdict, *, say: Callable[[str], None]) -> None:
    """Of a history that nobody expects anything of."""
    write_rows(count_rows(verdict), ("records", "found", "meaning"), as_json=False, title=verdict.scenario)
    for line in finding_lines(verdict):
        say(line)


def show_verdict(verdict: Verdict, scenario: Scenario, *, say: Callable[[str], None]) -> None:
    """The table, then every loss with its cause."""
    write_rows(verdict_rows(verdict), ("records", "found", "expected"), as_json=False, title=scenario.name)
    for line in verdict_lines(verdict):
        say(line)
