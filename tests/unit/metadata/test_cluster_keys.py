"""What nodes prove to each other costs a guesser scrypt for each guess, and a node once."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from metadata import cluster_keys as module
from metadata.cluster_keys import cluster_keys


def test_the_keys_are_those_of_rfc_7914():
    salt = hashlib.sha256(b"kraft cluster keys c").digest()
    root = hashlib.scrypt(b"a secret", salt=salt, n=32_768, r=8, p=1, maxmem=1 << 27, dklen=32)
    keys = cluster_keys("a secret", cluster_id="c")
    assert keys.quorum == hmac.digest(root, b"quorum", "sha256")
    assert keys.password == hmac.digest(root, b"kafka", "sha256").hex()


def test_another_secret_or_cluster_or_protocol_has_another_key():
    found = [
        cluster_keys(secret, cluster_id=cluster) for secret in ("first secret", "second") for cluster in ("c", "d")
    ]
    every = {key for keys in found for key in (keys.quorum, bytes.fromhex(keys.password))}
    assert len(every) == 8


def test_a_key_is_derived_once(monkeypatch: pytest.MonkeyPatch):
    derive, derived = hashlib.scrypt, []

    def counted(*arguments: object, **options: object) -> bytes:
        derived.append(options["n"])
        return derive(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module.hashlib, "scrypt", counted)
    for _ in range(100):
        cluster_keys("once", cluster_id="c")
    assert derived == [module.SCRYPT_COST]


def test_the_keys_are_not_printed():
    keys = cluster_keys("a secret", cluster_id="c")
    assert keys.password not in repr(keys)
    assert repr(keys.quorum) not in repr(keys)
