"""`python -m bench.one_loop`: three nodes on one event loop, and the processor time of its thread for each request.

Where other work shares the processors, what three processes take for a request varies by a third from run to run: each
wakes the others, and waits for them. Here the nodes have one loop and the client is a process of its own, so that the
least of a few batches varies by a few per cent. `--codes` counts byte codes instead, which are the same everywhere.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import collections
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

import uvloop

from bench import rows
from bench.client import Client, ClosedLoop
from bench.cluster import POLL_S, START_S, BenchError, Cluster
from kraft.http.app import create_app
from kraft.http.server import HttpServer
from kraft.launcher.configuration import load_config
from kraft.launcher.ports import with_free_ports
from kraft.launcher.python import PYTHON
from kraft.node.assembly import Node
from kraft.node.process import YOUNG_OBJECTS
from kraft.runtime.environment import close_environment, system_environment
from kraft.runtime.files import DiskFiles
from kraft.runtime.open_files import CachedFiles
from kraft.runtime.quorum_thread import QuorumThread

BATCHES: Final = 6
RECORDS_OF_BATCH: Final = 40_000
REQUESTS_MIN, REQUESTS_MAX = 200, 1_600
WARM_REQUESTS: Final = 160
TRACED_REQUESTS: Final = 160
OPEN_FILES: Final = 1_000
TOP: Final = 60


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.one_loop", description=__doc__)
    parser.add_argument("--only", default="json", metavar="TEXTS", help="parts of names of produce rows, by commas")
    parser.add_argument("--batches", type=int, default=BATCHES, help="of requests, each measured alone")
    parser.add_argument("--codes", action="store_true", help="byte codes of each function for a request")
    parser.add_argument("--client", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


# --- the client's process ---------------------------------------------------------------------------------------------


async def send_what_is_asked_for() -> None:
    """One line of standard input is one load; one line of standard output reports its end."""
    for line in sys.stdin:
        asked = json.loads(line)
        data = base64.b64decode(asked.pop("data"))
        load = await ClosedLoop(asked.pop("base"), data, seconds=START_S, **asked).run()
        print(json.dumps({"answers": load.answers, "errors": load.errors[:1]}), flush=True)


class ClientProcess:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def load(self, base: str, data: bytes, *, connections: int, requests: int) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {
            "base": base,
            "data": base64.b64encode(data).decode(),
            "connections": connections,
            "requests_max": requests,
        }
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        answer = json.loads(await self._process.stdout.readline())
        if answer["errors"] or answer["answers"] != requests:
            raise BenchError(f"{requests} requests, and {answer}")


@asynccontextmanager
async def client_process() -> AsyncIterator[ClientProcess]:
    command, pipe = (*PYTHON, "-m", "bench.one_loop", "--client"), asyncio.subprocess.PIPE
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdin=pipe, stdout=pipe)
    try:
        yield ClientProcess(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


# --- the nodes --------------------------------------------------------------------------------------------------------


class OneLoop(Cluster):
    """The same cluster, asked in the same way, with its nodes on the loop that runs."""

    def __init__(self) -> None:
        super().__init__()
        self._nodes: list[Node] = []

    async def begin(self) -> None:
        config = with_free_ports(load_config(None, data=self.data))
        for each in config.nodes:
            os.makedirs(each.data, exist_ok=True)
            environment = system_environment(files=CachedFiles(DiskFiles(), open_max=OPEN_FILES))
            quorum = QuorumThread()
            self._nodes.append(
                Node(config, each.id, environment=environment, quorum=quorum, door=_door, on_fatal=_raise)
            )
        await asyncio.gather(*(node.start() for node in self._nodes))
        self.nodes = {each.id: {"rest": each.rest_url, "pid": os.getpid()} for each in config.nodes}
        self._clients = {node_id: Client(node["rest"]) for node_id, node in self.nodes.items()}
        self.cluster_id = self._nodes[0].gateway.cluster_id
        async with asyncio.timeout(START_S):
            while True:
                if not any(node.awaiting.service() for node in self._nodes):
                    break
                await asyncio.sleep(POLL_S)
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])

    async def end(self) -> None:
        for client in self._clients.values():
            client.close()
        await asyncio.gather(*(node.stop() for node in self._nodes))
        for node in self._nodes:
            close_environment(node.environment)
        self._folder.cleanup()


def _door(node: Node) -> HttpServer:
    app = create_app(node.gateway, environment=node.environment, awaiting=node.awaiting)
    return HttpServer(app, host=node.node.bind_host, port=node.node.rest_port)


def _raise(error: BaseException) -> None:
    raise error


# --- measuring --------------------------------------------------------------------------------------------------------


class Codes:
    """Counts the byte codes that this thread runs, and the calls, by function."""

    def __init__(self) -> None:
        self.codes: collections.Counter[Any] = collections.Counter()
        self.calls: collections.Counter[Any] = collections.Counter()

    def __enter__(self) -> Codes:
        sys.settrace(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _called(self, frame: FrameType, event: str, _: object) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self.calls[frame.f_code] += 1
        return self._ran

    def _ran(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "opcode":
            self.codes[frame.f_code] += 1
        return self._ran

    def show(self, requests: int) -> None:
        codes, calls = sum(self.codes.values()), sum(self.calls.values())
        print(f"  {codes / requests:,.0f} byte codes, {calls / requests:,.0f} calls")
        for code, count in self.codes.most_common(TOP):
            place = "/".join(Path(code.co_filename).parts[-3:])
            print(f"  {count / requests:8.1f} {self.calls[code] / requests:8.2f}  {place} {code.co_qualname}")


async def measure(cluster: OneLoop, client: ClientProcess, row: rows.Produce, options: argparse.Namespace) -> None:
    topic, base, body, data = await rows.to_new_topic(cluster, row)
    await client.load(base, data, connections=row.connections, requests=WARM_REQUESTS)
    if options.codes:
        with Codes() as codes:
            await client.load(base, data, connections=row.connections, requests=TRACED_REQUESTS)
        print(row.name)
        codes.show(TRACED_REQUESTS)
    else:
        requests = min(max(RECORDS_OF_BATCH // body.records, REQUESTS_MIN), REQUESTS_MAX)
        found = []
        for _ in range(options.batches):
            begun = time.thread_time()
            await client.load(base, data, connections=row.connections, requests=requests)
            found.append((time.thread_time() - begun) / requests * 1e6)
        each = ", ".join(f"{value:.0f}" for value in found)
        print(f"{row.name:44}{min(found):9.1f} us, median {statistics.median(found):9.1f}   ({each})", flush=True)
    await cluster.delete_topic(topic)


async def measure_all(options: argparse.Namespace) -> None:
    chosen = [row for row in rows.PRODUCE if any(text in row.name for text in options.only.split(","))]
    cluster = OneLoop()
    try:
        await cluster.begin()
        async with client_process() as client:
            for row in chosen:
                await measure(cluster, client, row, options)
    finally:
        await cluster.end()


def main() -> int:
    options = arguments()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(send_what_is_asked_for() if options.client else measure_all(options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
