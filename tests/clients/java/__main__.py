"""Apache Kafka's own command-line tools against three nodes, in three releases.

    python -m tests.clients.java [--kafka 4.3.1] [--bootstrap HOST:PORT,...] [--cache FOLDER]

Needs Java 17 and `mvn`, which fetches the tools from Maven Central once. Each step looks at what the tools print and at
the records, not at exit codes alone; the script exits with 1 if anything differs.
"""

from __future__ import annotations

import json
import re
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.clients.scripts import Steps, cluster, end, parser, run_program
from tests.integration.support.waiting import wait_until

RELEASES = ("3.9.1", "4.1.0", "4.3.1")
"""The last one before 4, the peer for speed, and the newest whose tools are on Maven Central."""
POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>tools</groupId><artifactId>tools</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{0}</version></dependency>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>{0}</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
</dependencies></project>"""
MAVEN_S = 600
RECORDS = 1_000
DEADLINE_S = 60
MEMBER_MS = 40_000
"""A console consumer ends when nothing has come for so long."""
TOOLS = "org.apache.kafka.tools"
OF_3 = {
    "AclCommand": "kafka.admin.AclCommand",
    "BrokerApiVersionsCommand": "kafka.admin.BrokerApiVersionsCommand",
    "ConsoleProducer": "kafka.tools.ConsoleProducer",
}
"""Where Kafka 3.9 had what has moved since."""


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--kafka", action="append", help=f"release of the tools (default: {' and '.join(RELEASES)})")
    asked = arguments.parse_args()
    codes = []
    with cluster(asked.bootstrap) as bootstrap, tempfile.TemporaryDirectory() as folder:
        for release in asked.kafka or RELEASES:
            steps = Steps(f"Kafka {release} tools")
            tools = Tools(fetch(release, asked.cache), bootstrap, Path(folder))
            for step in tools.steps():
                steps.run(step)
            codes.append(steps.verdict())
    end(max(codes))


def fetch(release: str, cache: Path) -> Path:
    """The folder with the jars."""
    jars = cache / f"kafka-tools-{release}"
    if not (jars / f"kafka-tools-{release}.jar").exists():
        jars.mkdir(parents=True, exist_ok=True)
        pom = jars / "pom.xml"
        pom.write_text(POM.format(release))
        copy = ["mvn", "-q", "-B", "-f", pom, "dependency:copy-dependencies", f"-DoutputDirectory={jars}"]
        run_program([*copy, "-DexcludeArtifactIds=slf4j-reload4j"], timeout_s=MAVEN_S)  # of 3.9, beside our own
    return jars


class Tools:
    def __init__(self, jars: Path, bootstrap: str, folder: Path) -> None:
        self._jars, self._bootstrap, self._folder = jars, bootstrap, folder
        self._run = uuid.uuid4().hex[:8]
        self.topic = f"java-{self._run}"
        self._is_of_4 = not jars.name.startswith("kafka-tools-3.")
        """Its tools know the consumer protocol, and groups that have settings."""

    def steps(self) -> Iterator[Callable[[], None]]:
        yield self.broker_api_versions
        yield self.topics
        yield self.configs_of_a_topic
        yield self.configs_of_brokers
        if self._is_of_4:
            yield self.configs_of_a_group
        yield self.console_producer_and_consumer
        yield self.get_offsets
        yield self.consumer_groups
        yield self.producer_and_consumer_performance
        yield self.verifiable_producer_and_consumer
        if self._is_of_4:
            yield self.groups_of_the_consumer_protocol
        yield self.delete_records
        yield self.reassign_partitions
        yield self.leader_election
        yield self.log_dirs
        yield self.move_between_log_dirs
        yield self.metadata_quorum
        yield self.features
        yield self.cluster
        yield self.security
        yield self.deletion

    # --- how they are called

    def _java(self, tool: str, *arguments: str, stdin: str = "", code: int = 0) -> str:
        tool = tool if self._is_of_4 else OF_3.get(tool, tool)
        name = tool if tool.startswith("kafka.") else f"{TOOLS}.{tool}"
        jvm = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
        jvm += ["-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", f"{self._jars}/*"]
        return run_program([*jvm, name, *arguments], stdin=stdin, code=code)

    def _tool(self, tool: str, *arguments: str, stdin: str = "", code: int = 0) -> str:
        return self._java(tool, "--bootstrap-server", self._bootstrap, *arguments, stdin=stdin, code=code)

    def _file(self, name: str, document: object) -> str:
        path = self._folder / f"{self._run}-{name}"
        path.write_text(json.dumps(document))
        return str(path)

    def _properties(self, name: str, **settings: str) -> str:
        path = self._folder / f"{self._run}-{name}"
        path.write_text("".join(f"{key.replace('_', '.')}={value}\n" for key, value in settings.items()))
        return str(path)

    def _offsets(self, topic: str, time: str = "latest") -> dict[int, int]:
        lines = self._tool("GetOffsetShell", "--topic", topic, "--time", time).splitlines()
        parts = [line.split(":") for line in lines if line.startswith(f"{topic}:")]
        return {int(partition): int(offset) for _, partition, offset in parts}

    def _consumed(self, topic: str, *, count: int, group: str) -> list[str]:
        """Keys and values, sorted."""
        output = self._tool(
            "consumer.ConsoleConsumer",
            *("--topic", topic, "--from-beginning", "--max-messages", str(count), "--group", group),
            *("--timeout-ms", str(DEADLINE_S * 1000), "--property", "print.key=true"),
        )
        return sorted(line for line in output.splitlines() if "\t" in line)

    # --- steps

    def broker_api_versions(self) -> None:
        output = self._tool("BrokerApiVersionsCommand")
        assert output.count("(id: ") == 3, output
        for api in ("Produce(0): 0 to 13", "Fetch(1): 4 to", "CreateTopics(19): 2 to 7", "DescribeQuorum(55): 0 to 2"):
            assert output.count(api) == 3, api
        for internal in ("AlterPartition(56)", "BrokerHeartbeat(63)"):
            assert output.count(f"{internal}: UNSUPPORTED") == output.count(internal), internal

    def topics(self) -> None:
        create = ["--create", "--topic", self.topic, "--partitions", "3", "--replication-factor", "3"]
        assert f"Created topic {self.topic}." in self._tool("TopicCommand", *create, "--config", "retention.ms=600000")
        assert "already exists" in self._tool("TopicCommand", *create, code=1)
        assert self.topic in self._tool("TopicCommand", "--list").splitlines()
        described = self._tool("TopicCommand", "--describe", "--topic", self.topic)
        assert "PartitionCount: 3\tReplicationFactor: 3" in described, described
        assert "retention.ms=600000" in described, described
        assert len(re.findall(r"Partition: \d\tLeader: [123]\tReplicas: [123],[123],[123]\tIsr: ", described)) == 3
        self._tool("TopicCommand", "--alter", "--topic", self.topic, "--partitions", "4")
        assert "PartitionCount: 4" in self._tool("TopicCommand", "--describe", "--topic", self.topic)
        fewer = self._tool("TopicCommand", "--alter", "--topic", self.topic, "--partitions", "2", code=1)
        assert "InvalidPartitionsException" in fewer, fewer
        assert not self._tool("TopicCommand", "--describe", "--under-replicated-partitions").strip()

    def configs_of_a_topic(self) -> None:
        of_topic = ["--entity-type", "topics", "--entity-name", self.topic]
        configs = "kafka.admin.ConfigCommand"
        self._tool(configs, "--alter", *of_topic, "--add-config", "flush.ms=1000,cleanup.policy=[compact,delete]")
        found = self._tool(configs, "--describe", *of_topic)
        assert "flush.ms=1000" in found, found
        assert "cleanup.policy=compact,delete sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:" in found, found
        self._tool(configs, "--alter", *of_topic, "--delete-config", "flush.ms,cleanup.policy")
        found = self._tool(configs, "--describe", *of_topic)
        assert "flush.ms" not in found, found
        assert "retention.ms=600000" in found, found
        every = self._tool(configs, "--describe", "--all", *of_topic)
        assert "flush.ms=9223372036854775807" in every, every
        refused = self._tool(configs, "--alter", *of_topic, "--add-config", "flush.ms=soon", code=1)
        assert "InvalidConfigurationException" in refused, refused

    def configs_of_brokers(self) -> None:
        configs, default = "kafka.admin.ConfigCommand", ["--entity-type", "brokers", "--entity-default"]
        self._tool(configs, "--alter", *default, "--add-config", "log.retention.ms=99999999")
        found = self._tool(configs, "--describe", "--entity-type", "brokers")
        assert "log.retention.ms=99999999" in found, found
        self._tool(configs, "--alter", *default, "--delete-config", "log.retention.ms")
        assert "log.retention.ms=" not in self._tool(configs, "--describe", *default)
        every = self._tool(configs, "--describe", "--all", "--entity-type", "brokers", "--entity-name", "2")
        assert "min.insync.replicas=2" in every, every
        loggers = self._tool(configs, "--describe", "--entity-type", "broker-loggers", "--entity-name", "2")
        assert "root=" in loggers, loggers
        one = ["--entity-type", "broker-loggers", "--entity-name", "2"]
        self._tool(configs, "--alter", *one, "--add-config", "asyncio=ERROR")
        assert "asyncio=ERROR" in self._tool(configs, "--describe", *one)
        self._tool(configs, "--alter", *one, "--delete-config", "asyncio")

    def configs_of_a_group(self) -> None:
        configs, group = "kafka.admin.ConfigCommand", ["--entity-type", "groups", "--entity-name", f"{self.topic}-own"]
        self._tool(configs, "--alter", *group, "--add-config", "consumer.session.timeout.ms=50000")
        found = self._tool(configs, "--describe", *group)
        assert "consumer.session.timeout.ms=50000 sensitive=false synonyms={" in found, found
        assert "group.consumer.session.timeout.ms=45000" in found, found
        refused = self._tool(configs, "--alter", *group, "--add-config", "consumer.session.timeout.ms=1", code=1)
        assert "group.consumer.min.session.timeout.ms" in refused, refused
        self._tool(configs, "--alter", *group, "--delete-config", "consumer.session.timeout.ms")
        assert "50000" not in self._tool(configs, "--describe", *group)

    def console_producer_and_consumer(self) -> None:
        lines = [f"k{number}:v{number} äöü" for number in range(RECORDS)]
        for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
            topic = f"{self.topic}-{codec}"
            self._tool("TopicCommand", "--create", "--topic", topic, "--partitions", "3", "--replication-factor", "3")
            parsing = ["--property", "parse.key=true", "--property", "key.separator=:"]
            self._tool(
                "ConsoleProducer",
                "--topic",
                topic,
                "--compression-codec",
                codec,
                *parsing,
                stdin="\n".join(lines) + "\n",
            )
            assert sum(self._offsets(topic).values()) == RECORDS, codec
            found = self._consumed(topic, count=RECORDS, group=f"{topic}-group")
            assert found == sorted(line.replace(":", "\t") for line in lines), codec

    def get_offsets(self) -> None:
        topic = f"{self.topic}-none"
        latest = self._offsets(topic)
        assert self._offsets(topic, "earliest") == dict.fromkeys(latest, 0)
        assert self._offsets(topic, "0") == dict.fromkeys(latest, 0)
        found = self._offsets(topic, "max-timestamp")
        assert all(0 <= found[partition] < latest[partition] for partition in latest), found

    def consumer_groups(self) -> None:
        topic, group, tool = f"{self.topic}-none", f"{self.topic}-none-group", "consumer.group.ConsumerGroupCommand"
        assert group in self._tool(tool, "--list").splitlines()
        assert re.search(rf"{group} +Empty", self._tool(tool, "--list", "--state")), "Empty"
        described = self._tool(tool, "--describe", "--group", group)
        latest = self._offsets(topic)
        for partition, offset in latest.items():
            assert re.search(rf"{topic} +{partition} +{offset} +{offset} +0 ", described), described
        assert re.search(r"Empty +0", self._tool(tool, "--describe", "--state", "--group", group)), "no members"
        reset = ["--group", group, "--topic", topic, "--reset-offsets"]
        self._tool(tool, *reset, "--to-offset", "1", "--dry-run")
        self._tool(tool, *reset, "--to-earliest", "--execute")
        described = self._tool(tool, "--describe", "--group", group)
        for partition, offset in latest.items():
            assert re.search(rf"{topic} +{partition} +0 +{offset} +{offset} ", described), described
        assert len(self._consumed(topic, count=RECORDS, group=group)) == RECORDS, "they are read again"
        deleted = self._tool(tool, "--delete-offsets", "--group", group, "--topic", f"{topic}:0")
        assert "Successful" in deleted, deleted
        if self._is_of_4:
            assert group in self._tool("GroupsCommand", "--list")
        self._tool(tool, "--delete", "--group", group)
        assert group not in self._tool(tool, "--list").splitlines()

    def producer_and_consumer_performance(self) -> None:
        topic = f"{self.topic}-perf"
        self._tool("TopicCommand", "--create", "--topic", topic, "--partitions", "6", "--replication-factor", "3")
        count = 20 * RECORDS
        size = ["--num-records", str(count), "--record-size", "200", "--throughput", "-1"]
        for options in (["acks=all", "compression.type=lz4"], ["acks=1", "enable.idempotence=false"]):
            properties = self._properties("perf", bootstrap_servers=self._bootstrap)
            arguments = ["--topic", topic, *size, "--producer.config", properties, "--producer-props", *options]
            assert f"{count} records sent" in self._java("ProducerPerformance", *arguments)
        assert sum(self._offsets(topic).values()) == 2 * count
        found = self._tool("ConsumerPerformance", "--topic", topic, "--messages", str(2 * count), "--timeout", "60000")
        assert f", {2 * count}, " in found, found

    def verifiable_producer_and_consumer(self) -> None:
        topic, count = f"{self.topic}-verifiable", RECORDS
        self._tool("TopicCommand", "--create", "--topic", topic, "--partitions", "3", "--replication-factor", "3")
        arguments = ["--topic", topic, "--max-messages", str(count), "--acks", "-1"]
        produced = _events(self._tool("VerifiableProducer", *arguments))
        acknowledged = [event["value"] for event in produced if event["name"] == "producer_send_success"]
        assert sorted(map(int, acknowledged)) == list(range(count))
        arguments = ["--topic", topic, "--group-id", f"{topic}-group", "--max-messages", str(count), "--verbose"]
        consumed = _events(self._tool("VerifiableConsumer", *arguments, "--reset-policy", "earliest"))
        values = [event["value"] for event in consumed if event["name"] == "record_data"]
        assert sorted(map(int, values)) == list(range(count)), len(values)
        assert all(event["success"] for event in consumed if event["name"] == "offsets_committed")

    def groups_of_the_consumer_protocol(self) -> None:
        """The second member joins while the first has everything; what comes then is read once, by one of them."""
        topic, group, tool = f"{self.topic}-848", f"{self.topic}-848-group", "consumer.ConsoleConsumer"
        self._tool("TopicCommand", "--create", "--topic", topic, "--partitions", "6", "--replication-factor", "3")
        asked = ["--topic", topic, "--group", group, "--from-beginning", "--timeout-ms", str(MEMBER_MS)]
        asked += ["--property", "print.key=true", "--consumer-property", "group.protocol=consumer"]
        with ThreadPoolExecutor() as threads:
            members = [threads.submit(self._tool, tool, *asked)]
            self._wait_for_members(group, 1)
            members.append(threads.submit(self._tool, tool, *asked))
            self._wait_for_members(group, 2)
            lines = [f"k{number}\tv{number}" for number in range(RECORDS)]
            parsing = ["--property", "parse.key=true"]
            self._tool("ConsoleProducer", "--topic", topic, *parsing, stdin="\n".join(lines) + "\n")
            found = [[line for line in each.result().splitlines() if "\t" in line] for each in members]
        assert sorted(line for each in found for line in each) == sorted(lines), [len(each) for each in found]
        assert all(found), "both had partitions"

    def _wait_for_members(self, group: str, count: int) -> None:
        def is_so() -> bool:
            """Each has its partitions, and what the coordinator wants is what they have."""
            tool = "consumer.group.ConsumerGroupCommand"
            described = self._tool(tool, "--describe", "--state", "--group", group)
            return re.search(rf"Stable +{count}", described) is not None

        wait_until(is_so, deadline_s=DEADLINE_S, what=f"{count} members with partitions")

    def delete_records(self) -> None:
        topic = f"{self.topic}-gzip"
        wanted = {"version": 1, "partitions": [{"topic": topic, "partition": 1, "offset": 5}]}
        deleted = self._tool("DeleteRecordsCommand", "--offset-json-file", self._file("delete.json", wanted))
        assert f"partition: {topic}-1\tlow_watermark: 5" in deleted, deleted
        assert self._offsets(topic, "earliest") == {0: 0, 1: 5, 2: 0}
        refused = {"version": 1, "partitions": [{"topic": topic, "partition": 1, "offset": 10**9}]}
        output = self._tool("DeleteRecordsCommand", "--offset-json-file", self._file("too-far.json", refused))
        assert "OffsetOutOfRangeException" in output, output

    def reassign_partitions(self) -> None:
        topic, tool = f"{self.topic}-moving", "reassign.ReassignPartitionsCommand"
        self._tool("TopicCommand", "--create", "--topic", topic, "--replica-assignment", "1:2,2:3")
        lines = [f"v{number}" for number in range(RECORDS)]
        self._tool("ConsoleProducer", "--topic", topic, stdin="\n".join(lines) + "\n")
        topics = self._file("topics.json", {"version": 1, "topics": [{"topic": topic}]})
        generated = self._tool(tool, "--generate", "--topics-to-move-json-file", topics, "--broker-list", "1,2,3")
        assert "Proposed partition reassignment configuration" in generated, generated
        moves = [
            {"topic": topic, "partition": 0, "replicas": [3, 2]},
            {"topic": topic, "partition": 1, "replicas": [1, 3]},
        ]
        file = self._file("moves.json", {"version": 1, "partitions": moves})
        started = self._tool(tool, "--execute", "--reassignment-json-file", file)
        assert "Successfully started partition reassignments" in started, started

        def is_done() -> bool:
            verified = self._tool(tool, "--verify", "--reassignment-json-file", file)
            return verified.count("is completed.") == 2

        wait_until(is_done, deadline_s=DEADLINE_S, what="the moves")
        described = self._tool("TopicCommand", "--describe", "--topic", topic)
        assert "Replicas: 3,2" in described, described
        assert "Replicas: 1,3" in described, described
        assert "No partition reassignments found." in self._tool(tool, "--list")
        cancelled = self._tool(tool, "--cancel", "--reassignment-json-file", file)
        assert "None of the specified partition reassignments are active." in cancelled, cancelled
        output = self._tool(
            "consumer.ConsoleConsumer",
            *("--topic", topic, "--from-beginning", "--max-messages", str(RECORDS)),
            *("--timeout-ms", str(DEADLINE_S * 1000), "--group", f"{topic}-group"),
        )
        assert sorted(line for line in output.splitlines() if line.startswith("v")) == sorted(lines)

    def leader_election(self) -> None:
        tool = "LeaderElectionCommand"
        self._tool(tool, "--election-type", "preferred", "--all-topic-partitions")
        again = self._tool(tool, "--election-type", "preferred", "--topic", self.topic, "--partition", "0")
        assert "Valid replica already elected" in again, again
        none = self._tool(tool, "--election-type", "preferred", "--topic", "none", "--partition", "0", code=1)
        assert "UnknownTopicOrPartitionException" in none, none

    def log_dirs(self) -> None:
        topic = f"{self.topic}-none"
        output = self._tool("LogDirsCommand", "--describe", "--topic-list", topic)
        document = json.loads(next(line for line in output.splitlines() if line.startswith("{")))
        assert [broker["broker"] for broker in document["brokers"]] == [1, 2, 3]
        logs = [log for broker in document["brokers"] for each in broker["logDirs"] for log in each["partitions"]]
        assert len(logs) == 9, logs
        assert all(log["size"] > 0 and log["offsetLag"] == 0 and not log["isFuture"] for log in logs), logs

    def move_between_log_dirs(self) -> None:
        topic, tool = f"{self.topic}-none", "reassign.ReassignPartitionsCommand"

        def places() -> tuple[dict[int, str], dict[int, list[str]]]:
            """Where partition 0 lies on each broker, and what directories there are."""
            output = self._tool("LogDirsCommand", "--describe", "--topic-list", topic)
            document = json.loads(next(line for line in output.splitlines() if line.startswith("{")))
            lying = {
                broker["broker"]: each["logDir"]
                for broker in document["brokers"]
                for each in broker["logDirs"]
                for log in each["partitions"]
                if log["partition"] == f"{topic}-0" and not log["isFuture"]
            }
            return lying, {
                each["broker"]: [found["logDir"] for found in each["logDirs"]] for each in document["brokers"]
            }

        lying, directories = places()
        if any(len(each) < 2 for each in directories.values()):
            return  # a cluster that was there already
        wanted = {broker: next(path for path in directories[broker] if path != lying[broker]) for broker in (1, 2, 3)}
        move = {"topic": topic, "partition": 0, "replicas": [1, 2, 3], "log_dirs": [wanted[each] for each in (1, 2, 3)]}
        file = self._file("dirs.json", {"version": 1, "partitions": [move]})
        started = self._tool(tool, "--execute", "--reassignment-json-file", file)
        assert started.count("Successfully started moving log directory to ") == 3, started

        def is_done() -> bool:
            verified = self._tool(tool, "--verify", "--reassignment-json-file", file)
            return verified.count("completed successfully") == 3

        wait_until(is_done, deadline_s=DEADLINE_S, what="the moves")
        assert places()[0] == wanted
        lines = [f"k{number}\tv{number} äöü" for number in range(RECORDS)]
        assert self._consumed(topic, count=RECORDS, group=f"{topic}-moved") == sorted(lines)

    def metadata_quorum(self) -> None:
        status = self._tool("MetadataQuorumCommand", "describe", "--status")
        assert re.search(r"LeaderId: +[123]\n", status), status
        assert re.search(r'CurrentVoters: +\[\{"id": 1, .*"id": 2, .*"id": 3, ', status), status
        replication = self._tool("MetadataQuorumCommand", "describe", "--replication")
        assert replication.count("Leader ") + replication.count("Leader\n") == 1, replication
        assert replication.count("Follower") == 2, replication

    def features(self) -> None:
        described = self._tool("FeatureCommand", "describe")
        # A release before 4.3 has no name for the level.
        assert re.search(r"Feature: metadata.version.*FinalizedVersionLevel: (4\.|UNKNOWN)", described), described
        refused = self._tool("FeatureCommand", "downgrade", "--feature", "group.version=0", code=1)
        assert "Could not downgrade group.version to 0" in refused, refused

    def cluster(self) -> None:
        cluster_id = self._java("ClusterTool", "cluster-id", "--bootstrap-server", self._bootstrap)
        assert re.search(r"Cluster ID: \S+", cluster_id), cluster_id
        if self._is_of_4:
            endpoints = self._java("ClusterTool", "list-endpoints", "--bootstrap-server", self._bootstrap)
            assert len(re.findall(r"^[123] +\S+ +\d+ .*broker", endpoints, re.MULTILINE)) == 3, endpoints
        refused = self._java("ClusterTool", "unregister", "--id", "77", "--bootstrap-server", self._bootstrap, code=1)
        assert "BrokerIdNotRegisteredException" in refused, refused

    def security(self) -> None:
        assert "SecurityDisabledException" in self._tool("AclCommand", "--list", code=1)
        who = ["--entity-type", "users", "--entity-name", "a"]
        config = "kafka.admin.ConfigCommand"
        assert not self._tool(config, "--describe", "--entity-type", "users").strip()
        self._tool(config, "--alter", *who, "--add-config", "producer_byte_rate=1024,request_percentage=50")
        described = self._tool(config, "--describe", *who)
        assert "producer_byte_rate=1024" in described, described
        assert "request_percentage=50" in described, described
        self._tool(config, "--alter", *who, "--delete-config", "producer_byte_rate,request_percentage")
        assert "producer_byte_rate" not in self._tool(config, "--describe", *who)

    def deletion(self) -> None:
        self._tool("TopicCommand", "--delete", "--topic", f"{self.topic}.*")
        left = self._tool("TopicCommand", "--list").splitlines()
        assert not [topic for topic in left if topic.startswith(self.topic)], left


def _events(output: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


if __name__ == "__main__":
    main()
