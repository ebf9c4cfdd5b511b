"""Logins over any port: a user with a password or a token, and what bounds clients that guess.

A login is checked once, for a connection or a request; `is_current` is asked again while the connection lives, so that
it ends soon after the user, its password or the key of its token is gone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from kraft.broker.client_events import ClientEvents
from kraft.broker.principal import UserPrincipal
from kraft.broker.tokens import BadToken, Token, Tokens
from kraft.broker.users import Users
from kraft.protocol.operator_tokens import OPERATOR, is_operator_token, is_reserved, is_valid
from kraft.protocol.scram import Credential
from metadata.environment import Clock
from metadata.settings import BrokerSettings

GUESSES_MAX = 20
"""Failed logins of one address in a row before its logins are refused without a look."""
GUESSES_PER_S = 2
"""How many more that address may try in each second."""
ADDRESSES_MAX = 10_000
"""Addresses whose failures are counted; beyond it the oldest is forgotten."""


class LoginFailed(Exception):
    """The user does not exist, or the password or the token is wrong. Strangers do not get the message."""


class TooManyGuesses(LoginFailed):
    """The address has failed too often: what it sends is not looked at."""


@dataclass(frozen=True, slots=True)
class Login:
    """A principal that has proved who it is."""

    principal: UserPrincipal
    mechanism: str
    is_current: Callable[[], bool]
    expires_ms: int | None = None
    """On the wall clock; None: never."""


class Guesses:
    """Counts failed logins by address: a bucket for each, which empties with time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()
        """Address -> failures that still count, and when they were counted."""

    def check(self, host: str) -> None:
        """Raises TooManyGuesses."""
        if self._failures and self._count(host) >= GUESSES_MAX:
            raise TooManyGuesses("too many failed logins from this address")

    def failed(self, host: str) -> None:
        """One more login of the address has failed."""
        self._failures[host] = self._count(host) + 1, self._clock.monotonic_ms()
        self._failures.move_to_end(host)
        if len(self._failures) > ADDRESSES_MAX:
            self._failures.popitem(last=False)

    def _count(self, host: str) -> float:
        count, at_ms = self._failures.get(host, (0.0, 0))
        return max(0.0, count - GUESSES_PER_S * (self._clock.monotonic_ms() - at_ms) / 1_000)


class Logins:
    """The logins of one node."""

    def __init__(
        self,
        *,
        users: Users,
        tokens: Tokens,
        clock: Clock,
        settings: Callable[[], BrokerSettings],
        operator_key: bytes,
        events: ClientEvents | None = None,
    ) -> None:
        self.users = users
        self.tokens = tokens
        self.settings = settings
        self.guesses = Guesses(clock)
        self._clock = clock
        self._operator_key = operator_key
        self._events = events

    def note_failed(self, host: str, mechanism: str, user: str, reason: str) -> None:
        """Report a login that has failed. `user` is what the client sent; empty where it is not known."""
        if self._events is not None:
            known = user if self.users.exists(user) else ""
            self._events.login_failed(host=host, mechanism=mechanism, user=known, reason=reason)

    def by_proof(self, name: str, credential: Credential, host: str) -> Login:
        """A user whose proof was right."""
        return self._of_user(name, credential, host, credential.mechanism)

    async def by_password(self, name: str, password: str, host: str, *, mechanism: str) -> Login:
        """A user that sends the password itself. Raises LoginFailed."""
        self.guesses.check(host)
        credential = await self.users.checked(name, password)
        if credential is None:
            self.guesses.failed(host)
            raise LoginFailed("unknown user or wrong password")
        return self._of_user(name, credential, host, mechanism)

    def by_token(self, text: str, host: str, *, mechanism: str) -> Login:
        """The user that a token names, or the operator of the cluster. Raises LoginFailed."""
        is_operator = is_operator_token(text)
        if is_operator and is_valid(self._operator_key, text, now_ms=self._clock.wall_ms()):
            return Login(UserPrincipal(OPERATOR, host), mechanism, is_current=lambda: True)
        self.guesses.check(host)
        if is_operator:
            self.guesses.failed(host)
            raise LoginFailed("the token is not valid")
        try:
            token = self.tokens.check(text)
        except BadToken as error:
            self.guesses.failed(host)
            raise LoginFailed(f"the token is not valid: {error}") from error
        if is_reserved(token.name):
            raise LoginFailed("the token is not valid")
        return self._of_token(token, host, mechanism)

    def _of_user(self, name: str, credential: Credential, host: str, mechanism: str) -> Login:
        is_current = partial(self._is_current, name, credential)
        return Login(UserPrincipal(name, host), mechanism, is_current)

    def _is_current(self, name: str, credential: Credential) -> bool:
        return self.users.credential(name, credential.mechanism) == credential

    def _of_token(self, token: Token, host: str, mechanism: str) -> Login:
        is_current = partial(self.tokens.is_current, token)
        return Login(UserPrincipal(token.name, host), mechanism, is_current, token.expires_ms)
