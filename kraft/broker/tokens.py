"""Bearer tokens of OAUTHBEARER and HTTP: JWTs that a key of the JWKS file has signed (PyJWT, kraft[security]).

The file is read again while the node runs, so that a key that is removed from it is worth nothing a second later. A
file that everybody may write, or that is no JWKS, changes nothing (event `jwks_not_loaded`); without a file there are
no keys.
Tokens without a signature are taken only where `sasl.oauthbearer.unsecured.tokens.enable` is set.
"""

from __future__ import annotations

import json
import stat
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from metadata.environment import Environment
from metadata.events import Events
from metadata.settings import BrokerSettings

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Only those with a public key: a shared secret would let each checker make tokens."""
TOKEN_LENGTH_MAX = 16_384
JWKS_BYTES_MAX = 1_048_576
LOOK_EVERY_MS = 500
"""How old what was read of the file may be."""
FILE_URL = "file://"
INSTALL = "pip install 'kraft[security]'"


class BadToken(Exception):
    """The token is not valid; the message has the reason, and nothing of the token."""


class _NotLoaded(Exception):
    """The JWKS file is refused, or cannot be read."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token that was valid when it was checked."""

    name: str
    expires_ms: int
    """On the wall clock."""
    key_text: str
    """The key that has signed it, as the file has it; empty without a signature."""


class Tokens:
    def __init__(
        self, environment: Environment, settings: Callable[[], BrokerSettings], *, events: Events | None = None
    ) -> None:
        self._clock = environment.clock
        self._files = environment.files
        self._settings = settings
        self._events = events
        self._read_ms: int | None = None
        self._keys: Mapping[str, Mapping[str, Any]] = {}
        self._wrong = ""
        """What was wrong with the file at the last look, as it was reported; empty: nothing."""

    def check(self, text: str) -> Token:
        """The token of a text. Raises BadToken."""
        if len(text) > TOKEN_LENGTH_MAX:
            raise BadToken(f"it is longer than {TOKEN_LENGTH_MAX} characters")
        header = _part(text, 0)
        settings = self._settings()
        if header.get("alg") == "none":
            if not settings.sasl_oauthbearer_unsecured_tokens_enable:
                raise BadToken("it has no signature")
            if text.count(".") != 2 or not text.endswith("."):
                raise BadToken("it is no JWT")
            return self._token(_part(text, 1), settings, "")
        claims, key = self._verified(text, header, settings)
        return self._token(claims, settings, key)

    def is_current(self, token: Token) -> bool:
        """Whether the token has not expired, and its key is still in the file."""
        if token.expires_ms <= self._clock.wall_ms():
            return False
        return not token.key_text or any(json.dumps(key) == token.key_text for key in self._current_keys().values())

    def _verified(
        self, text: str, header: Mapping[str, Any], settings: BrokerSettings
    ) -> tuple[Mapping[str, Any], str]:
        try:
            import jwt
        except ImportError as error:
            raise BadToken(f"the node cannot check signatures: {INSTALL}") from error
        keys = self._current_keys()
        key = keys.get(str(header.get("kid", ""))) or (next(iter(keys.values())) if len(keys) == 1 else None)
        if key is None:
            raise BadToken("no key of the JWKS file has its kid")
        audience, issuer = settings.sasl_oauthbearer_expected_audience, settings.sasl_oauthbearer_expected_issuer
        try:
            claims: Mapping[str, Any] = jwt.decode(
                text,
                jwt.PyJWK(dict(key)).key,
                algorithms=[str(key["alg"])] if key.get("alg") in ALGORITHMS else list(ALGORITHMS),
                audience=[each.strip() for each in audience.split(",")] if audience else None,
                issuer=issuer or None,
                leeway=settings.sasl_oauthbearer_clock_skew_seconds,
                options={"require": ["exp"], "verify_aud": bool(audience)},
            )
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise BadToken(str(error) or type(error).__name__) from error
        return claims, json.dumps(key)

    def _token(self, claims: Mapping[str, Any], settings: BrokerSettings, key: str) -> Token:
        name, expiry = claims.get(settings.sasl_oauthbearer_sub_claim_name), claims.get("exp")
        if not isinstance(name, str) or not 0 < len(name) <= 255:
            raise BadToken(f"it has no {settings.sasl_oauthbearer_sub_claim_name}")
        if not isinstance(expiry, int | float) or isinstance(expiry, bool) or not 0 < expiry < 2**40:
            raise BadToken("it has no exp")
        expires_ms = int(expiry * 1_000)
        if expires_ms + settings.sasl_oauthbearer_clock_skew_seconds * 1_000 <= self._clock.wall_ms():
            raise BadToken("it has expired")
        return Token(name, expires_ms, key)

    def _current_keys(self) -> Mapping[str, Mapping[str, Any]]:
        now_ms = self._clock.monotonic_ms()
        if self._read_ms is None or now_ms - self._read_ms >= LOOK_EVERY_MS:
            self._read_ms = now_ms
            self._look(self._settings().sasl_oauthbearer_jwks_endpoint_url)
        return self._keys

    def _look(self, url: str) -> None:
        wrong = ""
        try:
            self._keys = self._read(url)
        except _NotLoaded as error:
            wrong = str(error)
        if wrong and wrong != self._wrong and self._events is not None:
            self._events.emit("jwks_not_loaded", error=wrong)
        self._wrong = wrong

    def _read(self, url: str) -> Mapping[str, Mapping[str, Any]]:
        """The keys by kid; none without a file. Raises _NotLoaded."""
        if not url.startswith(FILE_URL):
            return {}
        path = url.removeprefix(FILE_URL)
        try:
            if self._files.permissions(path) & stat.S_IWOTH:
                raise _NotLoaded(f"{path} may be written by everybody on this machine: chmod o-w {path}")
            file = self._files.open(path, read_only=True)
            try:
                text = file.pread(0, JWKS_BYTES_MAX)
            finally:
                file.close()
            return {str(key.get("kid", place)): key for place, key in enumerate(json.loads(text)["keys"])}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = (
                isinstance(error, OSError) and error.strerror
            ) or "it is no JWKS, a JSON object with an array keys"
            raise _NotLoaded(f"{path}: {reason}") from error


def _part(text: str, place: int) -> Mapping[str, Any]:
    """A part of a JWT. Raises BadToken."""
    parts = text.split(".")
    try:
        found = json.loads(urlsafe_b64decode(parts[place] + "=" * (-len(parts[place]) % 4)))
    except (ValueError, IndexError, RecursionError) as error:
        raise BadToken("it is no JWT") from error
    if not isinstance(found, dict):
        raise BadToken("it is no JWT")
    return found
