"""The output of the command: a bar and a table on a terminal, plain lines in a pipe, one JSON document with --json."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from tests.simulation.seed_runs import Played, Totals
from tests.simulation.states import NIGHTLY

FAILURE_SHOWN = 800


class Screen:
    """For a person. With `is_json` it stays empty."""

    def __init__(self, *, is_json: bool) -> None:
        self._is_json = is_json
        # In a pipe a line is as long as it is.
        self._console = Console(highlight=False, soft_wrap=True)
        self._progress: Progress | None = None

    def say(self, text: str, *, style: str | None = None) -> None:
        if not self._is_json:
            self._console.print(text, style=style, markup=False)

    @contextlib.contextmanager
    def showing(self, runs: int) -> Iterator[None]:
        """The bar, while runs are played; only on a terminal."""
        if self._is_json or not self._console.is_terminal:
            yield
            return
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(TextColumn("runs"), *columns, console=self._console, transient=True) as self._progress:
            self._progress.add_task("runs", total=runs)
            yield
        self._progress = None

    def played(self, played: Played) -> None:
        if self._progress is not None:
            self._progress.advance(self._progress.task_ids[0])
        if played.result.failure is not None:
            self.failed(played)

    def failed(self, played: Played) -> None:
        plan, failure = played.result.plan, played.result.failure or ""
        self.say(f"FAILED seed {plan.seed} --profile {plan.profile}: {failure[:FAILURE_SHOWN]}", style="bold red")
        self.say(f"  replay: {played.replay}")

    def states(self, total: Totals) -> None:
        """How often each state was reached; NEVER for one that every nightly run has to reach."""
        shown = sorted({*NIGHTLY, *total.states})
        if self._console.is_terminal:
            self._table(total, shown)
            return
        width = max(len(state) for state in shown)
        for state in shown:
            never = "" if total.states[state] else "  NEVER"
            self.say(f"{state:{width}}  {total.states[state]:9d}{never}")

    def _table(self, total: Totals, shown: Sequence[str]) -> None:
        if self._is_json:
            return
        table = Table(title="States reached")
        table.add_column("state")
        table.add_column("times", justify="right")
        for state in shown:
            times = total.states[state]
            table.add_row(
                state, f"{times:,}" if times else "[bold red]never[/]", style="bold" if state in NIGHTLY else ""
            )
        self._console.print(table)

    def summary(self, total: Totals) -> None:
        self.say(
            f"{total.runs} runs, {len(total.failed)} failed; {total.attempts} produces, {total.acked} acknowledged; "
            f"{total.virtual_s:.0f} virtual s in {total.wall_s:.0f} s, "
            f"{total.per_core:.1f} in a second of processor time"
        )


def as_json(total: Totals, *, missing: Sequence[str], **more: object) -> str:
    return json.dumps(
        {
            **more,
            "runs": total.runs,
            "failed": [
                {
                    "seed": played.result.plan.seed,
                    "profile": played.result.plan.profile,
                    "failure": played.result.failure,
                    "replay": played.replay,
                }
                for played in total.failed
            ],
            "never_reached": list(missing),
            "produces": total.attempts,
            "acknowledged": total.acked,
            "virtual_s": round(total.virtual_s, 3),
            "wall_s": round(total.wall_s, 3),
            "cpu_s": round(total.cpu_s, 3),
            "virtual_s_per_cpu_s": round(total.per_core, 2),
            "states": dict(sorted(total.states.items())),
        },
        indent=2,
    )
