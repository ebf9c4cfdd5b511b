"""A schema registry that keeps its schemas in a topic (crabka's, Rust), with confluent-kafka's Avro client.

    python -m tests.clients.registry [--bootstrap HOST:PORT,...] [--cache FOLDER]

Needs cargo; the versions stand in Cargo.lock. Two registries elect their primary by a group, as Confluent's do. The
primary is killed between the versions of a schema, and another registry starts from the topic.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from tests.clients.scripts import Steps, cluster, end, parser, run_program
from tests.integration.support.waiting import NotYet, wait_until

HERE = Path(__file__).parent
CLIENT = "2.16.1"
"""Of confluent-kafka."""
EXTRA = ("attrs>=21.2", "authlib>=1.8", "cachetools>=5.5", "certifi", "fastavro>=1.5", "httpx2>=2")
"""Its extra `avro`, but for the newest certificates."""
BUILD_S = 3_600
INSTALL_S = 600
WAIT_S = 60
GROUP = "schema-registry"


def main() -> None:
    asked = parser(__doc__).parse_args()
    target = asked.cache / "registry"
    target.mkdir(parents=True, exist_ok=True)
    run_program(["cargo", "build", "--locked", "--target-dir", target], folder=HERE, timeout_s=BUILD_S)
    python = fetch_client(asked.cache / f"confluent-kafka-avro-{CLIENT}")
    steps = Steps("schema registry")
    with cluster(asked.bootstrap) as bootstrap, tempfile.TemporaryDirectory(prefix="kraft-registry-") as folder:
        story = Story(bootstrap, target / "debug" / "kraft-registry", python, Path(folder))
        steps.run(story.avro_records_of_two_versions_while_the_primary_dies)
    end(steps.verdict())


def fetch_client(folder: Path) -> Path:
    python = folder / "bin" / "python"
    if not python.exists():
        run_program([sys.executable, "-m", "venv", folder])
    run_program([python, "-m", "pip", "install", "-q", f"confluent-kafka=={CLIENT}", *EXTRA], timeout_s=INSTALL_S)
    return python


class Story:
    def __init__(self, bootstrap: str, program: Path, python: Path, folder: Path) -> None:
        self._bootstrap, self._program, self._python, self._folder = bootstrap, program, python, folder
        self._topic = f"avro-{uuid.uuid4().hex[:8]}"

    def avro_records_of_two_versions_while_the_primary_dies(self) -> None:
        admin = AdminClient({"bootstrap.servers": self._bootstrap})
        new = NewTopic(self._topic, num_partitions=3, replication_factor=3)
        admin.create_topics([new])[self._topic].result(timeout=WAIT_S)
        with self._registry() as first:
            with self._registry() as second:
                self._reported(first, "write")
                assert_topic_is_compacted(admin)
                assert_group_is_of_registries(admin, members=2)
                assert versions(second, self._topic) == [1]
            self._reported(first, "evolve")
            with self._registry() as third:
                self._reported(third, "read")
        with self._registry() as fourth:
            assert versions(fourth, self._topic) == [1, 2]

    def _reported(self, address: str, verb: str) -> None:
        """The registry may not know who is the primary yet; what it refuses with 5xx may be asked again."""

        def is_done() -> bool:
            done = subprocess.run(
                [self._python, HERE / "client.py", self._bootstrap, self._topic, f"http://{address}", verb],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=2 * WAIT_S,
                check=False,
            )
            if "HTTP status code 50" in done.stdout:
                raise NotYet(done.stdout)
            assert f"ok {verb}" in done.stdout, done.stdout
            return True

        wait_until(is_done, deadline_s=WAIT_S, what=verb)

    @contextmanager
    def _registry(self) -> Iterator[str]:
        """Where it listens. It is killed with -9 at the end of the block."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        log = self._folder / address
        with log.open("w") as output:
            process = subprocess.Popen([self._program, self._bootstrap, address], stdout=output, stderr=output)
            try:
                wait_until(lambda: "listens" in log.read_text(), deadline_s=WAIT_S, what="a registry")
                yield address
                assert process.poll() is None, log.read_text()
            except AssertionError as failure:
                raise AssertionError(f"{failure}\n{log.read_text()[-4000:]}") from failure
            finally:
                process.kill()
                process.wait()


def versions(address: str, topic: str) -> Any:
    connection = http.client.HTTPConnection(address, timeout=WAIT_S)
    connection.request("GET", f"/subjects/{topic}-value/versions")
    return json.loads(connection.getresponse().read())


def assert_topic_is_compacted(admin: AdminClient) -> None:
    asked = ConfigResource(ResourceType.TOPIC, "_schemas")
    configs = admin.describe_configs([asked])[asked].result(timeout=WAIT_S)
    assert configs["cleanup.policy"].value == "compact", configs["cleanup.policy"]


def assert_group_is_of_registries(admin: AdminClient, *, members: int) -> None:
    """Those that stand for election, as Confluent's do."""

    def is_whole() -> bool:
        (found,) = admin.list_groups(GROUP, timeout=WAIT_S)
        if (found.protocol_type, found.state, len(found.members)) != ("sr", "Stable", members):
            raise NotYet(found.protocol_type, found.state, found.members)
        return True

    wait_until(is_whole, deadline_s=WAIT_S, what="the group of registries")


if __name__ == "__main__":
    main()
