"""`python -m bench.start`: from a command to a cluster that is ready, in seconds and in processor time.

A machine that does other things too makes every number larger, and not the ratio of two that are measured in turn. So
each round measures a program that does nothing but `import aiohttp, pydantic`, then each start, and the table has the
median of the rounds and the median of the ratios to that program. Processor time is that of all processes from the
command to the moment when the cluster is ready: of the command, of the process that forks, and of all nodes.

`--code DIR` measures the same starts of another checkout in the same rounds. Compiled modules are kept in a folder of
the run's own, and every program runs once before it is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.cluster import process_cpu_s
from kraft.launcher.python import PYTHON

ROUNDS: Final = 7
LIMIT_S: Final = 300.0
IDLE_S: Final = 5.0
"""The wait before the memory of idle nodes is measured."""
REFERENCE: Final = "import aiohttp, pydantic"
THREE: Final = "kraft up, three nodes"
ONE: Final = "kraft up, one node"
FIRST: Final = "kraft.testing, three nodes"
RECORD: Final = "kraft.testing, to an acknowledged record"
SECOND: Final = "kraft.testing, second cluster"
IN_A_TEST: Final = """
import json, os, sys, time
from kraft.testing import Cluster
from kraft.client.blocking_transport import send
from kraft.client.response import Answer, Request
from bench.start import tree_cpu_s

def acknowledged(cluster):
    body = json.dumps({"records": [{"value": 1}]}).encode()
    headers = {"Content-Type": "application/vnd.kafka.json.v2+json"}
    outcome = send(cluster.rest_url, Request(method="POST", path="/topics/first", body=body, headers=headers))
    assert isinstance(outcome, Answer) and outcome.is_success, outcome

def measured(act):
    begun, cpu_s = time.perf_counter(), tree_cpu_s(os.getpid())
    act()
    return time.perf_counter() - begun, tree_cpu_s(os.getpid()) - cpu_s

taken = {}
cluster = Cluster(nodes=3)
taken["ready"] = measured(cluster.start)
taken["record"] = measured(lambda: acknowledged(cluster))
cluster.close()
taken["second"] = measured(Cluster(nodes=3).start)
print(json.dumps(taken))
"""
ONE_NODE: Final = """
[settings]
default.replication.factor = 1
min.insync.replicas = 1
[[nodes]]
id = 1
"""


@dataclass(frozen=True, slots=True)
class Taken:
    seconds: float
    cpu_s: float


def tree_cpu_s(pid: int) -> float:
    """The processor time of a process and its living descendants, and of its children that have ended."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(name))
    found, total = [pid], 0.0
    while found:
        each = found.pop()
        found += parents.get(each, [])
        try:
            total += process_cpu_s(each)
        except OSError:
            continue
    return total


def reference(environment: Mapping[str, str]) -> Taken:
    begun = time.perf_counter()
    process = subprocess.Popen([*PYTHON, "-c", REFERENCE], env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, "aiohttp and pydantic are not installed"
    return Taken(seconds, usage.ru_utime + usage.ru_stime)


def up(environment: Mapping[str, str], *, config: str | None) -> tuple[Taken, float]:
    """And the memory of its nodes in MB (PSS), after a while."""
    with tempfile.TemporaryDirectory(prefix="kraft-bench-") as folder:
        command = [*PYTHON, "-m", "kraft", "up", "--free-ports", "--no-console", "--json", "--data", f"{folder}/data"]
        begun = time.perf_counter()
        process = subprocess.Popen(
            command + ([] if config is None else [config]), env=environment, stdout=subprocess.PIPE, cwd=folder
        )
        try:
            assert process.stdout is not None
            summary: dict[str, Any] = json.loads(process.stdout.readline())
            taken = Taken(time.perf_counter() - begun, tree_cpu_s(process.pid))
            time.sleep(IDLE_S)
            memory = sum(pss_mb(node["pid"]) for node in summary["nodes"])
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=LIMIT_S)
    return taken, memory


def pss_mb(pid: int) -> float:
    """Memory of a process; each shared page counts by its share (proc(5), smaps_rollup)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"no Pss of process {pid}")


def in_a_test(environment: Mapping[str, str]) -> Iterator[tuple[str, Taken]]:
    done = subprocess.run(
        [*PYTHON, "-c", IN_A_TEST], env=environment, stdout=subprocess.PIPE, check=True, timeout=LIMIT_S
    )
    taken = {name: Taken(*values) for name, values in json.loads(done.stdout).items()}
    ready, record = taken["ready"], taken["record"]
    yield FIRST, ready
    yield RECORD, Taken(ready.seconds + record.seconds, ready.cpu_s + record.cpu_s)
    yield SECOND, taken["second"]


Round = dict[str, Taken]


def measured(environments: Mapping[str, Mapping[str, str]], one: str) -> tuple[Round, dict[str, float]]:
    """`environments`: of each checkout by its name; the first is this one."""
    found: Round = {REFERENCE: reference(next(iter(environments.values())))}
    memory: dict[str, float] = {}
    for name, environment in environments.items():
        found[THREE + name], memory[THREE + name] = up(environment, config=None)
        found[ONE + name], memory[ONE + name] = up(environment, config=one)
        if not name:
            found.update(in_a_test(environment))
    return found, memory


def table(rounds: list[Round], memory: list[dict[str, float]]) -> Iterator[str]:
    yield "| | seconds | processor s | seconds, ratio | processor time, ratio | nodes idle, MB (PSS) |"
    yield "|---|---|---|---|---|---|"
    median = statistics.median
    for name in rounds[0]:
        over: Callable[[str], float] = lambda field, of=name: median(  # type: ignore[misc] # noqa: E731
            getattr(each[of], field) / getattr(each[REFERENCE], field) for each in rounds
        )
        seconds, cpu_s = (median(getattr(each[name], field) for each in rounds) for field in ("seconds", "cpu_s"))
        held = f"{median(each[name] for each in memory):.0f}" if name in memory[0] else ""
        yield f"| {name} | {seconds:.2f} | {cpu_s:.2f} | {over('seconds'):.1f} | {over('cpu_s'):.1f} | {held} |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.start", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")
    parser.add_argument("--code", metavar="DIR", help="another checkout, measured in the same rounds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kraft-bench-") as folder:
        one = Path(folder) / "cluster.toml"
        one.write_text(ONE_NODE)
        compiled = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        compiled["PYTHONPYCACHEPREFIX"] = f"{folder}/compiled"
        here = str(Path(__file__).parents[1])
        checkouts = {"": here} | ({f" ({options.code})": os.path.abspath(options.code)} if options.code else {})
        environments = {name: {**compiled, "PYTHONPATH": code} for name, code in checkouts.items()}
        measured(environments, str(one))  # compiles
        found = [measured(environments, str(one)) for _ in range(options.rounds)]
    print("\n".join(table([each for each, _ in found], [each for _, each in found])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
