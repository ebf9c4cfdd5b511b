"""TLS over real sockets: who is trusted, names of certificates, and certificates that are replaced."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from kraft.config.parse import parse_config
from kraft.launcher.certificates import CertificateAuthority, create
from kraft.runtime import tls_listener
from kraft.runtime.network import TcpNetwork
from kraft.runtime.tls import NodeTls, TlsFailed, distinguished_name
from metadata.environment import ConnectionClosed, FrameConnection
from metadata.settings import BrokerSettings, broker_settings
from metadata.unauthenticated import UnauthenticatedLimits

CLUSTER = parse_config("[[nodes]]\nid = 1\n")
LIMIT = 1_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("certs")
    create(CLUSTER, str(found), days=10, users=["alice"])
    return found


def settings(folder: Path, name: str = "node-1", **more: object) -> BrokerSettings:
    files = {
        "ssl.keystore.location": str(folder / f"{name}.pem"),
        "ssl.truststore.location": str(folder / "ca.pem"),
        "ssl.client.auth": "requested",
    }
    return broker_settings({**files, **{key.replace("_", "."): value for key, value in more.items()}})


def tls(folder: Path, name: str = "node-1", **more: object) -> NodeTls:
    chosen = settings(folder, name, **more)
    return NodeTls(lambda: chosen)


def run(story: Callable[[TcpNetwork], Awaitable[None]]) -> None:
    async def main() -> None:
        network = TcpNetwork(asyncio.get_running_loop())
        await story(network)
        await network.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def echo(connection: FrameConnection) -> None:
    """The name of the peer's certificate, and what the peer sends."""
    connection.send([connection.certificate_name.encode()])
    while True:
        connection.send([await connection.receive()])


async def dial(network: TcpNetwork, port: int, side: NodeTls | None, host: str = "127.0.0.1") -> FrameConnection:
    return await network.connect(
        host, port, frame_bytes_max=LIMIT, timeout_ms=20_000, tls=None if side is None else side.client
    )


def test_frames_of_all_sizes_pass_and_the_certificate_has_a_name(folder: Path) -> None:
    async def story(network: TcpNetwork) -> None:
        listener = await network.listen("127.0.0.1", 0, echo, frame_bytes_max=LIMIT, tls=tls(folder).server)
        connection = await dial(network, listener.port, tls(folder, "alice"))
        assert bytes(await connection.receive()) == b"CN=alice"
        for size in (0, 1, 1_000, 70_000, 500_000):
            sent = os.urandom(size)
            connection.send([sent[: size // 2], sent[size // 2 :]])
            assert bytes(await connection.receive()) == sent
        connection.close()
        await listener.close()

    run(story)


def test_only_the_cluster_s_ca_and_the_right_host_are_trusted(folder: Path, tmp_path: Path) -> None:
    create(CLUSTER, str(tmp_path), days=10)

    async def story(network: TcpNetwork) -> None:
        ours = await network.listen("127.0.0.1", 0, echo, frame_bytes_max=LIMIT, tls=tls(folder).server)
        with pytest.raises(OSError, match=r"(?i)certificate"):
            await dial(network, ours.port, tls(tmp_path))
        misnamed = await network.listen("127.0.0.1", 0, echo, frame_bytes_max=LIMIT, tls=tls(folder, "alice").server)
        with pytest.raises(OSError, match=r"(?i)certificate"):
            await dial(network, misnamed.port, tls(folder))
        await ours.close()
        await misnamed.close()

    run(story)


def test_a_client_needs_a_certificate_where_it_is_required(folder: Path, tmp_path: Path) -> None:
    create(CLUSTER, str(tmp_path), days=10)
    foreign = tls(tmp_path, ssl_truststore_location=str(folder / "ca.pem"))

    async def story(network: TcpNetwork) -> None:
        side = tls(folder, ssl_client_auth="required").server
        listener = await network.listen("127.0.0.1", 0, echo, frame_bytes_max=LIMIT, tls=side)
        with pytest.raises((OSError, ConnectionClosed)):
            await (await dial(network, listener.port, foreign)).receive()
        assert bytes(await (await dial(network, listener.port, tls(folder))).receive()) == b"CN=node-1"
        await listener.close()

    run(story)


def test_an_old_version_is_refused(folder: Path) -> None:
    async def story(network: TcpNetwork) -> None:
        side = tls(folder, ssl_enabled_protocols="TLSv1.3").server
        listener = await network.listen("127.0.0.1", 0, echo, frame_bytes_max=LIMIT, tls=side)
        with pytest.raises((OSError, ConnectionClosed)):
            await (await dial(network, listener.port, tls(folder, ssl_enabled_protocols="TLSv1.2"))).receive()
        await (await dial(network, listener.port, tls(folder, ssl_enabled_protocols="TLSv1.2,TLSv1.3"))).receive()
        await listener.close()

    run(story)


def test_new_connections_get_a_certificate_that_was_replaced(folder: Path, tmp_path: Path) -> None:
    other = CertificateAuthority(str(folder))
    mine = tmp_path / "mine.pem"
    mine.write_bytes(Path(other.user("first")).read_bytes())
    mine.chmod(0o600)
    second = Path(other.user("second")).read_bytes()
    client = tls(folder, ssl_keystore_location=str(mine))

    async def story(network: TcpNetwork) -> None:
        listener = await network.listen("127.0.0.1", 0, echo, frame_bytes_max=LIMIT, tls=tls(folder).server)
        old = await dial(network, listener.port, client)
        assert bytes(await old.receive()) == b"CN=first"
        assert not client.refresh()
        mine.write_bytes(b"no certificate")
        with pytest.raises(TlsFailed, match=r"ssl\.keystore\.location"):
            client.refresh()
        assert not client.refresh(), "one complaint for each change"
        assert bytes(await (await dial(network, listener.port, client)).receive()) == b"CN=first"
        mine.write_bytes(second)
        assert client.refresh()
        assert bytes(await (await dial(network, listener.port, client)).receive()) == b"CN=second"
        old.send([b"still here"])
        assert bytes(await old.receive()) == b"still here"
        await listener.close()

    run(story)


def test_a_key_that_everybody_may_read_is_refused_until_its_mode_is_right(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.pem"
    mine.write_bytes((folder / "node-1.pem").read_bytes())
    mine.chmod(0o600)
    node = tls(folder, ssl_keystore_location=str(mine))
    first = node.server.current
    other = tmp_path / "other.pem"
    other.write_bytes(mine.read_bytes())
    other.chmod(0o644)
    other.replace(mine)
    with pytest.raises(TlsFailed, match="may be read by everybody"):
        node.refresh()
    assert not node.refresh(), "one complaint for each change"
    assert node.server.current is first
    mine.chmod(0o600)
    assert node.refresh()
    assert node.server.current is not first


def test_a_truststore_that_everybody_may_write_is_refused(folder: Path, tmp_path: Path) -> None:
    """With a CA in it, anybody would be any node."""
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes((folder / "ca.pem").read_bytes())
    trusted.chmod(0o644)
    node = tls(folder, ssl_truststore_location=str(trusted))
    first = node.server.current
    trusted.chmod(0o646)
    with pytest.raises(TlsFailed, match=f"may be written by everybody on this machine: chmod o-w {trusted}"):
        node.refresh()
    assert not node.refresh(), "one complaint for each change"
    assert node.server.current is first
    with pytest.raises(TlsFailed, match=r"ssl\.truststore\.location: .* may be written by everybody"):
        tls(folder, ssl_truststore_location=str(trusted))
    trusted.chmod(0o664)
    assert node.refresh()
    assert node.server.current is not first


def test_a_client_learns_why_its_handshake_fails(folder: Path, tmp_path: Path) -> None:
    """Java's clients try again for ever after a close, and end with an error after an alert."""
    create(CLUSTER, str(tmp_path), days=10, users=["alice"])
    required = tls(folder, ssl_client_auth="required")

    def shake_hands(port: int, certificate: str, version: ssl.TLSVersion) -> None:
        context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        context.maximum_version = version
        if certificate:
            context.load_cert_chain(certificate)
        link = socket.create_connection(("127.0.0.1", port), timeout=20)
        with link, context.wrap_socket(link, server_hostname="127.0.0.1") as wrapped:
            wrapped.sendall(b"what a client sends before it is refused")
            wrapped.recv(1)

    async def story(network: TcpNetwork) -> None:
        listener = await network.listen("127.0.0.1", 0, echo, frame_bytes_max=LIMIT, tls=required.server)
        for certificate, alert in (("", "CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE"), (str(tmp_path / "alice.pem"), "CA")):
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                with pytest.raises(ssl.SSLError, match=alert):
                    await asyncio.to_thread(shake_hands, listener.port, certificate, version)
        await listener.close()

    run(story)


def test_handshakes_that_never_end_are_few_and_short(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = UnauthenticatedLimits(frame_bytes_max=0, frames_max=0, connections_max=3, wait_ms=300)
    monkeypatch.setattr(tls_listener, "TLS_HANDSHAKES", limits)

    async def story(network: TcpNetwork) -> None:
        listener = await network.listen("127.0.0.1", 0, echo, frame_bytes_max=LIMIT, tls=tls(folder).server)
        loop = asyncio.get_running_loop()
        silent = []
        for _ in range(10):
            each = socket.socket()
            each.setblocking(False)
            await loop.sock_connect(each, ("127.0.0.1", listener.port))
            silent.append(each)
        assert bytes(await (await dial(network, listener.port, tls(folder))).receive()) == b"CN=node-1"
        for each in silent:
            async with asyncio.timeout(20):
                assert await loop.sock_recv(each, 10) == b""
            each.close()
        await listener.close()

    run(story)


def test_no_tls_is_spoken_to_who_speaks_plaintext(folder: Path) -> None:
    async def story(network: TcpNetwork) -> None:
        listener = await network.listen("127.0.0.1", 0, echo, frame_bytes_max=LIMIT, tls=tls(folder).server)
        plain = await dial(network, listener.port, None)
        plain.send([b"hello"])
        with pytest.raises(ConnectionClosed):
            await plain.receive()
        await listener.close()

    run(story)


def test_what_cannot_be_used_is_refused_in_words(folder: Path, tmp_path: Path) -> None:
    open_key = tmp_path / "open.pem"
    open_key.write_bytes((folder / "node-1.pem").read_bytes())
    open_key.chmod(0o644)
    for wrong, match in (
        ({"ssl_keystore_location": str(open_key)}, "everybody"),
        ({"ssl_keystore_location": ""}, "kraft certs create"),
        ({"ssl_keystore_location": str(tmp_path / "none.pem")}, "No such file"),
        ({"ssl_keystore_location": str(folder / "ca-key.pem")}, "PEM"),
        ({"ssl_truststore_location": ""}, "truststore"),
        ({"ssl_truststore_location": str(tmp_path / "none.pem")}, "truststore"),
    ):
        with pytest.raises(TlsFailed, match=match):
            tls(folder, **wrong)


def test_pem_may_stand_in_the_settings(folder: Path) -> None:
    text = (folder / "node-1.pem").read_text()
    key, chain = text[: text.index("-----BEGIN CERTIFICATE")], text[text.index("-----BEGIN CERTIFICATE") :]
    made = tls(
        folder,
        ssl_keystore_location="",
        ssl_keystore_key=key,
        ssl_keystore_certificate_chain=chain,
        ssl_truststore_location="",
        ssl_truststore_certificates=(folder / "ca.pem").read_text(),
    )
    assert made.server.context().get_ca_certs()


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ((), ""),
        (((("commonName", "alice"),),), "CN=alice"),
        (
            ((("countryName", "DE"),), (("organizationName", "A, B"),), (("commonName", "#x "), ("userId", "u"))),
            "CN=\\#x\\ +UID=u,O=A\\, B,C=DE",
        ),
    ],
)
def test_names_are_those_of_rfc_2253(subject: Any, name: str) -> None:
    assert distinguished_name({"subject": subject}) == name
    assert distinguished_name(None) == ""


def test_a_port_that_takes_both_knows_which_is_which(folder: Path) -> None:
    async def encrypted(connection: FrameConnection) -> None:
        connection.send([str(connection.is_encrypted).encode(), bytes(await connection.receive())])

    async def story(network: TcpNetwork) -> None:
        side = tls(folder)
        listener = await network.listen("127.0.0.1", 0, encrypted, frame_bytes_max=LIMIT, tls=side.either)
        for dialed, expected in ((side, b"True"), (None, b"False")):
            connection = await dial(network, listener.port, dialed)
            await asyncio.sleep(0)
            connection.send([b" it is"])
            assert bytes(await connection.receive()) == expected + b" it is"
            connection.close()
        await listener.close()

    run(story)
