"""`python -m bench.profile ROW`: run one row and show where a node's time goes (sampled by py-spy, pip: py-spy)."""

from __future__ import annotations

import argparse
import asyncio
import collections
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import uvloop

from bench import rows
from bench.cluster import BenchError, Cluster
from bench.report import header, line

SAMPLES_PER_S = 200
TOP = 30
EXTRA_S = 30


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description=__doc__)
    parser.add_argument("row", help="part of a row's name, see `python -m bench --list`")
    parser.add_argument("--node", choices=("leader", "follower"), default="leader")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--stacks", metavar="FILE", help="keep the collapsed stacks, for a flame graph")
    return parser.parse_args()


async def profile(cluster: Cluster, row: rows.Produce, options: argparse.Namespace, stacks: Path) -> None:
    leader_topic = await cluster.create_topic(replication_factor=row.replication_factor)
    leader = await cluster.leader(leader_topic)
    await cluster.delete_topic(leader_topic)
    pids = {node_id: node["pid"] for node_id, node in cluster.nodes.items()}
    samplers = [_sample(pid, stacks.with_suffix(f".{node_id}"), options.seconds) for node_id, pid in pids.items()]
    measured = await rows.run_produce(cluster, row, seconds=options.seconds)
    for sampler in samplers:
        _, error = sampler.communicate(timeout=options.seconds + EXTRA_S)
        if sampler.returncode:
            raise BenchError(f"py-spy failed: {error.decode()}")
    print(header(44), line(measured, 44), sep="\n")
    files = {node_id: stacks.with_suffix(f".{node_id}") for node_id in pids}
    busiest = sorted(files, key=lambda node_id: -_samples(files[node_id]))
    chosen = busiest[0] if options.node == "leader" else busiest[-1]
    print(f"\nnode {chosen} (the {options.node} of the measured topic by its load; {leader} led the one before)")
    show(files[chosen])
    if options.stacks:
        shutil.copyfile(files[chosen], options.stacks)


def _sample(pid: int, stacks: Path, seconds: float) -> subprocess.Popen[bytes]:
    command = ["py-spy", "record", "--pid", str(pid), "--rate", str(SAMPLES_PER_S), "--duration", str(int(seconds))]
    options = ["--format", "raw", "--output", str(stacks), "--nonblocking"]
    return subprocess.Popen(
        [*command, *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def _stacks(file: Path) -> list[tuple[list[str], int]]:
    found = []
    for text in file.read_text().splitlines():
        frames, _, count = text.rpartition(" ")
        found.append((frames.split(";"), int(count)))
    return found


def _samples(file: Path) -> int:
    return sum(count for _, count in _stacks(file))


def show(file: Path) -> None:
    own: collections.Counter[str] = collections.Counter()
    total: collections.Counter[str] = collections.Counter()
    samples = 0
    for frames, count in _stacks(file):
        names = [frame.rsplit(":", 1)[0] for frame in frames]
        own[names[-1]] += count
        total.update(dict.fromkeys(names, count))
        samples += count
    print(f"{samples} samples\n   own %  total %  function")
    for name, count in own.most_common(TOP):
        print(f"{count / samples * 100:7.1f} {total[name] / samples * 100:8.1f}  {name}")


def main() -> int:
    options = arguments()
    found = [row for row in rows.PRODUCE if options.row in row.name]
    if not found:
        print(f"no row has {options.row!r} in its name; see `python -m bench --list`", file=sys.stderr)
        return 2
    if shutil.which("py-spy") is None:
        print("py-spy is missing: pip install py-spy", file=sys.stderr)
        return 2
    cluster = Cluster()
    try:
        cluster.start()
        with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(profile(cluster, found[0], options, Path(folder) / "stacks"))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        cluster.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
