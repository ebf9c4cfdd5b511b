"""Apache Kafka's Java clients and tools against three nodes with TLS, users, ACLs and quotas.

    python -m tests.clients.java.secured [--kafka 4.3.1] [--cache FOLDER]

Needs Java 17 and `mvn`. With each mechanism: Admin, an idempotent producer, a transaction, consumers of both protocols,
and a share consumer. Then kafka-configs makes a user and its quotas, and kafka-acls its permissions.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from kraft.launcher.client_files import texts
from kraft.testing import Cluster
from tests.clients.java.__main__ import TOOLS, fetch
from tests.clients.scripts import Steps, end, parser, run_program

RELEASE: Final = "4.3.1"
"""The newest whose tools are on Maven Central."""
PROGRAM: Final = Path(__file__).with_name("Secured.java")
MECHANISMS: Final = ("SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN", "OAUTHBEARER")
MODULES: Final = "org.apache.kafka.common.security"
CONFIGS: Final = "kafka.admin.ConfigCommand"
SETTINGS: Final = {
    "sasl.enabled.mechanisms": ",".join(MECHANISMS),
    "sasl.oauthbearer.unsecured.tokens.enable": True,
    "group.initial.rebalance.delay.ms": 0,
}
PROGRAM_S: Final = 300
"""Limit of a program that waits for five consumers."""
JVM: Final = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
QUIET: Final = "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--kafka", default=RELEASE, help="release of clients and tools (default: %(default)s)")
    asked = arguments.parse_args()
    steps = Steps(f"Kafka {asked.kafka}, secured")
    jars = fetch(asked.kafka, asked.cache)
    with Cluster(nodes=3, secure=True, settings=SETTINGS) as cluster, tempfile.TemporaryDirectory() as folder:
        client = Client(jars, cluster, Path(folder))
        for step in client.steps():
            steps.run(step)
    end(steps.verdict())


class Programs:
    """What runs with the jars of a release, at one cluster."""

    def __init__(self, jars: Path, bootstrap: str, folder: Path) -> None:
        self._jars, self._bootstrap, self._folder = jars, bootstrap, folder

    def secured(self, login: str, topic: str, *, code: int = 0) -> str:
        """The program that writes and reads a topic in every way. `login`: a file of properties."""
        classes = self._folder / "classes"
        if not classes.exists():
            run_program(["javac", "-cp", f"{self._jars}/*", "-d", classes, PROGRAM], timeout_s=PROGRAM_S)
        command = [*JVM, QUIET, "-cp", f"{classes}:{self._jars}/*", PROGRAM.stem, login, topic]
        return run_program(command, code=code, timeout_s=PROGRAM_S)

    def tool(self, tool: str, *arguments: str, login: str, code: int = 0) -> str:
        name = tool if tool.startswith("kafka.") else f"{TOOLS}.{tool}"
        where = ["--bootstrap-server", self._bootstrap, "--command-config", login]
        return run_program([*JVM, QUIET, "-cp", f"{self._jars}/*", name, *where, *arguments], code=code)


class Client:
    def __init__(self, jars: Path, cluster: Cluster, folder: Path) -> None:
        self._cluster, self._folder = cluster, folder
        self._programs = Programs(jars, cluster.bootstrap_servers, folder)
        self._run = uuid.uuid4().hex[:8]

    def steps(self) -> Iterator[Callable[[], None]]:
        for mechanism in MECHANISMS:
            yield self._with(mechanism)
        yield self.wrong_password
        yield self.users_by_kafka_configs
        yield self.acls_by_kafka_acls
        yield self.quotas_by_kafka_configs
        yield self.a_deleted_user

    # --- how they are called

    def _with(self, mechanism: str) -> Callable[[], None]:
        def step() -> None:
            topic = f"java-{self._run}-{mechanism.lower()}"
            output = self._secured(self._properties(mechanism), topic)
            for line in ("admin 3", "produced 3", "transacted", "classic 201", "consumer 201", "share 201"):
                assert f"{line}\n" in output, output

        step.__name__ = mechanism
        return step

    def _secured(self, properties: str, topic: str, *, code: int = 0) -> str:
        return self._programs.secured(properties, topic, code=code)

    def _tool(self, tool: str, *arguments: str, code: int = 0, properties: str = "") -> str:
        login = properties or str(self._cluster.security.properties)
        return self._programs.tool(tool, *arguments, login=login, code=code)

    def _properties(self, mechanism: str, user: str = "", password: str = "") -> str:
        """The client.properties of `--secure`, with another mechanism or user."""
        own = self._cluster.security
        user, password = user or own.user, password or own.password
        made = texts(self._cluster.bootstrap_servers, [], ca=str(own.ca), password=password)["client.properties"]
        text = made.replace('username="admin"', f'username="{user}"')
        text = text.replace("SCRAM-SHA-512", mechanism)
        if mechanism == "PLAIN":
            text = text.replace(f"{MODULES}.scram.ScramLoginModule", f"{MODULES}.plain.PlainLoginModule")
        if mechanism == "OAUTHBEARER":
            module = f'{MODULES}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="{user}";'
            lines = [line for line in text.splitlines() if not line.startswith("sasl.jaas.config=")]
            text = "\n".join([*lines, f"sasl.jaas.config={module}"]) + "\n"
        path = self._folder / f"{user}-{mechanism}-{uuid.uuid4().hex[:8]}.properties"
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
        return str(path)

    # --- steps

    def wrong_password(self) -> None:
        login = self._properties("SCRAM-SHA-512", password="a guess")
        assert "SaslAuthenticationException" in self._tool("TopicCommand", "--list", properties=login, code=1)

    def users_by_kafka_configs(self) -> None:
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
            value = f"{mechanism}=[iterations=8192,password=of alice]"
            self._tool(CONFIGS, "--alter", "--add-config", value, "--entity-type", "users", "--entity-name", "alice")
        shown = self._tool(CONFIGS, "--describe", "--entity-type", "users", "--entity-name", "alice")
        assert shown.count("iterations=8192") == 2, shown
        assert "of alice" not in shown

    def acls_by_kafka_acls(self) -> None:
        login, topic = self._alice(), f"java-{self._run}-alice"
        refused = self._secured(login, topic, code=1)
        assert "AuthorizationException" in refused, refused
        allowed = ["--add", "--allow-principal", "User:alice", "--resource-pattern-type", "prefixed"]
        self._tool("AclCommand", *allowed, "--operation", "All", "--topic", topic, "--group", topic)
        self._tool("AclCommand", *allowed, "--operation", "All", "--transactional-id", topic)
        listed = self._tool("AclCommand", "--list", "--principal", "User:alice")
        assert listed.count("patternType=PREFIXED") >= 3, listed
        output = self._secured(login, topic)
        for line in ("produced 3", "transacted", "classic 201", "consumer 201", "share 201"):
            assert f"{line}\n" in output, output
        self._tool("AclCommand", "--remove", "--force", "--allow-principal", "User:alice", "--operation", "All",
                   "--topic", topic, "--resource-pattern-type", "prefixed")  # fmt: skip
        assert topic not in self._tool("TopicCommand", "--list", properties=login)

    def quotas_by_kafka_configs(self) -> None:
        entity = ["--entity-type", "users", "--entity-name", "alice"]
        self._tool(CONFIGS, "--alter", "--add-config", "producer_byte_rate=1048576,consumer_byte_rate=2097152", *entity)
        shown = self._tool(CONFIGS, "--describe", *entity)
        assert "producer_byte_rate=1048576" in shown, shown
        self._tool(CONFIGS, "--alter", "--delete-config", "producer_byte_rate,consumer_byte_rate", *entity)
        assert "byte_rate" not in self._tool(CONFIGS, "--describe", *entity)

    def a_deleted_user(self) -> None:
        login = self._alice()
        self._tool("TopicCommand", "--list", properties=login)
        names = "SCRAM-SHA-256,SCRAM-SHA-512"
        self._tool(CONFIGS, "--alter", "--delete-config", names, "--entity-type", "users", "--entity-name", "alice")
        assert "SaslAuthenticationException" in self._tool("TopicCommand", "--list", properties=login, code=1)

    def _alice(self) -> str:
        return self._properties("SCRAM-SHA-512", "alice", "of alice")


if __name__ == "__main__":
    main()
