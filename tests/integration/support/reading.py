"""What is in a partition, page by page, as one node serves it."""

from __future__ import annotations

from dataclasses import dataclass

from kraft.client.response import Answer
from tests.integration.support.cluster import Cluster
from tests.integration.support.waiting import NotYet, wait_until

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
    """From the log start to the high watermark. Raises NotYet, as when the node has not heard of the topic."""
    records: list[Record] = []
    offset: str | int = "earliest"
    while True:
        answer = page(cluster, node_id, topic, partition, f"offset={offset}&timeout=0&max_bytes={PAGE_BYTES}")
        if not answer.is_success:
            raise NotYet(f"reading {topic}-{partition} at {offset} from node {node_id}: {answer}")
        records += [Record(each["offset"], each["key"], each["value"]) for each in answer.json()]
        offset = int(answer.headers["x-next-offset"])
        if offset >= int(answer.headers["x-high-watermark"]):
            return records


def values(cluster: Cluster, node_id: int, topic: str, partition: int = 0) -> list[str | None]:
    return [record.value for record in read_all(cluster, node_id, topic, partition)]


def wait_for_values(cluster: Cluster, node_id: int, topic: str, wanted: list[str], partition: int = 0) -> None:
    """Until all of it is served, and nothing else on the way: a new leader shows a record only once it has heard that
    the other replicas have it."""

    def are_served() -> bool:
        found = values(cluster, node_id, topic, partition)
        assert found == wanted[: len(found)], f"node {node_id} serves {found} of {topic}-{partition}, not {wanted}"
        return len(found) == len(wanted)

    wait_until(are_served, what=f"{len(wanted)} records of {topic}-{partition} at node {node_id}")
