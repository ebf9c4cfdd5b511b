"""Kafka's Python clients against nodes with TLS and logins: each mechanism, and what is refused."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiokafka
import jwt
import kafka
import pytest
from aiokafka.abc import AbstractTokenProvider
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from kafka.net.sasl.oauth import AbstractTokenProvider as KafkaPythonTokenProvider

from tests.integration.support.cluster import Cluster
from tests.integration.support.secured import secured_cluster
from tests.integration.support.waiting import wait_until

PASSWORD = "a password, with =s and commas"
MECHANISMS = ["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN", "OAUTHBEARER"]
KEY = ec.generate_private_key(ec.SECP256R1())
USERS = f"""
[[users]]
name = "admin"
password = "{PASSWORD}"
"""


def token(name: str = "admin", *, key: Any = KEY, expires_s: int = 600, **claims: Any) -> str:
    return jwt.encode(
        {"sub": name, "exp": int(time.time()) + expires_s, **claims}, key, algorithm="ES256", headers={"kid": "one"}
    )


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("sasl")
    public = json.loads(ECAlgorithm.to_jwk(KEY.public_key()))
    (folder / "jwks.json").write_text(json.dumps({"keys": [{**public, "kid": "one", "alg": "ES256"}]}))
    settings = {
        "sasl.enabled.mechanisms": ",".join(MECHANISMS),
        "sasl.oauthbearer.jwks.endpoint.url": f"file://{folder / 'jwks.json'}",
        "group.initial.rebalance.delay.ms": 0,
        "ssl.client.auth": "none",
    }
    yield from secured_cluster(folder, protocol="SASL_SSL", settings=settings, tail=USERS)


@pytest.fixture(scope="module")
def topic(nodes: Cluster) -> str:
    nodes.create_topic("secured", partitions=3)
    return "secured"


def ca(nodes: Cluster) -> str:
    return str(Path(nodes.data).parent / "certs" / "ca.pem")


def servers(nodes: Cluster) -> str:
    return ",".join(node.kafka for node in nodes.nodes)


def librdkafka(nodes: Cluster, mechanism: str, *, user: str = "admin", password: str = PASSWORD) -> dict[str, Any]:
    config: dict[str, Any] = {
        "bootstrap.servers": servers(nodes),
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": ca(nodes),
        "sasl.mechanism": mechanism,
    }
    if mechanism == "OAUTHBEARER":
        return {**config, "oauth_cb": lambda _: (token(user), time.time() + 600)}
    return {**config, "sasl.username": user, "sasl.password": password}


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_librdkafka(nodes: Cluster, topic: str, mechanism: str) -> None:
    config = librdkafka(nodes, mechanism)
    producer = Producer(config)
    producer.produce(topic, mechanism.encode(), partition=0)
    assert producer.flush(30) == 0
    consumer = Consumer({**config, "group.id": f"g-{mechanism}", "auto.offset.reset": "earliest"})
    try:
        consumer.subscribe([topic])
        found = wait_until(lambda: (message := consumer.poll(0.5)) and not message.error() and message.value())
        assert found in {each.encode() for each in MECHANISMS} | {b"aio", b"python"}
    finally:
        consumer.close()


def raw_login(nodes: Cluster, password: str) -> bytes:
    """What clients did before Kafka 1.0: SaslHandshake 0, the token alone in a frame, and then a request; its answer,
    or nothing."""
    host, _, port = nodes.nodes[0].kafka.rpartition(":")
    context = ssl.create_default_context(cafile=ca(nodes))
    with (
        socket.create_connection((host, int(port)), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname=host) as line,
        line.makefile("rwb") as stream,
    ):

        def asked(frame: bytes) -> bytes | None:
            stream.write(len(frame).to_bytes(4) + frame)
            stream.flush()
            size = stream.read(4)
            return stream.read(int.from_bytes(size)) if size else None

        handshake = asked(bytes.fromhex("0011 0000 00000007 ffff 0005") + b"PLAIN")
        assert handshake is not None
        assert handshake[:6] == bytes.fromhex("00000007 0000")
        token = asked(f"\0admin\0{password}".encode())
        if token is None:
            return b""
        assert token == b""
        return asked(bytes.fromhex("0012 0000 00000008 ffff")) or b""


def test_a_login_without_headers(nodes: Cluster) -> None:
    """One that fails is not answered, as by Kafka."""
    assert raw_login(nodes, PASSWORD).startswith(bytes.fromhex("00000008 0000"))
    assert raw_login(nodes, "wrong") == b""


class Tokens(AbstractTokenProvider):
    async def token(self) -> str:
        return token()


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_aiokafka(nodes: Cluster, topic: str, mechanism: str) -> None:
    async def main() -> None:
        login: dict[str, Any] = {"sasl_plain_username": "admin", "sasl_plain_password": PASSWORD}
        if mechanism == "OAUTHBEARER":
            login = {"sasl_oauth_token_provider": Tokens()}
        async with aiokafka.AIOKafkaProducer(
            bootstrap_servers=servers(nodes),
            security_protocol="SASL_SSL",
            ssl_context=ssl.create_default_context(cafile=ca(nodes)),
            sasl_mechanism=mechanism,
            **login,
        ) as producer:
            await producer.send_and_wait(topic, b"aio")

    asyncio.run(main())


class KafkaPythonTokens(KafkaPythonTokenProvider):
    def token(self) -> str:
        return token()


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_kafka_python(nodes: Cluster, topic: str, mechanism: str) -> None:
    login: dict[str, Any] = {"sasl_plain_username": "admin", "sasl_plain_password": PASSWORD}
    if mechanism == "OAUTHBEARER":
        login = {"sasl_oauth_token_provider": KafkaPythonTokens()}
    producer = kafka.KafkaProducer(
        bootstrap_servers=servers(nodes).split(","),
        security_protocol="SASL_SSL",
        ssl_cafile=ca(nodes),
        sasl_mechanism=mechanism,
        **login,
    )
    try:
        producer.send(topic, b"python").get(30)
    finally:
        producer.close()


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "PLAIN"])
@pytest.mark.parametrize(("user", "password"), [("admin", "wrong"), ("nobody", PASSWORD)])
def test_a_wrong_password_is_refused(nodes: Cluster, mechanism: str, user: str, password: str) -> None:
    assert "AUTHENTICATION" in refusal(librdkafka(nodes, mechanism, user=user, password=password))


@pytest.mark.parametrize(
    "text",
    [
        lambda: token(key=ec.generate_private_key(ec.SECP256R1())),
        lambda: token(expires_s=-3_600),
        lambda: jwt.encode({"sub": "admin", "exp": int(time.time()) + 600}, "", algorithm="none"),
        lambda: jwt.encode({"sub": "admin"}, KEY, algorithm="ES256", headers={"kid": "one"}),
    ],
    ids=["foreign key", "expired", "unsecured", "no expiry"],
)
def test_a_wrong_token_is_refused(nodes: Cluster, text: Callable[[], str]) -> None:
    config = librdkafka(nodes, "OAUTHBEARER") | {"oauth_cb": lambda _: (text(), time.time() + 600)}
    assert "AUTHENTICATION" in refusal(config)


def refusal(config: dict[str, Any]) -> str:
    errors: list[str] = []
    admin = AdminClient({**config, "error_cb": lambda error: errors.append(error.name())})
    with pytest.raises(KafkaException):
        admin.list_topics(timeout=10)
    admin.poll(0)
    return " ".join(errors)


def test_a_user_comes_and_goes(nodes: Cluster, topic: str) -> None:
    admin = AdminClient(librdkafka(nodes, "SCRAM-SHA-512"))
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 8_192)
    added = UserScramCredentialUpsertion("bob", info, b"bob's password")
    admin.alter_user_scram_credentials([added])["bob"].result(30)
    described = admin.describe_user_scram_credentials(["bob"])["bob"].result(30)
    assert [each.iterations for each in described.scram_credential_infos] == [8_192]

    config = librdkafka(nodes, "SCRAM-SHA-256", user="bob", password="bob's password")
    errors: list[str] = []
    producer = Producer({**config, "error_cb": lambda error: errors.append(error.name()), "message.timeout.ms": 3_000})
    producer.produce(topic, b"of bob", partition=0)
    assert producer.flush(30) == 0
    deletion = UserScramCredentialDeletion("bob", ScramMechanism.SCRAM_SHA_256)
    admin.alter_user_scram_credentials([deletion])["bob"].result(30)

    def is_refused() -> bool:
        outcome: list[Any] = []
        producer.produce(topic, b"too late", partition=0, on_delivery=lambda error, _: outcome.append(error))
        producer.flush(5)
        return bool(outcome and outcome[0]) and any("AUTHENTICATION" in each for each in errors)

    wait_until(is_refused, what="a producer without its user fails")
