"""The login of one client: its order, its repetition as the same user, its end, and guesses by address."""

from __future__ import annotations

import asyncio
import random
import struct
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from kraft.broker.logins import GUESSES_MAX, GUESSES_PER_S, Logins
from kraft.broker.tokens import Tokens
from kraft.broker.users import Users
from kraft.protocol.errors import IllegalSaslState, SaslAuthenticationFailed, UnsupportedSaslMechanism
from kraft.protocol.messages.sasl_authenticate_request import SaslAuthenticateRequestData
from kraft.protocol.messages.sasl_authenticate_response import SaslAuthenticateResponseData
from kraft.protocol.messages.sasl_handshake_request import SaslHandshakeRequestData
from kraft.protocol.operator_tokens import OPERATOR, VALID_S, is_valid, make_token
from kraft.protocol.scram import ScramClient, ScramFailed
from kraft.wire.api_handler import ClientConnection
from kraft.wire.client_authentication import ClientAuthentication
from kraft.wire.client_login import ClientLogin, LoginRules
from metadata.image import MetadataImage
from metadata.settings import broker_settings
from metadata.unauthenticated import KAFKA_LISTENER, UnauthenticatedConnections
from tests.unit.replication.harness.virtual import environment, run
from tests.unit.wire.test_session_bounds import Line

KEY = b"k" * 32


@dataclass
class World:
    """A clock that is moved by hand, workers that work at once, and random numbers."""

    now_ms: int = 1_000_000
    rng: random.Random = field(default_factory=lambda: random.Random(1))
    files: Any = None

    def monotonic_ms(self) -> int:
        return self.now_ms

    def wall_ms(self) -> int:
        return self.now_ms

    @property
    def clock(self) -> World:
        return self

    @property
    def workers(self) -> World:
        return self

    async def run(self, function: Any, *args: Any) -> Any:
        return function(*args)


class Server:
    def __init__(
        self, mechanisms: tuple[str, ...] = ("SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"), **settings: object
    ) -> None:
        self.world: Any = World()
        self.passwords = {"alice": "pencil", "bob": "pen"}
        chosen = broker_settings({name.replace("_", "."): value for name, value in settings.items()})
        users = Users(self.world, image=MetadataImage, passwords=self.passwords, key=KEY)
        tokens = Tokens(self.world, lambda: chosen)
        logins = Logins(users=users, tokens=tokens, clock=self.world, settings=lambda: chosen, operator_key=KEY)
        self.rules = LoginRules(logins=logins, mechanisms=mechanisms, clock=self.world, rng=self.world.rng)

    def login(self, host: str = "h") -> ClientLogin:
        return ClientLogin(self.rules, host=host)


def choose(login: ClientLogin, mechanism: str) -> int:
    return login.handshake(SaslHandshakeRequestData.make(mechanism=mechanism)).error_code


def send(login: ClientLogin, token: bytes) -> SaslAuthenticateResponseData:
    return asyncio.run(login.authenticate(SaslAuthenticateRequestData.make(auth_bytes=token)))


def plain(login: ClientLogin, user: str, password: str) -> SaslAuthenticateResponseData:
    assert choose(login, "PLAIN") == 0
    return send(login, f"\0{user}\0{password}".encode())


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_scram_proves_both_sides(mechanism: str) -> None:
    login = Server().login()
    client = ScramClient(user="alice", password="pencil", nonce="abc", mechanism=mechanism)
    assert choose(login, mechanism) == 0
    first = send(login, client.first())
    assert login.login is None
    client.verify(bytes(send(login, client.final(bytes(first.auth_bytes))).auth_bytes))
    assert login.login is not None
    assert str(login.login.principal) == "User:alice"
    liar = ScramClient(user="alice", password="pencil", nonce="abc", mechanism=mechanism)
    with pytest.raises(ScramFailed):
        liar.verify(b"v=" + b"QUFB" * 8)


def test_the_order_is_kept() -> None:
    login = Server().login()
    assert send(login, b"\0alice\0pencil").error_code == IllegalSaslState.code
    assert choose(Server().login(), "GSSAPI") == UnsupportedSaslMechanism.code
    login = Server().login()
    assert choose(login, "PLAIN") == 0
    assert choose(login, "PLAIN") == IllegalSaslState.code


def test_an_unknown_user_and_a_wrong_password_look_the_same() -> None:
    answers = [plain(Server().login(), user, "x") for user in ("alice", "nobody")]
    assert {each.error_code for each in answers} == {SaslAuthenticationFailed.code}
    assert {each.error_message for each in answers} == {"Authentication failed: Invalid username or password"}
    server = Server()
    firsts = []
    for _ in range(2):
        login = server.login()
        choose(login, "SCRAM-SHA-256")
        firsts.append(bytes(send(login, b"n,,n=nobody,r=abc").auth_bytes).partition(b",s=")[2])
    assert firsts[0] == firsts[1], "the salt of a user that does not exist is the same at each try"


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"])
def test_no_password_makes_a_client_the_user_of_the_nodes(mechanism: str) -> None:
    server = Server()
    server.passwords[OPERATOR] = "pencil"
    login = server.login()
    if mechanism == "PLAIN":
        assert plain(login, OPERATOR, "pencil").error_code == SaslAuthenticationFailed.code
    else:
        client = ScramClient(user=OPERATOR, password="pencil", nonce="abc", mechanism=mechanism)
        assert choose(login, mechanism) == 0
        first = send(login, client.first())
        assert send(login, client.final(bytes(first.auth_bytes))).error_code == SaslAuthenticationFailed.code
    assert login.login is None


def test_a_token_without_a_header_has_an_answer_without_one() -> None:
    login = Server().login()
    assert choose(login, "PLAIN") == 0
    assert asyncio.run(login.raw(b"\0alice\0pencil")) == b""
    assert login.login is not None
    login = Server().login()
    assert choose(login, "SCRAM-SHA-256") == 0
    assert asyncio.run(login.raw(b"n,,n=alice,r=abc")).startswith(b"r=abc")
    assert asyncio.run(login.raw(b"c=biws,r=abc,p=AAAA")) is None
    assert login.has_failed


def test_the_words_are_kafkas() -> None:
    login = Server().login()
    assert choose(login, "SCRAM-SHA-512") == 0
    words = "Authentication failed during {} due to invalid credentials with SASL mechanism SCRAM-SHA-{}"
    assert send(login, b"no proof").error_message == words.format("authentication", 512)
    login = Server().login()
    assert plain(login, "alice", "pencil").error_code == 0
    assert send(login, b"x").error_code == IllegalSaslState.code


def test_a_login_is_repeated_as_the_same_user_only_and_ends() -> None:
    server = Server(connections_max_reauth_ms=60_000)
    login = server.login()
    assert plain(login, "alice", "pencil").session_lifetime_ms == 60_000
    server.world.now_ms += 59_999
    assert login.is_current
    assert plain(login, "alice", "pencil").error_code == 0
    server.world.now_ms += 59_999
    assert login.is_current
    refused = plain(login, "bob", "pen")
    assert refused.error_code == SaslAuthenticationFailed.code
    assert refused.error_message == "Cannot change principals during re-authentication from User.alice: User.bob"
    assert not login.is_current
    other = server.login()
    assert plain(other, "bob", "pen").error_code == 0
    server.world.now_ms += 60_000
    assert not other.is_current


def test_a_user_that_is_removed_is_not_current() -> None:
    server = Server()
    login = server.login()
    plain(login, "alice", "pencil")
    assert login.is_current
    del server.passwords["alice"]
    assert not login.is_current


def test_an_address_that_guesses_waits_and_others_do_not() -> None:
    server = Server()
    for _ in range(GUESSES_MAX):
        plain(server.login("bad"), "alice", "x")
    assert plain(server.login("bad"), "alice", "pencil").error_code == SaslAuthenticationFailed.code
    assert plain(server.login("good"), "alice", "pencil").error_code == 0
    server.world.now_ms += 1_000 // GUESSES_PER_S
    assert plain(server.login("bad"), "alice", "pencil").error_code == 0


def test_a_token_of_the_operator_is_short_lived() -> None:
    token = make_token(KEY, now_ms=1_000_000)
    assert is_valid(KEY, token, now_ms=1_000_000)
    assert not is_valid(b"other", token, now_ms=1_000_000)
    assert not is_valid(KEY, token, now_ms=1_000_000 + VALID_S * 1_000)
    assert not is_valid(KEY, make_token(KEY, now_ms=10_000_000), now_ms=1_000_000)
    assert not is_valid(KEY, token[:-1] + "g", now_ms=1_000_000)


@pytest.mark.parametrize("version", [0, 1])
def test_a_login_that_fails_is_answered_after_the_delay(version: int) -> None:
    """Without headers it is not answered, and its connection ends after the same time."""

    async def main() -> None:
        around, line = environment(1), Line()
        server = Server(connection_failed_authentication_delay_ms=700)
        handlers: Any = SimpleNamespace(metadata_offset=0)
        login = ClientAuthentication(around, handlers, UnauthenticatedConnections(KAFKA_LISTENER))
        client = ClientConnection(peer=line.peer, listener="L")
        handshake = struct.pack(">hhihh5s", 17, version, 1, -1, 5, b"PLAIN")
        token = b"\0alice\0wrong"
        frame = token if version == 0 else struct.pack(">hhihi", 36, 0, 2, -1, len(token)) + token
        line.put(frame)
        begun_ms = around.clock.monotonic_ms()
        connection: Any = line
        first = memoryview(handshake)
        assert await login.log_in(server.rules, connection, first, client, takes_nodes=False) is None
        assert around.clock.monotonic_ms() - begun_ms == 700
        assert client.login is not None
        assert client.login.login is None
        assert len(line.sent) == 1 + version

    run(main())
