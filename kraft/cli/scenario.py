"""`kraft scenario`: break a cluster on purpose and get a verdict for every record.

Exit codes: 0, the verdict is the one that the scenario expects; 1, it is not; 2, the scenario could not be run.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer

from kraft.chaos import catalogue, scenario_loader
from kraft.chaos.model import ANY, SOME, Scenario
from kraft.chaos.soak.plan import PACE_S_DEFAULT, PARTITIONS_DEFAULT, RATE_DEFAULT, SoakOptions
from kraft.chaos.story_source import surroundings
from kraft.cli.options import JsonOption
from kraft.cli.output import USAGE, fail, progress, write, write_json, write_rows, write_words
from kraft.config.problems import ConfigError

app = typer.Typer(
    help="Break a cluster on purpose and get a verdict for every record.", no_args_is_help=True, add_completion=False
)

ALL: Final = "all"
SEED_DEFAULT: Final = 1
MINUTES_DEFAULT: Final = 5.0

SeedOption = Annotated[int, typer.Option("--seed", metavar="S", help="Seed of the random choices, to repeat a run.")]
SimulatedOption = Annotated[
    bool,
    typer.Option("--simulated", help="In virtual time: no processes and ports, a second or two a story, repeatable."),
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME|FILE.py", help="A built-in scenario or a file.")]


@app.command("list")
def list_scenarios(as_json: JsonOption = False) -> None:
    """List the built-in scenarios: the events, the question, the possible clients, and the expected verdict."""
    rows = [_row(scenario) for scenario in catalogue.SCENARIOS.values()]
    write_rows(rows, ("name", "sentence", "question", "clients", "expected"), as_json=as_json, whole=("name",))


def _row(scenario: Scenario) -> dict[str, str]:
    return {
        "name": scenario.name,
        "sentence": scenario.sentence,
        "question": scenario.question,
        "clients": "rest" if scenario.rest_only else "rest, kafka",
        "expected": expected_line(scenario),
    }


def expected_line(scenario: Scenario) -> str:
    """The expected counts, without those that must be zero anyway."""
    expected = {name: count for name, count in scenario.expect.counts().items() if count not in (ANY, SOME)}
    shown = {name: count for name, count in expected.items() if count != 0 or name == "lost"}
    return ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in shown.items())


@app.command()
def describe(name: NameArgument) -> None:
    """Print a scenario's story, as a base for your own."""
    scenario = _loaded(name)
    text = Path(name).read_text() if name.endswith(".py") else f"{surroundings(scenario)}\n\n\n{scenario.source}"
    write(text.strip())


@app.command()
def new(
    file: Annotated[str, typer.Argument(metavar="FILE.py", help="Path of the new file, which must not exist.")],
) -> None:
    """Write a commented story to start from; then: kraft scenario run FILE.py."""
    path = Path(file)
    if path.suffix != ".py":
        fail(f"{file}: a story is a Python file; its name must be one that ends with .py", code=USAGE)
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(scenario_loader.NEW_STORY)
    except FileExistsError:
        fail(f"{file} exists already; nothing was written", code=USAGE)
    except OSError as error:
        fail(f"{file} cannot be written: {error.strerror}", code=USAGE)
    write(f"{file} is written; run it with: kraft scenario run {file}")


@app.command()
def run(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME|FILE.py...", help="Built-in scenarios or files; all: the catalogue.")
    ],
    repeat: Annotated[int, typer.Option("--repeat", metavar="N", min=1, help="Number of runs of each.")] = 1,
    seed: SeedOption = SEED_DEFAULT,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the nodes' folders; the answer has their path.")] = False,
    report: Annotated[
        str | None, typer.Option("--report", metavar="DIR", help="Write report.html, history, events and verdict.")
    ] = None,
    at_a_time: Annotated[
        int | None, typer.Option("--at-a-time", metavar="N", min=1, help="Scenarios at a time; default: 3 of several.")
    ] = None,
    client: Annotated[
        str,
        typer.Option("--client", metavar="rest|kafka", help="Protocol of clients; kafka: aiokafka, with its retries."),
    ] = "rest",
    simulated: SimulatedOption = False,
    secure: Annotated[bool, typer.Option("--secure", help="With TLS, a user and ACLs; links end TLS.")] = False,
    end_to_end: Annotated[bool, typer.Option("--end-to-end", help="With --secure: links let TLS pass.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run scenarios: start a cluster, run the story, heal, read everything back, judge.

    Exit code 0: every verdict is the one that its scenario expects; 1: one is not; 2: one could not be run.
    """
    from kraft.cli.scenario_run import Named, RunOptions, run_all, run_all_simulated

    _check_options(client, simulated=simulated, secure=secure, end_to_end=end_to_end)
    wanted = [name for name in names for name in (catalogue.NAMES if name == ALL else (name,))]
    scenarios = [Named(name, _loaded(name)) for name in wanted]
    if client == "kafka":
        say = progress(as_json=as_json)
        scenarios = [
            named
            for named in scenarios
            if _can_run(named.source, named.scenario, is_named=named.source in names, say=say)
        ]
    options = RunOptions(
        repeat=repeat,
        seed=seed,
        keep=keep,
        report=report,
        at_a_time=at_a_time,
        as_json=as_json,
        clients="kafka" if client == "kafka" else "rest",
        tls=("passed" if end_to_end else "ended") if secure else None,
    )
    sys.exit(run_all_simulated(scenarios, options) if simulated else asyncio.run(run_all(scenarios, options)))


def _check_options(client: str, *, simulated: bool, secure: bool, end_to_end: bool) -> None:
    """End the command if its options do not fit together."""
    if client not in ("rest", "kafka"):
        fail(f"the clients' protocol is rest or kafka, not {client}", code=USAGE)
    if client == "kafka" and simulated:
        fail("a Kafka client needs real nodes: leave out --client kafka or --simulated", code=USAGE)
    if secure and simulated:
        fail("TLS needs real nodes: leave out --secure or --simulated", code=USAGE)
    if end_to_end and not secure:
        fail("--end-to-end is about TLS: add --secure", code=USAGE)


def _can_run(name: str, scenario: Scenario, *, is_named: bool, say: Callable[[str], None]) -> bool:
    """Whether Kafka clients can run it. If not, ends the command if it was named; from the catalogue it is left out."""
    if not scenario.rest_only:
        return True
    if is_named:
        fail(f"{name} can be run with REST clients only: {scenario.rest_only}", code=USAGE)
    say(f"left out: {name} can be run with REST clients only: {scenario.rest_only}")
    return False


@app.command()
def fuzz(
    seed: SeedOption = SEED_DEFAULT,
    minutes: Annotated[float, typer.Option("--minutes", metavar="M", min=0, help="Duration.")] = MINUTES_DEFAULT,
    profile: Annotated[
        str, typer.Option("--profile", metavar="NAME", help="Possible faults, and the allowed losses.")
    ] = ("strict"),
    simulated: SimulatedOption = False,
    into: Annotated[str, typer.Option("--into", metavar="DIR", help="Folder for stories that fail.")] = "fuzz",
    as_json: JsonOption = False,
) -> None:
    """Random load and random faults until the time is up. A violation is shortened and written to a file.

    Exit code 0: every story ended as its profile allows; 1: one did not.
    """
    from kraft.chaos.nemesis.fuzz.profiles import PROFILES
    from kraft.cli.scenario_run import fuzz_until_time_is_up

    if profile not in PROFILES:
        known = "; ".join(f"{one.name}: {one.sentence}" for one in PROFILES.values())
        fail(f"there is no profile {profile}. {known}", code=USAGE)
    session = asyncio.run(
        fuzz_until_time_is_up(
            PROFILES[profile],
            seed=seed,
            minutes=minutes,
            directory=Path(into),
            say=progress(as_json=as_json),
            simulated=simulated,
        )
    )
    if as_json:
        files = [str(violation.file) for violation in session.violations]
        write_json({"stories": session.stories, "records": session.records, "violations": files})
    else:
        write(f"{session.stories} stories, {session.records} records, {len(session.violations)} violations")
    sys.exit(1 if session.violations else 0)


@app.command()
def soak(
    minutes: Annotated[float, typer.Option("--minutes", metavar="M", min=0.1, help="Duration.")] = MINUTES_DEFAULT,
    seed: SeedOption = SEED_DEFAULT,
    partitions: Annotated[
        int, typer.Option("--partitions", metavar="N", min=7, max=10_000, help="Of all topics, 3 replicas each.")
    ] = PARTITIONS_DEFAULT,
    rate: Annotated[
        int, typer.Option("--rate", metavar="R", min=6, max=2_000, help="Records per second of all producers.")
    ] = RATE_DEFAULT,
    pace: Annotated[
        float, typer.Option("--pace", metavar="SECONDS", min=0.1, help="Mean time between two faults or changes.")
    ] = PACE_S_DEFAULT,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the nodes' folders also after a success.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run one cluster under load and faults for minutes or hours: kills, pauses, full disks, cut links, group members
    that join and leave. Every few minutes it has to be healthy again; at the end every record is judged.

    Exit code 0: nothing was lost, duplicated or leaked, and the cluster became healthy; 1: a problem was found, and its
    data is kept in a folder; 2: it could not be run to its verdict.
    """
    from kraft.chaos.soak.session import soak as soak_cluster
    from kraft.cli.scenario_view import show_soak

    options = SoakOptions(minutes=minutes, seed=seed, partitions=partitions, rate=rate, pace_s=pace)
    result = asyncio.run(soak_cluster(options, say=progress(as_json=as_json), keep=keep))
    if as_json:
        write_json(result.to_document())
    else:
        show_soak(result, say=write_words)
    sys.exit(result.exit_code)


@app.command()
def check(
    history: Annotated[str, typer.Argument(metavar="HISTORY.jsonl", help="Requests of clients and their outcomes.")],
    as_json: JsonOption = False,
) -> None:
    """Judge any history: records that were kept, lost, duplicated, reordered, and the causes.

    An events.jsonl and a faults.jsonl beside it contain the causes. Exit code 0: no anomaly, nothing without a cause;
    1: there is one; 2: the file is no history.
    """
    from kraft.chaos.checkers.check import check_beside
    from kraft.chaos.history import HistoryError
    from kraft.cli.scenario_view import show_counts

    try:
        verdict = check_beside(history)
    except HistoryError as error:
        fail(str(error), code=USAGE)
    except OSError as error:
        fail(f"{history} cannot be read: {error.strerror}", code=USAGE)
    if as_json:
        write(verdict.to_json().decode())
    else:
        show_counts(verdict, say=write_words)
    sys.exit(0 if verdict.is_clean else 1)


def _loaded(name: str) -> Scenario:
    try:
        return scenario_loader.load(name)
    except ConfigError as error:
        fail(str(error), code=USAGE)
    except OSError as error:
        fail(f"{name} cannot be read: {error.strerror}", code=USAGE)
