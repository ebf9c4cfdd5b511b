"""franz-go's GroupTransactSession copies a topic to another while nodes and its own instances are killed with -9.

    python -m tests.clients.golang.transactions [--cache FOLDER]

Needs Go; the versions stand in go.mod. Two instances share a group, each with a transactional id that it has again when
it is started again. Every record of the input has to be among the committed ones of the output, once.
"""

from __future__ import annotations

import subprocess
import tempfile
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.clients.exactly_once import DEADLINE_S, PARTITIONS, committed_values, difference, killing, write
from tests.clients.golang.__main__ import BUILD_S, HERE
from tests.clients.scripts import SETTINGS, Steps, end, parser, run_program
from tests.integration.conftest import run_cluster
from tests.integration.support.cluster import Cluster
from tests.integration.support.waiting import NotYet, wait_until

RECORDS = 6_000
RECORD_EVERY_S = 0.005
INSTANCES = 2
INSTANCE_DIES_EVERY_S = 15.0
"""Whoever takes its place waits until its session is over, 6 s."""
KILLS = 4
"""Of nodes, at least."""


def main() -> None:
    arguments = parser(__doc__)
    asked = arguments.parse_args()
    if asked.bootstrap is not None:
        arguments.error("--bootstrap: nodes are killed here, so they have to be the script's own")
    asked.cache.mkdir(parents=True, exist_ok=True)
    binary = asked.cache / "go-transact"
    run_program(["go", "build", "-o", binary, "./transact"], folder=HERE, timeout_s=BUILD_S)
    steps = Steps("franz-go")

    def each_record_is_copied_once_while_nodes_and_instances_are_killed(cluster: Cluster, folder: Path) -> None:
        copy(cluster, binary, folder)

    settings = {**SETTINGS, "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1_000}
    with tempfile.TemporaryDirectory(prefix="kraft-go-") as made:
        for cluster in run_cluster(Path(made), settings=settings):
            steps.run(each_record_is_copied_once_while_nodes_and_instances_are_killed, cluster, Path(made))
    end(steps.verdict())


def copy(cluster: Cluster, binary: Path, folder: Path) -> None:
    bootstrap = ",".join(node.kafka for node in cluster.nodes)
    source, sink, group = (f"{name}-{uuid.uuid4().hex[:8]}" for name in ("source", "sink", "group"))
    for topic in (source, sink):
        cluster.create_topic(topic, partitions=PARTITIONS)
    values = [b"%d" % number for number in range(RECORDS)]
    wanted = Counter(values)
    writing = threading.Thread(target=write, args=(bootstrap, source, values), kwargs={"every_s": RECORD_EVERY_S})
    instances = [
        Instance([str(binary), bootstrap, source, sink, group, f"{group}-{number}"], folder / f"instance-{number}.log")
        for number in range(INSTANCES)
    ]
    with killing(cluster) as kills:
        writing.start()
        with running(instances):

            def is_copied() -> bool:
                found = Counter(committed_values(bootstrap, sink))
                assert not found - wanted, difference(found, wanted)
                if found != wanted:
                    raise NotYet(difference(found, wanted), [instance.told() for instance in instances])
                return len(kills) >= KILLS and all(instance.starts > 1 for instance in instances)

            wait_until(is_copied, deadline_s=DEADLINE_S, what="the copies")
    writing.join()
    for instance in instances:
        print(f"        {instance.starts} starts, {instance.given_up} given up by itself; {instance.committed()}")


class Instance:
    """A place of the group: who has it dies every few seconds, and another one takes its transactional id over."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._command, self._log = command, log
        self.starts = self.given_up = 0

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self.starts += 1
            with self._log.open("a") as output:
                process = subprocess.Popen(self._command, stdout=output, stderr=output)
                try:
                    if self._ends(process, stop):
                        self.given_up += 1
                finally:
                    process.kill()
                    process.wait()

    @staticmethod
    def _ends(process: subprocess.Popen[bytes], stop: threading.Event) -> bool:
        """By itself; after its time it is killed."""
        for _ in range(round(INSTANCE_DIES_EVERY_S / 0.1)):
            if process.poll() is not None:
                return True
            if stop.wait(0.1):
                return False
        return False

    def told(self) -> str:
        return self._log.read_text()[-2000:]

    def committed(self) -> str:
        """Transactions of all of its lives; each line has the counts of one life so far."""
        ends, last = Counter[str](), Counter[str]()
        for line in [*self._log.read_text().splitlines(), "0 committed, 0 aborted"]:
            words = line.replace(",", "").split()
            if words[1::2] == ["committed", "aborted"]:
                told = Counter({"committed": int(words[0]), "aborted": int(words[2])})
                if told.total() <= last.total():
                    ends += last
                last = told
        return f"{ends['committed']} transactions committed, {ends['aborted']} aborted"


@contextmanager
def running(instances: list[Instance]) -> Iterator[None]:
    stop = threading.Event()
    threads = [threading.Thread(target=instance.run, args=(stop,)) for instance in instances]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
