"""Record a small log directory of Apache Kafka, for tests/unit/kafka_data/test_golden.py.

    python -m tests.clients.record_kafka [--kafka 4.4.0] [--cache FOLDER]

One node of that release is formatted, used, and shut down. `tests/unit/kafka_data/golden/kafka-VERSION.tar.xz` then has
its log directory and `expected.json`, which has what clients saw last. Needs Java 17, and `mvn` once for the jars.
"""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from tests.clients.exchange_load import (
    QUEUED,
    READ_S,
    Loaded,
    committed_of,
    consume,
    produce,
    read,
    secure,
    transaction,
    use_queue,
)
from tests.clients.java.__main__ import fetch
from tests.clients.kafka_nodes import QUIET, KafkaNodes
from tests.clients.scripts import parser
from tests.integration.support.waiting import NotYet, wait_until
from tests.support.ports import own_host

RELEASES = ("3.9.1", "4.1.0", "4.4.0")
FOLDER = Path(__file__).parents[1] / "unit/kafka_data/golden"
CLUSTER_ID = "8wXDVvXbTLqOXrHQ2hZ0Cg"
TOPICS = {"orders": 2, "compacted": 1, "ledger": 1}
PROPERTIES = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:19193
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{host}:19192,CONTROLLER://{host}:19193
advertised.listeners=PLAINTEXT://{host}:19192
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
log.dirs={folder}/logs
metadata.log.max.record.bytes.between.snapshots=2000
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
"""


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--kafka", action="append", help=f"release (default: {' and '.join(RELEASES)})")
    asked = arguments.parse_args()
    for release in asked.kafka or RELEASES:
        with tempfile.TemporaryDirectory() as made:
            record(KafkaNodes(jars=fetch(release, asked.cache), folder=Path(made)), release)


@contextmanager
def one_node(kafka: KafkaNodes) -> Iterator[str]:
    """Format and start `node-1`, and stop it in order; gives its address."""
    host, folder = own_host(), kafka.folder / "node-1"
    folder.mkdir()
    properties = folder / "server.properties"
    properties.write_text(PROPERTIES.format(host=host, folder=folder))
    kafka.tool("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(properties))
    kafka.start(1)
    try:
        bootstrap = f"{host}:19192"
        wait_until(lambda: _is_up(bootstrap), deadline_s=READ_S, what="a broker of Kafka")
        yield bootstrap
    finally:
        kafka.stop()


def _is_up(bootstrap: str) -> bool:
    try:
        return bool(AdminClient({"bootstrap.servers": bootstrap, **QUIET}).list_topics(timeout=10).brokers)
    except KafkaException as error:
        raise NotYet(str(error)) from error


def record(kafka: KafkaNodes, release: str) -> None:
    folder = kafka.folder / "node-1"
    with one_node(kafka) as bootstrap:
        expected = use(bootstrap, has_shares=release >= "4.2")
    target = FOLDER / f"kafka-{release}.tar.xz"
    with tarfile.open(target, "w:xz", preset=9) as archive:
        for path in sorted(folder.glob("logs/**/*")):
            if path.name != ".lock":
                archive.add(path, str(path.relative_to(folder)), recursive=False, filter=_anonymous)
        data = json.dumps(expected, indent=1).encode()
        entry = tarfile.TarInfo("expected.json")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    print(f"{target}: {target.stat().st_size} bytes")


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


def use(bootstrap: str, *, has_shares: bool) -> dict[str, Any]:
    """What clients see at the end."""
    admin = AdminClient({"bootstrap.servers": bootstrap, **QUIET})
    topics = [
        NewTopic("orders", 2, 1, config={"retention.ms": "-1"}),
        NewTopic("compacted", 1, 1, config={"cleanup.policy": "compact"}),
        *(NewTopic(name, 1, 1) for name in ("ledger", "queue", "gone")),
    ]
    for done in admin.create_topics(topics).values():
        done.result(READ_S)
    for done in admin.delete_topics(["gone"]).values():
        done.result(READ_S)
    produce(bootstrap, "orders", [b"order %d" % number for number in range(300)])
    produce(bootstrap, "compacted", [b"state %d" % number for number in range(100)])
    transaction(bootstrap, "commits", b"committed").commit_transaction(READ_S)
    transaction(bootstrap, "aborts", b"aborted").abort_transaction(READ_S)
    secure(bootstrap, admin)
    consume(bootstrap, "readers", 100)
    loaded = Loaded(b"", 0, {}, {})
    if has_shares:
        use_queue(bootstrap, admin, loaded)
    log = read(bootstrap, TOPICS)
    records = {
        f"{topic}-{number}": [[offset, _text(key), _text(value)] for offset, key, value in found]
        for (topic, number), found in log.items()
    }
    return {
        "records": records,
        "readers": committed_of(bootstrap, "readers"),
        "queued": QUEUED if has_shares else 0,
        "accepted": sorted(value.decode() for value in loaded.accepted),
        "released": sorted(value.decode() for value in loaded.released),
    }


def _text(data: bytes | None) -> str:
    return (data or b"").decode()


if __name__ == "__main__":
    main()
