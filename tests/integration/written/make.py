"""Write a data folder with the version that is checked out, and keep it with what was in it.

    python -m tests.integration.written.make f8c3217

makes `f8c3217.tar.xz` (the data folder of three nodes) and `f8c3217.json` (what clients could see in it) beside this
file. In it are, and the facts say so where it could be missed:

- a metadata snapshot and a journal that goes on after it, votes, and the cluster's secret;
- `events`: three partitions, several segments each, every compression, records of several leader epochs, for every
  node was killed and restarted meanwhile; settings that are not the default, some changed afterwards;
- `compacted`: a topic that the cleaner has been through;
- `sequenced`: batches of idempotent producers with ids from the controller, and of Idempotency-Keys;
- groups: two REST consumers that are in the middle of a topic, and a group that is empty and has committed offsets.

Two nodes were stopped in order and the third was killed: it has no marker of a clean end, and recovers. Nothing in it
grows old: retention is off, and the producers' last records are from the year 2100, because a producer that was silent
for longer than producer.id.expiration.ms (25 days at most) is forgotten.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Final

from kraft.client.response import Answer
from kraft.protocol.batches.header import CODEC_NAMES
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.wire.channels.transactions import INIT_PRODUCER_ID, InitProducerId
from tests.integration.support.cluster import Cluster
from tests.integration.support.configuration import QUICK_CHORES, QUICK_FAILURES, write_config
from tests.integration.support.inside import ask_as_peer
from tests.integration.support.waiting import NotYet, wait_until
from tests.integration.written.contents import COMPACTED, GROUPS, TOPICS, look, produce

FOLDER: Final = Path(__file__).parent
SETTINGS: Final = {
    **QUICK_CHORES,
    **QUICK_FAILURES,
    "metadata.log.max.record.bytes.between.snapshots": 4_096,
    "offsets.topic.num.partitions": 4,
    "offsets.retention.minutes": 2**31 - 1,
    "producer.id.expiration.ms": 2**31 - 1,
    "log.cleaner.backoff.ms": 200,
}
"""The test that starts on the folder uses them, too."""
LATER_MS: Final = 4_102_444_800_000
"""2100-01-01."""
LEFT_OUT: Final = (".lock", "node.log", "events.jsonl", "cluster.json", "resolved.toml")


def fill(cluster: Cluster) -> list[dict[str, Any]]:
    """Returns the batches that must not be appended a second time, with their offsets."""
    cluster.create_topic(
        "events",
        partitions=3,
        segment_bytes="2000",
        retention_ms="-1",
        index_interval_bytes="500",
        segment_jitter_ms="7",
    )
    cluster.create_topic(
        COMPACTED,
        cleanup_policy="compact",
        segment_bytes="2000",
        min_cleanable_dirty_ratio="0.01",
        delete_retention_ms="0",
    )
    cluster.create_topic("sequenced", partitions=2, retention_ms="-1", message_timestamp_after_max_ms=str(2**63 - 1))
    _alter(cluster, "events", {"max.message.bytes": "123456", "flush.messages": "3"})
    _write_sequenced(cluster)
    for turn, node_id in enumerate(cluster.ids):
        _write_events(cluster, turn)
        _write_compacted(cluster, turn)
        cluster.kill(node_id)
        cluster.restart(node_id)
        cluster.heal()
    produced = _write_sequenced(cluster)
    _commit(cluster)
    _write_events(cluster, 3)
    return produced


def _alter(cluster: Cluster, topic: str, settings: dict[str, str]) -> None:
    rows = [{"name": name, "value": value} for name, value in settings.items()]
    answer = cluster.call("POST", f"/topics/{topic}/configs:alter", {"data": rows})
    assert answer.status == 204, answer


def _write_events(cluster: Cluster, turn: int) -> None:
    for partition in range(TOPICS["events"]):
        for number, codec in enumerate(CODEC_NAMES):
            values = [f"{turn}.{partition}.{codec}.{n} " + f"{n * 7919 % 10_007:06d}" * 20 for n in range(8)]
            records = [
                NewRecord(
                    b"key %d" % n, value.encode(), [("h", b"%d" % n)], 1_700_000_000_000 + 1_000 * (turn * 10 + n)
                )
                for n, value in enumerate(values, start=number)
            ]
            _produce(cluster, "events", partition, build_batch(records, compression=codec))


def _write_compacted(cluster: Cluster, turn: int) -> None:
    for number in range(30):
        records = [
            NewRecord(b"key %d" % (number % 7), b"%d of %d " % (number, turn) + b"x" * 150, [], 1_700_000_000_000)
        ]
        _produce(cluster, COMPACTED, 0, build_batch(records))


def _write_sequenced(cluster: Cluster) -> list[dict[str, Any]]:
    produced = []
    for partition in range(TOPICS["sequenced"]):
        given = ask_as_peer(cluster, cluster.ids[0], INIT_PRODUCER_ID, InitProducerId())
        for number in range(3):
            values = [NewRecord(None, b"%d.%d" % (number, n), [], LATER_MS) for n in range(4)]
            batch = build_batch(
                values, producer_id=given.producer_id, producer_epoch=given.epoch, base_sequence=number * 4
            )
            last = _produce(cluster, "sequenced", partition, batch)
        produced.append(last)
        keyed = build_batch([NewRecord(None, b"keyed", [], LATER_MS)])
        produced.append(_produce(cluster, "sequenced", partition, keyed, key=f"key-{partition}"))
    return produced


def _produce(cluster: Cluster, topic: str, partition: int, batch: bytes, key: str = "") -> dict[str, Any]:
    described = {"topic": topic, "partition": partition, "key": key, "bytes": base64.b64encode(batch).decode()}
    offset = produce(cluster, described, node_id=cluster.ids[0])
    return {**described, "offset": offset}


def _commit(cluster: Cluster) -> None:
    for group, staying in GROUPS.items():
        names = staying or ("left",)
        for name in names:
            body = {"name": name, "format": "binary", "auto.offset.reset": "earliest", "auto.commit.enable": "false"}
            _post(cluster, f"/consumers/{group}", body)
            _post(cluster, f"/consumers/{group}/instances/{name}/subscription", {"topics": ["events"]})
        wait_until(lambda of=group, by=names: _assigned(cluster, of, by) == 3, what="an assignment of all partitions")
        for name in names:
            path = f"/consumers/{group}/instances/{name}"
            partitions = cluster.get(path + "/assignments")["partitions"]
            rows = [{**each, "offset": 10 + each["partition"], "metadata": f"by {name}"} for each in partitions]
            _post(cluster, path + "/offsets", {"partitions": rows})
            if name not in staying:
                answer = cluster.send(cluster.ids[0], "DELETE", path)
                assert isinstance(answer, Answer), answer
                assert answer.is_success, answer


def _assigned(cluster: Cluster, group: str, names: tuple[str, ...]) -> int:
    """How many partitions; 0 while a consumer has none."""
    counts = [len(cluster.get(f"/consumers/{group}/instances/{name}/assignments")["partitions"]) for name in names]
    return sum(counts) if all(counts) else 0


def _post(cluster: Cluster, path: str, body: Any) -> None:
    def is_taken() -> bool:
        answer = cluster.send(cluster.ids[0], "POST", path, body, Content_Type="application/vnd.kafka.v2+json")
        if not isinstance(answer, Answer) or not answer.is_success:
            raise NotYet(f"{path}: {answer}")
        return True

    wait_until(is_taken, what=path)


def _is_cleaned(cluster: Cluster) -> bool:
    checkpoints = [Path(node.data) / "logs" / "cleaner-offset-checkpoint" for node in cluster.nodes]
    return all(path.exists() and COMPACTED in path.read_text() for path in checkpoints)


def check(cluster: Cluster, facts: dict[str, Any]) -> None:
    """What makes the folder worth keeping."""
    for partition in range(TOPICS["events"]):
        assert len(facts["records"][f"events-{partition}"]["leader_epochs"]) > 1
        assert facts["records"][f"events-{partition}"]["codecs"] == sorted(CODEC_NAMES)
        assert len(list(cluster.folder(1, "events", partition).glob("*.log"))) > 3
    assert facts["groups"]["gone"]["committed"], facts["groups"]
    for node_id in cluster.ids:
        quorum = next(Path(cluster.node(node_id).data).rglob("__cluster_metadata*"))
        assert (quorum / "snapshot").stat().st_size > 0
    assert (Path(cluster.data) / "cluster.secret").exists()


def main(name: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        config = write_config(Path(scratch) / "cluster.toml", settings=SETTINGS)
        cluster = Cluster(data=str(Path(scratch) / "data"), config=config)
        try:
            cluster.start()
            produced = fill(cluster)
            wait_until(lambda: _is_cleaned(cluster), what="the cleaner to have been through on all nodes")
            facts = wait_until(lambda: look(cluster, node_id=1), what="all that is in it")
            check(cluster, facts)
            killed = cluster.ids[-1]
            cluster.kill(killed)
            cluster.stop_all()
        finally:
            cluster.destroy()
        document = {"cluster_id": _cluster_id(config), "killed": killed, "produced": produced, "facts": facts}
        (FOLDER / f"{name}.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
        with tarfile.open(FOLDER / f"{name}.tar.xz", "w:xz", preset=9) as archive:
            archive.add(cluster.data, arcname="data", filter=_kept)


def _cluster_id(config: str) -> str:
    return Path(config).read_text().splitlines()[0].split('"')[1]


def _kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if os.path.basename(member.name) in LEFT_OUT:
        return None
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    main(sys.argv[1])
