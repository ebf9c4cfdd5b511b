"""Several scenario runs, a few at a time, with their progress; fuzz sessions."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kraft.chaos.live import NobodyWatches, Watcher
from kraft.chaos.model import Scenario
from kraft.chaos.nemesis.fuzz.profiles import Profile
from kraft.chaos.nemesis.fuzz.session import FuzzSession
from kraft.chaos.result import AS_EXPECTED, COULD_NOT_RUN, NOT_AS_EXPECTED, RunResult
from kraft.chaos.workload.client import ClientProtocol
from kraft.chaos.worlds.processes.links import LinkTls
from kraft.chaos.worlds.processes.run import run_scenario
from kraft.cli.output import progress, write, write_json, write_rows, write_words
from kraft.cli.scenario_view import PipeView, TerminalView, show_verdict
from kraft.launcher.node_starter import NodeStarter, node_starter

_COLUMNS: Final = ("scenario", "seed", "outcome", "seconds", "kept", "lost", "unknown")
AT_A_TIME: Final = 3
"""A story mostly waits, for a session to end or a follower to lag; three of them keep two cores busy."""


@dataclass(frozen=True, slots=True)
class Named:
    """A scenario, and its name or file on the command line."""

    source: str
    scenario: Scenario


@dataclass(frozen=True, slots=True)
class Run:
    source: str
    scenario: Scenario
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    repeat: int = 1
    seed: int = 1
    keep: bool = False
    report: str | None = None
    at_a_time: int | None = None
    as_json: bool = False
    clients: ClientProtocol = "rest"
    tls: LinkTls | None = None
    """The cluster is secure, and its links end TLS or let it pass."""


async def run_all(scenarios: Sequence[Named], options: RunOptions) -> int:
    """Run all; return the exit code of the worst run."""
    runs = [
        Run(named.source, named.scenario, options.seed + turn) for turn in range(options.repeat) for named in scenarios
    ]
    starter = node_starter()
    begun = time.monotonic()
    try:
        if len(runs) == 1:
            results = [await _run_alone(runs[0], options, starter)]
        else:
            results = await _run_several(runs, options, starter)
    finally:
        starter.close()
    _show_results(results, options, seconds=time.monotonic() - begun)
    return _worst(results)


def run_all_simulated(scenarios: Sequence[Named], options: RunOptions) -> int:
    """Run one after the other: each takes all of one processor. Return the exit code of the worst run."""
    from kraft.chaos.worlds.simulated.run import run_simulated

    runs = [
        Run(named.source, named.scenario, options.seed + turn) for turn in range(options.repeat) for named in scenarios
    ]
    show, begun, results = progress(as_json=options.as_json), time.monotonic(), list[RunResult]()
    for run in runs:
        is_alone = len(runs) == 1
        below = "" if is_alone else f"{run.scenario.name}-{run.seed}" if options.repeat > 1 else run.scenario.name
        with _view(options) if is_alone else nullcontext(NobodyWatches()) as watcher:
            result = run_simulated(
                run.scenario,
                seed=run.seed,
                watcher=watcher,
                keep=options.keep,
                report=_folder(options, below),
                source=run.source,
            )
        results.append(result)
        if not is_alone:
            for line in _ended(result, done=len(results), of=len(runs)):
                show(line)
        elif not options.as_json:
            _show(run.scenario, result)
    _show_results(results, options, seconds=time.monotonic() - begun)
    return _worst(results)


def _worst(results: Sequence[RunResult]) -> int:
    codes = {result.exit_code for result in results}
    return next((code for code in (COULD_NOT_RUN, NOT_AS_EXPECTED) if code in codes), AS_EXPECTED)


async def _run_alone(run: Run, options: RunOptions, starter: NodeStarter) -> RunResult:
    with _view(options) as watcher:
        result = await _run(run, options, starter, watcher=watcher, report=_folder(options))
    if not options.as_json:
        _show(run.scenario, result)
    return result


async def _run(
    run: Run, options: RunOptions, starter: NodeStarter, *, watcher: Watcher, report: Path | None
) -> RunResult:
    return await run_scenario(
        run.scenario,
        seed=run.seed,
        watcher=watcher,
        keep=options.keep,
        report=report,
        source=run.source,
        starter=starter,
        clients=options.clients,
        tls=options.tls,
    )


def _view(options: RunOptions) -> AbstractContextManager[Watcher]:
    if sys.stdout.isatty() and not options.as_json:
        return TerminalView()
    return nullcontext(PipeView(progress(as_json=options.as_json)))


def _show(scenario: Scenario, result: RunResult) -> None:
    if result.verdict is not None:
        show_verdict(result.verdict, say=write_words)
    if result.failure:
        write_words(f"{scenario.name}: {result.failure}")
    if result.directory is not None:
        write(f"everything is kept in {result.directory}")


async def _run_several(runs: Sequence[Run], options: RunOptions, starter: NodeStarter) -> list[RunResult]:
    """Results in the order of the runs, though the longest begin first. Prints a line for each at its end, with its
    problems."""
    turn = asyncio.Semaphore(options.at_a_time or AT_A_TIME)
    show = progress(as_json=options.as_json)
    results: dict[int, RunResult] = {}

    async def run_one(number: int, run: Run) -> None:
        async with turn:
            name = f"{run.scenario.name}-{run.seed}" if options.repeat > 1 else run.scenario.name
            folder = _folder(options, name)
            result = results[number] = await _run(run, options, starter, watcher=NobodyWatches(), report=folder)
        for line in _ended(result, done=len(results), of=len(runs)):
            show(line)

    order = sorted(enumerate(runs), key=lambda numbered: not numbered[1].scenario.is_long)
    async with asyncio.TaskGroup() as group:
        for numbered in order:
            group.create_task(run_one(*numbered))
    return [results[number] for number in range(len(runs))]


def _ended(result: RunResult, *, done: int, of: int) -> list[str]:
    how = f"{result.outcome} ({result.elapsed_ms / 1000:.1f} s)"
    lines = [f"[{done:>{len(str(of))}}/{of}] {result.scenario} (seed {result.seed}): {how}"]
    lines += [f"  {problem}" for problem in result.problems]
    if result.directory is not None:
        lines.append(f"  everything is kept in {result.directory}")
    return lines


def _folder(options: RunOptions, below: str = "") -> Path | None:
    return Path(options.report, below) if options.report else None


def _show_results(results: Sequence[RunResult], options: RunOptions, *, seconds: float) -> None:
    if options.as_json:
        documents = [result.to_document() for result in results]
        write_json(documents[0] if len(documents) == 1 else documents)
    elif len(results) > 1:
        rows = [_result_row(result) for result in results]
        write_rows(rows, _COLUMNS, as_json=False, whole=("scenario",))
        outcomes = Counter(result.outcome for result in results)
        summary = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
        write(f"{len(results)} runs in {int(seconds) // 60}:{int(seconds) % 60:02} minutes: {summary}")


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
    profile: Profile, *, seed: int, minutes: float, directory: Path, say: Callable[[str], None], simulated: bool = False
) -> FuzzSession:
    if simulated:
        return await _fuzz_simulated(profile, seed=seed, minutes=minutes, directory=directory, say=say)
    starter = node_starter()

    async def run(scenario: Scenario, seed: int, report: Path | None) -> RunResult:
        return await run_scenario(scenario, seed=seed, watcher=NobodyWatches(), report=report, starter=starter)

    session = FuzzSession(profile, seed=seed, minutes=minutes, directory=directory, run=run, say=say)
    try:
        await session.run_until_time_is_up()
    finally:
        starter.close()
    return session


async def _fuzz_simulated(
    profile: Profile, *, seed: int, minutes: float, directory: Path, say: Callable[[str], None]
) -> FuzzSession:
    from kraft.chaos.worlds.simulated.run import run_simulated

    async def run(scenario: Scenario, seed: int, report: Path | None) -> RunResult:
        return await asyncio.to_thread(run_simulated, scenario, seed=seed, watcher=NobodyWatches(), report=report)

    session = FuzzSession(profile, seed=seed, minutes=minutes, directory=directory, run=run, say=say)
    await session.run_until_time_is_up(at_a_time=1)
    return session
