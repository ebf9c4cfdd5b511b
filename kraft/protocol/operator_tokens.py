"""Tokens with which the launcher and the command line prove that they may read the data folder of a cluster.

    kraft1.EXPIRY.MAC    expiry in seconds since the epoch, MAC of the text before it with a key derived from the
                         cluster's secret

They are bearer tokens of HTTP for `OPERATOR`, and short-lived: one that is seen is worth nothing a few minutes later.
"""

from __future__ import annotations

import hmac

OPERATOR = "__cluster__"
"""Name of the user that owns the cluster's secret: no other user can have it."""
RESERVED = f"{OPERATOR} is the user of the nodes: its password is the cluster's secret"
VALID_S = 300
_PREFIX = "kraft1"


def is_reserved(name: str) -> bool:
    """Whether no login makes a client this user, whose ACLs would not count: neither a password, nor a token of others,
    nor a certificate."""
    return name == OPERATOR


def make_token(key: bytes, *, now_ms: int) -> str:
    """A token that is valid from now on for `VALID_S`."""
    text = f"{_PREFIX}.{now_ms // 1_000 + VALID_S}"
    return f"{text}.{_mac(key, text)}"


def is_operator_token(token: str) -> bool:
    """Whether it has the form of one, so that it is checked as one and not as a JWT."""
    return token.startswith(_PREFIX + ".")


def is_valid(key: bytes, token: str, *, now_ms: int) -> bool:
    """Whether the token was made with the key and has not expired."""
    text, _, mac = token.rpartition(".")
    prefix, _, expiry = text.partition(".")
    if prefix != _PREFIX or not (expiry.isascii() and expiry.isdecimal() and len(expiry) <= 12):
        return False
    left_s = int(expiry) - now_ms // 1_000
    return hmac.compare_digest(mac.encode(), _mac(key, text).encode()) and 0 < left_s <= 2 * VALID_S


def _mac(key: bytes, text: str) -> str:
    return hmac.digest(key, text.encode(), "sha256").hex()
