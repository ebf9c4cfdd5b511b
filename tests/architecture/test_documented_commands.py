"""Each command and option that README.md and docs/ show exists, so that what they say and `--help` agree."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from kraft.cli.main import build_app
from tests.architecture.test_documented_paths import documents

SHOWN = re.compile(r"(?:`|^\$? *|&& |\.venv/bin/)kraft ([a-z][^`#|;\n]*)", re.MULTILINE)
OPTION = re.compile(r"(?<=\s)--[a-z][a-z-]*")
Path = tuple[str, ...]


def test_documented_commands_exist():
    commands = dict(walk(get_command(build_app())))
    shown = {str(path): list(SHOWN.findall(path.read_text(encoding="utf-8"))) for path in documents()}
    assert sum(map(len, shown.values())) > 50
    wrong = {name: [*unknown("\n".join(lines), commands)] for name, lines in shown.items()}
    assert not {name: found for name, found in wrong.items() if found}


def test_unknown_command_is_found():
    commands: dict[Path, set[str]] = {(): set(), ("up",): {"--data"}, ("node",): set(), ("node", "kill"): {"--rest"}}
    assert [*unknown("up --data x\nnode kill 1 --rest y", commands)] == []
    assert [*unknown("start\nup --fast\nnode kill 1 --data x", commands)] == ["start", "up --fast", "node kill --data"]


def walk(command: Any, path: Path = ()) -> Iterator[tuple[Path, set[str]]]:
    """Every command by its words, with its options; a `click.Group` has `commands`."""
    yield path, {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {"--help"}
    for name, each in getattr(command, "commands", {}).items():
        yield from walk(each, (*path, name))


def unknown(shown: str, commands: dict[Path, set[str]]) -> Iterator[str]:
    """What follows `kraft` in each line; `a|b` is cut by the pattern at its first."""
    for line in shown.splitlines():
        path: Path = ()
        for word in line.split():
            if (*path, word) not in commands:
                break
            path = (*path, word)
        if not path:
            yield line
        for option in OPTION.findall(" " + line):
            if path and option not in commands[path]:
                yield " ".join((*path, option))
