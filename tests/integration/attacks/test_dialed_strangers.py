"""A stranger who listens where a node dials: he took over an address, or a name leads to him.

Node 3 reaches node 1 through a switch, for each purpose. At first the switch passes on what it gets; then it is a
stranger; then it passes on again, and the cluster must be whole without a restart.
"""

from __future__ import annotations

import itertools
import json
import socket
import struct
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from kraft.protocol import apis, codec, scram
from kraft.protocol.messages.sasl_authenticate_response import SaslAuthenticateResponseData
from kraft.protocol.messages.sasl_handshake_response import SaslHandshakeResponseData
from tests.integration.attacks.attack import ANSWER_S_MAX, MEMORY_MIB_MAX, framed, resident_mib
from tests.integration.support.cluster import Cluster
from tests.integration.support.configuration import QUICK_FAILURES
from tests.integration.support.waiting import wait_until
from tests.support.ports import free_ports, own_host
from tests.unit.quorum.test_handshake import HOSTILE

KAFKA_PURPOSES = ("controller", "fetch", "forward")
HELD_BACK = struct.pack(">i", 8 * 1024 * 1024) + bytes(256 * 1024)
"""A long frame, of which a part comes."""


class Switch:
    """A listener that passes connections on to `target`, or answers them itself while it is hostile."""

    def __init__(
        self, host: str, port: int, target: tuple[str, int], answers: list[Callable[[socket.socket], None]]
    ) -> None:
        self._server = socket.create_server((host, port))
        self.port = port
        self._target = target
        self._answers = itertools.cycle(answers)
        self.kinds = len(answers)
        self.is_hostile = False
        self.answered = 0
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def turn(self, *, is_hostile: bool) -> None:
        with self._lock:
            self.is_hostile = is_hostile
            opened, self._open = self._open, []
        for each in opened:
            _shut(each)

    def close(self) -> None:
        _shut(self._server)
        self._server.close()
        self.turn(is_hostile=False)
        for thread in list(self._threads):
            thread.join(ANSWER_S_MAX)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            connection.settimeout(ANSWER_S_MAX)
            with self._lock:
                self._open.append(connection)
                handler = self._answer if self.is_hostile else self._pass_on
            thread = threading.Thread(target=handler, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _answer(self, connection: socket.socket) -> None:
        with self._lock:
            answer = next(self._answers)
        with connection, suppress(OSError):
            answer(connection)
            while connection.recv(65_536):
                pass
        with self._lock:
            self.answered += 1

    def _pass_on(self, connection: socket.socket) -> None:
        try:
            there = socket.create_connection(self._target, timeout=ANSWER_S_MAX)
        except OSError:
            connection.close()
            return
        with self._lock:
            self._open.append(there)
        there.settimeout(None)
        connection.settimeout(None)
        back = threading.Thread(target=_pump, args=(there, connection), daemon=True)
        back.start()
        _pump(connection, there)
        back.join(ANSWER_S_MAX)
        connection.close()
        there.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    _shut(source)
    _shut(target)


def _shut(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)


def says(data: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(data)


def _asked(connection: socket.socket) -> int:
    """The correlation id of the next request."""
    with connection.makefile("rb", buffering=0) as stream:
        head = stream.read(4) or b""
        frame = stream.read(struct.unpack(">i", head)[0]) if len(head) == 4 else b""
    return int(struct.unpack_from(">i", frame or bytes(8), 4)[0])


def replies(*bodies: bytes) -> Callable[[socket.socket], None]:
    """To one request after the other, under its correlation id."""

    def answer(connection: socket.socket) -> None:
        for body in bodies:
            connection.sendall(framed(struct.pack(">i", _asked(connection)) + body))

    return answer


def _body(message: object, version: int) -> bytes:
    return b"".join(codec.encode_body(message, version))  # type: ignore[arg-type]


HANDSHAKE = _body(
    SaslHandshakeResponseData.make(error_code=0, mechanisms=(scram.MECHANISM,)), apis.SASL_HANDSHAKE.version
)


def token(data: bytes, *, code: int = 0, message: str | None = None) -> bytes:
    made = SaslAuthenticateResponseData.make(error_code=code, error_message=message, auth_bytes=data)
    tags = b"\0"  # of the response's header, which is flexible
    return tags + _body(made, apis.SASL_AUTHENTICATE.version)


KAFKA_ANSWERS = [
    says(b"\xff" * 1_000),
    says(HELD_BACK),
    says(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    says(framed(b"")),
    replies(b""),
    replies(b"\xff" * 100),
    replies(HANDSHAKE, b""),
    replies(HANDSHAKE, token(b"\xff\xfe")),
    replies(HANDSHAKE, token(b"r=,s=,i=1000000000")),
    replies(HANDSHAKE, token(b"", code=58, message="no")),
    replies(HANDSHAKE, token(b"", code=32_000, message="\u2028" * 3_000)),
    lambda _: None,
]
QUORUM_ANSWERS = [*(says(framed(hello)) for hello in list(HOSTILE.values())[::4]), says(HELD_BACK), lambda _: None]
"""After each of them a node waits for two seconds, so some; `tests/unit/quorum/test_handshake.py` takes all."""


@pytest.fixture
def switched(stopped_cluster: Cluster, tmp_path: Path) -> Iterator[tuple[Cluster, list[Switch]]]:
    host = own_host()
    own, *ports = free_ports(10 + len(KAFKA_PURPOSES), host=host)  # all at once, so that nobody gets another's
    quorum = Switch(host, own, (host, ports[2]), QUORUM_ANSWERS)
    kafka = {
        purpose: Switch(host, port, (host, ports[1]), KAFKA_ANSWERS)
        for purpose, port in zip(KAFKA_PURPOSES, ports[9:], strict=True)
    }
    lines = [f'cluster_id = "{uuid.uuid4()}"', f'secret = "{uuid.uuid4()}"', "[settings]"]
    lines += [f"{name} = {json.dumps(value)}" for name, value in QUICK_FAILURES.items()]
    for node_id in (1, 2, 3):
        rest, kafka_port, quorum_port = ports[3 * (node_id - 1) : 3 * node_id]
        lines += ["[[nodes]]", f"id = {node_id}", f'host = "{host}"', f"rest_port = {rest}"]
        lines += [f"kafka_port = {kafka_port}", f"quorum_port = {quorum_port}"]
    lines += [f'peers.1.quorum = "{host}:{quorum.port}"']
    lines += [f'peers.1.{purpose} = "{host}:{switch.port}"' for purpose, switch in kafka.items()]
    config = tmp_path / "switched.toml"
    config.write_text("\n".join(lines) + "\n")
    stopped_cluster.config = str(config)
    switches = [quorum, *kafka.values()]
    try:
        stopped_cluster.start(free_ports=False)
        yield stopped_cluster, switches
    finally:
        for switch in switches:
            switch.close()


@pytest.mark.long
def test_a_node_outlives_the_strangers_that_it_dials(switched: tuple[Cluster, list[Switch]]):
    cluster, switches = switched
    quorum, *kafka = switches
    cluster.create_assigned("led-by-the-other", [1, 3])
    pids = {node.id: node.pid for node in cluster.nodes}
    before = resident_mib(pids[3])
    for switch in switches:
        switch.turn(is_hostile=True)
    fetches = next(switch for purpose, switch in zip(KAFKA_PURPOSES, kafka, strict=True) if purpose == "fetch")

    def has_seen_all() -> bool:
        assert cluster.is_running(3), "a stranger has ended the node that dialed him"
        cluster.send(3, "GET", "/topics/led-by-the-other/partitions/0/records?offset=0")
        return quorum.answered >= quorum.kinds and fetches.answered >= fetches.kinds

    wait_until(has_seen_all, deadline_s=200, what="every answer of the strangers")
    assert resident_mib(pids[3]) - before <= MEMORY_MIB_MAX
    for switch in switches:
        switch.turn(is_hostile=False)
    cluster.heal()
    assert {node.id: node.pid for node in cluster.nodes} == pids, "a node was restarted"
    cluster.write_all("led-by-the-other", ["it goes on"])
