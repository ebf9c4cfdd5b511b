"""What the generator cannot know: which topic exists, what a setting takes. Loaded by schemathesis itself.

Every second valid request of the operations below is given data that the cluster can do something with; the others
stay as generated. What a request deletes is made before it. Nothing is done for requests that are meant to be wrong.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from typing import Any

import schemathesis

URL, CLUSTER = os.environ["KRAFT_URL"], os.environ["KRAFT_CLUSTER_ID"]
BELOW = f"/v3/clusters/{CLUSTER}"
TOPIC = "contract"
PARTITIONS_MAX = 12
"""Of the topic that grows: a small machine is busy with more."""

calls: Counter[str] = Counter()


def post(path: str, body: Any, content_type: str = "application/json") -> None:
    """It may be there already."""
    data, headers = json.dumps(body).encode(), {"Content-Type": content_type}
    request = urllib.request.Request(URL + path, data=data, headers=headers, method="POST")
    try:
        urllib.request.urlopen(request, timeout=20).close()
    except urllib.error.HTTPError as error:
        error.close()


def reset(group: str) -> None:
    offsets = [{"topic_name": TOPIC, "partition_id": 0, "offset": 0}]
    post(f"{BELOW}/consumer-groups/{group}/offsets:reset", {"offsets": offsets})


def make_consumer() -> None:
    post("/consumers/contract-group", {"name": "doomed-instance"}, "application/vnd.kafka.v2+json")


MADE: dict[str, Callable[[], None]] = {
    "v3_delete_topic": lambda: post(f"{BELOW}/topics", {"topic_name": "doomed", "partitions_count": 1}),
    "v2_delete_consumer": make_consumer,
    "v3_delete_group": lambda: reset("doomed-group"),
    "v3_delete_group_offset": lambda: reset("forgotten-group"),
    "v3_delete_group_offsets": lambda: reset("forgotten-group"),
}


def change(name: str, value: str = "60000") -> Callable[[int], Any]:
    return lambda _: {"data": [{"name": name, "value": value}]}


BODIES: dict[str, Callable[[int], Any]] = {
    "v3_create_topic": lambda number: {"topic_name": f"made-{number}", "partitions_count": 1},
    "v2_create_admin_topic": lambda number: {"topic_name": f"made-too-{number}"},
    "v3_grow_topic": lambda number: {"partitions_count": min(2 + number, PARTITIONS_MAX)},
    "v3_start_reassignment": lambda _: {"replicas": [1]},
    "v3_set_topic_config": lambda _: {"value": "60000"},
    "v3_set_broker_config": lambda _: {"value": "60000"},
    "v3_set_cluster_config": lambda _: {"value": "60000"},
    "v3_alter_topic_configs": change("retention.ms"),
    "v3_alter_configs_of_topics": lambda _: {
        "data": [{"topic_name": TOPIC, "configs": [{"name": "retention.ms", "value": "60000"}]}]
    },
    "v3_alter_broker_configs": change("log.retention.ms"),
    "v3_alter_cluster_configs": change("log.retention.ms"),
    "v2_seek_consumer_to_end": lambda _: {"partitions": [{"topic": TOPIC, "partition": 0}]},
    "v2_seek_consumer_to_beginning": lambda _: {"partitions": [{"topic": TOPIC, "partition": 0}]},
}


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    name = case.operation.definition.raw["operationId"]
    if not (name in MADE or name in BODIES) or not _is_valid(case):
        return
    calls[name] += 1
    if calls[name] % 2 == 0:
        return
    if name in MADE:
        MADE[name]()
    else:
        case.body = BODIES[name](calls[name] // 2)


def _is_valid(case: Any) -> bool:
    return case.meta is not None and case.meta.generation.mode.is_positive


@schemathesis.deserializer("application/x-ndjson")
def lines(context: Any, response: Any) -> list[Any]:
    return [json.loads(line) for line in response.content.splitlines() if line.strip()]
