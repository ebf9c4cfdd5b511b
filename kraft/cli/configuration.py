"""`kraft config`: the keys of cluster.toml, and a check of a file."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from kraft.cli.options import JsonOption
from kraft.cli.output import write, write_json, write_rows
from kraft.config.checks import warnings
from kraft.config.describe import key_rows
from kraft.config.parse import parse_config
from kraft.launcher.configuration import BUILT_IN, read_config


def config(
    check: Annotated[
        str | None, typer.Argument(metavar="[CLUSTER.TOML]", help="Check this file instead of listing the keys.")
    ] = None,
    example: Annotated[bool, typer.Option("--example", help="Print the built-in cluster.toml, to start from.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List every key of cluster.toml with type, default, range and meaning; or check a file."""
    if example:
        write(read_config(BUILT_IN).rstrip("\n"))
    elif check is None:
        show_keys(as_json=as_json)
    else:
        _check(check, as_json=as_json)


def show_keys(*, as_json: bool) -> None:
    rows = [asdict(row) for row in key_rows()]
    write_rows(rows, ("section", "key", "type", "default", "range", "text"), as_json=as_json)


def _check(path: str, *, as_json: bool) -> None:
    """Check a file. Raises ConfigError."""
    parsed = parse_config(read_config(path), file=path)
    found = warnings(parsed)
    if as_json:
        write_json({"file": path, "nodes": [node.id for node in parsed.nodes], "warnings": found})
        return
    write(f"{path} is correct: {len(parsed.nodes)} nodes")
    for warning in found:
        write(f"warning: {warning}")
