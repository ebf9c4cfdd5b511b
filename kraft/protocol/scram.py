"""SCRAM-SHA-256 and SCRAM-SHA-512 (RFC 5802, RFC 7677) as pure functions of its messages; no channel binding.

    client-first  n,,n=USER,r=CNONCE
    server-first  r=CNONCE+SNONCE,s=SALT,i=ITERATIONS
    client-final  c=biws,r=CNONCE+SNONCE,p=PROOF
    server-final  v=SIGNATURE, or e=ERROR

Both sides prove that they know the password; it never crosses the network, nor does anything that could be replayed.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode, b64encode
from binascii import Error as BadBase64
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

MECHANISM = "SCRAM-SHA-256"
DIGESTS: Mapping[str, str] = {MECHANISM: "sha256", "SCRAM-SHA-512": "sha512"}
"""Mechanism -> hash function."""
CLUSTER_USER = "__cluster__"
ITERATIONS = 4096
"""Least number that RFC 7677 allows: the password is a key that scrypt has made (`metadata.cluster_keys`)."""
ITERATIONS_MAX = 4 * ITERATIONS
"""A client computes no more than this for a server that it does not trust yet: on the event loop, some 10 ms."""
NONCE_BYTES = 18
SALT_BYTES = 16
USER_LENGTH_MAX = 255
"""Longest name of a user."""
_HEADER = "n,,"


class ScramFailed(Exception):
    """The other side does not know the password, or does not speak SCRAM."""


@dataclass(frozen=True, slots=True)
class Credential:
    """What a server keeps of a password (RFC 5802 section 3)."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes
    mechanism: str = MECHANISM

    def __repr__(self) -> str:
        return f"Credential(mechanism={self.mechanism!r}, iterations={self.iterations})"


def salt_of(cluster_id: str) -> bytes:
    """The same on every node of a cluster, so that each node derives the salted password once."""
    return hashlib.sha256(b"kraft cluster " + cluster_id.encode()).digest()[:16]


@lru_cache(maxsize=16)
def salted_password(password: str, salt: bytes, iterations: int, mechanism: str = MECHANISM) -> bytes:
    """The SaltedPassword of RFC 5802, section 3 (PBKDF2 with the HMAC of the mechanism)."""
    return hashlib.pbkdf2_hmac(DIGESTS[mechanism], password.encode(), salt, iterations)


def credential(password: str, *, salt: bytes, iterations: int = ITERATIONS, mechanism: str = MECHANISM) -> Credential:
    """What a server keeps to check proofs of this password: stored key and server key (RFC 5802, section 3)."""
    salted = salted_password(password, salt, iterations, mechanism)
    return credential_of(salted, salt=salt, iterations=iterations, mechanism=mechanism)


def credential_of(salted: bytes, *, salt: bytes, iterations: int, mechanism: str) -> Credential:
    """The credential of a SaltedPassword, as administrators send it."""
    digest = DIGESTS[mechanism]
    return Credential(
        salt=salt,
        iterations=iterations,
        stored_key=hashlib.new(digest, _hmac(salted, b"Client Key", digest)).digest(),
        server_key=_hmac(salted, b"Server Key", digest),
        mechanism=mechanism,
    )


def unknown_user(key: bytes, name: str, mechanism: str) -> Credential:
    """A credential that no password has, for a user that does not exist: the same at each try, as a real one is."""
    made = hmac.digest(key, f"{mechanism} {name}".encode(), "sha512")
    size = hashlib.new(DIGESTS[mechanism]).digest_size
    return Credential(made[:SALT_BYTES], ITERATIONS, made[-32:] * (size // 32), made[-32:] * (size // 32), mechanism)


def has_password(credential: Credential, password: str) -> bool:
    """Whether the password is that of the credential. Slow on purpose: PBKDF2."""
    salted = hashlib.pbkdf2_hmac(
        DIGESTS[credential.mechanism], password.encode(), credential.salt, credential.iterations
    )
    found = credential_of(
        salted, salt=credential.salt, iterations=credential.iterations, mechanism=credential.mechanism
    )
    return hmac.compare_digest(found.stored_key, credential.stored_key)


def user_of(client_first: bytes) -> str:
    """The user that a client-first message names. Raises ScramFailed."""
    text = _text(client_first)
    if not text.startswith(_HEADER):
        raise ScramFailed("channel binding and authorization ids are not supported; begin with 'n,,'")
    name = _fields(text.removeprefix(_HEADER).encode()).get("n", "").replace("=2C", ",").replace("=3D", "=")
    if not 0 < len(name) <= USER_LENGTH_MAX:
        raise ScramFailed("no user, or too long a name")
    return name


class ScramClient:
    """One authentication as the client: `first`, then `final`, then `verify`."""

    def __init__(self, *, user: str, password: str, nonce: str, mechanism: str = MECHANISM) -> None:
        self._password = password
        self._mechanism, self._digest = mechanism, DIGESTS[mechanism]
        self._nonce = nonce
        self._first_bare = f"n={_escaped(user)},r={nonce}"
        self._signature = b""

    def first(self) -> bytes:
        """The client-first message."""
        return (_HEADER + self._first_bare).encode()

    def final(self, server_first: bytes) -> bytes:
        """The client-final message, with the proof. Raises ScramFailed for a server-first message that does not fit."""
        fields = _fields(server_first)
        nonce, iterations = fields.get("r", ""), _number(fields.get("i", ""))
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise ScramFailed("the server did not extend our nonce")
        if not ITERATIONS <= iterations <= ITERATIONS_MAX:
            raise ScramFailed(f"{iterations} iterations; {ITERATIONS} to {ITERATIONS_MAX} are taken")
        salted = salted_password(self._password, _base64(fields.get("s", "")), iterations, self._mechanism)
        without_proof = f"c={_encoded(_HEADER.encode())},r={nonce}"
        message = b",".join((self._first_bare.encode(), server_first, without_proof.encode()))
        client_key = _hmac(salted, b"Client Key", self._digest)
        proof = _xor(client_key, _hmac(hashlib.new(self._digest, client_key).digest(), message, self._digest))
        self._signature = _hmac(_hmac(salted, b"Server Key", self._digest), message, self._digest)
        return f"{without_proof},p={_encoded(proof)}".encode()

    def verify(self, server_final: bytes) -> None:
        """Raises ScramFailed unless the server knows the password too."""
        fields = _fields(server_final)
        if "e" in fields:
            raise ScramFailed(f"the server refused: {fields['e']}")
        if not self._signature or not hmac.compare_digest(_base64(fields.get("v", "")), self._signature):
            raise ScramFailed("the server does not know the cluster secret")


class ScramServer:
    """One authentication as the server: `first`, then `final`."""

    def __init__(self, credential: Credential, *, user: str, nonce: str) -> None:
        self._credential = credential
        self._user = user
        self._nonce = nonce
        self._first_bare = ""
        self._server_first = ""

    def first(self, client_first: bytes) -> bytes:
        """The server-first message. Raises ScramFailed for a client-first message that does not fit or names another
        user.
        """
        text = _text(client_first)
        if not text.startswith(_HEADER):
            raise ScramFailed("channel binding and authorization ids are not supported; begin with 'n,,'")
        self._first_bare = text.removeprefix(_HEADER)
        fields = _fields(self._first_bare.encode())
        if fields.get("n") != _escaped(self._user) or not fields.get("r"):
            raise ScramFailed("unknown user")
        nonce, salt = fields["r"] + self._nonce, _encoded(self._credential.salt)
        self._server_first = f"r={nonce},s={salt},i={self._credential.iterations}"
        return self._server_first.encode()

    def final(self, client_final: bytes) -> bytes:
        """The server-final message. Raises ScramFailed when the proof is wrong."""
        text = _text(client_final)
        without_proof, _, proof = text.rpartition(",p=")
        fields = _fields(without_proof.encode())
        expected_nonce = _fields(self._server_first.encode()).get("r")
        if fields.get("c") != _encoded(_HEADER.encode()) or not expected_nonce or fields.get("r") != expected_nonce:
            raise ScramFailed("the nonce or the channel binding is not that of this exchange")
        message = f"{self._first_bare},{self._server_first},{without_proof}".encode()
        digest = DIGESTS[self._credential.mechanism]
        client_key = _xor(_base64(proof), _hmac(self._credential.stored_key, message, digest))
        if not hmac.compare_digest(hashlib.new(digest, client_key).digest(), self._credential.stored_key):
            raise ScramFailed("wrong cluster secret")
        return f"v={_encoded(_hmac(self._credential.server_key, message, digest))}".encode()


def _hmac(key: bytes, message: bytes, digest: str) -> bytes:
    return hmac.digest(key, message, digest)


def _xor(left: bytes, right: bytes) -> bytes:
    if len(left) != len(right):
        raise ScramFailed(f"a proof has {len(right)} bytes, not {len(left)}")
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _escaped(user: str) -> str:
    return user.replace("=", "=3D").replace(",", "=2C")


def _encoded(data: bytes) -> str:
    return b64encode(data).decode()


def _base64(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (BadBase64, ValueError) as error:
        raise ScramFailed(f"not base64: {error}") from error


def _text(message: bytes) -> str:
    try:
        return message.decode()
    except UnicodeDecodeError as error:
        raise ScramFailed("not UTF-8") from error


def _fields(message: bytes) -> dict[str, str]:
    pairs = (item.partition("=") for item in _text(message).split(","))
    return {name: value for name, separator, value in pairs if separator and len(name) == 1}


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ScramFailed(f"not a number: {text[:20]!r}")
    return int(text)
