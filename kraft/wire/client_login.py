"""The login of one Kafka client: SaslHandshake, then SaslAuthenticate until the mechanism is done (KIP-43, KIP-152).
After version 0 of SaslHandshake tokens come and go in frames of their own, without a header.

A connection logs in before any other request, and may log in again as the same user before its session ends (KIP-368).
Any other order is ILLEGAL_SASL_STATE 34; a login that fails is SASL_AUTHENTICATION_FAILED 58, and ends the connection.
"""

from __future__ import annotations

import random
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from kraft.broker.logins import Login, LoginFailed, Logins
from kraft.protocol import scram
from kraft.protocol.errors import IllegalSaslState, KafkaError, SaslAuthenticationFailed, UnsupportedSaslMechanism
from kraft.protocol.messages.sasl_authenticate_request import SaslAuthenticateRequestData
from kraft.protocol.messages.sasl_authenticate_response import SaslAuthenticateResponseData
from kraft.protocol.messages.sasl_handshake_request import SaslHandshakeRequestData
from kraft.protocol.messages.sasl_handshake_response import SaslHandshakeResponseData
from kraft.protocol.operator_tokens import OPERATOR
from kraft.protocol.scram import ScramFailed, ScramServer
from metadata.environment import Clock

PLAIN, OAUTHBEARER = "PLAIN", "OAUTHBEARER"
MECHANISMS = (*scram.DIGESTS, PLAIN, OAUTHBEARER)
_BEARER = "auth=Bearer "
_INVALID_TOKEN = b'{"status":"invalid_token"}'


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginRules:
    """What the logins of a listener have in common."""

    logins: Logins
    mechanisms: Sequence[str]
    clock: Clock
    rng: random.Random


class ClientLogin:
    """The login of one connection, and its repetitions."""

    def __init__(self, rules: LoginRules, *, host: str) -> None:
        self._rules = rules
        self._host = host
        self._mechanism: str | None = None
        """Chosen, and not done yet."""
        self._scram: tuple[ScramServer, str, scram.Credential] | None = None
        self._user = ""
        """The user that the client has named."""
        self._refusal: LoginFailed | None = None
        self.login: Login | None = None
        self.has_failed = False
        """The connection has to be closed."""
        self.ends_ms: int | None = None
        """When the session is over, on the monotonic clock; None: never."""

    @property
    def delay_ms(self) -> int:
        """The wait before the answer of a login that failed."""
        return self._rules.logins.settings().connection_failed_authentication_delay_ms

    @property
    def is_current(self) -> bool:
        """Whether requests of the connection are still served."""
        if self.ends_ms is not None and self._rules.clock.monotonic_ms() >= self.ends_ms:
            return False
        return self.login is not None and self.login.is_current()

    def handshake(self, message: SaslHandshakeRequestData) -> SaslHandshakeResponseData:
        """The answer to SaslHandshake: the mechanism is chosen, or refused with 33 or 34."""
        code = 0
        if self._mechanism is not None:
            code = IllegalSaslState.code
        elif message.mechanism not in self._rules.mechanisms:
            code = UnsupportedSaslMechanism.code
        elif self.login is not None and message.mechanism != self.login.mechanism:
            code = IllegalSaslState.code
        self.has_failed = bool(code)
        if code:
            self._note_failed(
                message.mechanism,
                f"the mechanism is not one of {', '.join(self._rules.mechanisms)}"
                if code == UnsupportedSaslMechanism.code
                else "it is not the turn of SaslHandshake",
            )
        self._mechanism = None if code else message.mechanism
        return SaslHandshakeResponseData.make(error_code=code, mechanisms=tuple(self._rules.mechanisms))

    async def authenticate(self, message: SaslAuthenticateRequestData) -> SaslAuthenticateResponseData:
        """The answer to SaslAuthenticate; `login` is there when the mechanism is done."""
        try:
            token = await self._step(bytes(message.auth_bytes))
        except (ScramFailed, LoginFailed) as error:
            return self._failed(SaslAuthenticationFailed(self._words), str(error))
        except UnicodeDecodeError:
            return self._failed(SaslAuthenticationFailed(self._words), "the token is no UTF-8")
        except KafkaError as error:
            return self._failed(error, error.message)
        return SaslAuthenticateResponseData.make(
            error_code=0, error_message=None, auth_bytes=token, session_lifetime_ms=self._lifetime_ms()
        )

    async def raw(self, token: bytes) -> bytes | None:
        """The answer to a token without a header; None when the login has failed, which Kafka does not answer."""
        answer = await self.authenticate(SaslAuthenticateRequestData.make(auth_bytes=token))
        return None if answer.error_code else bytes(answer.auth_bytes)

    @property
    def _words(self) -> str:
        """Kafka's words: the same for an unknown user and a wrong password, so that nobody learns which users exist."""
        match self._mechanism:
            case "PLAIN":
                return "Authentication failed: Invalid username or password"
            case "OAUTHBEARER":
                return _INVALID_TOKEN.decode()
        what = "authentication" if self.login is None else "re-authentication"
        return f"Authentication failed during {what} due to invalid credentials with SASL mechanism {self._mechanism}"

    def _failed(self, error: KafkaError, reason: str) -> SaslAuthenticateResponseData:
        self._note_failed(self._mechanism or "", reason)
        self.has_failed, self._mechanism, self.login = True, None, None
        return SaslAuthenticateResponseData.make(
            error_code=error.code, error_message=error.message, auth_bytes=b"", session_lifetime_ms=0
        )

    def _note_failed(self, mechanism: str, reason: str) -> None:
        self._rules.logins.note_failed(self._host, mechanism, self._user, reason)

    async def _step(self, token: bytes) -> bytes:
        match self._mechanism:
            case None:
                raise IllegalSaslState("SaslAuthenticate without a mechanism; send SaslHandshake first")
            case "PLAIN":
                return await self._plain(token)
            case "OAUTHBEARER":
                return self._bearer(token)
        return self._proof(token, self._mechanism)

    def _proof(self, token: bytes, mechanism: str) -> bytes:
        logins = self._rules.logins
        if self._scram is None:
            logins.guesses.check(self._host)
            name = self._user = scram.user_of(token)
            credential = logins.users.credential_or_fake(name, mechanism)
            nonce = b64encode(self._rules.rng.randbytes(scram.NONCE_BYTES)).decode()
            server = ScramServer(credential, user=name, nonce=nonce)
            self._scram = server, name, credential
            return server.first(token)
        (server, name, credential), self._scram = self._scram, None
        try:
            final = server.final(token)
        except ScramFailed:
            logins.guesses.failed(self._host)
            raise
        self._done(logins.by_proof(name, credential, self._host))
        return final

    async def _plain(self, token: bytes) -> bytes:
        parts = token.decode().split("\0")
        if len(parts) != 3 or not parts[1] or not parts[2]:
            raise LoginFailed("PLAIN is an authorization id, a user and a password")
        other, name, password = parts
        if other not in ("", name) or len(name) > scram.USER_LENGTH_MAX or name == OPERATOR:
            raise LoginFailed("the authorization id is another user")
        self._user = name
        self._done(await self._rules.logins.by_password(name, password, self._host, mechanism=PLAIN))
        return b""

    def _bearer(self, token: bytes) -> bytes:
        """RFC 7628: after an error the client sends one more message, and only then the login fails."""
        if self._refusal is not None:
            raise self._refusal
        fields = token.decode().split("\x01")
        bearer = next((each.removeprefix(_BEARER) for each in fields[1:] if each.startswith(_BEARER)), "")
        try:
            self._done(self._rules.logins.by_token(bearer, self._host, mechanism=OAUTHBEARER))
        except LoginFailed as refusal:
            self._refusal = refusal
            return _INVALID_TOKEN
        return b""

    def _done(self, login: Login) -> None:
        if self.login is not None and self.login.principal != login.principal:
            known, asked = self.login.principal, login.principal
            raise SaslAuthenticationFailed(
                "Cannot change principals during re-authentication from "
                f"{known.type}.{known.name}: {asked.type}.{asked.name}"
            )
        self.login, self._mechanism = login, None
        lifetime_ms = self._lifetime_ms()
        self.ends_ms = self._rules.clock.monotonic_ms() + lifetime_ms if lifetime_ms else None

    def _lifetime_ms(self) -> int:
        """What is left of the session, for the client; 0: it has no end."""
        if self.login is None or self._mechanism is not None:
            return 0
        limits = [limit for limit in (self._rules.logins.settings().connections_max_reauth_ms,) if limit > 0]
        if self.login.expires_ms is not None:
            limits.append(max(1, self.login.expires_ms - self._rules.clock.wall_ms()))
        return min(limits, default=0)
