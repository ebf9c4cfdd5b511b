"""TLS of a node: contexts made of the `ssl.*` settings, with PEM, and made again when a file or a setting changes.

A context is never changed once it is used: new connections get the new one, connections that are open keep theirs.
"""

from __future__ import annotations

import os
import ssl
import stat
from collections.abc import Callable
from typing import Final, TypeAlias

from kraft.runtime.tls_alerts import AlertingObject
from metadata.settings import BrokerSettings

LOOK_EVERY_MS: Final = 1_000
"""How often a node looks whether the files of its certificates have changed."""
CIPHERS_TLS_1_2: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Ciphers of TLS 1.2 with forward secrecy; those of TLS 1.3 all have it."""

_VERSIONS: Final = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
_CLIENT_AUTH: Final = {"none": ssl.CERT_NONE, "requested": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}

_State: TypeAlias = "tuple[object, ...]"


class TlsFailed(OSError):
    """A certificate, a key or a truststore cannot be used."""


class _Side:
    """Implements `metadata.environment.Tls` for one direction."""

    takes_plain = False

    def __init__(self, context: ssl.SSLContext) -> None:
        self.current = context

    def context(self) -> ssl.SSLContext:
        return self.current


class _EitherSide:
    """Implements `metadata.environment.Tls` for ports that also take connections without TLS."""

    takes_plain = True

    def __init__(self, server: _Side) -> None:
        self.context = server.context


class NodeTls:
    """The certificates of a node, as server and as the client of other nodes. Raises TlsFailed."""

    def __init__(self, settings: Callable[[], BrokerSettings]) -> None:
        self._settings = settings
        self._state, server, client = _load(settings())
        self.server = _Side(server)
        self.either = _EitherSide(self.server)
        self.client = _Side(client)

    def refresh(self) -> bool:
        """Load everything again if a file or a setting has changed. Blocking. Raises TlsFailed, once for each change;
        the node keeps what it has then."""
        settings = self._settings()
        state = _state_of(settings)
        if state == self._state:
            return False
        self._state = state
        _, self.server.current, self.client.current = _load(settings)
        return True


def _load(settings: BrokerSettings) -> tuple[_State, ssl.SSLContext, ssl.SSLContext]:
    state = _state_of(settings)
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = settings.ssl_endpoint_identification_algorithm == "https"
    for context in (server, client):
        versions = [_VERSIONS[each] for each in settings.ssl_enabled_protocols.split(",")]
        context.minimum_version, context.maximum_version = min(versions), max(versions)
        context.set_ciphers(CIPHERS_TLS_1_2)
        _load_keystore(context, settings)
        _load_truststore(context, settings)
    server.verify_mode = _CLIENT_AUTH[settings.ssl_client_auth]
    server.sslobject_class = AlertingObject
    return state, server, client


def _load_keystore(context: ssl.SSLContext, settings: BrokerSettings) -> None:
    chain, key = settings.ssl_keystore_certificate_chain, settings.ssl_keystore_key
    if chain and key:
        with _Written(key + "\n" + chain) as path:
            _load_chain(context, path, settings.ssl_key_password, what="ssl.keystore.certificate.chain")
    elif settings.ssl_keystore_location:
        refuse_readable_by_others(settings.ssl_keystore_location, what="ssl.keystore.location")
        _load_chain(context, settings.ssl_keystore_location, settings.ssl_key_password, what="ssl.keystore.location")
    else:
        raise TlsFailed(
            "a listener has TLS and the node no certificate: set ssl.keystore.location, or ssl.keystore.key and "
            "ssl.keystore.certificate.chain (`kraft certs create` makes them)"
        )


def _load_chain(context: ssl.SSLContext, path: str, password: str, *, what: str) -> None:
    try:
        # Without a function OpenSSL would ask at the terminal.
        context.load_cert_chain(path, password=lambda: password)
    except OSError as error:
        raise TlsFailed(f"{what}: {path}: {error.strerror or error}: a PEM file has the key and the chain") from error


def _load_truststore(context: ssl.SSLContext, settings: BrokerSettings) -> None:
    certificates, path = settings.ssl_truststore_certificates, settings.ssl_truststore_location
    if not (certificates or path):
        raise TlsFailed("set ssl.truststore.location: nodes verify each other by the CAs in it")
    if path:
        refuse_writable_by_others(path, what="ssl.truststore.location")
    try:
        context.load_verify_locations(cafile=path or None, cadata=certificates or None)
    except OSError as error:
        raise TlsFailed(f"ssl.truststore.location: {path}: {error.strerror or error}") from error


def refuse_readable_by_others(path: str, *, what: str) -> None:
    """Raises TlsFailed for a file with a secret that every user of this machine may read."""
    if _mode_of(path, what=what) & stat.S_IRWXO:
        raise TlsFailed(f"{what}: {path} may be read by everybody on this machine: chmod o-rwx {path}")


def refuse_writable_by_others(path: str, *, what: str) -> None:
    """Raises TlsFailed for a file that every user of this machine may write: with a CA in it, anybody would be any node
    and any user."""
    if _mode_of(path, what=what) & stat.S_IWOTH:
        raise TlsFailed(f"{what}: {path} may be written by everybody on this machine: chmod o-w {path}")


def _mode_of(path: str, *, what: str) -> int:
    try:
        return os.stat(path).st_mode
    except OSError as error:
        raise TlsFailed(f"{what}: {path}: {error.strerror or error}") from error


def _state_of(settings: BrokerSettings) -> _State:
    """Changes when a file or a setting does."""
    files = (settings.ssl_keystore_location, settings.ssl_truststore_location)
    chosen = tuple(getattr(settings, name) for name in BrokerSettings.model_fields if name.startswith("ssl_"))
    return (*chosen, *map(_stamp, files))


def _stamp(path: str) -> object:
    if not path:
        return None
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode


class _Written:
    """A private file with a text, for as long as the block lasts: OpenSSL reads keys from files only."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __enter__(self) -> str:
        import tempfile  # few nodes have a key in their settings

        descriptor, self._path = tempfile.mkstemp(suffix=".pem")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(self._text)
        return self._path

    def __exit__(self, *_: object) -> None:
        os.unlink(self._path)


# --- names ------------------------------------------------------------------------------------------------------------

_SHORT: Final = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "STREET",
    "userId": "UID",
}
_ESCAPED: Final = frozenset(',+"\\<>;')


def distinguished_name(certificate: object) -> str:
    """The subject of a peer's certificate as RFC 2253 writes it, the most special part first; empty without one."""
    if not isinstance(certificate, dict):
        return ""
    parts = [
        "+".join(f"{_SHORT.get(name, name)}={_escaped(text)}" for name, text in each) for each in _rdns(certificate)
    ]
    return ",".join(reversed(parts))


def _rdns(certificate: dict[str, object]) -> list[tuple[tuple[str, str], ...]]:
    subject = certificate.get("subject", ())
    return list(subject) if isinstance(subject, tuple) else []


def _escaped(text: str) -> str:
    escaped = "".join(f"\\{each}" if each in _ESCAPED else each for each in text)
    if escaped[:1] in ("#", " "):
        escaped = "\\" + escaped
    return escaped[:-1] + "\\ " if len(escaped) > 1 and escaped.endswith(" ") else escaped
