"""What Kafka 4.4 answers to logins that are wrong, recorded at a SASL_PLAINTEXT listener with all mechanisms.

Ours differs on purpose, as the last table has it: nobody learns which users exist, SCRAM takes no authorization id, and
what Kafka leaves without an answer gets one.
"""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64encode
from collections.abc import Sequence

import pytest

from kraft.protocol.errors import IllegalSaslState
from kraft.protocol.messages.sasl_authenticate_request import SaslAuthenticateRequestData
from kraft.protocol.messages.sasl_handshake_request import SaslHandshakeRequestData
from kraft.wire.api_handler import Call, ClientConnection
from kraft.wire.client_login import ClientLogin
from kraft.wire.handlers import security
from tests.unit.wire.test_client_login import Server

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
INVALID = "Authentication failed during authentication due to invalid credentials with SASL mechanism {}"
SCRAM, OAUTH = INVALID.format("SCRAM-SHA-256"), INVALID.format("OAUTHBEARER")
WRONG = "Authentication failed: Invalid username or password"
OTHER = "Authentication failed: Client requested an authorization id that is different from username"
TOKEN_REFUSED = '{"status":"invalid_token"}'
AFTER = "SaslAuthenticate request received after successful authentication"


def part(**fields: object) -> bytes:
    return urlsafe_b64encode(json.dumps(fields).encode()).rstrip(b"=")


def bearer(token: bytes = b"", begin: bytes = b"n,,", more: bytes = b"") -> bytes:
    found = token or part(alg="none") + b"." + part(sub="alice", exp=9_999) + b"."
    return begin + b"\x01auth=Bearer " + found + b"\x01" + more + b"\x01"


NO_TOKEN = bearer(b"x")
NO_MORE = b"\x01"
RECORDED: Sequence[tuple[str, Sequence[bytes], int, str]] = [
    ("PLAIN", [b"\0alice\0pencil"], 0, ""),
    ("PLAIN", [b"alice\0alice\0pencil"], 0, ""),
    ("PLAIN", [b"\0alice\0x"], 58, WRONG),
    ("PLAIN", [b"\0nobody\0x"], 58, WRONG),
    ("PLAIN", [b"\0al\xff\xfe\0pencil"], 58, WRONG),
    ("PLAIN", [b"\0alice\0"], 58, "Authentication failed: password not specified"),
    ("PLAIN", [b"\0\0x"], 58, "Authentication failed: username not specified"),
    ("PLAIN", [b"bob\0alice\0pencil"], 58, OTHER),
    ("PLAIN", [b"bob\0alice\0x"], 58, WRONG),
    ("PLAIN", [b""], 58, "Invalid SASL/PLAIN response: expected 3 tokens, got 1"),
    ("PLAIN", [b"alice\0pencil"], 58, "Invalid SASL/PLAIN response: expected 3 tokens, got 2"),
    ("PLAIN", [b"\0alice\0pencil\0"], 58, "Invalid SASL/PLAIN response: expected 3 tokens, got 4"),
    ("PLAIN", [b"\0alice\0pencil\0\0"], 58, "Invalid SASL/PLAIN response: expected 3 tokens, got 4"),
    ("SCRAM-SHA-256", [b"n,,n=alice,r=abc"], 0, ""),
    ("SCRAM-SHA-256", [b"n,,n=alice,r=abc,tokenauth=false"], 0, ""),
    ("SCRAM-SHA-256", [b"n,,n=alice,r=abc,tokenauth=true"], 58, SCRAM),
    ("SCRAM-SHA-256", [b"no proof"], 58, SCRAM),
    ("SCRAM-SHA-256", [b""], 58, SCRAM),
    ("SCRAM-SHA-256", [b"y,,n=alice,r=abc"], 58, SCRAM),
    ("SCRAM-SHA-256", [b"p=tls-unique,,n=alice,r=abc"], 58, SCRAM),
    ("SCRAM-SHA-256", [b"n,,n=alice"], 58, SCRAM),
    ("SCRAM-SHA-256", [b"n,,n=,r=abc"], 58, SCRAM),
    ("SCRAM-SHA-256", [b"n,,n=al=ce,r=abc"], 58, SCRAM),
    ("SCRAM-SHA-256", [b"n,,n=al\xff,r=abc"], 58, SCRAM),
    ("SCRAM-SHA-256", [b"n,,n=alice,r=abc", b"x"], 58, SCRAM),
    ("SCRAM-SHA-256", [b"n,,n=alice,r=abc", b""], 58, SCRAM),
    ("SCRAM-SHA-256", [b"n,,n=alice,r=abc", b"c=biws,r=other,p=AAAA"], 58, SCRAM),
    ("SCRAM-SHA-512", [b"n,,n=alice,r=abc", b"x"], 58, INVALID.format("SCRAM-SHA-512")),
    ("OAUTHBEARER", [bearer()], 0, ""),
    ("OAUTHBEARER", [bearer(begin=b"n,a=alice,")], 0, ""),
    ("OAUTHBEARER", [bearer(more=b"a=b\x01")], 0, ""),
    ("OAUTHBEARER", [NO_TOKEN], 0, ""),
    ("OAUTHBEARER", [NO_TOKEN, NO_MORE], 58, TOKEN_REFUSED),
    ("OAUTHBEARER", [NO_TOKEN, bearer()], 0, ""),
    ("OAUTHBEARER", [bearer(part(alg="none") + b"." + part(sub="alice", exp=9) + b"."), NO_MORE], 58, TOKEN_REFUSED),
    ("OAUTHBEARER", [bearer(part(alg="RS256") + b"." + part(sub="alice") + b".AAAA"), NO_MORE], 58, TOKEN_REFUSED),
    ("OAUTHBEARER", [b"garbage"], 58, OAUTH),
    ("OAUTHBEARER", [b""], 58, OAUTH),
    ("OAUTHBEARER", [b"n,,\x01\x01"], 58, OAUTH),
    ("OAUTHBEARER", [b"n,,\x01auth=Bearer \xff\x01\x01"], 58, OAUTH),
    ("OAUTHBEARER", [bearer(more=b"auth=b\x01")], 58, OAUTH),
    (
        "OAUTHBEARER",
        [bearer(begin=b"n,a=bob,")],
        58,
        "Authentication failed: Client requested an authorization id (bob) that is different from the token's "
        "principal name (alice)",
    ),
]
"""Mechanism, tokens that are sent one after the other, and the last answer."""
ON_PURPOSE: Sequence[tuple[str, Sequence[bytes], int, str, str]] = [
    ("SCRAM-SHA-256", [b"n,,n=nobody,r=abc"], 0, "", "Kafka refuses it at once"),
    ("SCRAM-SHA-256", [b"n,a=alice,n=alice,r=abc"], 58, SCRAM, "Kafka goes on"),
    ("SCRAM-SHA-256", [b"n,a=bob,n=alice,r=abc"], 58, SCRAM, OTHER),
    ("SCRAM-SHA-256", [b"n,,n=alice,r=abc", b"c=biws,r=,p=AAAA"], 58, SCRAM, "a short proof: Kafka closes"),
    ("OAUTHBEARER", [b"n,,\x01auth=Basic abc\x01\x01"], 58, OAUTH, "Kafka closes"),
]
"""The last column is what Kafka does."""


def a_login(**settings: object) -> ClientLogin:
    return Server(MECHANISMS, sasl_oauthbearer_unsecured_tokens_enable=True, **settings).login()


def answered(login: ClientLogin, mechanism: str, tokens: Sequence[bytes]) -> tuple[int, str | None]:
    assert login.handshake(SaslHandshakeRequestData.make(mechanism=mechanism)).error_code == 0
    answers = [asyncio.run(login.authenticate(SaslAuthenticateRequestData.make(auth_bytes=token))) for token in tokens]
    assert all(each.error_code == 0 for each in answers[:-1])
    assert login.has_failed == bool(answers[-1].error_code)
    return answers[-1].error_code, answers[-1].error_message


@pytest.mark.parametrize(("mechanism", "tokens", "code", "text"), RECORDED)
def test_a_login_is_answered_as_by_kafka(mechanism: str, tokens: Sequence[bytes], code: int, text: str) -> None:
    assert answered(a_login(), mechanism, tokens) == (code, text)


@pytest.mark.parametrize(("mechanism", "tokens", "code", "text", "kafka"), ON_PURPOSE)
def test_a_login_is_answered_otherwise(
    mechanism: str, tokens: Sequence[bytes], code: int, text: str, kafka: str
) -> None:
    assert answered(a_login(), mechanism, tokens) == (code, text), kafka


def test_handshakes_that_are_refused() -> None:
    refused = a_login().handshake(SaslHandshakeRequestData.make(mechanism="GSSAPI"))
    assert (refused.error_code, set(refused.mechanisms)) == (33, set(MECHANISMS))
    login = a_login()
    login.handshake(SaslHandshakeRequestData.make(mechanism="PLAIN"))
    refused = login.handshake(SaslHandshakeRequestData.make(mechanism="PLAIN"))
    assert (refused.error_code, list(refused.mechanisms)) == (34, [])


def again(login: ClientLogin, mechanism: str, tokens: Sequence[bytes]) -> list[tuple[int, str | None]]:
    """The answers to a client that has logged in, and begins again: as its session has them."""
    handshake, authenticate = security._authentication()
    connection = ClientConnection(peer="h:1", listener="L", login=login)
    found: list[tuple[int, str | None]] = []
    for api, message in (
        *([(handshake, SaslHandshakeRequestData.make(mechanism=mechanism))] if mechanism else ()),
        *((authenticate, SaslAuthenticateRequestData.make(auth_bytes=token)) for token in tokens),
    ):
        call = Call(message=message, version=1, client_id="c", connection=connection)
        try:
            answer = api.handle(call)
            answer = asyncio.run(answer) if asyncio.iscoroutine(answer) else answer
        except IllegalSaslState as error:
            answer = api.refuse(message, 1, error)
        found.append((answer.error_code, getattr(answer, "error_message", None)))
    return found


RIGHT, BOB = b"\0alice\0pencil", b"\0bob\0pen"
CHANGED = "Cannot change principals during re-authentication from User.alice: User.bob"


@pytest.mark.parametrize(
    ("reauth_ms", "mechanism", "tokens", "answers", "is_open"),
    [
        (0, "", [RIGHT], [(34, AFTER)], True),
        (0, "PLAIN", [RIGHT], [(34, None), (34, AFTER)], True),
        (0, "GSSAPI", [], [(34, None)], True),
        (60_000, "", [RIGHT], [(34, AFTER)], True),
        (60_000, "PLAIN", [RIGHT], [(0, None), (0, "")], True),
        (60_000, "PLAIN", [BOB], [(0, None), (58, CHANGED)], False),
        (60_000, "PLAIN", [b"\0alice\0x"], [(0, None), (58, WRONG)], False),
    ],
)
def test_a_login_is_repeated_where_its_session_has_an_end(
    reauth_ms: int, mechanism: str, tokens: Sequence[bytes], answers: list[tuple[int, str | None]], is_open: bool
) -> None:
    login = a_login(connections_max_reauth_ms=reauth_ms)
    assert answered(login, "PLAIN", [RIGHT]) == (0, "")
    assert again(login, mechanism, tokens) == answers
    assert (login.is_current, login.has_failed) == (is_open, not is_open)
