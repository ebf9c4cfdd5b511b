"""Apache Kafka's Java clients and tools with certificates of their own, in PEM, against three nodes that want them.

    python -m tests.clients.java.certificates [--kafka 4.3.1] [--cache FOLDER]

Needs Java 17 and `mvn`. Mutual TLS without a login: `ssl.client.auth` is required, and the principal is the name of the
certificate (`ssl.principal.mapping.rules`). A keystore of `ssl.keystore.type=PEM` is a file, or stands in the settings.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from kraft.config.parse import parse_config
from kraft.launcher.certificates import CertificateAuthority, create
from kraft.launcher.secured import AUTHORIZER
from tests.clients.java.__main__ import fetch
from tests.clients.java.secured import RELEASE, Programs
from tests.clients.scripts import Steps, end, parser
from tests.integration.support.cluster import Cluster
from tests.integration.support.secured import secured_cluster

SETTINGS: Final = {
    "ssl.client.auth": "required",
    "authorizer.class.name": AUTHORIZER,
    "super.users": "User:admin",
    "group.initial.rebalance.delay.ms": 0,
}
ALL: Final = ("produced 3", "transacted", "classic 201", "consumer 201", "share 201")
"""What the program prints that writes and reads in every way."""


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--kafka", default=RELEASE, help="release of clients and tools (default: %(default)s)")
    asked = arguments.parse_args()
    steps = Steps(f"Kafka {asked.kafka}, client certificates")
    jars = fetch(asked.kafka, asked.cache)
    with tempfile.TemporaryDirectory(prefix="kraft-java-") as folder:
        for cluster in secured_cluster(Path(folder), protocol="SSL", settings=SETTINGS):
            for step in Certificates(jars, cluster, Path(folder)).steps():
                steps.run(step)
    end(steps.verdict())


class Certificates:
    def __init__(self, jars: Path, cluster: Cluster, folder: Path) -> None:
        """`folder` has `certs`, with the CA of the cluster."""
        self._folder, self._run = folder, uuid.uuid4().hex[:8]
        self._bootstrap = ",".join(node.kafka for node in cluster.nodes)
        self._authority = CertificateAuthority(str(folder / "certs"))
        self._programs = Programs(jars, self._bootstrap, folder)
        self._admin = self._properties("admin", self._authority.user("admin"))

    def steps(self) -> Iterator[Callable[[], None]]:
        yield self.a_keystore_in_a_file
        yield self.a_keystore_in_the_settings
        yield self.the_principal_is_the_name_of_the_certificate
        yield self.no_certificate
        yield self.a_certificate_of_another_authority

    def _properties(self, name: str, keystore: str | None, **more: str) -> str:
        settings = {
            "bootstrap.servers": self._bootstrap,
            "security.protocol": "SSL",
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self._authority.path,
            **({} if keystore is None else {"ssl.keystore.type": "PEM", "ssl.keystore.location": keystore}),
            **{key.replace("_", "."): value for key, value in more.items()},
        }
        path = self._folder / f"{name}-{uuid.uuid4().hex[:8]}.properties"
        path.touch(mode=0o600)
        lines = (f"{key}={value}\n" for key, value in settings.items())
        path.write_text("".join(lines), encoding="ascii")
        return str(path)

    # --- steps

    def a_keystore_in_a_file(self) -> None:
        output = self._programs.secured(self._admin, f"java-{self._run}-file")
        for line in ("admin 3", *ALL):
            assert f"{line}\n" in output, output

    def a_keystore_in_the_settings(self) -> None:
        text = Path(self._authority.user("admin")).read_text(encoding="ascii")
        key, begin, chain = text.partition("-----BEGIN CERTIFICATE")
        login = self._properties(
            "settings",
            None,
            ssl_keystore_type="PEM",
            ssl_keystore_key=_one_line(key),
            ssl_keystore_certificate_chain=_one_line(begin + chain),
        )
        output = self._programs.secured(login, f"java-{self._run}-settings")
        for line in ("admin 3", *ALL):
            assert f"{line}\n" in output, output

    def the_principal_is_the_name_of_the_certificate(self) -> None:
        login, topic = self._properties("alice", self._authority.user("alice")), f"java-{self._run}-alice"
        refused = self._programs.secured(login, topic, code=1)
        assert "AuthorizationException" in refused, refused
        allowed = ["--add", "--allow-principal", "User:alice", "--resource-pattern-type", "prefixed"]
        allowed += ["--operation", "All"]
        self._tool("AclCommand", *allowed, "--topic", topic, "--group", topic)
        self._tool("AclCommand", *allowed, "--transactional-id", topic)
        output = self._programs.secured(login, topic)
        for line in ALL:
            assert f"{line}\n" in output, output
        assert self._tool("TopicCommand", "--list", login=login).split() == [topic]

    def no_certificate(self) -> None:
        login = self._properties("nobody", None)
        assert "SslAuthenticationException" in self._tool("TopicCommand", "--list", login=login, code=1)

    def a_certificate_of_another_authority(self) -> None:
        folder = self._folder / "foreign"
        create(parse_config("[[nodes]]\nid = 1\n"), str(folder), days=10, users=["admin"])
        login = self._properties("foreign", str(folder / "admin.pem"))
        assert "SslAuthenticationException" in self._tool("TopicCommand", "--list", login=login, code=1)

    def _tool(self, tool: str, *arguments: str, login: str = "", code: int = 0) -> str:
        return self._programs.tool(tool, *arguments, login=login or self._admin, code=code)


def _one_line(text: str) -> str:
    """As a value of a properties file."""
    return text.strip().replace("\n", "\\n")


if __name__ == "__main__":
    main()
