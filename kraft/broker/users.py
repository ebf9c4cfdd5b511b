"""Users with a password: those of the metadata log, and those of cluster.toml, which a user of the log replaces, also
one that was deleted."""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable, Mapping
from hashlib import sha256

from kraft.protocol import scram
from kraft.protocol.operator_tokens import is_reserved
from kraft.protocol.scram import Credential
from metadata.environment import Environment
from metadata.image import MetadataImage

PLAIN_MECHANISM = "SCRAM-SHA-256"
"""Mechanism whose credential a password is checked with first, where a client sends the password itself."""
REMEMBERED_MAX = 4_096
"""Passwords whose check is remembered: PBKDF2 for each request over HTTP would cost milliseconds."""


class Users:
    def __init__(
        self,
        environment: Environment,
        *,
        image: Callable[[], MetadataImage],
        passwords: Mapping[str, str],
        key: bytes,
    ) -> None:
        """`passwords` are those of cluster.toml; `key` makes the salts of users that do not exist."""
        self._workers = environment.workers
        self._image = image
        self._passwords = passwords
        self._key = key
        self._own: dict[tuple[str, str], Credential] = {}
        self._remembered: OrderedDict[bytes, Credential] = OrderedDict()
        self._memory_key = environment.rng.randbytes(32)

    def is_configured(self, name: str) -> bool:
        """Whether cluster.toml or the environment has the user, and the metadata log has never had one of the name."""
        return name in self._passwords and name not in self._image().users

    def credential(self, name: str, mechanism: str) -> Credential | None:
        """What proofs of the user are checked with now; None without such a user."""
        if is_reserved(name):
            return None
        stored = self._image().users.get(name)
        if stored is not None:
            return stored.get(mechanism)
        password = self._passwords.get(name)
        if password is None:
            return None
        own = self._own.get((name, mechanism))
        if own is None:
            salt = hmac.digest(self._key, f"salt {mechanism} {name}".encode(), "sha256")[: scram.SALT_BYTES]
            own = self._own[name, mechanism] = scram.credential(password, salt=salt, mechanism=mechanism)
        return own

    def exists(self, name: str) -> bool:
        """Whether there is such a user, whatever its mechanisms."""
        return name in self._image().users or name in self._passwords

    def credential_or_fake(self, name: str, mechanism: str) -> Credential:
        """One that no password has, where there is no such user: nobody learns which users exist."""
        return self.credential(name, mechanism) or scram.unknown_user(self._key, name, mechanism)

    async def checked(self, name: str, password: str) -> Credential | None:
        """The credential that the password of the user has; None if it is wrong."""
        known = [found for each in scram.DIGESTS if (found := self.credential(name, each)) is not None]
        credential = known[0] if known else self.credential_or_fake(name, PLAIN_MECHANISM)
        place = hmac.digest(self._memory_key, sha256(name.encode()).digest() + password.encode(), "sha256")
        if known and self._remembered.get(place) == credential:
            self._remembered.move_to_end(place)
            return credential
        if not await self._workers.run(scram.has_password, credential, password) or not known:
            return None
        self._remembered[place] = credential
        if len(self._remembered) > REMEMBERED_MAX:
            self._remembered.popitem(last=False)
        return credential
