"""Plays whole clusters by seed: `python -m tests.simulation COMMAND --help` describes each command.

Exit codes: 0 all is well; 1 a seed failed, a state was never reached or a planted fault was not found; 2 the command
line is wrong.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence

from tests.simulation import ci_seeds
from tests.simulation.output import Screen, as_json
from tests.simulation.plan_generator import draw_plan
from tests.simulation.planted import PLANTED, look_for
from tests.simulation.profiles import PROFILES
from tests.simulation.run import play
from tests.simulation.seed_runs import Totals, fresh_seeds, play_all
from tests.simulation.shrink import shrink, story_of
from tests.simulation.states import never_reached

STORY_LINES = 80
SEEDS_A_LINE = 25
"""A fault that is searched for longer is reported, so that a slow search is not taken for a hanging one."""
ALL = 10**9
EXAMPLES = """examples:
  python -m tests.simulation run --seeds 1..1000 --profile power --jobs 2
  python -m tests.simulation run --nightly --jobs 2
  python -m tests.simulation replay 46 --profile power --verbose --trace /tmp/trace
"""


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    logging.getLogger("kraft").addHandler(logging.NullHandler())  # what nodes log is no result of a run
    handler = {"run": _run, "ci": _ci, "replay": _replay, "faults": _faults}[options.command]
    return handler(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_run(commands.add_parser("run", help="play seeds, and count the states that they reach"))
    _add_ci(commands.add_parser("ci", help="play a fixed set of seeds, then fresh ones, in bounded time"))
    _add_replay(commands.add_parser("replay", help="play one seed again; shrink it if it fails, and tell its story"))
    _add_faults(commands.add_parser("faults", help="look for the bugs that are planted on purpose"))
    return parser


def _add_run(run: argparse.ArgumentParser) -> None:
    nightly = f"{ci_seeds.NIGHTLY_SEEDS[0]}..{ci_seeds.NIGHTLY_SEEDS[-1]}"
    run.add_argument("--seeds", type=_seeds, metavar="FIRST..LAST", help=f"1..100; with --nightly {nightly}")
    _add_profile(run, "all")
    run.add_argument("--nightly", action="store_true", help="all profiles; a state that is never reached fails")
    _add_common(run, seconds=float("inf"))


def _add_ci(ci: argparse.ArgumentParser) -> None:
    ci.add_argument(
        "--fresh-from", default="", metavar="TEXT", help="a name of the change: what fresh seeds are made of"
    )
    _add_common(ci, seconds=ci_seeds.SECONDS)


def _add_common(command: argparse.ArgumentParser, *, seconds: float) -> None:
    command.add_argument("--jobs", type=int, default=1, help="processes, one for each core at most (1)")
    command.add_argument(
        "--seconds", type=float, default=seconds, help=f"begin no run after this wall time ({seconds})"
    )
    command.add_argument("--json", action="store_true", help="one JSON document, and nothing else")


def _add_profile(command: argparse.ArgumentParser, *more: str) -> None:
    choices = [*sorted(PROFILES), *more]
    command.add_argument(
        "--profile", default="swarm", choices=choices, metavar="NAME", help=f"swarm; one of {', '.join(choices)}"
    )


def _add_replay(replay: argparse.ArgumentParser) -> None:
    replay.add_argument("seed", type=int)
    _add_profile(replay)
    replay.add_argument("--verbose", action="store_true", help="tell the whole run, not only its end")
    replay.add_argument("--trace", metavar="FILE", help="write every event of the world to this file")
    replay.add_argument("--no-shrink", action="store_true", help="tell the failing run with all its events")
    replay.add_argument("--json", action="store_true", help="one JSON document, and nothing else")


def _add_faults(faults: argparse.ArgumentParser) -> None:
    faults.add_argument("--seeds", type=int, default=500, help="give up on a fault after so many (500)")
    faults.add_argument("--only", choices=sorted(PLANTED), nargs="*", metavar="NAME", help=", ".join(sorted(PLANTED)))
    faults.add_argument("--json", action="store_true", help="one JSON document, and nothing else")


def _seeds(text: str) -> range:
    first, dots, last = text.partition("..")
    try:
        seeds = range(int(first), int(last if dots else first) + 1)
    except ValueError:
        seeds = range(0)
    if not seeds:
        raise argparse.ArgumentTypeError(f"{text!r} is no FIRST..LAST")
    return seeds


# --- many seeds -----------------------------------------------------------------------------------------------------


def _run(options: argparse.Namespace) -> int:
    profiles = sorted(PROFILES) if options.nightly or options.profile == "all" else [options.profile]
    seeds = options.seeds or (ci_seeds.NIGHTLY_SEEDS if options.nightly else range(1, 101))
    jobs = [(seed, profile) for seed in seeds for profile in profiles]
    screen, total = Screen(is_json=options.json), Totals()
    with screen.showing(len(jobs)):
        play_all(jobs, total=total, processes=options.jobs, seconds=options.seconds, on_played=screen.played)
    screen.states(total)
    return _end(options, screen, total, missing=never_reached(total.states) if options.nightly else [])


def _ci(options: argparse.Namespace) -> int:
    """The fixed seeds all, fresh ones as long as there is time."""
    screen, total = Screen(is_json=options.json), Totals()
    fresh = fresh_seeds(options.fresh_from, count=ci_seeds.FRESH_MAX)
    jobs = [(seed, profile) for seed in fresh for profile in ci_seeds.PROFILES]
    screen.say(f"fixed: {ci_seeds.described()}")
    screen.say(f"fresh: {', '.join(ci_seeds.PROFILES)} from {fresh[0]} on, made of {options.fresh_from!r}")
    with screen.showing(len(ci_seeds.FIXED) + len(jobs)):
        play_all(ci_seeds.FIXED, total=total, processes=options.jobs, on_played=screen.played)
        left_s = options.seconds - total.wall_s
        play_all(jobs, total=total, processes=options.jobs, seconds=left_s, on_played=screen.played)
    screen.say(f"{total.runs - len(ci_seeds.FIXED)} of the fresh runs were played, in this order")
    return _end(options, screen, total, missing=[])


def _end(options: argparse.Namespace, screen: Screen, total: Totals, *, missing: Sequence[str]) -> int:
    if options.json:
        _print(as_json(total, missing=missing, command=options.command))
    screen.summary(total)
    for state in missing:
        screen.say(f"NEVER REACHED: {state}", style="bold red")
    return 1 if total.failed or missing else 0


# --- one seed -------------------------------------------------------------------------------------------------------


def _replay(options: argparse.Namespace) -> int:
    result = play(draw_plan(options.seed, options.profile), keeps_trace=options.trace is not None)
    if options.trace is not None:
        with open(options.trace, "w", encoding="utf-8") as file:
            file.writelines(result.lines)
    fingerprint = result.fingerprint
    if result.failure is not None and not options.no_shrink:
        result = shrink(result)
    story = story_of(result, lines=ALL if options.verbose else STORY_LINES)
    if options.json:
        document = {
            "seed": options.seed,
            "profile": options.profile,
            "failure": result.failure,
            "fingerprint": fingerprint,
            "produces": result.attempts,
            "acknowledged": result.acked,
            "story": story.splitlines(),
        }
        _print(json.dumps(document, indent=2))
    else:
        _print(story)
        _print(f"fingerprint {fingerprint}; {result.attempts} produces, {result.acked} acknowledged")
        _print(f"seed {options.seed}: {result.failure or 'passed'}")
    return 0 if result.failure is None else 1


# --- planted bugs ---------------------------------------------------------------------------------------------------


def _faults(options: argparse.Namespace) -> int:
    found: dict[str, dict[str, object] | None] = {}
    for name in options.only or PLANTED:

        def report(number: int, name: str = name) -> None:
            if number % SEEDS_A_LINE == 0 and not options.json:
                _print(f"{name}: not found by {number - 1} seeds so far")

        result = look_for(PLANTED[name], seeds_max=options.seeds, on_seed=report)
        found[name] = None
        if result is not None:
            plan = result.plan
            found[name] = {"seed": plan.seed, "profile": plan.profile, "failure": result.failure}
        if not options.json:
            text = "NOT FOUND" if result is None else f"seed {result.plan.seed}: {(result.failure or '')[:160]}"
            _print(f"{name}: {text}")
    if options.json:
        _print(json.dumps(found, indent=2))
    return 1 if None in found.values() else 0


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
