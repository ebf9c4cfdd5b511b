"""The program that serves the console of a launcher, `python -P -m kraft.testing.console.server`: data folder,
descriptor of a socket that listens, flags.

It is a process beside the nodes, and asks each at its own port, so it sees them all also when their links are cut. It
ends with the cluster of its data folder, or with the process that has started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

import msgspec
import uvloop

from kraft.broker.gateway import NodeInfo
from kraft.broker.node_facts import NodeFacts, Scope
from kraft.chaos.report.page import content_policy
from kraft.chaos.workload.client import ClientProtocol
from kraft.chaos.worlds.snapshot import Snapshot, parse_view
from kraft.client.response import Answer, Request
from kraft.client.transport import Transport
from kraft.http.console.changes import State
from kraft.http.console.facts import ClusterFacts
from kraft.http.console.launcher import READS, LauncherConsole, Passed, Place
from kraft.launcher.client_security import first_user
from kraft.launcher.console import NO_CONTENTS, READ_ONLY, TOKEN_VARIABLE
from kraft.launcher.runfile import RUN_FILE, ClusterRun, load_run, remember_credentials
from kraft.protocol.codec import Malformed
from kraft.runtime.environment import close_environment, system_environment
from kraft.testing.assertions import judged
from kraft.testing.cluster import ClusterFailed
from kraft.testing.console.acts import Acts, Journal
from kraft.testing.console.scenarios import Scenarios
from kraft.testing.console.story import left_out_of, pytest_text, scenario_of, story_text
from kraft.testing.console.workload import Places, Workload
from metadata.environment import NotConnected

LOOK_MS: Final = 200
"""How old what is known of the processes may be, while somebody watches."""
OVER_S: Final = 0.25
"""How often it looks whether the cluster has ended."""
FACTS_TIMEOUT_MS: Final = 1_000
PASSED_TIMEOUT_MS: Final = 30_000
DONE_SHOWN_MAX: Final = 30


class Session:
    """One cluster and its console. Implements `Source` and `Control` of the page."""

    def __init__(self, data: str, run: ClusterRun, *, reads_only: bool = False, hides_contents: bool = False) -> None:
        remember_credentials(run)
        self._reads_only = reads_only
        self._hides_contents = hides_contents
        self._data = data
        self._run = run
        self._journal = Journal()
        self._acts = Acts(data, self._journal)
        self._transport = Transport()
        self._turn = asyncio.Lock()
        self._busy = ""
        self.environment = system_environment()
        self._facts = ClusterFacts(
            own=None,
            ask=self._ask_facts,
            nodes=self._nodes,
            cluster_id=run.cluster_id,
            node_id=-1,
            clock=self.environment.clock,
        )
        brokers = [node.id for node in run.nodes if node.is_broker]
        places = Places(
            rest=lambda: {node.id: node.rest for node in self._run.nodes},
            kafka=self._kafka_addresses,
            login=lambda: {} if run.client is None else first_user(Path(run.client)).aiokafka(),
            brokers=brokers,
        )
        self._folder = Path(tempfile.mkdtemp(prefix="kraft-console-"))
        self._workload = Workload(self._folder, places, self._snapshot, self._judged)
        self._scenarios = Scenarios(self._own_story)
        self._topics: dict[str, dict[int, list[int]]] = {}
        self._states: dict[int, str] = {}
        self._looked_ms = -LOOK_MS

    async def close(self) -> None:
        """Ends what it has begun."""
        await self._scenarios.close()
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
        await self._transport.close()
        close_environment(self.environment)

    def _kafka_addresses(self) -> Mapping[int, str]:
        """The addresses of the links of clients, where the cluster has some."""
        if self._acts.faulty is not None:
            return self._acts.faulty.bootstrap
        return {node.id: node.kafka for node in self._run.nodes if node.kafka}

    def _judged(self, history: str, since_us: int, report: str) -> Mapping[str, Any]:
        """Asks the process that knows the faults, where there is one. Blocks. Raises ClusterFailed."""
        if self._acts.faulty is not None:
            return self._acts.faulty.judge(history, since_us=since_us, report=report)
        return judged(self._data, (), since_us=since_us, name="console", history=history, report=report)

    def is_over(self) -> bool:
        """Whether the cluster has ended."""
        return not os.path.exists(os.path.join(self._data, RUN_FILE))

    async def look(self) -> None:
        """Brings up to date what is known of the processes of the nodes."""
        run = load_run(self._data)
        if run is None:
            return
        self._run, self._looked_ms = run, self.environment.clock.monotonic_ms()
        with contextlib.suppress(ClusterFailed):  # it has just ended
            self._states = await asyncio.to_thread(self._acts.states)

    # --- Source -----------------------------------------------------------------------------------------------------

    def _nodes(self) -> Mapping[int, NodeInfo]:
        return {
            node.id: NodeInfo(
                node_id=node.id,
                roles=node.roles,
                rest=node.rest.partition("://")[2],
                kafka=node.kafka,
                quorum=node.quorum,
                rack=None,
            )
            for node in self._run.nodes
        }

    async def state(self, scope: Scope) -> State:
        """The state of the cluster, with what the buttons did."""
        if self.environment.clock.monotonic_ms() - self._looked_ms > LOOK_MS:
            await self.look()
        found = dict(await self._facts.state(scope))
        for node, process in self._states.items():
            if f"node/{node}" in found:
                found[f"node/{node}"] = found[f"node/{node}"] | {"process": process}
        found["control"] = {
            "can": [] if self._reads_only else [*self._acts.can, "begin_workload", "run_scenario"],
            "reads_only": self._reads_only,
            "broken": [
                {"text": each.text, "do": each.do, "nodes": each.nodes, "one_way": each.one_way}
                for each in self._acts.broken
            ],
            "done": [each.text for each in self._journal.done[-DONE_SHOWN_MAX:]],
            "busy": self._busy,
        }
        if (workload := self._workload.state) is not None:
            found["workload"] = workload
        if runs := self._scenarios.state:
            found["scenarios"] = runs
        return found

    async def _ask_facts(self, number: int, scope: Scope) -> NodeFacts:
        query = "&".join(
            f"{name}={value}"
            for name, value in (
                ("filter", quote(scope.filter, safe="")),
                ("exact", str(scope.exact).lower()),
                ("only_bad", str(scope.only_bad).lower()),
                ("limit", scope.limit),
            )
        )
        path = f"/kraft/facts?{query}"
        answer = await self._transport.send(
            self._run.node(number).rest, Request(method="GET", path=path, timeout_ms=FACTS_TIMEOUT_MS)
        )
        if not isinstance(answer, Answer):
            raise NotConnected(self._why(number))
        if not answer.is_success:
            raise NotConnected(f"node {number} answers {answer.status}")
        try:
            return msgspec.json.decode(answer.body, type=NodeFacts)
        except msgspec.DecodeError as error:
            raise Malformed(str(error)) from error

    def _why(self, number: int) -> str:
        process = self._states.get(number, "running")
        return "no answer in time" if process == "running" else f"its process is {process}"

    # --- Control ----------------------------------------------------------------------------------------------------

    async def act(self, asked: Mapping[str, Any]) -> Any:
        """Carries out one act. Raises ValueError."""
        do = asked.get("do")
        if self._reads_only:
            raise ValueError("this console is read-only: it was started with --console-read-only")
        if do == "run_scenario":
            return await self._scenarios.run(asked)
        if do == "stop_scenario":
            return await self._scenarios.stop()
        async with self._turn:
            self._busy = str(do)[:40]
            try:
                return await self._act(do, asked)
            except ClusterFailed as error:
                raise ValueError(str(error)) from error
            finally:
                self._busy = ""

    async def _act(self, do: Any, asked: Mapping[str, Any]) -> Any:
        match do:
            case "begin_workload":
                await self._note_topics()
                name = await self._workload.begin(asked)
                return self._journal.add(do="begin", client=name).text
            case "end_workload":
                await self._note_topics()  # its topic may have been too new at the start
                return self._journal.add(do="end", client=await self._workload.end()).text
            case "judge":
                return await self._workload.judge()
            case "clear":
                self._workload.clear()
                self._journal.clear()
                return "cleared"
            case _:
                done = await asyncio.to_thread(self._acts.act, asked)
                await self.look()
                return done.text

    async def _snapshot(self) -> Snapshot | None:
        """The cluster as the first node sees it that answers."""
        for node in self._run.nodes:
            request = Request(method="GET", path="/kraft/partitions", timeout_ms=FACTS_TIMEOUT_MS)
            answer = await self._transport.send(node.rest, request)
            if isinstance(answer, Answer) and answer.is_success:
                view = parse_view(msgspec.json.decode(answer.body))
                return Snapshot(at_us=0, states={view.node: "running"}, views={view.node: view})
        return None

    async def _note_topics(self) -> None:
        """Replicas of all partitions, for a story: as they are before the faults."""
        for number in self._states or [node.id for node in self._run.nodes]:
            try:
                facts = await self._ask_facts(number, Scope(limit=500))
            except (NotConnected, Malformed):
                continue
            for name, row in facts.partitions.items():
                topic, _, partition = name.rpartition("-")
                self._topics.setdefault(topic, {}).setdefault(int(partition), list(row[2]))
            return

    def _own_story(self) -> tuple[str, ClientProtocol]:
        """Raises ValueError."""
        if not self._journal.done:
            raise ValueError("nothing was done so far, so there is no story of it")
        return self.saved("story")[1], self._workload.protocol

    def catalogue(self) -> list[dict[str, Any]]:
        """The scenarios that can be run."""
        return self._scenarios.catalogue()

    def report(self, number: int) -> tuple[str, str]:
        """The report of a run of a scenario, or of the workload (0), and its policy. Raises KeyError."""
        if number == 0:
            if not self._workload.report.is_file():
                raise KeyError(number)
            return self._workload.report.read_text("utf-8"), content_policy()
        return self._scenarios.report(number)

    def saved(self, name: str) -> tuple[str, str]:
        """What was done, as a story or a test. Raises KeyError."""
        done, protocol = self._journal.done, self._workload.protocol
        topics = {
            topic: [replicas for _, replicas in sorted(found.items())]
            for topic, found in self._topics.items()
            if not topic.startswith("__")
        } or {"t": [[node.id for node in self._run.nodes if node.is_broker][:3]]}
        scenario = scenario_of(
            done,
            roles={node.id: node.roles for node in self._run.nodes},
            topics=topics,
            producers=self._workload.plans,
            seen=self._workload.seen,
            protocol=protocol,
        )
        texts = {
            "story": ("from-the-console.py", story_text),
            "test": ("test_from_the_console.py", pytest_text),
        }
        file, render = texts[name]
        left_out = left_out_of(done, protocol=protocol, topics=topics)
        return file, render(scenario, protocol=protocol, left_out=left_out)

    async def ask(self, node: int, method: str, path: str, body: bytes, content_type: str, accept: str) -> Passed:
        """A request of the page to a node. Raises ValueError."""
        if self._reads_only and method not in READS:
            raise ValueError("this console is read-only: it was started with --console-read-only")
        if self._hides_contents and shows_contents(method, path):
            raise ValueError("this console shows no contents of records: it was started with --console-no-contents")
        try:
            rest = self._run.node(node).rest
        except LookupError as error:
            raise ValueError(str(error)) from error
        headers = {"Accept": accept} | ({"Content-Type": content_type} if content_type else {})
        request = Request(method=method, path=path, body=body, headers=headers, timeout_ms=PASSED_TIMEOUT_MS)
        answer = await self._transport.send(rest, request)
        if not isinstance(answer, Answer):
            raise ValueError(f"node {node} does not answer: {answer.reason}")
        return Passed(answer.status, answer.headers.get("content-type", "application/json"), answer.body)


def shows_contents(method: str, path: str) -> bool:
    """Whether the answer to a request may have keys, values or headers of records: all but the routes that the screens
    ask for."""
    parts = [part for part in unquote(path.partition("?")[0]).split("/") if part]
    is_plain = method in READS and not {"records", "messages", ".", ".."} & {*parts}
    may = parts[:1] in (["topics"], ["brokers"], ["kraft"]) or parts[:2] == ["v3", "clusters"]
    creates = method == "POST" and len(parts) == 4 and (parts[0], parts[3]) == ("v3", "topics")
    return not (creates or (is_plain and may))


async def serve(data: str, listening: socket.socket, flags: Container[str]) -> None:
    """Until the cluster has ended, or SIGTERM."""
    run = load_run(data)
    if run is None:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, ended.set)
    parent, address = os.getppid(), listening.getsockname()
    session = Session(data, run, reads_only=READ_ONLY in flags, hides_contents=NO_CONTENTS in flags)
    console = LauncherConsole(
        environment=session.environment,
        source=session,
        control=session,
        cluster_id=run.cluster_id,
        place=Place(port=address[1], token=os.environ.pop(TOKEN_VARIABLE, "")),
        shows_contents=NO_CONTENTS not in flags,
    )
    try:
        await console.start(listening)
        while not ended.is_set() and not session.is_over():
            if run.launcher_pid is not None and os.getppid() != parent:
                break
            try:
                await asyncio.wait_for(ended.wait(), OVER_S)
            except TimeoutError:
                continue
    finally:
        await console.stop()
        await session.close()


def main() -> None:
    """Arguments: data folder, descriptor, flags."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the launcher, and this ends with it
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1], socket.socket(fileno=int(sys.argv[2])), sys.argv[3:]))


if __name__ == "__main__":
    main()
