"""A cluster with TLS, a user and ACLs that need no setting (`--secure`), and the files that its clients need.

`certs` in the data folder has the CA and the nodes' certificates, `client` what one gives to a client. A later start
finds the CA and the password again; the nodes' certificates are made at each start.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from typing import Final

from pydantic import SecretStr

from kraft.config.models import ClusterConfig, NodeConfig, SecurityProtocol, UserConfig
from kraft.launcher.certificates import CertificateAuthority
from kraft.launcher.client_files import CA_FILE, PASSWORD_FILE, USER, texts
from kraft.launcher.configuration import read_text, write_once, write_whole
from kraft.launcher.processes import LaunchError
from kraft.launcher.runfile import CERTIFICATES_FOLDER, CLIENT_FOLDER

PASSWORD_BYTES: Final = 18
PROTOCOL: Final[SecurityProtocol] = "SASL_SSL"
MECHANISMS: Final = "SCRAM-SHA-256,SCRAM-SHA-512,PLAIN"
AUTHORIZER: Final = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
_OWN: Final = ("ssl.keystore.", "ssl.truststore.")
"""Settings of a cluster that has certificates of its own."""


def secured(config: ClusterConfig) -> ClusterConfig:
    """The configuration with TLS, logins and ACLs on every port; makes the certificates and the files of clients.

    Raises LaunchError without `cryptography`, and for a configuration that has security of its own."""
    _refuse_own_security(config)
    authority = CertificateAuthority(os.path.join(config.data, CERTIFICATES_FOLDER))
    folder = os.path.join(config.data, CLIENT_FOLDER)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    password = _password(config, folder)
    settings = {
        "sasl.enabled.mechanisms": MECHANISMS,
        "authorizer.class.name": AUTHORIZER,
        **config.settings,
        "super.users": ";".join(filter(None, (str(config.settings.get("super.users", "")), f"User:{USER}"))),
        "ssl.truststore.location": authority.path,
    }
    users = tuple(each for each in config.users if each.name != USER)
    found = config.model_copy(
        update={
            "settings": settings,
            "users": (*users, UserConfig(name=USER, password=SecretStr(password))),
            "nodes": tuple(_secured_node(node, authority.node(node)) for node in config.nodes),
        }
    )
    _write_client_files(found, folder, ca=read_text(authority.path), password=password)
    return found


def _refuse_own_security(config: ClusterConfig) -> None:
    layers: Sequence[Mapping[str, object]] = [config.settings, *(node.settings for node in config.nodes)]
    own = {name for layer in layers for name in layer if name.startswith(_OWN)}
    own |= {"tls_mode"} if config.tls_mode is not None else set()
    own |= {"kafka_protocol" for node in config.nodes if node.kafka_protocol != "PLAINTEXT"}
    own |= {"rest_protocol" for node in config.nodes if node.rest_protocol != "PLAINTEXT"}
    own |= {"protocol" for node in config.nodes for each in node.listeners if each.protocol != "PLAINTEXT"}
    if own:
        raise LaunchError(
            f"the configuration has security of its own ({', '.join(sorted(own))}), which --secure does not change: "
            "start it without --secure, or leave these keys out"
        )


def _password(config: ClusterConfig, folder: str) -> str:
    """The password of cluster.toml or the environment, else the one of an earlier start, else a new one."""
    path = os.path.join(folder, PASSWORD_FILE)
    own = config.passwords.get(USER)
    if own is not None:
        write_whole(path, own, mode=0o600)
        return own
    return write_once(path, lambda: secrets.token_urlsafe(PASSWORD_BYTES))


def _secured_node(node: NodeConfig, keystore: str) -> NodeConfig:
    listeners = tuple(each.model_copy(update={"protocol": PROTOCOL}) for each in node.listeners)
    return node.model_copy(
        update={
            "kafka_protocol": PROTOCOL,
            "rest_protocol": PROTOCOL,
            "listeners": listeners,
            "settings": {**node.settings, "ssl.keystore.location": keystore},
        }
    )


def _write_client_files(config: ClusterConfig, folder: str, *, ca: str, password: str) -> None:
    servers = ",".join(str(node.kafka) for node in config.brokers)
    hosts = dict.fromkeys(node.host for node in config.nodes)
    path = os.path.join(folder, CA_FILE)
    write_whole(path, ca)
    for name, text in texts(servers, hosts, ca=path, password=password).items():
        write_whole(os.path.join(folder, name), text, mode=0o600)
