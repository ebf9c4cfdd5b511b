"""What a client of a secure cluster needs: user, password, CA and files, and the options of Kafka's Python clients."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kraft.client.credentials import Credentials
from kraft.launcher import client_files


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSecurity:
    """The login of a user, over TLS."""

    user: str
    password: str = field(repr=False)
    folder: Path
    """Folder with `ca.pem` and, for the first user, `client.properties`, `librdkafka.conf`, `netrc` and `password`."""
    mechanism: str = client_files.MECHANISM

    @property
    def ca(self) -> Path:
        """File with the certificate of the cluster's CA."""
        return self.folder / client_files.CA_FILE

    @property
    def properties(self) -> Path:
        """client.properties of Java's clients and tools."""
        return self.folder / client_files.PROPERTIES_FILE

    @property
    def password_file(self) -> Path:
        """File with the password of the first user, without a line end."""
        return self.folder / client_files.PASSWORD_FILE

    def of(self, user: str, password: str, *, mechanism: str = client_files.MECHANISM) -> ClientSecurity:
        """The login of another user."""
        return replace(self, user=user, password=password, mechanism=mechanism)

    def librdkafka(self) -> dict[str, Any]:
        """Options of confluent-kafka, beside `bootstrap.servers`."""
        return {
            "security.protocol": client_files.PROTOCOL,
            "sasl.mechanism": self.mechanism,
            "sasl.username": self.user,
            "sasl.password": self.password,
            "ssl.ca.location": str(self.ca),
        }

    def aiokafka(self) -> dict[str, Any]:
        """Arguments of aiokafka's clients, beside `bootstrap_servers`."""
        return {**self._of_python(), "ssl_context": ssl.create_default_context(cafile=str(self.ca))}

    def kafka_python(self) -> dict[str, Any]:
        """Arguments of kafka-python's clients, beside `bootstrap_servers`."""
        return {**self._of_python(), "ssl_cafile": str(self.ca)}

    def rest(self) -> dict[str, Any]:
        """Arguments of `kraft.client.Client`, beside the addresses."""
        return {"user": self.user, "password": self.password, "ca": str(self.ca)}

    def credentials(self) -> Credentials:
        """The same for requests over HTTP."""
        return Credentials(user=self.user, password=self.password, ca=str(self.ca))

    def _of_python(self) -> dict[str, Any]:
        return {
            "security_protocol": client_files.PROTOCOL,
            "sasl_mechanism": self.mechanism,
            "sasl_plain_username": self.user,
            "sasl_plain_password": self.password,
        }


def first_user(folder: Path) -> ClientSecurity:
    """The first user of a cluster of `--secure`, by the folder of its files."""
    password = (folder / client_files.PASSWORD_FILE).read_text(encoding="utf-8")
    return ClientSecurity(user=client_files.USER, password=password, folder=folder)
