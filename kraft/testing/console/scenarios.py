"""Scenarios that are run from a console: each is `kraft scenario run` in a process of its own, on a cluster of its own.

One runs at a time. Its lines are kept while it runs; its verdict and its report until the console ends, for the last
`RUNS_MAX` runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from kraft.chaos.checkers.verdict import Verdict
from kraft.chaos.live import finding_lines, verdict_rows
from kraft.chaos.workload.client import ClientProtocol
from kraft.launcher.python import PYTHON, environment

RUNS_MAX: Final = 20
LINES_MAX: Final = 100
LINE_CHARACTERS_MAX: Final = 400
LINE_BYTES_MAX: Final = 64 * 1024 * 1024
"""A verdict is one line."""
SEED_MAX: Final = 1_000_000_000
OWN: Final = "what was done"
"""The name of the story that the journal of the console makes."""
END_LIMIT_S: Final = 4.0
"""Shorter than the wait of the launcher for this process."""
REPORT: Final = "report.html"
FINDINGS_MAX: Final = 50


def catalogue_rows() -> Iterator[dict[str, Any]]:
    """The built-in stories. `steps` is an estimate; `story` is its text."""
    from kraft.chaos import catalogue
    from kraft.chaos.model import ANY, SOME
    from kraft.chaos.story_source import steps_in

    for scenario in catalogue.SCENARIOS.values():
        counts = {name: str(count) for name, count in scenario.expect.counts().items() if count not in (ANY, SOME)}
        expected = {name: count for name, count in counts.items() if count != "0" or name == "lost"}
        yield {
            "name": scenario.name,
            "sentence": scenario.sentence,
            "question": scenario.question,
            "expected": ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in expected.items()),
            "steps": steps_in(scenario),
            "story": scenario.source.strip(),
        }


@dataclass(slots=True, kw_only=True)
class Run:
    """One run of a story."""

    number: int
    name: str
    seed: int
    simulated: bool
    steps: int
    folder: Path
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LINES_MAX))
    step: int = 0
    """The step that was begun last, counted from 1."""
    outcome: str = ""
    """Empty while it runs."""
    document: dict[str, Any] = field(default_factory=dict)

    @property
    def report(self) -> Path | None:
        """Its report, when it has one."""
        path = self.folder / REPORT
        return path if self.outcome and path.is_file() else None

    def note(self, line: str) -> None:
        """A line that the run has printed."""
        self.lines.append(line[:LINE_CHARACTERS_MAX])
        word, _, rest = line.partition(" ")
        if word == "step" and (number := rest.partition(":")[0]).isdecimal():
            self.step = int(number)

    def row(self, *, is_newest: bool) -> dict[str, Any]:
        """What the page shows of it; the lines and the findings of the newest run alone."""
        found: dict[str, Any] = {
            "number": self.number, "name": self.name, "seed": self.seed, "simulated": self.simulated,
            "outcome": self.outcome, "has_report": self.report is not None,
            "seconds": round(self.document.get("elapsed_ms", 0) / 1_000, 1),
        }  # fmt: skip
        if is_newest:
            found |= {"lines": list(self.lines), "step": self.step, "steps": self.steps, **_verdict_of(self.document)}
        return found


def _verdict_of(document: Mapping[str, Any]) -> dict[str, Any]:
    failure = [document["failure"]] if document.get("failure") else []
    if not document.get("verdict"):
        return {"counts": [], "problems": failure, "findings": []}
    verdict = msgspec.convert(document["verdict"], Verdict)
    counts = [[row["records"], row["found"], row["expected"]] for row in verdict_rows(verdict)]
    return {
        "counts": counts,
        "problems": [*failure, *verdict.problems],
        "findings": finding_lines(verdict)[:FINDINGS_MAX],
    }


class Scenarios:
    """The runs of one console. `own` returns the story of what was done, and the protocol of its clients; raises
    ValueError when there is none."""

    def __init__(self, own: Callable[[], tuple[str, ClientProtocol]]) -> None:
        self._own = own
        self._catalogue: dict[str, dict[str, Any]] = {}
        self._runs: deque[Run] = deque()
        self._number = 0
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None
        self._folder: Path | None = None

    @property
    def state(self) -> list[dict[str, Any]]:
        """The newest first."""
        return [run.row(is_newest=at == 0) for at, run in enumerate(reversed(self._runs))]

    def catalogue(self) -> list[dict[str, Any]]:
        """The stories that can be run, each with its name, what happens, the question and the expected verdict."""
        if not self._catalogue:
            self._catalogue = {row["name"]: row for row in catalogue_rows()}
        return list(self._catalogue.values())

    def report(self, number: int) -> tuple[str, str]:
        """The report of a run, and the policy under which it may be shown. Raises KeyError."""
        from kraft.chaos.report.page import content_policy

        for run in self._runs:
            if run.number == number and run.report is not None:
                return run.report.read_text("utf-8"), content_policy()
        raise KeyError(number)

    async def run(self, asked: Mapping[str, Any]) -> str:
        """Starts a run; returns when it has begun. Raises ValueError."""
        async with self._turn:
            if self._process is not None:
                raise ValueError(f"{self._runs[-1].name} runs; one scenario runs at a time")
            name, seed = asked.get("name"), asked.get("seed", 1)
            if type(seed) is not int or not 0 <= seed <= SEED_MAX:
                raise ValueError(f"seed is a number from 0 to {SEED_MAX}")
            known = {row["name"]: row["steps"] for row in self.catalogue()}
            if not isinstance(name, str) or name not in (OWN, *known):
                raise ValueError(f"there is no scenario {name!r:.60}; see the list, or {OWN!r}")
            text, protocol = self._own() if name == OWN else ("", "rest")
            self._number += 1
            run = Run(
                number=self._number, name=name, seed=seed, simulated=asked.get("simulated", False) is True,
                steps=text.count("await run.") if text else known[name], folder=self._made_folder(),
            )  # fmt: skip
            options = ["--simulated"] if run.simulated else ["--client", protocol] if protocol != "rest" else []
            await self._start(run, _written(run.folder, text) if text else name, options)
            return f"{name} has begun"

    def _made_folder(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="kraft-console-"))
        folder = self._folder / str(self._number)
        folder.mkdir()
        return folder

    async def _start(self, run: Run, source: str, options: Sequence[str]) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(*PYTHON, "-m", "kraft", "scenario", "run", source),
            *("--seed", str(run.seed), "--report", str(run.folder), "--json", *options),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env=environment(), limit=LINE_BYTES_MAX,
        )  # fmt: skip
        while len(self._runs) >= RUNS_MAX:
            shutil.rmtree(self._runs.popleft().folder, ignore_errors=True)
        self._runs.append(run)
        self._watching = asyncio.get_running_loop().create_task(self._watch(run, self._process))

    async def _watch(self, run: Run, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        printed = asyncio.create_task(process.stdout.read())
        try:
            async for line in process.stderr:
                run.note(line.decode("utf-8", "replace").rstrip())
            text = await printed
            code = await process.wait()
            document: Any = None
            with contextlib.suppress(ValueError):
                document = json.loads(text)
            run.document = document if isinstance(document, dict) else {}
            run.outcome = run.document.get("outcome") or f"ended without a verdict ({code})"
        except ValueError as error:  # a line without an end
            run.outcome = f"ended without a verdict: {error}"
        finally:
            printed.cancel()
            self._process = None

    async def stop(self) -> str:
        """Ends the run, with its nodes. Raises ValueError when none runs."""
        if self._process is None or self._watching is None:
            raise ValueError("no scenario runs")
        name = self._runs[-1].name
        await self._end(self._process, self._watching)
        return f"{name} was ended"

    async def _end(self, process: asyncio.subprocess.Process, watching: asyncio.Task[None]) -> None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        done, _ = await asyncio.wait({watching}, timeout=END_LIMIT_S)
        if not done:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await asyncio.wait({watching}, timeout=END_LIMIT_S)

    async def close(self) -> None:
        """Ends a run, and removes the reports."""
        if self._process is not None and self._watching is not None:
            await self._end(self._process, self._watching)
        if self._folder is not None:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)


def _written(folder: Path, text: str) -> str:
    file = folder / "story.py"
    file.write_text(text, encoding="utf-8")
    return str(file)
