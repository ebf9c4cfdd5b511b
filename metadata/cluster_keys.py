"""The keys that nodes prove to each other, derived from the cluster's secret with scrypt (RFC 7914).

A program that answers in the place of a node sees a proof of the key, and can try secrets against it offline. Each try
costs 32 MiB and a tenth of a second, also for a secret that a person has thought of. The keys of the two protocols
differ, so that a proof in one is worth nothing in the other.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from functools import lru_cache

SCRYPT_COST = 2**15
"""RFC 7914's N; with the block size 8 a derivation takes 32 MiB."""
SCRYPT_BLOCK = 8
SCRYPT_BYTES_MAX = 2 * 128 * SCRYPT_COST * SCRYPT_BLOCK
KEY_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterKeys:
    quorum: bytes
    """Key of the sealed connections between voters."""
    password: str
    """Password of the cluster's SCRAM user on the Kafka listeners."""
    acknowledgements: bytes
    """Key of the ids by which receivers over REST acknowledge."""
    operator: bytes
    """Key of the tokens of the command line (`kraft.protocol.operator_tokens`)."""

    def __repr__(self) -> str:
        return "ClusterKeys()"


@lru_cache(maxsize=16)
def cluster_keys(secret: str, *, cluster_id: str) -> ClusterKeys:
    """Derive the keys. Slow on purpose: call it once for each process, never for a connection."""
    salt = hashlib.sha256(b"kraft cluster keys " + cluster_id.encode()).digest()
    root = hashlib.scrypt(
        secret.encode(), salt=salt, n=SCRYPT_COST, r=SCRYPT_BLOCK, p=1, maxmem=SCRYPT_BYTES_MAX, dklen=KEY_BYTES
    )
    return ClusterKeys(
        quorum=hmac.digest(root, b"quorum", "sha256"),
        password=hmac.digest(root, b"kafka", "sha256").hex(),
        acknowledgements=hmac.digest(root, b"acknowledgements", "sha256"),
        operator=hmac.digest(root, b"operator", "sha256"),
    )
