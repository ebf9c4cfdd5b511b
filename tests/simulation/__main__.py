"""`python -m tests.simulation run --seeds 1..1000 [--profile swarm] [--jobs 2]`, `replay SEED`, `faults`.

`run` plays seeds and ends with a table of the states they reached; it fails when a seed fails, and under `--nightly`
(all profiles) also when an interesting state was never reached. `replay` plays one seed again, shrinks it when it
fails, and tells its story. `faults` looks for every planted fault.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import chain

from tests.simulation.plan import PROFILES, draw_plan
from tests.simulation.planted import PLANTED, look_for
from tests.simulation.run import Result, play
from tests.simulation.shrink import shrink, tell
from tests.simulation.states import never_reached, table

Job = tuple[int, str]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("--seeds", default="1..100", help="first..last")
    run.add_argument("--profile", default="swarm", choices=sorted(PROFILES))
    run.add_argument("--jobs", type=int, default=1)
    run.add_argument("--nightly", action="store_true", help="all profiles; a state that is never reached fails")
    run.add_argument("--seconds", type=float, default=float("inf"), help="stop after this wall time")
    replay = commands.add_parser("replay")
    replay.add_argument("seed", type=int)
    replay.add_argument("--profile", default="swarm", choices=sorted(PROFILES))
    replay.add_argument("--verbose", action="store_true", help="tell the whole run")
    replay.add_argument("--trace", help="write every event of the world to this file")
    replay.add_argument("--no-shrink", action="store_true")
    faults = commands.add_parser("faults")
    faults.add_argument("--seeds", type=int, default=500, help="give up on a fault after so many")
    faults.add_argument("--only", choices=sorted(PLANTED), nargs="*")
    options = parser.parse_args(arguments)
    return {"run": _run, "replay": _replay, "faults": _faults}[options.command](options)


def _run(options: argparse.Namespace) -> int:
    first, last = (int(each) for each in options.seeds.split(".."))
    profiles = sorted(PROFILES) if options.nightly else [options.profile]
    jobs = [(seed, profile) for seed in range(first, last + 1) for profile in profiles]
    states: Counter[str] = Counter()
    failed = count = 0
    virtual_s = 0.0
    began = time.perf_counter()
    for result in _results(jobs, workers=options.jobs, seconds=options.seconds):
        count += 1
        virtual_s += result.virtual_s
        states.update(result.states)
        if result.failure is not None:
            failed += 1
            say(f"FAILED seed {result.plan.seed} --profile {result.plan.profile}: {result.failure[:800]}")
    wall_s = time.perf_counter() - began
    say(table(states))
    say(
        f"{count} runs, {failed} failed, {virtual_s:.0f} virtual s in {wall_s:.0f} s: {virtual_s / wall_s:.1f} a second"
    )
    missing = never_reached(states) if options.nightly else []
    for state in missing:
        say(f"NEVER REACHED: {state}")
    return 1 if failed or missing else 0


def _results(jobs: list[Job], *, workers: int, seconds: float) -> Iterator[Result]:
    end = time.perf_counter() + seconds
    if workers == 1:
        done: Iterable[Result] = map(_play, jobs)
        yield from _until(done, end)
        return
    with ProcessPoolExecutor(workers) as pool:
        batches = (jobs[at : at + 8 * workers] for at in range(0, len(jobs), 8 * workers))
        yield from _until(chain.from_iterable(pool.map(_play, batch) for batch in batches), end)


def _until(results: Iterable[Result], end: float) -> Iterator[Result]:
    for result in results:
        yield result
        if time.perf_counter() > end:
            return


def _play(job: Job) -> Result:
    result = play(draw_plan(*job))
    result.story = result.story[-5:]
    return result


def _replay(options: argparse.Namespace) -> int:
    result = play(draw_plan(options.seed, options.profile), keeps_trace=options.trace is not None)
    if options.trace is not None:
        with open(options.trace, "w", encoding="utf-8") as file:
            file.writelines(result.lines)
    if result.failure is not None and not options.no_shrink:
        result = shrink(result)
    say(tell(result, lines=10**9 if options.verbose else 80))
    say(f"fingerprint {result.fingerprint}; {result.attempts} produces, {result.acked} acknowledged")
    say(f"seed {options.seed}: {result.failure or 'passed'}")
    return 0 if result.failure is None else 1


def _faults(options: argparse.Namespace) -> int:
    missed = 0
    for name in options.only or PLANTED:
        found = look_for(PLANTED[name], seeds_max=options.seeds)
        missed += found is None
        say(f"{name}: " + ("NOT FOUND" if found is None else f"seed {found.plan.seed}: {(found.failure or '')[:160]}"))
    return 1 if missed else 0


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
