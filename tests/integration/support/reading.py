"""What is in a partition, page by page, as one node serves it."""

from __future__ import annotations

from dataclasses import dataclass

from kraft.client.outcome import Answer
from tests.integration.support.cluster import Cluster

TEXT = "application/vnd.kafka.text.v2+json"
RECORD_BATCH = "application/vnd.kafka.recordbatch.v2"
PAGE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Record:
    offset: int
    key: str | None
    value: str | None


def page(cluster: Cluster, node_id: int, topic: str, partition: int, query: str, *, accept: str = TEXT) -> Answer:
    path = f"/topics/{topic}/partitions/{partition}/records?{query}"
    outcome = cluster.send(node_id, "GET", path, Accept=accept)
    assert isinstance(outcome, Answer), f"{path} of node {node_id}: {outcome}"
    return outcome


def read_all(cluster: Cluster, node_id: int, topic: str, partition: int = 0) -> list[Record]:
    """From the log start to the high watermark."""
    records: list[Record] = []
    offset: str | int = "earliest"
    while True:
        answer = page(cluster, node_id, topic, partition, f"offset={offset}&timeout=0&max_bytes={PAGE_BYTES}")
        assert answer.is_success, f"reading {topic}-{partition} at {offset} from node {node_id}: {answer}"
        records += [Record(each["offset"], each["key"], each["value"]) for each in answer.json()]
        offset = int(answer.headers["x-next-offset"])
        if offset >= int(answer.headers["x-high-watermark"]):
            return records


def values(cluster: Cluster, node_id: int, topic: str, partition: int = 0) -> list[str | None]:
    return [record.value for record in read_all(cluster, node_id, topic, partition)]
