"""A real cluster for a test: three processes on free ports with data in tmp_path, always gone at the end."""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from kraft.client.blocking_transport import send
from kraft.client.response import Answer, Request, Response
from kraft.launcher.actions import bring_down, restart_node, stop_node
from kraft.launcher.forks import end_fork_server
from kraft.launcher.processes import StartProcess, is_alive, reap, start_program
from kraft.launcher.runfile import RESOLVED_FILE, NodeRun, load_run, save_run
from kraft.launcher.up import start_cluster
from tests.integration.support.commands import COMMANDS
from tests.integration.support.forks import FORKS, ForkServer
from tests.integration.support.waiting import NotYet, wait_until

COMMAND_TIMEOUT_S = 120
PROGRAMS = ("up", "exec")
"""Commands that load what nodes need, and start them: they begin as a person's do. The others are forks."""
JSON = "application/json"


def kraft(
    *arguments: str, check: bool = True, stdin: str | None = None, open_files_max: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a person does. `open_files_max` is the hard limit of it and of the nodes it starts."""
    if arguments[0] not in PROGRAMS and open_files_max is None:
        done = COMMANDS.run(arguments, stdin=stdin or "", timeout_s=COMMAND_TIMEOUT_S)
    else:
        done = _program(*arguments, stdin=stdin, open_files_max=open_files_max)
    assert not check or done.returncode == 0, f"kraft {arguments} -> {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def _program(*arguments: str, stdin: str | None, open_files_max: int | None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kraft", *arguments],
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
        input=stdin if stdin is not None else "",
        preexec_fn=None if open_files_max is None else partial(_limit_open_files, open_files_max),
    )


def _limit_open_files(limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


def _nothing(_: str) -> None:
    """What the launcher says to people."""


@dataclass
class Cluster:
    """Where no command is tested, what it calls is called here: to start Python costs more than most commands do."""

    data: str
    config: str | None = None
    ever_started: set[int] = field(default_factory=set)
    paused: set[int] = field(default_factory=set)
    open_files_max: int | None = None
    """The hard limit of its nodes, if not the tests' own."""
    forks: ForkServer = FORKS
    """Whose forks its nodes are, where they are no programs."""
    is_of_programs: bool = False
    """Whether each node is a program of its own, as `kraft up` starts them: it inherits what is set at the time, such
    as the environment and the umask. Without it they are forks, which start in a fifth of the time."""
    is_secure: bool = False
    """With TLS, a user and ACLs, as `kraft up --secure` starts it."""

    @property
    def _start_process(self) -> StartProcess:
        return start_program if self.is_of_programs else self.forks

    def start(self, *, free_ports: bool = True) -> None:
        if self.is_of_programs or self.open_files_max is not None:
            self.start_by_command(free_ports=free_ports)
            return
        run = start_cluster(
            self.config,
            data=self.data,
            free_ports=free_ports,
            secure=self.is_secure,
            detach=True,
            say=_nothing,
            start=self._start_process,
        )
        self.ever_started |= {node.pid for node in run.nodes}

    def start_by_command(self, *, free_ports: bool = True) -> None:
        arguments = ["up", "--detach", "--no-console", "--json", "--data", self.data]
        arguments += ["--free-ports"] if free_ports else []
        arguments += ["--secure"] if self.is_secure else []
        done = kraft(*arguments, *([self.config] if self.config else []), open_files_max=self.open_files_max)
        summary = json.loads(done.stdout.splitlines()[0])
        self.ever_started |= {node["pid"] for node in summary["nodes"]}

    def start_again(self, *, by_command: bool = False) -> None:
        """On the ports of the last time."""
        self.config = str(Path(self.data) / RESOLVED_FILE)
        start = self.start_by_command if by_command else self.start
        start(free_ports=False)

    def stop_all(self) -> None:
        bring_down(self.data, say=_nothing)

    @property
    def nodes(self) -> tuple[NodeRun, ...]:
        run = load_run(self.data)
        assert run is not None, f"no cluster runs from {self.data}"
        return run.nodes

    @property
    def ids(self) -> list[int]:
        return [node.id for node in self.nodes]

    def node(self, node_id: int) -> NodeRun:
        return next(node for node in self.nodes if node.id == node_id)

    def is_running(self, node_id: int) -> bool:
        return is_alive(self.node(node_id).pid)

    @property
    def serving(self) -> list[int]:
        """Ids of the nodes that can answer: they run and are not paused."""
        return [node_id for node_id in self.ids if node_id not in self.paused and self.is_running(node_id)]

    # Faults

    def kill(self, node_id: int) -> None:
        """kill -9, and wait until the process is gone."""
        pid = self.node(node_id).pid
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(pid), deadline_s=10, what=f"the end of node {node_id}")

    def kill_all(self) -> None:
        """All nodes at once, as when the power fails."""
        pids = [node.pid for node in self.nodes if is_alive(node.pid)]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, pids)), deadline_s=10, what="the end of all nodes")

    def stop(self, node_id: int) -> None:
        """In order."""
        stop_node(self.data, node_id, say=_nothing)

    def restart(self, node_id: int) -> None:
        if self.open_files_max is None:
            restart_node(self.data, node_id, say=_nothing, start=self._start_process)
        else:
            kraft("node", "restart", str(node_id), "--data", self.data, open_files_max=self.open_files_max)
        self.ever_started.add(self.node(node_id).pid)

    def restart_unready(self, node_id: int) -> None:
        """Start a node again that may wait for others before it is ready."""
        run = load_run(self.data)
        assert run is not None
        node = run.node(node_id)
        pid = self._start_process(
            config=run.config, node_id=node_id, data=run.data, log=node.log, parent_pid=None, variables={}
        )
        self.ever_started.add(pid)
        save_run(run.with_pid(node_id, pid))

    def pause(self, node_id: int) -> None:
        os.kill(self.node(node_id).pid, signal.SIGSTOP)
        self.paused.add(node_id)

    def resume(self, node_id: int) -> None:
        os.kill(self.node(node_id).pid, signal.SIGCONT)
        self.paused.discard(node_id)

    # Requests

    def send(self, node_id: int, method: str, path: str, document: Any = None, **headers: str) -> Response:
        body = b"" if document is None else document if isinstance(document, bytes) else json.dumps(document).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if body and "Content-Type" not in given:
            given["Content-Type"] = JSON
        return send(self.node(node_id).rest, Request(method=method, path=path, body=body, headers=given))

    def get(self, path: str, *, node_id: int | None = None) -> Any:
        """From one node, or from the first that answers. Raises NotYet, as when no node has heard of the topic."""
        failures = []
        for candidate in [node_id] if node_id is not None else self.serving:
            outcome = self.send(candidate, "GET", path)
            if isinstance(outcome, Answer) and outcome.is_success:
                return outcome.json()
            failures.append((candidate, outcome))
        raise NotYet(f"no success for GET {path}: {failures}")

    def status(self, node_id: int | None = None) -> dict[str, Any]:
        document = self.get("/kraft/status", node_id=node_id)
        assert isinstance(document, dict)
        return document

    def controller(self) -> int:
        """Id of the active controller, as the first living node knows it."""
        return int(wait_until(lambda: self.status()["controller_id"] + 1, what="an active controller")) - 1

    def leader_of(self, topic: str, partition: int = 0, *, node_id: int | None = None) -> int:
        """The leader that a living node knows; -1 for none."""
        document = self.get(f"/topics/{topic}/partitions/{partition}", node_id=node_id)
        return -1 if document["leader"] is None else int(document["leader"])

    def wait_for_leader(self, topic: str, partition: int = 0, *, other_than: int = -1, deadline_s: float = 30) -> int:
        def leader() -> int:
            found = self.leader_of(topic, partition)
            return found if found >= 0 and found != other_than else 0

        return wait_until(leader, deadline_s=deadline_s, what=f"a leader of {topic}-{partition} but {other_than}")

    def isr_of(self, topic: str, partition: int = 0) -> list[int]:
        document = self.get(f"/topics/{topic}/partitions/{partition}")
        return [replica["broker"] for replica in document["replicas"] if replica["in_sync"]]

    def create_topic(self, name: str, *, partitions: int = 1, replication_factor: int = 3, **configs: str) -> None:
        """Waits until every node knows a leader of each partition."""
        document = {
            "topic_name": name,
            "partitions_count": partitions,
            "replication_factor": replication_factor,
            "configs": [{"name": key.replace("_", "."), "value": value} for key, value in configs.items()],
        }
        answer = self.call("POST", "/topics", document)
        assert answer.status == 201, answer
        paths = [f"/topics/{name}/partitions/{number}" for number in range(partitions)]

        def is_led(node_id: int, path: str) -> bool:
            outcome = self.send(node_id, "GET", path)
            return isinstance(outcome, Answer) and outcome.is_success and outcome.json()["leader"] is not None

        for node_id, path in itertools.product(self.serving, paths):
            wait_until(lambda at=node_id, of=path: is_led(at, of), what=f"a leader of {path}, known to node {node_id}")

    # Topics with more said about them than the command line can

    @property
    def v3(self) -> str:
        run = load_run(self.data)
        assert run is not None
        return f"/v3/clusters/{run.cluster_id}"

    def call(self, method: str, path: str, document: Any = None, *, node_id: int | None = None) -> Answer:
        """Below the cluster's v3 path, at one node or the first that runs; the answer, whatever its status. What it has
        changed is known to all nodes."""
        chosen = node_id if node_id is not None else self.serving[0]
        outcome = self.send(chosen, method, self.v3 + path, document)
        assert isinstance(outcome, Answer), f"{method} {path} at node {chosen}: {outcome}"
        if method != "GET" and outcome.is_success:
            self.wait_for_metadata()
        return outcome

    def create_assigned(self, name: str, *assignment: list[int], **configs: str) -> None:
        """One partition for each list of replicas, its first the preferred leader; waits until all lead."""
        document = {
            "topic_name": name,
            "replicas_assignments": dict(enumerate(assignment)),
            "configs": [{"name": key.replace("_", "."), "value": value} for key, value in configs.items()],
        }
        answer = self.call("POST", "/topics", document)
        assert answer.status == 201, answer
        for number, replicas in enumerate(assignment):
            self.wait_for_isr(name, number, replicas)

    def topic_id(self, name: str) -> UUID:
        return UUID(self.call("GET", f"/topics/{name}").json()["topic_id"])

    def write(self, topic: str, values: Iterable[str], *, partition: int = 0, query: str = "") -> list[dict[str, Any]]:
        """Text records in one request; the entries of the answer."""
        body = {"records": [{"value": value} for value in values]}
        path = f"/topics/{topic}/partitions/{partition}{query}"
        outcome = self.send(self.serving[0], "POST", path, body, Content_Type="application/vnd.kafka.text.v2+json")
        assert isinstance(outcome, Answer), outcome
        assert outcome.is_success, outcome
        entries: list[dict[str, Any]] = outcome.json()["offsets"]
        return entries

    def write_all(self, topic: str, values: Iterable[str], *, partition: int = 0) -> None:
        """The same, where every record has to be taken."""
        entries = self.write(topic, values, partition=partition)
        assert not [entry for entry in entries if entry["error_code"]], entries[0]

    def folder(self, node_id: int, topic: str, partition: int = 0) -> Path:
        return Path(self.node(node_id).data) / "logs" / f"{topic}-{partition}"

    def log_bytes(self, node_id: int, topic: str, partition: int = 0) -> bytes:
        """All segments of a replica, one after the other. Raises NotYet when one has gone in the meantime."""
        try:
            return b"".join(path.read_bytes() for path in sorted(self.folder(node_id, topic, partition).glob("*.log")))
        except FileNotFoundError as gone:
            raise NotYet(f"a segment of {topic}-{partition} at node {node_id} was deleted: {gone}") from gone

    # States to wait for

    def wait_for_metadata(self, *, deadline_s: float = 30) -> None:
        """Until each node that answers now has applied what any of them has: another one than the node that answered a
        change hears of it a moment later, here as in Kafka."""
        known = self._metadata_offsets(self.serving)
        newest = max(known.values(), default=0)

        def is_known() -> bool:
            if min(known.values(), default=newest) < newest:
                known.update(self._metadata_offsets(known.keys() & set(self.serving)))
            return all(known[node_id] >= newest for node_id in self.serving if node_id in known)

        wait_until(is_known, deadline_s=deadline_s, what=f"metadata up to {newest} on all nodes")

    def _metadata_offsets(self, node_ids: Iterable[int]) -> dict[int, int]:
        outcomes = {node_id: self.send(node_id, "GET", "/kraft/status") for node_id in node_ids}
        return {
            node_id: outcome.json()["metadata_offset"]
            for node_id, outcome in outcomes.items()
            if isinstance(outcome, Answer) and outcome.is_success
        }

    def wait_for_isr(self, topic: str, partition: int, ids: Iterable[int], *, deadline_s: float = 30) -> None:
        """Until every node that serves believes so: one that was away may still live in the past."""
        wanted = sorted(ids)
        path = f"/topics/{topic}/partitions/{partition}"

        def beliefs() -> dict[int, Any]:
            return {node_id: self.get(path, node_id=node_id) for node_id in self.serving}

        def in_sync(document: Any) -> list[int]:
            return sorted(replica["broker"] for replica in document["replicas"] if replica["in_sync"])

        def agree() -> bool:
            found = beliefs().values()
            return all(in_sync(document) == wanted and document["leader"] is not None for document in found)

        try:
            wait_until(agree, deadline_s=deadline_s, what=f"the ISR {wanted} of {topic}-{partition}")
        except AssertionError as late:
            raise AssertionError(f"{late}; it is {beliefs()}") from late

    def state_of(self, node_id: int) -> str:
        """active, fenced and so on, as a living node knows it."""
        living = next(each for each in self.serving if each != node_id)
        return str(next(node["state"] for node in self.status(living)["nodes"] if node["id"] == node_id))

    def wait_for_state(self, node_id: int, state: str, *, deadline_s: float = 30) -> None:
        wait_until(lambda: self.state_of(node_id) == state, deadline_s=deadline_s, what=f"node {node_id} to be {state}")

    def heal(self) -> None:
        """All nodes run, unfenced and in sync, and know it, whatever a test before did to them."""
        for node_id in self.ids:
            self.resume(node_id) if self.is_running(node_id) else self.restart(node_id)

        def is_whole() -> bool:
            known = [self.status(node_id) for node_id in self.ids]
            offsets = {status["metadata_offset"] for status in known}
            states = {node["state"] for status in known for node in status["nodes"]} - {"controller"}
            missing = any(status["partitions"]["under_replicated"] for status in known)
            return len(offsets) == 1 and states == {"active"} and not missing

        wait_until(is_whole, what="all nodes to take part, in sync and of one mind")

    def events(self, *names: str, node_id: int | None = None) -> list[dict[str, Any]]:
        """What happened, by the nodes' own account."""
        found = []
        for node in self.nodes:
            path = Path(node.data) / "events.jsonl"
            if node_id in (None, node.id) and path.exists():
                found += [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
        return [event for event in found if not names or event["event"] in names]

    # The end

    def destroy(self) -> None:
        """Kill whatever was started, by pid; called however the test ended."""
        run = load_run(self.data)
        pids = self.ever_started | {node.pid for node in (run.nodes if run else ())}
        for pid in pids:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: (reap(pids), not any(map(is_alive, pids)))[1], deadline_s=15, what="the end of all nodes")
        end_fork_server(self.data)

    def logs(self) -> str:
        """The ends of all node logs, for the message of a failed test."""
        texts = []
        for log in sorted(Path(self.data).glob("node-*/node.log")):
            texts.append(f"--- {log}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-30:]))
        return "\n".join(texts)
