"""An attack as the row of a table, and what the attacked node must still be afterwards.

To add one: write a function that gets a `Target`, sends what it sends and asserts what comes back, and put it into the
table of its kind (one file for each kind). What every attack has in common is asserted here, around it: the same
processes run, nobody was fenced, no handler failed, a client beside it was answered and could write, and no node took
more memory than the attack may cost. An attack that needs a longer stall or more memory says so in its row, and so does
one that waits until the node loses its patience.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kraft.client.blocking_transport import send
from kraft.client.response import Answer, Request, Response
from tests.integration.support.cluster import Cluster
from tests.integration.support.waiting import wait_until

MEMORY_MIB_MAX = 64
"""What an attack may cost a node: it breathes by about 20 MiB without one."""
STALL_S_MAX = 10.0
"""Longest wait of the client beside an attack. A loop that is held up for so long loses its leaderships."""
ANSWER_S_MAX = 60
"""A node that says nothing for so long has failed the attack; nothing else depends on this limit."""
TROUBLES = ("broker_fenced", "http_request_failed", "node_starting", "quorum_peer_silent")
AS_JSON = "application/vnd.kafka.json.v2+json"
WITNESS = "attacked"
"""A topic with one partition on all nodes; the client beside the attack reads of it."""
_PAUSE_S = 0.05
_RESET_PEAK = "5"
"""proc(5), clear_refs: the peak of the resident set is counted anew."""


@dataclass(frozen=True)
class Target:
    """A node as a stranger sees it: three ports."""

    cluster: Cluster
    node_id: int

    @property
    def rest(self) -> tuple[str, int]:
        return _address(self.cluster.node(self.node_id).rest.removeprefix("http://"))

    @property
    def kafka(self) -> tuple[str, int]:
        return _address(self.cluster.node(self.node_id).kafka)

    @property
    def quorum(self) -> tuple[str, int]:
        return _address(str(self.cluster.node(self.node_id).quorum))

    def call(self, method: str, path: str, body: bytes = b"", **headers: str) -> Response:
        """One HTTP request with exactly these headers (underscores are hyphens), whatever comes of it."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        request = Request(method=method, path=path, body=body, headers=given, timeout_ms=ANSWER_S_MAX * 1_000)
        return send(self.cluster.node(self.node_id).rest, request)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    sends: str
    comes_back: str
    run: Callable[[Target], None]
    """Sends it to one node and asserts what comes back."""
    memory_mib_max: int = MEMORY_MIB_MAX
    stall_s_max: float = STALL_S_MAX
    outwaits: bool = False
    """It lasts as long as the node is patient: all of these go on at the same time (`test_patience.py`)."""


def at_once(attacks: Mapping[str, Attack]) -> list[str]:
    """Names of those that are over when the node has answered."""
    return [name for name, attack in attacks.items() if not attack.outwaits]


def patient(attacks: Mapping[str, Attack]) -> list[Attack]:
    return [attack for attack in attacks.values() if attack.outwaits]


def withstand(cluster: Cluster, attack: Attack, *, node_id: int) -> None:
    """The attack, and what must hold during and after it."""
    pids = {node.id: node.pid for node in cluster.nodes}
    troubles = cluster.events(*TROUBLES)
    before = {each: resident_mib(pid) for each, pid in pids.items()}
    for pid in pids.values():
        _reset_peak(pid)
    with _client_beside(cluster) as beside:
        attack.run(Target(cluster, node_id))
    peak = {each: resident_mib(pid, "VmHWM") for each, pid in pids.items()}
    assert {node.id: node.pid for node in cluster.nodes} == pids
    assert all(cluster.is_running(each) for each in pids), "a node has ended"
    assert cluster.events(*TROUBLES) == troubles, "the cluster noticed"
    assert beside.failures == [], f"a client beside the attack was turned away: {beside.failures[:3]}"
    assert beside.longest_s < attack.stall_s_max, f"a client waited {beside.longest_s:.1f} s for an answer"
    costs = {each: peak[each] - before[each] for each in pids}
    assert max(costs.values()) <= attack.memory_mib_max, f"MiB of memory that it cost, by node: {costs}"
    for each in pids:
        assert _writes(cluster, each), f"node {each} takes no record after it"


# --- measuring -----------------------------------------------------------------------------------------------------


@dataclass
class Beside:
    """A client that asks all nodes in turn, while an attack goes on."""

    longest_s: float = 0.0
    asked: int = 0
    failures: list[str] = field(default_factory=list)


@contextmanager
def _client_beside(cluster: Cluster) -> Iterator[Beside]:
    beside, stop = Beside(), threading.Event()

    def ask() -> None:
        while not stop.is_set():
            for node in cluster.nodes:
                began = time.monotonic()
                path = f"/topics/{WITNESS}/partitions/0/offsets"
                outcome = send(node.rest, Request(method="GET", path=path, timeout_ms=ANSWER_S_MAX * 1_000))
                beside.longest_s = max(beside.longest_s, time.monotonic() - began)
                beside.asked += 1
                if not (isinstance(outcome, Answer) and outcome.is_success):
                    beside.failures.append(f"node {node.id}: {outcome}")
            stop.wait(_PAUSE_S)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        # An attack of a moment is followed by one whole turn, which finds what it left behind.
        yield beside
        asked = beside.asked
        wait_until(
            lambda: beside.asked >= asked + 2 * len(cluster.nodes) or beside.failures,
            deadline_s=ANSWER_S_MAX,
            what="answers to the client beside the attack",
        )
    finally:
        stop.set()
        thread.join(2 * ANSWER_S_MAX)
    assert not thread.is_alive(), "the client beside the attack hangs"


def _writes(cluster: Cluster, node_id: int) -> bool:
    outcome = cluster.send(node_id, "POST", f"/topics/{WITNESS}", {"records": [{"value": 1}]}, Content_Type=AS_JSON)
    return isinstance(outcome, Answer) and outcome.is_success and not outcome.json()["offsets"][0]["error_code"]


def resident_mib(pid: int, name: str = "VmRSS") -> int:
    """0 where there is no proc file system."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return 0
    line = next(line for line in status.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) // 1024


def _reset_peak(pid: int) -> None:
    knob = Path(f"/proc/{pid}/clear_refs")
    if knob.exists():
        knob.write_text(_RESET_PEAK)


# --- for strangers -------------------------------------------------------------------------------------------------


def framed(payload: bytes) -> bytes:
    """As both the Kafka port and the quorum's port frame what they carry."""
    return struct.pack(">i", len(payload)) + payload


@contextmanager
def connected(address: tuple[str, int], count: int = 1) -> Iterator[list[socket.socket]]:
    """So many connections of a stranger, open until the end of the block."""
    with ExitStack() as stack:
        yield [stack.enter_context(_connection(address)) for _ in range(count)]


def _connection(address: tuple[str, int]) -> socket.socket:
    """One that is reset while it is made has ended, as any other may: who crowds a port loses his oldest ones."""
    try:
        return socket.create_connection(address, timeout=ANSWER_S_MAX)
    except ConnectionResetError:
        ended, other = socket.socketpair()
        other.close()
        return ended


def sent(connection: socket.socket, data: bytes) -> bool:
    """False: the other side closed before it had taken all of it."""
    try:
        connection.sendall(data)
    except ConnectionError:
        return False
    return True


def spoken(target: Target) -> int:
    """Bytes that the node has written about what happened to it: its log and its events."""
    node = target.cluster.node(target.node_id)
    return sum(Path(path).stat().st_size for path in (node.log, f"{node.data}/events.jsonl"))


def until_closed(connection: socket.socket) -> bytes:
    """What came until the other side closed. Raises TimeoutError when it does not."""
    data = bytearray()
    try:
        while part := connection.recv(65_536):
            data += part
    except ConnectionError:
        pass
    return bytes(data)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)
