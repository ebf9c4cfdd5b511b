"""Logins over HTTP: Basic with the users of the Kafka port, Bearer with its tokens, a client certificate.

A request is checked before anything of it is done. What was checked for a connection is remembered with it: the next
request with the same header costs a comparison.
"""

from __future__ import annotations

import hmac
from base64 import b64decode
from dataclasses import dataclass

from aiohttp import web

from kraft.broker.logins import Login, LoginFailed, Logins, TooManyGuesses
from kraft.broker.principal import ask_for
from kraft.http.connection import Connection
from kraft.http.errors import HttpError

CREDENTIALS_LENGTH_MAX = 16_384
OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""Probes of a machine that has no user: they report nothing but whether the node serves."""
_CHALLENGE = {"WWW-Authenticate": 'Basic realm="kraft", Bearer realm="kraft"'}


@dataclass(frozen=True, slots=True)
class Remembered:
    """The login of a connection, and the header that it was made from."""

    header: str
    login: Login


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAuthentication:
    logins: Logins
    is_encrypted: bool

    async def authenticate(self, request: web.BaseRequest) -> None:
        """Gives the connection its principal. Raises HttpError 401, or 429 for an address that guesses."""
        connection = request.protocol
        if not isinstance(connection, Connection) or request.path in OPEN_PATHS:
            return
        header = request.headers.get("Authorization")
        if header is None:
            if not connection.has_certificate:
                raise HttpError(401, "log in with a user (Basic) or a token (Bearer)", headers=_CHALLENGE)
            connection.principal, connection.remembered = connection.certified, None
        else:
            known = connection.remembered
            if not (isinstance(known, Remembered) and _is_same(header, known.header) and known.login.is_current()):
                connection.remembered = None
                known = Remembered(header, await self._login(header, connection.certified.host))
                connection.remembered = known
            connection.principal = known.login.principal
        ask_for(connection.principal)

    def check_again(self, request: web.BaseRequest) -> None:
        """Raises HttpError 401 when the login of a request that is under way is over."""
        known = request.protocol.remembered if isinstance(request.protocol, Connection) else None
        if isinstance(known, Remembered) and not known.login.is_current():
            raise HttpError(401, "the login is over: its user, password or token has gone", headers=_CHALLENGE)

    async def _login(self, header: str, host: str) -> Login:
        scheme, _, credentials = header.partition(" ")
        credentials = credentials.strip()
        try:
            if len(credentials) > CREDENTIALS_LENGTH_MAX:
                raise LoginFailed("the header is too long")
            if scheme.lower() == "bearer":
                return self.logins.by_token(credentials, host, mechanism="Bearer")
            if scheme.lower() == "basic":
                return await self._by_password(credentials, host)
        except TooManyGuesses as error:
            self._note_failed(host, scheme, credentials, str(error))
            raise HttpError(429, str(error), headers={"Retry-After": "1"}) from error
        except LoginFailed as error:
            self._note_failed(host, scheme, credentials, str(error))
            raise HttpError(401, f"not logged in: {error}", headers=_CHALLENGE) from error
        raise HttpError(401, "Authorization is Basic or Bearer", headers=_CHALLENGE)

    def _note_failed(self, host: str, scheme: str, credentials: str, reason: str) -> None:
        try:
            user = b64decode(credentials).decode().partition(":")[0] if scheme.lower() == "basic" else ""
        except ValueError:
            user = ""
        self.logins.note_failed(host, scheme.title(), user, reason)

    async def _by_password(self, credentials: str, host: str) -> Login:
        if not (self.is_encrypted or self.logins.settings().sasl_plain_without_tls_enable):
            raise LoginFailed(
                "Basic sends the password itself, and this port has no TLS (sasl.plain.without.tls.enable allows it)"
            )
        try:
            name, colon, password = b64decode(credentials, validate=True).decode().partition(":")
        except ValueError as error:
            raise LoginFailed("the header is no user and password") from error
        if not colon or not name:
            raise LoginFailed("unknown user or wrong password")
        return await self.logins.by_password(name, password, host, mechanism="Basic")


def _is_same(header: str, other: str) -> bool:
    return hmac.compare_digest(header.encode(), other.encode())
