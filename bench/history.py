"""`python -m bench.history`: how fast a history is recorded, and how fast and in how much memory it is judged.

The history is one client's, by default one record an operation: the dearest form, every record is a line of its own. It
is judged twice, each time by a process of its own: alone, as `kraft scenario check` does, and with what a run has
besides, a read-back and the logs of three replicas.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kraft.chaos.checkers.check import HISTORY_FILE, check_history
from kraft.chaos.evidence import Evidence, LogRecord, ReadBack, ReplicaLog
from kraft.chaos.history import Header, HistoryWriter, Produce
from kraft.launcher.python import PYTHON

ROOT: Final = Path(__file__).parents[1]
"""Where `bench` is: it is not installed."""
OPERATIONS: Final = 1_000_000
SPACING_US: Final = 50
"""20,000 operations a second."""
LATENCY_US: Final = 900
REPLICAS: Final = (1, 2, 3)
TOPIC: Final = ("t", 0)


@dataclass(frozen=True, slots=True)
class Cost:
    seconds: float
    cpu_s: float
    memory_mb: float


def value(number: int) -> str:
    return f"p:{number}"


def write_history(path: Path, operations: int, batch: int) -> tuple[float, float]:
    """Seconds, and seconds of processor time, that the recorder took; making the operations is part of it."""
    header = Header(scenario="bench", seed=1, settings={}, start_us=0, wall_ms=0)
    begun, cpu_begun = time.perf_counter(), time.process_time()
    with HistoryWriter(path, header) as history:
        for number in range(operations):
            history.record(operation(number, batch))
    return time.perf_counter() - begun, time.process_time() - cpu_begun


def operation(number: int, batch: int) -> Produce:
    invoke_us = number * SPACING_US
    return Produce(
        process="p",
        index=number,
        invoke_us=invoke_us,
        complete_us=invoke_us + LATENCY_US,
        topic=TOPIC[0],
        partition=TOPIC[1],
        acks="all",
        node=1,
        records=tuple((None, value(offset)) for offset in range(number * batch, (number + 1) * batch)),
        outcome="ok",
        kafka_code=0,
        offsets=tuple(range(number * batch, (number + 1) * batch)),
    )


def evidence(count: int) -> Evidence:
    """Every log has every record."""

    def records() -> Iterator[LogRecord]:
        return (LogRecord(offset, 0, value(offset)) for offset in range(count))

    topic, partition = TOPIC
    readback = ReadBack(
        topic=topic,
        partition=partition,
        records=records,
        high_watermark=count,
        leader=1,
        leader_epoch=0,
        isr=REPLICAS,
    )
    replicas = [
        ReplicaLog(
            node=node,
            topic=topic,
            partition=partition,
            records=records,
            log_end_offset=count,
            high_watermark=count,
            epochs=((0, 0),),
        )
        for node in REPLICAS
    ]
    return Evidence(readback=[readback], replicas=replicas)


def run(command: list[str]) -> Cost:
    """The cost of a separate process, with our output. Raises CalledProcessError."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": path})
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Cost(time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3)


def judge(path: Path, count: int) -> None:
    """With all evidence; exits with an error when not every record was found."""
    verdict = check_history(path, evidence(count))
    if verdict.counts.kept != count or not verdict.is_clean:
        sys.exit(f"expected {count} records kept: {verdict.counts}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.history", description=__doc__)
    parser.add_argument("--operations", type=int, default=OPERATIONS, metavar="N")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="records in one operation")
    parser.add_argument("--judge", type=Path, metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.judge is not None:
        judge(options.judge, options.operations * options.batch)
        return
    with tempfile.TemporaryDirectory(prefix="kraft-bench-") as folder:
        measure(Path(folder, HISTORY_FILE), options.operations, options.batch)


def measure(path: Path, operations: int, batch: int) -> None:
    seconds, cpu_s = write_history(path, operations, batch)
    records = operations * batch
    megabytes = path.stat().st_size / 1e6
    print(f"{records:,} records in {operations:,} operations, {megabytes:,.0f} MB")
    rate = f"{records / seconds:,.0f} records/s, {records / cpu_s:,.0f} in a second of processor time"
    print(f"recorded     {seconds:6.1f} s, {cpu_s:.1f} s of processor time: {rate}", flush=True)
    alone = run([*PYTHON, "-m", "kraft", "scenario", "check", str(path)])
    show("history alone", alone)
    count = ["--operations", str(operations), "--batch", str(batch)]
    whole = run([*PYTHON, "-m", "bench.history", *count, "--judge", str(path)])
    show("with read-back and three replicas", whole)


def show(what: str, cost: Cost) -> None:
    text = f"{cost.seconds:6.1f} s, {cost.cpu_s:.1f} s of processor time, {cost.memory_mb:,.0f} MB"
    print(f"judged       {text}: {what}", flush=True)


if __name__ == "__main__":
    main()
