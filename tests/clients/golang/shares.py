"""franz-go's share groups: members take and accept records while nodes and they themselves are killed with -9.

    python -m tests.clients.golang.shares [--records 6000] [--cache FOLDER]

Needs Go; the versions stand in go.mod. Each node is the leader of partitions, and group coordinator or share
coordinator of some. A member that was killed is followed by another one. Every record has to be accepted, none whose
acceptance was answered may be accepted again, and the group has to have nothing left.
"""

from __future__ import annotations

import tempfile
import threading
import uuid
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from tests.clients.exactly_once import DEADLINE_S, Instance, killing, running, write
from tests.clients.golang.__main__ import BUILD_S, HERE
from tests.clients.scripts import SETTINGS, Steps, end, parser, run_program
from tests.integration.conftest import run_cluster
from tests.integration.support.cluster import Cluster
from tests.integration.support.waiting import NotYet, wait_until

RECORDS = 6_000
RECORD_EVERY_S = 0.004
PARTITIONS = 6
MEMBERS = 3
DIES_EVERY_S = 7.0
KILLS = 4
"""Nodes that are killed, at least."""
ADMIN_S = 60
IN_DOUBT_SHARE_MAX = 0.1
"""The share of records whose acceptance nobody has seen answered, at most."""


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--records", type=int, default=RECORDS, help="to accept (default: %(default)s)")
    asked = arguments.parse_args()
    if asked.bootstrap is not None:
        arguments.error("--bootstrap: nodes are killed here, so they have to be the script's own")
    asked.cache.mkdir(parents=True, exist_ok=True)
    binary = asked.cache / "go-share"
    run_program(["go", "build", "-o", binary, "./share"], folder=HERE, timeout_s=BUILD_S)
    steps = Steps("franz-go share groups")

    def each_record_is_accepted_once_while_nodes_and_members_are_killed(cluster: Cluster, folder: Path) -> None:
        accept(cluster, binary, folder, records=asked.records)

    with tempfile.TemporaryDirectory(prefix="kraft-go-") as made:
        for cluster in run_cluster(Path(made), settings=SETTINGS):
            steps.run(each_record_is_accepted_once_while_nodes_and_members_are_killed, cluster, Path(made))
    end(steps.verdict())


def accept(cluster: Cluster, binary: Path, folder: Path, *, records: int) -> None:
    bootstrap = ",".join(node.kafka for node in cluster.nodes)
    topic, group = (f"{name}-{uuid.uuid4().hex[:8]}" for name in ("queue", "group"))
    cluster.create_topic(topic, partitions=PARTITIONS)
    begin_at_the_start(bootstrap, group)
    values = [str(number) for number in range(records)]
    writing = threading.Thread(
        target=write,
        args=(bootstrap, topic, (value.encode() for value in values)),
        kwargs={"every_s": RECORD_EVERY_S, "partitions": PARTITIONS},
    )
    logs = [folder / f"member-{number}.log" for number in range(MEMBERS)]
    members = [Instance([str(binary), bootstrap, topic, group], log, dies_every_s=DIES_EVERY_S) for log in logs]
    with killing(cluster) as kills, running(members):
        writing.start()

        def is_accepted() -> bool:
            missing = set(values) - begun(logs)
            if missing:
                raise NotYet(len(missing), sorted(missing)[:9], [member.reported()[-300:] for member in members])
            return len(kills) >= KILLS and all(member.starts > 1 for member in members)

        wait_until(is_accepted, deadline_s=DEADLINE_S + records * RECORD_EVERY_S, what="every record is accepted")
        writing.join()
    wait_until(lambda: lag(cluster, group) == 0, deadline_s=ADMIN_S, what="the group has nothing left")
    accepted = Counter(word for log in logs for word in words(log, "accepted"))
    in_doubt = len(values) - len(accepted)
    starts = sum(member.starts for member in members)
    print(f"        {len(kills)} kills of nodes, {starts} members, {len(accepted)} accepted, {in_doubt} in doubt")
    twice = {value: count for value, count in accepted.items() if count > 1}
    assert not twice, twice
    assert in_doubt <= records * IN_DOUBT_SHARE_MAX, in_doubt


def begin_at_the_start(bootstrap: str, group: str) -> None:
    entry = ConfigEntry("share.auto.offset.reset", "earliest", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.GROUP, group, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(timeout=ADMIN_S)


def words(log: Path, kind: str) -> Iterable[str]:
    """The values of lines of that kind. The last line of a member that was killed may be cut."""
    lines = (line.split() for line in log.read_text().splitlines()) if log.exists() else ()
    return [line[1] for line in lines if len(line) == 2 and line[0] == kind]


def begun(logs: Iterable[Path]) -> set[str]:
    return {word for log in logs for word in words(log, "begun")}


def lag(cluster: Cluster, group: str) -> int:
    """Records that nobody has accepted."""
    path = f"{cluster.v3}/share-groups/{group}/lags"
    return sum(each["lag"] for each in cluster.get(path)["data"])


if __name__ == "__main__":
    main()
