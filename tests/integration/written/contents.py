"""What a data folder holds, as clients can see it: the same facts before a cluster was stopped, and after another
version has started on a copy of its folder.

Facts are JSON values; `look` changes nothing. What the passing of time may change (how far the cleaner has come) is
left out: of a compacted topic counts the last value of each key.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any, Final

from kraft.client.response import Answer
from kraft.protocol.batches.header import whole_batches
from tests.integration.support.cluster import Cluster
from tests.integration.support.reading import RECORD_BATCH, page, read_all
from tests.integration.support.waiting import NotYet

PAGE_BYTES: Final = 4 * 1024 * 1024
COMPACTED: Final = "compacted"
TOPICS: Final = {"events": 3, COMPACTED: 1, "sequenced": 2}
"""Name -> partitions."""
GROUPS: Final = {"alive": ("one", "two"), "gone": ()}
"""Group -> REST consumers that are there still."""


def look(cluster: Cluster, *, node_id: int) -> dict[str, Any]:
    """As one node serves it. Raises NotYet while it does not know, or may not say."""
    return {
        "topics": {name: _topic(cluster, node_id, name) for name in TOPICS},
        "records": {
            f"{name}-{number}": _records(cluster, node_id, name, number)
            for name, partitions in TOPICS.items()
            for number in range(partitions)
        },
        "groups": {group: _group(cluster, node_id, group, consumers) for group, consumers in GROUPS.items()},
    }


def send_again(cluster: Cluster, produced: list[dict[str, Any]], *, node_id: int) -> list[dict[str, Any]]:
    """Produce batches once more; the same entries with the offsets that were answered now."""
    return [{**each, "offset": produce(cluster, each, node_id=node_id)} for each in produced]


def produce(cluster: Cluster, batch: dict[str, Any], *, node_id: int) -> int:
    """The offset of its first record. Raises NotYet when it was refused."""
    path = f"/topics/{batch['topic']}/partitions/{batch['partition']}"
    key = {"Idempotency_Key": batch["key"]} if batch["key"] else {}
    body = base64.b64decode(batch["bytes"])
    outcome = cluster.send(node_id, "POST", path, body, Content_Type=RECORD_BATCH, **key)
    entry = _json(outcome, path)["offsets"][0]
    if entry["error_code"] is not None:
        raise NotYet(f"{path}: {entry}")
    return int(entry["offset"])


def _topic(cluster: Cluster, node_id: int, name: str) -> dict[str, Any]:
    path = f"{cluster.v3}/topics/{name}"
    found = _get(cluster, node_id, path)
    settings = _get(cluster, node_id, path + "/configs")["data"]
    return {
        "id": found["topic_id"],
        "partitions": found["partitions_count"],
        "replicas": found["replication_factor"],
        "settings": {each["name"]: each["value"] for each in settings if each["source"] == "DYNAMIC_TOPIC_CONFIG"},
    }


def _records(cluster: Cluster, node_id: int, topic: str, partition: int) -> dict[str, Any]:
    if topic == COMPACTED:
        records = read_all(cluster, node_id, topic, partition)
        return {"end": records[-1].offset + 1, "values": {record.key: record.value for record in records}}
    data = _bytes(cluster, node_id, topic, partition)
    headers = [header for _, header in whole_batches(data)]
    return {
        "sha256": hashlib.sha256(data).hexdigest(),
        "records": sum(header.record_count for header in headers),
        "end": headers[-1].next_offset,
        "codecs": sorted({header.codec_name for header in headers}),
        "leader_epochs": sorted({header.leader_epoch for header in headers}),
        "values": [str(record.value).split(" ")[0] for record in read_all(cluster, node_id, topic, partition)],
    }


def _bytes(cluster: Cluster, node_id: int, topic: str, partition: int) -> bytes:
    """All batches up to the high watermark, as they are in the log."""
    data, offset = b"", 0
    while True:
        query = f"offset={offset}&timeout=0&max_bytes={PAGE_BYTES}"
        answer = page(cluster, node_id, topic, partition, query, accept=RECORD_BATCH)
        if not answer.is_success:
            raise NotYet(f"reading {topic}-{partition} at {offset} from node {node_id}: {answer}")
        data += answer.body
        offset = int(answer.headers["x-next-offset"])
        if offset >= int(answer.headers["x-high-watermark"]):
            return data


def _group(cluster: Cluster, node_id: int, group: str, consumers: tuple[str, ...]) -> dict[str, Any]:
    path = f"{cluster.v3}/consumer-groups/{group}"
    lags = _get(cluster, node_id, path + "/lags")["data"]
    instances = {}
    for consumer in consumers:
        own = f"/consumers/{group}/instances/{consumer}"
        assigned = _get(cluster, node_id, own + "/assignments")["partitions"]
        instances[consumer] = {
            "subscription": _get(cluster, node_id, own + "/subscription")["topics"],
            "assignment": sorted((each["topic"], each["partition"]) for each in assigned),
        }
    return {
        "state": _get(cluster, node_id, path)["state"],
        "committed": {f"{lag['topic_name']}-{lag['partition_id']}": lag["current_offset"] for lag in lags},
        "members": sorted(each["client_id"] for each in _get(cluster, node_id, path + "/consumers")["data"]),
        "instances": instances,
    }


def _get(cluster: Cluster, node_id: int, path: str) -> Any:
    return _json(cluster.send(node_id, "GET", path), path)


def _json(outcome: object, path: str) -> Any:
    if not isinstance(outcome, Answer) or not outcome.is_success:
        raise NotYet(f"{path}: {outcome}")
    return outcome.json()
