"""The login of one Kafka client: SaslHandshake, then SaslAuthenticate until the mechanism is done (KIP-43, KIP-152).
After version 0 of SaslHandshake tokens come and go in frames of their own, without a header.

A connection logs in before any other request. Where its session has an end it may log in again before it, as the same
user (KIP-368). Any other order is ILLEGAL_SASL_STATE 34; a login that fails is SASL_AUTHENTICATION_FAILED 58, and ends
the connection. Texts are those of Kafka 4.4 (`tests/unit/wire/test_login_answers.py`).
"""

from __future__ import annotations

import random
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kraft.broker.logins import Login, LoginFailed, Logins
from kraft.protocol import scram
from kraft.protocol.errors import IllegalSaslState, KafkaError, SaslAuthenticationFailed, UnsupportedSaslMechanism
from kraft.protocol.messages.sasl_authenticate_request import SaslAuthenticateRequestData
from kraft.protocol.messages.sasl_authenticate_response import SaslAuthenticateResponseData
from kraft.protocol.messages.sasl_handshake_request import SaslHandshakeRequestData
from kraft.protocol.messages.sasl_handshake_response import SaslHandshakeResponseData
from kraft.protocol.scram import ScramFailed, ScramServer
from metadata.environment import Clock

PLAIN, OAUTHBEARER = "PLAIN", "OAUTHBEARER"
MECHANISMS = (*scram.DIGESTS, PLAIN, OAUTHBEARER)
PLAIN_PARTS: Final = 3
AFTER_LOGIN: Final = IllegalSaslState("SaslAuthenticate request received after successful authentication")
_INITIAL_RESPONSE: Final = re.compile(r"n,(?:a=([^,\x00\x01]*))?,\x01((?:[A-Za-z]+=[\x20-\x7e\t\r\n]+\x01)*)\x01")
"""The first message of OAUTHBEARER: an authorization id, and pairs of a key and a value (RFC 7628)."""
_BEARER: Final = re.compile(r"bearer\s+(\S+)", re.IGNORECASE)
_NO_MORE: Final = b"\x01"
"""What a client sends that has learned that its token is not valid (RFC 7628)."""
_INVALID_TOKEN: Final = b'{"status":"invalid_token"}'
_TOKEN_LOGIN: Final = b"tokenauth=true"
"""Extension of SCRAM: the user is the id of a delegation token (KIP-48), of which there are none here."""


class _Malformed(LoginFailed):
    """What the client has sent is wrong for any user: it gets the message."""


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
    def awaits_token(self) -> bool:
        """Whether a mechanism was chosen, and is not done."""
        return self._mechanism is not None

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
        mechanisms = () if code == IllegalSaslState.code else tuple(self._rules.mechanisms)
        return SaslHandshakeResponseData.make(error_code=code, mechanisms=mechanisms)

    async def authenticate(self, message: SaslAuthenticateRequestData) -> SaslAuthenticateResponseData:
        """The answer to SaslAuthenticate; `login` is there when the mechanism is done."""
        try:
            token = await self._step(bytes(message.auth_bytes))
        except _Malformed as error:
            return self._failed(SaslAuthenticationFailed(str(error)), str(error))
        except (ScramFailed, LoginFailed) as error:
            return self._failed(SaslAuthenticationFailed(self._words), str(error))
        except UnicodeDecodeError:
            return self._failed(SaslAuthenticationFailed(self._words), "the token is no UTF-8")
        except KafkaError as error:
            return self._failed(error, error.message)
        return SaslAuthenticateResponseData.make(
            error_code=0, error_message="", auth_bytes=token, session_lifetime_ms=self._lifetime_ms()
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
        return self._invalid_credentials

    @property
    def _invalid_credentials(self) -> str:
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
            if _TOKEN_LOGIN in token.split(b","):
                raise ScramFailed("there are no delegation tokens")
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
        parts = token.decode().split("\0", PLAIN_PARTS)
        if len(parts) != PLAIN_PARTS:
            raise _Malformed(f"Invalid SASL/PLAIN response: expected {PLAIN_PARTS} tokens, got {len(parts)}")
        other, name, password = parts
        if not name or not password:
            raise _Malformed(f"Authentication failed: {'password' if name else 'username'} not specified")
        if len(name) > scram.USER_LENGTH_MAX:
            raise LoginFailed("there can be no such user")
        self._user = name
        login = await self._rules.logins.by_password(name, password, self._host, mechanism=PLAIN)
        if other not in ("", name):
            raise _Malformed(
                "Authentication failed: Client requested an authorization id that is different from username"
            )
        self._done(login)
        return b""

    def _bearer(self, token: bytes) -> bytes:
        """RFC 7628: after an error the client sends one more message, and only then the login fails; Kafka takes
        another token, too."""
        if self._refusal is not None and token == _NO_MORE:
            raise self._refusal
        self._refusal = None
        other, bearer = self._initial_response(token)
        try:
            login = self._rules.logins.by_token(bearer, self._host, mechanism=OAUTHBEARER)
        except LoginFailed as refusal:
            self._refusal = refusal
            return _INVALID_TOKEN
        if other not in ("", login.principal.name):
            raise _Malformed(
                f"Authentication failed: Client requested an authorization id ({other}) that is different from the "
                f"token's principal name ({login.principal.name})"
            )
        self._done(login)
        return b""

    def _initial_response(self, token: bytes) -> tuple[str, str]:
        """The authorization id and the token. Raises _Malformed."""
        found = _INITIAL_RESPONSE.fullmatch(token.decode(errors="replace"))
        pairs = [] if found is None else [each.partition("=") for each in found[2].split("\x01") if each]
        values = [_BEARER.fullmatch(value) for key, _, value in pairs if key == "auth"]
        if found is None or len(values) != 1 or values[0] is None:
            raise _Malformed(self._invalid_credentials)
        return found[1] or "", values[0][1]

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
