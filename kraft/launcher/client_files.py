"""What a client needs to log in: files for Java's clients and tools, librdkafka and curl, and lines for people.

The lines name the files and never a password. Pure.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from shlex import quote
from typing import Final

USER: Final = "admin"
"""The first user of a cluster of `--secure`, a super user."""
CA_FILE: Final = "ca.pem"
PASSWORD_FILE: Final = "password"
PROPERTIES_FILE: Final = "client.properties"
LIBRDKAFKA_FILE: Final = "librdkafka.conf"
NETRC_FILE: Final = "netrc"
MECHANISM: Final = "SCRAM-SHA-512"
PROTOCOL: Final = "SASL_SSL"


def texts(servers: str, hosts: Iterable[str], *, ca: str, password: str) -> dict[str, str]:
    """Name -> text of each file. `servers`: the bootstrap.servers; `hosts`: those of HTTP; `ca`: file of the CA."""
    module = "org.apache.kafka.common.security.scram.ScramLoginModule"
    login = f'{module} required username="{USER}" password="{_in_jaas(password)}";'
    java = {
        "bootstrap.servers": servers,
        "security.protocol": PROTOCOL,
        "sasl.mechanism": MECHANISM,
        "sasl.jaas.config": login,
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": ca,
    }
    librdkafka = {
        "bootstrap.servers": servers,
        "security.protocol": PROTOCOL,
        "sasl.mechanism": MECHANISM,
        "sasl.username": USER,
        "sasl.password": password,
        "ssl.ca.location": ca,
    }
    return {
        PROPERTIES_FILE: "".join(f"{name}={_in_properties(text)}\n" for name, text in java.items()),
        LIBRDKAFKA_FILE: "".join(f"{name}={text}\n" for name, text in librdkafka.items()),
        NETRC_FILE: "".join(f'machine {host} login {USER} password "{_in_jaas(password)}"\n' for host in hosts),
    }


def curl(folder: str) -> str:
    """The beginning of a curl line that logs in; `folder`: that of the files."""
    ca, netrc = (quote(os.path.join(folder, name)) for name in (CA_FILE, NETRC_FILE))
    return f"curl -s --cacert {ca} --netrc-file {netrc}"


def kafka_lines(folder: str, *, servers: str) -> list[str]:
    """Lines for users of Kafka clients: Java's tools, kcat, and Python with aiokafka or confluent-kafka."""
    ca, password = os.path.join(folder, CA_FILE), os.path.join(folder, PASSWORD_FILE)
    java, librdkafka = os.path.join(folder, PROPERTIES_FILE), os.path.join(folder, LIBRDKAFKA_FILE)
    return [
        f"bootstrap.servers={servers}",
        f"kafka-topics.sh --bootstrap-server {servers} --command-config {quote(java)} --list",
        f"kcat -F {quote(librdkafka)} -L",
        "# librdkafka, here in Python",
        f"confluent_kafka.Producer(dict(line.rstrip('\\n').split('=', 1) for line in open({librdkafka!r})))",
        "# aiokafka, in a coroutine",
        f"aiokafka.AIOKafkaProducer(bootstrap_servers='{servers}', security_protocol='{PROTOCOL}',",
        f"    sasl_mechanism='{MECHANISM}', sasl_plain_username='{USER}',",
        f"    sasl_plain_password=open({password!r}).read(),",
        f"    ssl_context=ssl.create_default_context(cafile={ca!r}))",
    ]


def _in_jaas(text: str) -> str:
    """The text between the quotes of a JAAS option; netrc has the same rule."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _in_properties(text: str) -> str:
    """A value of java.util.Properties, whose files are ISO 8859-1."""
    escaped = text.replace("\\", "\\\\")
    units = escaped.encode("utf-16-be")
    codes = [int.from_bytes(units[at : at + 2]) for at in range(0, len(units), 2)]
    return "".join(chr(code) if 0x20 <= code < 0x7F else f"\\u{code:04x}" for code in codes)
