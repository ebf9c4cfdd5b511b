"""Credentials of a client of HTTP: a user with a password, a token, a certificate, and the CAs that it trusts.

Credentials belong to the address of a node, or to the process: those of the environment, `KRAFT_USER` with
`KRAFT_PASSWORD` or `KRAFT_PASSWORD_FILE`, `KRAFT_TOKEN`, `KRAFT_CA` and `KRAFT_CERTIFICATE`. Redirects are never
followed, so that nothing of it reaches another host.
"""

from __future__ import annotations

import os
import ssl
import stat
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from kraft.client.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a client shows to the nodes, and what it trusts."""

    user: str | None = None
    password: str | None = None
    token: str | Callable[[], str] | None = None
    """A bearer token, or what returns a fresh one."""
    ca: str | None = None
    """File with the certificates of the CAs that are trusted; None: those of the system."""
    certificate: str | None = None
    """File with a certificate and its key, for nodes that want one."""

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r}, ca={self.ca!r})"

    def headers(self) -> Mapping[str, str]:
        """The header of each request."""
        if self.token is not None:
            token = self.token if isinstance(self.token, str) else self.token()
            return {"Authorization": f"Bearer {token}"}
        if self.user is None:
            return {}
        pair = f"{self.user}:{self.password or ''}".encode()
        return {"Authorization": f"Basic {b64encode(pair).decode()}"}

    def context(self) -> ssl.SSLContext:
        """The context of connections to https addresses. Raises ConfigError for a file that cannot be used."""
        return _context(self.ca, self.certificate)


NONE: Final = Credentials()
_KNOWN: Final[dict[str, Credentials]] = {}
"""Scheme, host and port of a node -> its credentials."""


def remember(base_url: str, credentials: Credentials) -> None:
    """From now on this process shows these credentials to the node."""
    _KNOWN[_key(base_url)] = credentials


def credentials_for(base_url: str) -> Credentials:
    """Those of the node, else those of the environment."""
    known = _KNOWN.get(_key(base_url)) if _KNOWN else None
    return from_environment() if known is None else known


@cache
def from_environment() -> Credentials:
    """The credentials that the environment of this process has. Raises ConfigError."""
    found = os.environ.get
    password, file = found("KRAFT_PASSWORD"), found("KRAFT_PASSWORD_FILE")
    if password is None and file is not None:
        password = read_secret(file, what="KRAFT_PASSWORD_FILE")
    if not any(map(found, ("KRAFT_USER", "KRAFT_TOKEN", "KRAFT_CA", "KRAFT_CERTIFICATE"))):
        return NONE
    return Credentials(
        user=found("KRAFT_USER"),
        password=password,
        token=found("KRAFT_TOKEN"),
        ca=found("KRAFT_CA"),
        certificate=found("KRAFT_CERTIFICATE"),
    )


def read_secret(path: str, *, what: str) -> str:
    """The text of a file that nobody else may read. Raises ConfigError."""
    try:
        if os.stat(path).st_mode & stat.S_IRWXO:
            raise ConfigError(f"{what}: {path} may be read by everybody on this machine: chmod o-rwx {path}")
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what}: {path}: {error}") from error


def _key(base_url: str) -> str:
    parts = urlsplit(base_url)
    return f"{parts.scheme}://{parts.netloc}"


@cache
def _context(ca: str | None, certificate: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca)
        if certificate is not None:
            context.load_cert_chain(certificate)
    except OSError as error:
        raise ConfigError(f"{ca if certificate is None else certificate}: {error}") from error
    return context
