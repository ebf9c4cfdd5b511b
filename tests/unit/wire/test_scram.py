"""SCRAM-SHA-256 against the example of RFC 7677 section 3, and against every way to get it wrong."""

from __future__ import annotations

from base64 import b64decode

import pytest

from kraft.protocol import scram
from kraft.protocol.scram import ScramClient, ScramFailed, ScramServer

SALT = b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
CLIENT_NONCE = "rOprNGfwEbeRWgbNEkqO"
SERVER_NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
CLIENT_FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
CLIENT_FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def client(password: str = "pencil") -> ScramClient:
    return ScramClient(user="user", password=password, nonce=CLIENT_NONCE)


def server(password: str = "pencil") -> ScramServer:
    return ScramServer(scram.credential(password, salt=SALT), user="user", nonce=SERVER_NONCE)


def test_client_gives_the_messages_of_the_rfc() -> None:
    one = client()
    assert one.first() == CLIENT_FIRST
    assert one.final(SERVER_FIRST) == CLIENT_FINAL
    one.verify(SERVER_FINAL)


def test_server_gives_the_messages_of_the_rfc() -> None:
    one = server()
    assert one.first(CLIENT_FIRST) == SERVER_FIRST
    assert one.final(CLIENT_FINAL) == SERVER_FINAL


def test_a_wrong_password_is_refused() -> None:
    one, other = client("pencils"), server()
    answer = one.final(other.first(one.first()))
    with pytest.raises(ScramFailed, match="wrong cluster secret"):
        other.final(answer)


def test_a_server_that_does_not_know_the_password_is_refused() -> None:
    one = client()
    one.first()
    one.final(SERVER_FIRST)
    with pytest.raises(ScramFailed, match="does not know"):
        one.verify(b"v=" + b"A" * 43 + b"=")
    with pytest.raises(ScramFailed, match="refused: other-error"):
        one.verify(b"e=other-error")


def test_a_server_signature_is_refused_before_the_exchange() -> None:
    with pytest.raises(ScramFailed):
        client().verify(b"v=")


@pytest.mark.parametrize(
    "server_first",
    [
        b"r=someoneelse,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        b"r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        b"r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1",
        b"r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=99999999",
        b"r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=-5",
        b"r=rOprNGfwEbeRWgbNEkqOx,s=!!,i=4096",
        b"\xff\xfe",
        b"",
    ],
)
def test_a_client_refuses_a_bad_challenge(server_first: bytes) -> None:
    with pytest.raises(ScramFailed):
        client().final(server_first)


@pytest.mark.parametrize(
    "client_first",
    [b"", b"n,,", b"n,,n=other,r=abc", b"n,,n=user", b"p=tls-unique,,n=user,r=abc", b"n,a=me,n=user,r=abc", b"\xff"],
)
def test_a_server_refuses_a_bad_beginning(client_first: bytes) -> None:
    with pytest.raises(ScramFailed):
        server().first(client_first)


@pytest.mark.parametrize(
    "client_final",
    [
        b"",
        CLIENT_FINAL.replace(b"biws", b"eSws"),
        CLIENT_FINAL.replace(b"%hv", b"%hw"),
        CLIENT_FINAL[:-10],
        CLIENT_FINAL.replace(b"p=dH", b"p=eH"),
        CLIENT_FINAL.partition(b",p=")[0],
        b"c=biws,r=,p=",
    ],
)
def test_a_server_refuses_a_bad_proof(client_final: bytes) -> None:
    one = server()
    one.first(CLIENT_FIRST)
    with pytest.raises(ScramFailed):
        one.final(client_final)


def test_a_proof_without_a_challenge_is_refused() -> None:
    with pytest.raises(ScramFailed):
        server().final(CLIENT_FINAL)


def test_the_salt_is_that_of_the_cluster() -> None:
    assert scram.salt_of("a") == scram.salt_of("a") != scram.salt_of("b")
    assert len(scram.salt_of("a")) == 16
