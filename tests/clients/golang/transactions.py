"""franz-go's GroupTransactSession copies a topic to another while nodes and its own instances are killed with -9.

    python -m tests.clients.golang.transactions [--records 20000] [--cache FOLDER]

Needs Go; the versions stand in go.mod. Two instances share a group, each with a transactional id that it has again when
it is started again, and five produce requests in flight to each node. Every record of the input has to be among the
committed ones of the output, once, and no instance may end with one of the errors in `exactly_once.FATAL`.
"""

from __future__ import annotations

import tempfile
import threading
import uuid
from collections import Counter
from pathlib import Path

from tests.clients.exactly_once import (
    DEADLINE_S,
    PARTITIONS,
    Instance,
    committed_values,
    difference,
    killing,
    running,
    write,
)
from tests.clients.golang.__main__ import BUILD_S, HERE
from tests.clients.scripts import SETTINGS, Steps, end, parser, run_program
from tests.integration.conftest import run_cluster
from tests.integration.support.cluster import Cluster
from tests.integration.support.waiting import NotYet, wait_until

RECORDS = 20_000
RECORD_EVERY_S = 0.004
INSTANCES = 2
KILLS = 4
"""Of nodes, at least."""


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--records", type=int, default=RECORDS, help="of the input (default: %(default)s)")
    asked = arguments.parse_args()
    if asked.bootstrap is not None:
        arguments.error("--bootstrap: nodes are killed here, so they have to be the script's own")
    binary = built(asked.cache)
    steps = Steps("franz-go")

    def each_record_is_copied_once_while_nodes_and_instances_are_killed(cluster: Cluster, folder: Path) -> None:
        copy(cluster, binary, folder, records=asked.records)

    settings = {**SETTINGS, "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1_000}
    with tempfile.TemporaryDirectory(prefix="kraft-go-") as made:
        for cluster in run_cluster(Path(made), settings=settings):
            steps.run(each_record_is_copied_once_while_nodes_and_instances_are_killed, cluster, Path(made))
    end(steps.verdict())


def built(cache: Path) -> Path:
    """The program, see `transact/main.go`."""
    cache.mkdir(parents=True, exist_ok=True)
    binary = cache / "go-transact"
    run_program(["go", "build", "-o", binary, "./transact"], folder=HERE, timeout_s=BUILD_S)
    return binary


def copy(cluster: Cluster, binary: Path, folder: Path, *, records: int) -> None:
    bootstrap = ",".join(node.kafka for node in cluster.nodes)
    source, sink, group = (f"{name}-{uuid.uuid4().hex[:8]}" for name in ("source", "sink", "group"))
    for topic in (source, sink):
        cluster.create_topic(topic, partitions=PARTITIONS)
    values = [b"%d" % number for number in range(records)]
    wanted = Counter(values)
    writing = threading.Thread(target=write, args=(bootstrap, source, values), kwargs={"every_s": RECORD_EVERY_S})
    instances = [
        Instance(
            [str(binary), bootstrap, source, sink, group, f"{group}-{number}"],
            folder / f"instance-{number}.log",
        )
        for number in range(INSTANCES)
    ]
    with killing(cluster) as kills:
        writing.start()
        with running(instances):

            def is_copied() -> bool:
                found = Counter(committed_values(bootstrap, sink))
                assert not found - wanted, difference(found, wanted)
                if found != wanted:
                    raise NotYet(difference(found, wanted), [instance.reported() for instance in instances])
                return len(kills) >= KILLS and all(instance.starts > 1 for instance in instances)

            wait_until(is_copied, deadline_s=DEADLINE_S + records * RECORD_EVERY_S, what="the copies")
    writing.join()
    for instance in instances:
        print(f"        {instance.starts} starts, {instance.given_up} given up by itself; {instance.committed()}")
        assert not instance.fatal, instance.fatal


if __name__ == "__main__":
    main()
