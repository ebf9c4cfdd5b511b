"""Several runs, a few at a time, shown as they go on; fuzz sessions."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kraft.cli.output import progress, write, write_json, write_rows
from kraft.cli.scenario_view import PipeView, TerminalView, show_verdict
from kraft.scenarios.fuzz.profiles import Profile
from kraft.scenarios.fuzz.session import FuzzSession
from kraft.scenarios.live import NobodyWatches, Watcher
from kraft.scenarios.model import Scenario
from kraft.scenarios.result import AS_EXPECTED, COULD_NOT_RUN, NOT_AS_EXPECTED, RunResult
from kraft.scenarios.runner import run_scenario

AT_A_TIME: Final = 2
"""Each is three to six processes; more of them starve each other of the two cores that a small machine has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    repeat: int = 1
    seed: int = 1
    keep: bool = False
    report: str | None = None
    at_a_time: int | None = None
    as_json: bool = False


async def run_all(scenarios: Sequence[Scenario], options: RunOptions) -> int:
    """The exit code: that of the worst run."""
    runs = [(scenario, options.seed + turn) for turn in range(options.repeat) for scenario in scenarios]
    if len(runs) == 1:
        results = [await _run_alone(*runs[0], options)]
    else:
        results = await _run_several(runs, options)
    _show_results(results, options)
    codes = {result.exit_code for result in results}
    return next((code for code in (COULD_NOT_RUN, NOT_AS_EXPECTED) if code in codes), AS_EXPECTED)


async def _run_alone(scenario: Scenario, seed: int, options: RunOptions) -> RunResult:
    with _view(options) as watcher:
        result = await run_scenario(scenario, seed=seed, watcher=watcher, keep=options.keep, report=_folder(options))
    if not options.as_json:
        _show(scenario, result)
    return result


def _view(options: RunOptions) -> AbstractContextManager[Watcher]:
    if sys.stdout.isatty() and not options.as_json:
        return TerminalView()
    return nullcontext(PipeView(progress(as_json=options.as_json)))


def _show(scenario: Scenario, result: RunResult) -> None:
    if result.verdict is not None:
        show_verdict(result.verdict, say=write)
    if result.failure:
        write(f"{scenario.name}: {result.failure}")
    if result.directory is not None:
        write(f"everything is kept in {result.directory}")


async def _run_several(runs: Sequence[tuple[Scenario, int]], options: RunOptions) -> list[RunResult]:
    """In order of the runs. A line for each as it ends; what went wrong is told at once."""
    turn = asyncio.Semaphore(options.at_a_time or AT_A_TIME)
    tell = progress(as_json=options.as_json)

    async def run_one(scenario: Scenario, seed: int) -> RunResult:
        async with turn:
            folder = _folder(options, f"{scenario.name}-{seed}" if options.repeat > 1 else scenario.name)
            result = await run_scenario(scenario, seed=seed, watcher=NobodyWatches(), keep=options.keep, report=folder)
        tell(f"{scenario.name} (seed {seed}): {result.outcome} ({result.elapsed_ms / 1000:.1f} s)")
        for problem in result.problems:
            tell(f"  {problem}")
        return result

    return await asyncio.gather(*(run_one(*run) for run in runs))


def _folder(options: RunOptions, below: str = "") -> Path | None:
    return Path(options.report, below) if options.report else None


def _show_results(results: Sequence[RunResult], options: RunOptions) -> None:
    if options.as_json:
        documents = [result.to_document() for result in results]
        write_json(documents[0] if len(documents) == 1 else documents)
    elif len(results) > 1:
        rows = [_result_row(result) for result in results]
        write_rows(rows, ("scenario", "seed", "outcome", "seconds", "kept", "lost", "unknown"), as_json=False)


def _result_row(result: RunResult) -> dict[str, object]:
    counts = result.verdict.counts if result.verdict else None
    return {
        "scenario": result.scenario,
        "seed": result.seed,
        "outcome": result.outcome,
        "seconds": f"{result.elapsed_ms / 1000:.1f}",
        "kept": counts.kept if counts else None,
        "lost": counts.lost if counts else None,
        "unknown": counts.unknown_kept + counts.unknown_gone if counts else None,
    }


async def fuzz_until_time_is_up(
    profile: Profile, *, seed: int, minutes: float, directory: Path, say: Callable[[str], None]
) -> FuzzSession:
    async def run(scenario: Scenario, seed: int) -> RunResult:
        return await run_scenario(scenario, seed=seed, watcher=NobodyWatches(), keep=False, report=None)

    session = FuzzSession(profile, seed=seed, minutes=minutes, directory=directory, run=run, say=say)
    await session.tell_until_time_is_up()
    return session
