"""`kraft scenario`: break a cluster on purpose and get a verdict for every record.

Exit codes: 0, the verdict is what the scenario expects; 1, it is not; 2, the scenario could not be run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kraft.cli.options import JsonOption
from kraft.cli.output import USAGE, fail, write, write_rows
from kraft.config.problems import ConfigError
from kraft.scenarios import catalogue
from kraft.scenarios.model import Scenario

app = typer.Typer(
    help="Break a cluster on purpose and get a verdict for every record.", no_args_is_help=True, add_completion=False
)


@app.command("list")
def list_scenarios(as_json: JsonOption = False) -> None:
    """The built-in scenarios: what happens, which question it answers, and the verdict it must have."""
    rows = [_row(catalogue.load(name)) for name in catalogue.NAMES]
    write_rows(rows, ("name", "sentence", "question", "expected"), as_json=as_json)


def _row(scenario: Scenario) -> dict[str, str]:
    about = scenario.scenario
    return {
        "name": about.name,
        "sentence": about.sentence,
        "question": about.question,
        "expected": expected_line(scenario),
    }


def expected_line(scenario: Scenario) -> str:
    """What must come out, but for what must be zero anyway."""
    said = {name: text for name, text in scenario.expect.ranges().items() if text not in (">= 0", "> 0")}
    shown = {name: text for name, text in said.items() if text != "0" or name == "lost"}
    return ", ".join(f"{name.replace('_', ' ')} {text.removeprefix('==').strip()}" for name, text in shown.items())


@app.command()
def describe(name: Annotated[str, typer.Argument(metavar="NAME|FILE.toml", help="Built-in scenario or file.")]) -> None:
    """Print a scenario's file: copy it to begin one of your own."""
    _loaded(name)
    write((Path(name).read_text() if name.endswith(".toml") else catalogue.text_of(name)).rstrip())


def _loaded(name: str) -> Scenario:
    try:
        return catalogue.load(name)
    except ConfigError as error:
        fail(str(error), code=USAGE)
    except OSError as error:
        fail(f"{name} cannot be read: {error.strerror}", code=USAGE)
