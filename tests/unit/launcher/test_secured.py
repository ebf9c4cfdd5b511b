"""`--secure`: what it makes of a configuration, which configurations it refuses, and the files of clients."""

from __future__ import annotations

import shutil
import ssl
import stat
import sys
from pathlib import Path

import pytest

from kraft.config.models import ClusterConfig
from kraft.launcher import client_files
from kraft.launcher.certificates import INSTALL
from kraft.launcher.cluster_preparation import prepare
from kraft.launcher.configuration import load_config
from kraft.launcher.processes import LaunchError
from kraft.launcher.secured import secured

NODES = "[[nodes]]\nid = 1\n[[nodes.listeners]]\nname = 'OUTSIDE'\nport = 7001\n[[nodes]]\nid = 2\n"


def config(folder: Path, text: str = NODES) -> ClusterConfig:
    return load_config(text=text, data=str(folder / "data"))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_every_port_has_tls_and_logins_and_one_user_may_do_everything(tmp_path: Path) -> None:
    found = secured(config(tmp_path, "[settings]\nsuper.users = 'User:root'\n" + NODES))
    for node in found.nodes:
        assert set(node.protocols.values()) == {node.rest_protocol} == {"SASL_SSL"}
        settings = found.broker_settings(node.id)
        assert settings.super_users == "User:root;User:admin"
        assert settings.authorizer_class_name.endswith("StandardAuthorizer")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(settings.ssl_keystore_location)
        assert mode(Path(settings.ssl_keystore_location)) == 0o600
    client = tmp_path / "data" / "client"
    assert found.passwords == {"admin": (client / "password").read_text()}
    assert mode(client) == 0o700
    assert {mode(path) for path in client.iterdir() if path.name != "ca.pem"} == {0o600}
    assert not (client / "ca-key.pem").exists()


def test_a_later_start_finds_the_ca_and_the_password_again(tmp_path: Path) -> None:
    first, second = secured(config(tmp_path)), secured(config(tmp_path))
    assert first.passwords == second.passwords
    assert len(first.passwords["admin"]) >= 20
    ca = tmp_path / "data" / "client" / "ca.pem"
    assert ca.read_text() == (tmp_path / "data" / "certs" / "ca.pem").read_text()


def test_the_password_of_the_file_is_taken_and_its_other_users_stay(tmp_path: Path) -> None:
    users = "[[users]]\nname = 'admin'\npassword = 'of \"mine\"'\n[[users]]\nname = 'bob'\npassword = 'b'\n"
    assert secured(config(tmp_path, users + NODES)).passwords == {"admin": 'of "mine"', "bob": "b"}
    assert (tmp_path / "data" / "client" / "password").read_text() == 'of "mine"'


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[settings]\nssl.truststore.location = 'x'\n" + NODES, "ssl.truststore.location"),
        ("[[nodes]]\nid = 1\nrest_protocol = 'SSL'\n", "rest_protocol"),
        ("[[nodes]]\nid = 1\nkafka_protocol = 'SASL_PLAINTEXT'\n", "kafka_protocol"),
    ],
)
def test_a_configuration_with_security_of_its_own_is_refused(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(LaunchError, match=named):
        secured(config(tmp_path, text))
    assert not (tmp_path / "data" / "certs").exists()


def test_a_start_without_it_does_not_open_a_secure_cluster(tmp_path: Path) -> None:
    cluster_file, data = tmp_path / "cluster.toml", str(tmp_path / "data")
    cluster_file.write_text(NODES)
    prepare(str(cluster_file), data=data, free_ports=True, secure=True)
    with pytest.raises(LaunchError, match=r"was started with --secure.*add --secure.*remove .*client first"):
        prepare(str(cluster_file), data=data, free_ports=True)
    ports = "kafka_protocol = 'SASL_PLAINTEXT'\nrest_protocol = 'SASL_PLAINTEXT'\n"
    cluster_file.write_text(f"[[nodes]]\nid = 1\n{ports}")
    assert prepare(str(cluster_file), data=data, free_ports=True).node(1).kafka_protocol == "SASL_PLAINTEXT"
    cluster_file.write_text(NODES)
    shutil.rmtree(tmp_path / "data" / "client")
    assert prepare(str(cluster_file), data=data, free_ports=True).node(1).kafka_protocol == "PLAINTEXT"


def test_without_the_extra_the_line_that_installs_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(LaunchError) as raised:
        secured(config(tmp_path))
    assert INSTALL in str(raised.value)
    assert not (tmp_path / "data" / "certs").exists()


def test_a_password_with_quotes_reaches_every_client() -> None:
    texts = client_files.texts("h:1,h:2", ["h", "i"], ca="/ca.pem", password='a "b" \\ ä😀')
    java = texts["client.properties"]
    assert r"username=\"admin\"" not in java
    assert 'password="a \\\\"b\\\\" \\\\\\\\ \\u00e4\\ud83d\\ude00";' in java
    assert java.isascii()
    assert 'sasl.password=a "b" \\ ä😀\n' in texts["librdkafka.conf"]
    assert texts["netrc"].splitlines()[1] == 'machine i login admin password "a \\"b\\" \\\\ ä😀"'


def test_no_line_for_people_has_a_password() -> None:
    lines = "\n".join([client_files.curl("/d/client"), *client_files.kafka_lines("/d/client", servers="h:1")])
    for name in ("client.properties", "librdkafka.conf", "netrc", "password", "ca.pem"):
        assert f"/d/client/{name}" in lines
