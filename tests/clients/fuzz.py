"""Requests that no client sends: the recorded ones, damaged, against a node of ours.

    python -m tests.clients.fuzz [--minutes 10] [--seed 1] [--before-login] [--secure]

Each request is answered, or its connection is closed; meanwhile a client that behaves is answered in time, the log
shows no exception, and memory stays bounded. A seed repeats the requests; how they meet in the node may differ.

With --secure the node runs as `kraft up --secure` starts it: the requests come over SASL_SSL, from a super user and
from a user who may do little, and with --before-login what strangers send comes inside TLS and outside of it.
"""

from __future__ import annotations

import argparse
import random
import socket
import ssl
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from uuid import UUID

from kraft.protocol import apis
from kraft.protocol.codec import decode_body, encode_body
from kraft.protocol.encoding import ZERO_UUID, Message
from kraft.protocol.messages.metadata_request import MetadataRequestData
from tests.clients.golden.files import load
from tests.clients.golden.peer import Exchange, Peer
from tests.clients.golden.record import SETTINGS
from tests.clients.golden.test_recorded import message_type
from tests.clients.login import PASSWORD_FILE, Address, client_folder, dial, log_in, trusting
from tests.integration.conftest import run_cluster
from tests.integration.support.cluster import Cluster, kraft

ANSWER_S = 0.25
"""Then the next request goes over a new connection: a fetch or a join may wait for long."""
CONTROL_EVERY = 200
CONTROL_S = 10
RSS_MAX = 400 * 1024 * 1024
KEYS = {api.name: api.key for api in apis.BY_KEY.values()}
FLEXIBLE = {api.name: api.flexible_from for api in apis.BY_KEY.values()}
INTERESTING = (0, 1, -1, 2, 127, 128, 255, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
SPARED = {"UnregisterBroker"}
"""The only broker would be gone, as asked."""
RESTRICTED, RESTRICTED_PASSWORD = "restricted", "a password of hers"
ALLOWED = "made"
"""What the names of her topics and groups begin with: those of the recorded requests."""


@dataclass
class Outcome:
    sent: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--minutes", type=float, default=10.0)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--before-login", action="store_true", help="what strangers may send, at nodes with users")
    arguments.add_argument("--secure", action="store_true", help="with TLS, logins and ACLs")
    asked = arguments.parse_args()
    if asked.before_login:
        from tests.clients.fuzz_before_login import run_before_login

        report(run_before_login(seed=asked.seed, seconds=asked.minutes * 60, secure=asked.secure), asked.seed)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        for cluster in one_node(Path(folder), secure=asked.secure):
            outcome = fuzz(cluster, seed=asked.seed, seconds=asked.minutes * 60)
    report(outcome, asked.seed)


def one_node(folder: Path, *, secure: bool = False) -> Iterator[Cluster]:
    yield from run_cluster(folder, settings=SETTINGS, roles={1: ("broker", "controller")}, secure=secure)


def report(outcome: Outcome, seed: int) -> NoReturn:
    sys.stdout.write(f"\n{outcome.sent:,} requests, seed {seed}: {dict(outcome.ends)}\n")
    for problem in outcome.problems:
        sys.stdout.write(f"{problem}\n")
    sys.exit(1 if outcome.problems else 0)


def fuzz(cluster: Cluster, *, seed: int, seconds: float) -> Outcome:
    door = Door.of(cluster)
    rng, outcome = random.Random(seed), Outcome()
    exchanges = [exchange for exchange in load() if exchange.api not in SPARED]
    until = time.monotonic() + seconds
    link: socket.socket | None = None
    while time.monotonic() < until and not outcome.problems:
        frame = damaged(rng.choice(exchanges), rng)
        try:
            if link is None:
                link = door.connect(door.users[0] if door.tls is None else rng.choice(door.users))
                link.settimeout(ANSWER_S)
            end = exchange_frame(link, frame)
        except OSError as error:
            outcome.problems.append(f"the node takes no connection: {error}; the last request was {frame.hex()}")
            break
        outcome.sent += 1
        outcome.ends[end] += 1
        if end != "answered" or rng.random() < 0.02:
            link.close()
            link = None
        if outcome.sent % CONTROL_EVERY == 0:
            outcome.problems += problems(cluster, door, frame)
    outcome.problems += problems(cluster, door, b"")
    return outcome


@dataclass(frozen=True)
class Door:
    """The Kafka port of a node, and who comes."""

    address: Address
    tls: ssl.SSLContext | None
    users: Sequence[tuple[str, str]]
    """Names with passwords, a super user first; without TLS nobody logs in."""

    @classmethod
    def of(cls, cluster: Cluster) -> Door:
        """The port of the first node. A secured one gets a restricted user."""
        host, _, port = cluster.nodes[0].kafka.rpartition(":")
        address, folder = (host, int(port)), client_folder(cluster)
        if folder is None:
            return cls(address, None, [("", "")])
        admin = ("admin", (folder / PASSWORD_FILE).read_text(encoding="utf-8").strip())
        restrict(cluster, folder)
        return cls(address, trusting(folder), [admin, (RESTRICTED, RESTRICTED_PASSWORD)])

    def connect(self, user: tuple[str, str]) -> socket.socket:
        """Raises OSError, also for a login that is refused."""
        link = dial(self.address, self.tls, timeout_s=CONTROL_S)
        if self.tls is not None:
            try:
                log_in(link, *user)
            except (AssertionError, struct.error) as error:
                link.close()
                raise ConnectionError(f"{user[0]} cannot log in: {error}") from error
        return link


def restrict(cluster: Cluster, folder: Path) -> None:
    """A user whose names begin with `ALLOWED`."""
    password = folder / RESTRICTED
    password.touch(mode=0o600)
    password.write_text(RESTRICTED_PASSWORD)
    kraft("users", "add", RESTRICTED, "--password-file", str(password), "--data", cluster.data)
    for resource in ("--topic", "--group", "--transactional-id"):
        asked = ["--principal", f"User:{RESTRICTED}", "--operation", "All", resource, ALLOWED, "--prefixed"]
        kraft("acls", "create", *asked, "--data", cluster.data)


def exchange_frame(link: socket.socket, frame: bytes) -> str:
    try:
        link.sendall(frame)
        head = link.recv(4)
        if not head:
            return "closed"
        left = struct.unpack(">i", head)[0] if len(head) == 4 else 0
        while left > 0 and (piece := link.recv(min(left, 65_536))):
            left -= len(piece)
    except TimeoutError:
        return "waits"
    except OSError:
        return "closed"
    return "answered" if left == 0 else "closed"


def problems(cluster: Cluster, door: Door, frame: bytes) -> Iterator[str]:
    peer, began = Peer(door.address, connect=lambda: door.connect(door.users[0])), time.monotonic()
    peer.ask("control", MetadataRequestData.make(topics=()), 12)
    peer.close()
    took = time.monotonic() - began
    if peer.broken or took > CONTROL_S:
        yield f"a client that behaves had to wait for {took:.1f} s: {peer.broken}; the last request was {frame.hex()}"
    yield from node_problems(cluster, frame.hex())


def node_problems(cluster: Cluster, last: str) -> Iterator[str]:
    """What the first node's log and memory show. `last` was sent last."""
    log = (Path(cluster.data) / "node-1" / "node.log").read_text(errors="replace")
    if (at := log.find("Traceback")) >= 0:
        yield f"an exception in the log: {log[max(0, at - 300) : at + 3_000]}"
    rss = resident_bytes(cluster.nodes[0].pid)
    if rss > RSS_MAX:
        yield f"the node holds {rss:,} bytes; the last request was {last}"


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


# --- damage -----------------------------------------------------------------------------------------------------


def damaged(exchange: Exchange, rng: random.Random) -> bytes:
    """A whole frame with its length: valid in one of twenty cases, so that there is something to meet."""
    key, version = KEYS[exchange.api], exchange.version
    if rng.random() < 0.05:
        key = rng.choice([*KEYS.values(), rng.randrange(-5, 100), 10_000])
    if rng.random() < 0.1:
        version = rng.choice((version + 1, version - 1, 0, 99, -1))
    client_id = b"fuzz"
    if rng.random() < 0.05:
        client_id = rng.choice((b"", b"\xff\xfe", b"node-1-controller", b"x" * rng.randrange(2_000)))
    head = struct.pack(">hhih", key, version, rng.randrange(2**31), len(client_id)) + client_id
    if version >= FLEXIBLE[exchange.api]:
        noise = bytes(rng.randrange(256) for _ in range(4))
        head += b"\0" if rng.random() < 0.9 else rng.choice((b"\1\5\3abc", noise))
    body = bytearray(odd(exchange, rng) if rng.random() < 0.6 else exchange.request)
    if rng.random() < 0.4:
        for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
            damage(body, rng)
    frame = head + bytes(body)
    length = len(frame)
    if rng.random() < 0.02:
        length = rng.choice((0, -1, length + 1, length - 1, 2**31 - 1, 8))
    return struct.pack(">i", max(-(2**31), min(length, 2**31 - 1))) + frame


def odd(exchange: Exchange, rng: random.Random) -> bytes:
    """Well formed, with a few values that nobody sends."""
    message = decode_body(message_type(exchange.api, "request"), exchange.version, memoryview(exchange.request), 0)
    for _ in range(rng.choice((1, 1, 2, 5))):
        target = rng.choice(list(messages(message)))
        name = rng.choice([each for each in target.__slots__ if not each.startswith("_")] or [""])
        if name:
            setattr(target, name, odd_value(getattr(target, name), rng, copies=20_000 // (len(exchange.request) + 1)))
    try:
        return b"".join(encode_body(message, exchange.version))
    except (struct.error, TypeError, AttributeError, ValueError):  # a null where there is none, a number too large
        return exchange.request


def messages(message: Message) -> Iterator[Message]:
    yield message
    for name in message.__slots__:
        value = getattr(message, name)
        for each in value if isinstance(value, tuple | list) else (value,):
            if isinstance(each, Message):
                yield from messages(each)


def odd_value(value: Any, rng: random.Random, *, copies: int) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice((*INTERESTING, -2, -(2**31), -(2**63), 2**63 - 1, value + 1, value - 1))
    if isinstance(value, str):
        return rng.choice(
            (None, "", value + "x", "x" * 249, "x" * 250, "\0", "../..", "__consumer_offsets", "*", "é" * 40)
        )
    if isinstance(value, bytes):
        return rng.choice((None, b"", value[:-1], value + b"\0", (value * 2)[:100_000]))
    if isinstance(value, UUID):
        return rng.choice((ZERO_UUID, UUID(int=rng.getrandbits(128)), value))
    if isinstance(value, tuple):
        return rng.choice((None, (), value * 2, (value * copies)[:copies], value[:1]))
    return value


def damage(body: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(body) + 1)
    match rng.randrange(7):
        case 0 if at < len(body):
            body[at] ^= 1 << rng.randrange(8)
        case 1 if at < len(body):
            body[at] = rng.randrange(256)
        case 2:
            del body[at : at + rng.randrange(1, 9)]
        case 3:
            body[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9)))
        case 4:
            body[at : at + 4] = struct.pack(">I", rng.choice(INTERESTING) & 0xFFFFFFFF)
        case 5:
            body[at : at + 2] = struct.pack(">H", rng.choice(INTERESTING) & 0xFFFF)
        case _:
            del body[at:]


if __name__ == "__main__":
    main()
