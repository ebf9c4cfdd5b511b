"""How clients log in at a cluster that `kraft up --secure` has started, by what it has written for them."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the copiers of the soak start often
    from tests.integration.support.cluster import Cluster

LIBRDKAFKA_FILE, CA_FILE, PASSWORD_FILE = "librdkafka.conf", "ca.pem", "password"
Address = tuple[str, int]
Login = Mapping[str, str]
"""Settings of librdkafka."""


def client_folder(cluster: Cluster) -> Path | None:
    """None for a cluster without users."""
    return Path(cluster.data) / "client" if cluster.is_secure else None


def login_of(folder: Path | None) -> Login:
    """What librdkafka needs to log in as the first user; nothing without a folder."""
    if folder is None:
        return {}
    lines = (folder / LIBRDKAFKA_FILE).read_text(encoding="utf-8").splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def trusting(folder: Path | None) -> ssl.SSLContext | None:
    """TLS with the CA of the folder; None without a folder."""
    return None if folder is None else ssl.create_default_context(cafile=str(folder / CA_FILE))


def dial(address: Address, tls: ssl.SSLContext | None, *, timeout_s: float, source: str | None = None) -> socket.socket:
    """A connection, with TLS where there is a context."""
    link = socket.create_connection(address, timeout_s, None if source is None else (source, 0))
    if tls is None:
        return link
    try:
        return tls.wrap_socket(link, server_hostname=address[0])
    except BaseException:
        link.close()
        raise


def log_in(link: socket.socket, user: str, password: str) -> None:
    """With PLAIN, over the Kafka port. Raises AssertionError when it is refused."""
    token = f"\0{user}\0{password}".encode()
    for piece in (
        bytes.fromhex("0011 0001 00000001 ffff 0005") + b"PLAIN",
        bytes.fromhex("0024 0000 00000002 ffff") + struct.pack(">i", len(token)) + token,
    ):
        link.sendall(struct.pack(">i", len(piece)) + piece)
        answer = _received(link)
        assert answer[4:6] == b"\0\0", answer


def _received(link: socket.socket) -> bytes:
    with link.makefile("rb") as stream:
        (size,) = struct.unpack(">i", stream.read(4))
        return stream.read(size)
