"""`python -m bench.versions --before FOLDER`: this version beside another checkout, the same rows in turn.

Prints the medians of each row and their ratio: what it did per second (or the time that it took), and the processor
time of all nodes for each request, which a busy machine changes least. FOLDER is a checkout whose `bench` is run by
`--python`, an interpreter with what that version needs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kraft.launcher.python import PYTHON

ROUNDS: Final = 5
LIMIT_S: Final = 1200
RATES: Final = ("requests_per_s", "records_per_s", "mb_per_s")

Rows = Mapping[str, Mapping[str, Any]]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.versions", description=__doc__)
    parser.add_argument("--before", required=True, metavar="FOLDER", help="a checkout of the other version")
    parser.add_argument("--python", default=PYTHON[0], help="the interpreter for it")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--quick", action="store_true", help="short rows")
    parser.add_argument("--only", default="", metavar="TEXTS", help="as for `python -m bench`")
    return parser.parse_args()


def measured(folder: str, python: str, options: argparse.Namespace) -> Rows:
    command = [python, "-P", "-m", "bench", "--json", "--only", options.only, *(["--quick"] if options.quick else [])]
    environment = {**os.environ, "PYTHONPATH": folder}
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT_S)
    if ended.returncode:
        raise SystemExit(f"{folder}: {ended.stderr[-2000:]}")
    rows = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    return {row["name"]: row for row in rows}


def figures(row: Mapping[str, Any]) -> dict[str, float]:
    """The values of the row; the first rate is the main one."""
    found: dict[str, float] = {}
    rate = next((name for name in RATES if name in row), None)
    if rate is not None:
        found[rate] = row[rate]
        if "nodes_cpu_percent" in row:
            found[f"CPU us for each of {rate}"] = row["nodes_cpu_percent"] * 1e4 / row[rate]
    elif "p50_ms" in row:
        found["p50_ms"] = row["p50_ms"]
    return found


def show(before: Sequence[Rows], after: Sequence[Rows]) -> None:
    for name in after[0]:
        if any(name not in rows for rows in (*before, *after)):
            print(f"{name}: not in both")
            continue
        sides = [[figures(rows[name]) for rows in side] for side in (before, after)]
        for figure in sides[0][0]:
            was, now = (statistics.median(each[figure] for each in side) for side in sides)
            values = " | ".join(", ".join(f"{each[figure]:.4g}" for each in side) for side in sides)
            print(f"{name:44}{figure:34}{was:>12.4g}{now:>12.4g}   x {now / was:.2f}   ({values})", flush=True)


def main() -> int:
    options = arguments()
    before, after = [], []
    for number in range(options.rounds):
        before.append(measured(options.before, options.python, options))
        after.append(measured(os.getcwd(), PYTHON[0], options))
        print(f"round {number + 1} of {options.rounds} is over", file=sys.stderr, flush=True)
    show(before, after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
