"""What a stranger may send before any login, damaged: frames of clients and of nodes, SASL messages with and without
headers, HTTP heads with credentials, frames of the quorum. `python -m tests.clients.fuzz --before-login` runs it;
with --secure it comes inside TLS, and in one of ten conversations without TLS where there should be some.

Each conversation is answered or ended, nobody is let in, and a user who behaves, from another address, logs in in time.
"""

from __future__ import annotations

import http.client
import random
import socket
import ssl
import struct
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kraft.launcher.runfile import load_run
from kraft.protocol import apis
from metadata.quorum.frame_auth import NONCE_BYTES, Hello, encode_hello
from tests.clients.fuzz import ANSWER_S, CONTROL_S, Outcome, damage, exchange_frame, node_problems
from tests.clients.login import PASSWORD_FILE, Address, client_folder, dial, log_in, trusting
from tests.integration.conftest import run_cluster
from tests.integration.support.cluster import Cluster
from tests.integration.support.secured import secured_cluster

PASSWORD: Final = "a password"
ELSEWHERE: Final = "127.0.0.9"
"""Whence the user comes who behaves: guesses of the fuzzer's address are limited."""
CONTROL_EVERY: Final = 100
LET_IN: Final = "let in"
MECHANISMS: Final = ("SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN", "OAUTHBEARER", "GSSAPI", "")
SETTINGS: Final = {
    "sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512,PLAIN,OAUTHBEARER",
    "sasl.plain.without.tls.enable": True,
    "sasl.oauthbearer.unsecured.tokens.enable": True,
    "connection.failed.authentication.delay.ms": 0,
}
USERS: Final = f'[[users]]\nname = "alice"\npassword = "{PASSWORD}"\n'
OUTSIDE_TLS: Final = 0.1
"""Share of conversations with a node that has TLS."""


@contextmanager
def secured_nodes(folder: Path, *, secure: bool = False) -> Iterator[Cluster]:
    """With users. `secure`: as `kraft up --secure` starts them, else without TLS."""
    if secure:
        yield from run_cluster(folder, settings=SETTINGS, secure=True)
    else:
        yield from secured_cluster(folder, protocol="SASL_PLAINTEXT", settings=SETTINGS, tail=USERS)


def run_before_login(*, seed: int, seconds: float, secure: bool = False) -> Outcome:
    """The whole of it, with a cluster of its own."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, secured_nodes(Path(folder), secure=secure) as cluster:
        return fuzz_before_login(cluster, seed=seed, seconds=seconds)


def fuzz_before_login(cluster: Cluster, *, seed: int, seconds: float) -> Outcome:
    node, rng, outcome = cluster.nodes[0], random.Random(seed), Outcome()
    tls = trusting(client_folder(cluster))
    run = load_run(cluster.data)
    assert run is not None
    quorum = node.quorum
    assert quorum is not None
    doors = [
        (address_of(node.kafka), lambda: kafka_login(rng)),
        (address_of(node.kafka), lambda: node_login(rng)),
        (address_of(node.rest), lambda: http_heads(rng)),
        (address_of(quorum), lambda: quorum_frames(rng, run.cluster_id)),
    ]
    until = time.monotonic() + seconds
    while time.monotonic() < until and not outcome.problems:
        address, conversation = rng.choice(doors)
        pieces = conversation()
        outcome.sent += 1
        is_outside = tls is not None and rng.random() < OUTSIDE_TLS
        end = _end_of(address, pieces, None if is_outside else tls, is_http=address == address_of(node.rest))
        outcome.ends[end] += 1
        if end == LET_IN:
            outcome.problems.append(f"a stranger was let in: {[piece.hex() for piece in pieces]}")
        if outcome.sent % CONTROL_EVERY == 0:
            outcome.problems += problems(cluster, pieces)
    outcome.problems += problems(cluster, ())
    return outcome


def address_of(text: str) -> Address:
    host, _, port = text.rpartition("/")[2].rpartition(":")
    return host, int(port)


def _end_of(address: Address, pieces: Sequence[bytes], tls: ssl.SSLContext | None, *, is_http: bool) -> str:
    with dial(address, tls, timeout_s=CONTROL_S) as link:
        link.settimeout(ANSWER_S)
        end = "waits"
        for piece in pieces:
            end = _answer_of(link, piece) if is_http else exchange_frame(link, piece)
            if end != "answered":
                return end
        return end


def _answer_of(link: socket.socket, piece: bytes) -> str:
    try:
        link.sendall(piece)
        data = link.recv(65_536)
    except TimeoutError:
        return "waits"
    except OSError:
        return "closed"
    if data.startswith(b"HTTP/1.1 200"):
        return LET_IN
    return "answered" if data else "closed"


# --- what is sent ---------------------------------------------------------------------------------------------


def framed(data: bytes, rng: random.Random) -> bytes:
    length = len(data)
    if rng.random() < 0.03:
        length = rng.choice((0, -1, length + 1, length - 1, 2**31 - 1, 65_536, 65_537, 16_385))
    return struct.pack(">i", max(-(2**31), length)) + data


def maybe_damaged(data: bytes, rng: random.Random, *, chance: float = 0.4) -> bytes:
    changed = bytearray(data)
    if rng.random() < chance:
        for _ in range(rng.choice((1, 1, 2, 5))):
            damage(changed, rng)
    return bytes(changed)


def request(name: str, version: int, body: bytes, rng: random.Random, *, client_id: bytes) -> bytes:
    api = apis.BY_NAME[name]
    head = struct.pack(">hhih", api.key, version, rng.randrange(2**31), len(client_id)) + client_id
    tags = b"\0" if version >= api.flexible_from else b""
    return framed(maybe_damaged(head + tags + body, rng), rng)


def kafka_login(rng: random.Random, client_id: bytes = b"fuzz") -> list[bytes]:
    """ApiVersions, a handshake, and tokens of the mechanism: in their order, or not."""
    mechanism, version = rng.choice(MECHANISMS).encode(), rng.choice((0, 1, 1))
    pieces = [
        request("ApiVersions", 3, b"\x05fuzz\x021\0", rng, client_id=client_id),
        request("SaslHandshake", version, struct.pack(">h", len(mechanism)) + mechanism, rng, client_id=client_id),
    ]
    for token in (maybe_damaged(rng.choice(tokens(rng)), rng) for _ in range(rng.randrange(1, 4))):
        if version == 0:
            pieces.append(framed(token, rng))
        else:
            body = struct.pack(">i", len(token)) + token
            pieces.append(request("SaslAuthenticate", rng.choice((0, 1)), body, rng, client_id=client_id))
    if rng.random() < 0.2:
        rng.shuffle(pieces)
    return pieces[rng.randrange(2) :]


def node_login(rng: random.Random) -> list[bytes]:
    return kafka_login(rng, client_id=rng.choice((b"node-2-controller", b"node-1-fetch", b"node-99999999999-forward")))


def tokens(rng: random.Random) -> list[bytes]:
    nonce, claims = (
        rng.randbytes(9).hex(),
        rng.choice((b'{"sub":"x"}', b'{"sub":"x","exp":1e400}', b"[1]", b'{"exp":[]}')),
    )
    token = b".".join(b64encode(part).rstrip(b"=") for part in (b'{"alg":"none"}', claims)) + b"."
    return [
        f"n,,n=alice,r={nonce}".encode(),
        f"n,a=bob,n=a=2Cb=3D,r={nonce},tokenauth=true".encode(),
        b"c=biws,r=" + nonce.encode() + b",p=" + b64encode(rng.randbytes(32)),
        b"\0alice\0wrong",
        b"bob\0alice\0" + "pass\N{SNOWMAN}".encode(),
        b"n,,\x01auth=Bearer " + token + b"\x01\x01",
        b"\x01",
        b"",
        rng.randbytes(rng.randrange(200)),
    ]


def http_heads(rng: random.Random) -> list[bytes]:
    token = rng.choice(tokens(rng))
    credentials = rng.choice(
        (
            b"Basic " + b64encode(token),
            b"Basic " + b64encode(b"alice:wrong"),
            b"Bearer " + b64encode(token).rstrip(b"="),
            b"Bearer a.b.c",
            b"Bearer kraft1.99999999999." + b"0" * 64,
            b"Digest x",
            b"Basic",
        )
    )
    head = (
        b"GET /topics HTTP/1.1\r\nHost: localhost\r\nAuthorization: "
        + credentials.replace(b"\n", b"")
        + rng.choice((b"", b"\r\nContent-Length: 5", b"\r\nTransfer-Encoding: chunked", b"\r\nExpect: 100-continue"))
        + rng.choice((b"", b"\r\nAuthorization: Basic YTpi", b"\r\nX: " + b"x" * rng.randrange(9_000)))
        + b"\r\n\r\n"
    )
    return [maybe_damaged(head, rng) for _ in range(rng.randrange(1, 3))]


def quorum_frames(rng: random.Random, cluster_id: str) -> list[bytes]:
    nonce = rng.randbytes(NONCE_BYTES)
    hello = encode_hello(
        Hello(cluster_id=cluster_id, sender=rng.choice((1, 2, 9)), receiver=1, nonce=nonce, incarnation=nonce)
    )
    return [framed(maybe_damaged(each, rng), rng) for each in (hello, rng.randbytes(rng.choice((32, 64))))]


# --- what has to hold -----------------------------------------------------------------------------------------


def problems(cluster: Cluster, pieces: Sequence[bytes]) -> Iterator[str]:
    """A user logs in over both ports, and the node is well."""
    node, sent = cluster.nodes[0], [piece.hex() for piece in pieces]
    user = User.of(cluster)
    for port, logs_in in ((node.kafka, user.over_kafka), (node.rest, user.over_http)):
        began = time.monotonic()
        try:
            logs_in(address_of(port))
        except (OSError, AssertionError, http.client.HTTPException) as error:
            yield f"a user who behaves cannot log in at {port}: {error!r}; the last conversation was {sent}"
        took = time.monotonic() - began
        if took > CONTROL_S:
            yield f"a user who behaves waited {took:.1f} s; the last conversation was {sent}"
    yield from node_problems(cluster, str(sent))


@dataclass(frozen=True)
class User:
    """Who behaves, and comes from `ELSEWHERE`."""

    name: str
    password: str
    tls: ssl.SSLContext | None

    @classmethod
    def of(cls, cluster: Cluster) -> User:
        folder = client_folder(cluster)
        if folder is None:
            return cls("alice", PASSWORD, None)
        return cls("admin", (folder / PASSWORD_FILE).read_text(encoding="utf-8").strip(), trusting(folder))

    def over_kafka(self, address: Address) -> None:
        with dial(address, self.tls, timeout_s=CONTROL_S, source=ELSEWHERE) as link:
            log_in(link, self.name, self.password)

    def over_http(self, address: Address) -> None:
        connection = http.client.HTTPConnection(*address)
        connection.sock = dial(address, self.tls, timeout_s=CONTROL_S, source=ELSEWHERE)
        login = b64encode(f"{self.name}:{self.password}".encode()).decode()
        connection.request("GET", "/topics", headers={"Authorization": f"Basic {login}"})
        assert connection.getresponse().status == 200
        connection.close()
