"""What empty partitions cost a log manager: memory, open files, and the time to make, stop and load them.

python -m bench.idle_logs --logs 3000
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import resource
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from uuid import UUID

from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.runtime.descriptors import DescriptorShares, open_now, share_out
from kraft.runtime.environment import system_environment
from kraft.runtime.files import DiskFiles
from kraft.runtime.open_files import CachedFiles
from metadata.settings import BrokerSettings, TopicSettings
from replication.storage.log_manager import LogManager


class _Nobody:
    def emit(self, event: str, /, **fields: object) -> None: ...


def _resident_kb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _manager(folder: str, files: CachedFiles) -> LogManager:
    settings = BrokerSettings()
    return LogManager(
        system_environment(files=files),
        directories=[folder],
        cluster_id="c",
        node_id=1,
        events=_Nobody(),
        settings=lambda: settings,
    )


async def _measure(folder: str, logs: int, *, shares: DescriptorShares, writes: bool, traced: bool) -> None:
    files = CachedFiles(DiskFiles(), open_max=shares.files)
    settings = TopicSettings()
    manager = _manager(folder, files)
    await manager.start()
    begun, cpu = time.perf_counter(), _cpu_s()
    for number in range(logs):
        manager.get_or_create(topic="idle", topic_id=UUID(int=7), partition=number, settings=settings)
    _show("made", begun, cpu, logs)
    if writes:
        begun, cpu = time.perf_counter(), _cpu_s()
        for _, log in manager.online_logs():
            log.append_as_leader(build_batch([NewRecord(b"k", b"v", [], 1)]), leader_epoch=0, now_ms=1)
            if files.status().open > shares.files // 2:
                await asyncio.to_thread(files.tend)
        _show("wrote", begun, cpu, logs)
        sys.stdout.write(f"{files.status()}; descriptors: {open_now()}\n")
    begun, cpu = time.perf_counter(), _cpu_s()
    await manager.stop()
    _show("stopped", begun, cpu, logs)
    del manager
    gc.collect()
    resident = _resident_kb()
    if traced:
        tracemalloc.start(8)
    manager = _manager(folder, files)
    begun, cpu = time.perf_counter(), _cpu_s()
    await manager.start()
    _show("loaded", begun, cpu, logs)
    gc.collect()
    per_log = (_resident_kb() - resident) / logs
    sys.stdout.write(f"memory: {per_log:.1f} KB of each log; descriptors: {open_now()}\n")
    if traced:
        snapshot = tracemalloc.take_snapshot()
        total = sum(each.size for each in snapshot.statistics("filename"))
        sys.stdout.write(f"traced: {total / logs / 1024:.2f} KB of each log\n")
        for each in snapshot.statistics("lineno")[:40]:
            sys.stdout.write(f"  {each.size / logs:7.0f} B {each.count / logs:6.2f}  {each.traceback}\n")
        tracemalloc.stop()
    await manager.stop()


def _show(what: str, begun: float, cpu: float, logs: int) -> None:
    took, used = time.perf_counter() - begun, _cpu_s() - cpu
    sys.stdout.write(
        f"{what}: {took:.2f} s, {used:.2f} s of processor time, {used / logs * 1e6:.0f} us of each of {logs} logs\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", type=int, default=3_000)
    parser.add_argument("--traced", action="store_true", help="where the memory was taken; makes all of it slower")
    parser.add_argument("--open-files", type=int, default=4_096, metavar="N", help="hard limit of this process")
    parser.add_argument("--write", action="store_true", help="a record into each")
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (given.open_files, given.open_files))
    shares = share_out(given.open_files)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_measure(folder, given.logs, shares=shares, writes=given.write, traced=given.traced))


if __name__ == "__main__":
    main()
