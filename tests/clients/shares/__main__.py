"""Share groups (KIP-932) with Java: Kafka's own tools, and KafkaShareConsumer while nodes are killed.

    python -m tests.clients.shares [--kafka 4.4.0] [--cache FOLDER] [--only NAME ...]

Needs Java 17 with its compiler, and `mvn`, which fetches the tools from Maven Central once. It kills nodes with -9, so
they are always its own. Each record has to be accepted by one member, once.
"""

from __future__ import annotations

import re
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.clients.exactly_once import killing, write
from tests.clients.java.__main__ import TOOLS, fetch
from tests.clients.scripts import SETTINGS, StepFailed, Steps, end, parser, run_program
from tests.integration.conftest import run_cluster
from tests.integration.support.cluster import Cluster
from tests.integration.support.waiting import wait_until

RELEASE = "4.4.0"
RECORDS = 100
KILLED_RECORDS = 4_000
PARTITIONS = 6
IDLE_MS = 40_000
"""A reader ends when nothing has come for so long: longer than a lock."""
MEMBERS = 3
GROUPS, CONSOLE = "consumer.group.ShareGroupCommand", "consumer.ConsoleShareConsumer"
READER = Path(__file__).with_name("ShareReader.java")
FORMATTER = f"{TOOLS}.consumer.group.share.ShareGroupStateMessageFormatter"


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--kafka", default=RELEASE, help="release of the tools (default: %(default)s)")
    arguments.add_argument("--only", nargs="+", default=[""], help="the steps whose names have one of these in them")
    asked = arguments.parse_args()
    if asked.bootstrap is not None:
        arguments.error("--bootstrap: nodes are killed here, so they have to be the script's own")
    steps = Steps(f"Kafka {asked.kafka} share groups")
    with tempfile.TemporaryDirectory(prefix="kraft-shares-") as folder:
        for cluster in run_cluster(Path(folder), settings=SETTINGS):
            tools = Shares(fetch(asked.kafka, asked.cache), cluster, Path(folder))
            for step in (each for each in tools.steps() if any(part in each.__name__ for part in asked.only)):
                steps.run(step)
    end(steps.verdict())


class Shares:
    def __init__(self, jars: Path, cluster: Cluster, folder: Path) -> None:
        self._jars, self._cluster, self._classes = jars, cluster, folder / "classes"
        self._bootstrap = ",".join(node.kafka for node in cluster.nodes)
        self._topic = f"shares-{uuid.uuid4().hex[:8]}"
        self._group = f"{self._topic}-group"
        self._configs = "ConfigCommand" if jars.name >= "kafka-tools-4.4" else "kafka.admin.ConfigCommand"

    def steps(self) -> Iterator[Callable[[], None]]:
        yield self.configs_of_a_share_group
        yield self.console_share_consumer
        yield self.describe
        yield self.state_of_share_partitions
        yield self.reset_offsets
        yield self.members
        yield self.delete_offsets_and_the_group
        yield self.share_consumers_while_nodes_are_killed

    def _java(self, *arguments: str, stdin: str = "", code: int = 0, timeout_s: int = 120) -> str:
        jvm = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
        jvm += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", f"{self._classes}:{self._jars}/*"]
        return run_program([*jvm, *arguments], stdin=stdin, code=code, timeout_s=timeout_s)

    def _tool(self, tool: str, *arguments: str, stdin: str = "", code: int = 0) -> str:
        name = tool if tool.startswith("kafka.") else f"{TOOLS}.{tool}"
        return self._java(name, "--bootstrap-server", self._bootstrap, *arguments, stdin=stdin, code=code)

    def _create(self, topic: str) -> None:
        self._tool(
            "TopicCommand", "--create", "--topic", topic, "--partitions", str(PARTITIONS), "--replication-factor", "3"
        )

    def _offsets(self) -> dict[int, tuple[str, str]]:
        """Start offset and lag of each partition."""
        described = self._tool(GROUPS, "--describe", "--offsets", "--group", self._group)
        found = re.findall(rf"{self._group} +{self._topic} +(\d+) +(\S+) +(\S+)", described)
        assert found, described
        return {int(partition): (offset, lag) for partition, offset, lag in found}

    # --- steps

    def configs_of_a_share_group(self) -> None:
        configs, group = self._configs, ["--entity-type", "groups", "--entity-name", self._group]
        self._tool(configs, "--alter", *group, "--add-config", "share.auto.offset.reset=earliest")
        found = self._tool(configs, "--describe", *group)
        assert "share.auto.offset.reset=earliest" in found, found
        refused = self._tool(configs, "--alter", *group, "--add-config", "share.record.lock.duration.ms=1", code=1)
        assert "share.record.lock.duration.ms" in refused, refused

    def console_share_consumer(self) -> None:
        self._create(self._topic)
        lines = [f"v{number}" for number in range(RECORDS)]
        self._tool("ConsoleProducer", "--topic", self._topic, stdin="\n".join(lines) + "\n")
        found = self._consumed(RECORDS)
        assert sorted(found) == sorted(lines), found
        assert self._consumed(RECORDS, code=1, timeout_ms=10_000) == [], "all were accepted"

    def _consumed(self, count: int, *, code: int = 0, timeout_ms: int = 60_000) -> list[str]:
        asked = ["--topic", self._topic, "--group", self._group, "--timeout-ms", str(timeout_ms)]
        try:
            said = self._tool(CONSOLE, *asked, "--max-messages", str(count), code=code)
        except StepFailed:
            if not code:
                raise
            said = self._tool(CONSOLE, *asked, "--max-messages", str(count))
        return [line for line in said.splitlines() if re.fullmatch(r"v\d+", line)]

    def describe(self) -> None:
        assert self._group in self._tool(GROUPS, "--list").splitlines()
        listed = self._tool(GROUPS, "--list", "--state")
        assert re.search(rf"{self._group} +Empty", listed), listed
        groups = self._tool("GroupsCommand", "--list", "--group-type", "share")
        assert re.search(rf"{self._group} +Share +share", groups), groups
        state = self._tool(GROUPS, "--describe", "--state", "--group", self._group)
        assert re.search(rf"{self._group} .*Empty +0", state), state
        offsets = self._offsets()
        assert len(offsets) == PARTITIONS
        assert sum(int(offset) for offset, _ in offsets.values() if offset != "-") == RECORDS, offsets
        assert {lag for offset, lag in offsets.values() if offset != "-"} == {"0"}, offsets

    def state_of_share_partitions(self) -> None:
        """Kafka's own formatter reads our records of __share_group_state."""
        asked = ["--topic", "__share_group_state", "--from-beginning", "--timeout-ms", "10000"]
        found = self._tool("consumer.ConsoleConsumer", *asked, "--formatter", FORMATTER)
        assert f'"groupId":"{self._group}"' in found, found
        assert '"snapshotEpoch"' in found, found

    def reset_offsets(self) -> None:
        before, reset = self._offsets(), ["--group", self._group, "--topic", self._topic, "--reset-offsets"]
        self._tool(GROUPS, *reset, "--to-earliest", "--dry-run")
        assert self._offsets() == before
        self._tool(GROUPS, *reset, "--to-earliest", "--execute")
        offsets = self._offsets()
        assert {offset for offset, _ in offsets.values()} == {"0"}, offsets
        assert sum(int(lag) for _, lag in offsets.values()) == RECORDS, offsets
        assert len(self._consumed(RECORDS)) == RECORDS, "they are read again"

    def members(self) -> None:
        """A group with a member is neither reset nor deleted."""
        asked = ["--topic", self._topic, "--group", self._group, "--timeout-ms", "60000"]
        with ThreadPoolExecutor() as threads:
            member = threads.submit(self._tool, CONSOLE, *asked, "--max-messages", "1")
            wait_until(self._has_member, deadline_s=60)
            reset = ["--group", self._group, "--topic", self._topic, "--reset-offsets", "--to-earliest", "--execute"]
            refused = [self._said(GROUPS, *reset), self._said(GROUPS, "--delete", "--group", self._group)]
            self._tool("ConsoleProducer", "--topic", self._topic, stdin="v0\n")
            member.result()
        assert all(re.search(r"(?i)not empty|active|members", each) for each in refused), refused

    def _has_member(self) -> bool:
        described = self._tool(GROUPS, "--describe", "--members", "--group", self._group)
        return bool(re.search(rf"{self._group} .*{self._topic}:", described))

    def _said(self, tool: str, *arguments: str) -> str:
        try:
            return self._tool(tool, *arguments)
        except StepFailed as failed:
            return str(failed)

    def delete_offsets_and_the_group(self) -> None:
        deleted = self._tool(GROUPS, "--delete-offsets", "--group", self._group, "--topic", self._topic)
        assert re.search(rf"{self._topic} +Successful", deleted), deleted
        self._tool(GROUPS, "--delete", "--group", self._group)
        assert self._group not in self._tool(GROUPS, "--list").splitlines()

    def share_consumers_while_nodes_are_killed(self) -> None:
        """Leaders and coordinators: each node is all of them for something."""
        run_program(["javac", "-cp", f"{self._jars}/*", "-d", self._classes, READER])
        topic, group = f"{self._topic}-killed", f"{self._topic}-killed-group"
        self._create(topic)
        configs = [
            "--entity-type",
            "groups",
            "--entity-name",
            group,
            "--add-config",
            "share.auto.offset.reset=earliest",
        ]
        self._tool(self._configs, "--alter", *configs)
        arguments = ("ShareReader", self._bootstrap, group, topic, str(IDLE_MS))
        with ThreadPoolExecutor() as threads:
            readers = [threads.submit(self._java, *arguments, timeout_s=400) for _ in range(MEMBERS)]
            with killing(self._cluster) as kills:
                values = (str(number).encode() for number in range(KILLED_RECORDS))
                write(self._bootstrap, topic, values, every_s=0.005, partitions=PARTITIONS)
            lines = [line.split() for each in readers for line in each.result().splitlines()]
        assert len(kills) > 1, kills
        accepted = Counter(line[1] for line in lines if line[0] == "accepted")
        unknown = {line[1] for line in lines if line[0] == "unknown"}
        lost = {str(number) for number in range(KILLED_RECORDS)} - accepted.keys() - unknown
        assert not lost, (len(lost), sorted(lost)[:20])
        twice = {value: count for value, count in accepted.items() if count > 1}
        assert not twice, twice
        assert len(accepted) > KILLED_RECORDS * 0.9, (len(accepted), len(unknown))


if __name__ == "__main__":
    main()
