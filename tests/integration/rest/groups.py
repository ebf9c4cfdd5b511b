"""The v3 dialect's consumer groups."""

from __future__ import annotations

from typing import Any

from tests.integration.rest.rows import JSON, V2, Each, Row, Rows, refused
from tests.integration.rest.v3 import V3

T, G = "grouped", "a group/of two"
QUOTED = "a%20group%2Fof%20two"
IN = {"Content-Type": V2}


def group_rows(cluster: str) -> Rows:
    """Of a topic `grouped` of two partitions. The group's name needs quoting in every link."""
    v3 = V3(cluster)
    path, place = f"{v3.path}/consumer-groups/{QUOTED}", f"/consumer-groups/{QUOTED}"
    instances = f"/consumers/{QUOTED}/instances"
    new = {"name": "reader", "format": "json", "auto.offset.reset": "earliest", "auto.commit.enable": False}
    yield refused("GET", path, 40405)
    yield Row(
        "POST", f"/topics/{T}/partitions/0", 200, dict, {"records": [{"value": 1}] * 5}, V2, {"Content-Type": JSON}
    )
    uri = f"http://cluster.test{instances}/reader"
    yield Row("POST", f"/consumers/{QUOTED}", 200, {"instance_id": "reader", "base_uri": uri}, new, V2, IN)
    yield Row("POST", f"{instances}/reader/subscription", 204, None, {"topics": [T]}, headers=IN)
    yield Row("GET", f"{instances}/reader/records?timeout=3000", 200, Each(dict, 5), media=JSON, is_once=True)
    commit = {"partitions": [{"topic": T, "partition": 0, "offset": 2}, {"topic": T, "partition": 1, "offset": 0}]}
    yield Row("POST", f"{instances}/reader/offsets", 200, [], commit, V2, IN)
    found = v3.one(
        "KafkaConsumerGroup", place, f"/consumer-group={QUOTED}", consumer_group_id=G, is_simple=False,
        partition_assignor=str, state="STABLE", type="CLASSIC", is_mixed_consumer_group=False,
        coordinator={"related": str}, consumers=v3.link(place + "/consumers"),
        lag_summary=v3.link(place + "/lag-summary"), generation=int,
    )  # fmt: skip
    yield Row("GET", path, 200, found, also_with_slash=True)
    every = v3.many("KafkaConsumerGroupList", "/consumer-groups", Each(dict))
    yield Row("GET", f"{v3.path}/consumer-groups", 200, every, also_with_slash=True)
    yield from _consumers(v3, path, place)
    yield from _offsets(v3, path, place)
    yield Row("DELETE", f"{instances}/reader", 204)
    yield from _without_members(v3, path, place)
    yield from _changes(v3, path)


def _consumers(v3: V3, path: str, place: str) -> Rows:
    answer = yield Row("GET", f"{path}/consumers", 200, v3.many("KafkaConsumerList", f"{place}/consumers", Each(dict)),
                       also_with_slash=True)  # fmt: skip
    member = answer["data"][0]["consumer_id"]
    of, crn = f"{place}/consumers/{member}", f"/consumer-group={QUOTED}/consumer={member}"
    shape = v3.one(
        "KafkaConsumer", of, crn, consumer_group_id=G, consumer_id=member, instance_id=None, client_id=str,
        assignments=v3.link(f"{of}/assignments"),
    )  # fmt: skip
    yield Row("GET", f"{v3.path}{of}", 200, shape, also_with_slash=True)

    def assigned(partition: int) -> dict[str, Any]:
        where = f"/{T}/partitions/{partition}"
        return v3.one(
            "KafkaConsumerAssignment", f"{of}/assignments{where}", f"{crn}/assignment={T}/partition={partition}",
            consumer_group_id=G, consumer_id=member, topic_name=T, partition_id=partition,
            partition=v3.link(f"/topics{where}"), lag=v3.link(f"{place}/lags{where}"),
        )  # fmt: skip

    every = v3.many("KafkaConsumerAssignmentList", f"{of}/assignments", [assigned(0), assigned(1)])
    yield Row("GET", f"{v3.path}{of}/assignments", 200, every, also_with_slash=True)
    yield Row("GET", f"{v3.path}{of}/assignments/{T}/partitions/1", 200, assigned(1), also_with_slash=True)
    for tail in ("", "/assignments", f"/assignments/{T}/partitions/0"):
        yield refused("GET", f"{path}/consumers/nobody{tail}", 404)
    yield refused("GET", f"{v3.path}{of}/assignments/{T}/partitions/9", 404)
    yield refused("GET", f"{v3.path}{of}/assignments/{T}/partitions/x", 404)


def _offsets(v3: V3, path: str, place: str) -> Rows:
    def lag(partition: int, committed: int, end: int) -> dict[str, Any]:
        where = f"{T}/partitions/{partition}"
        return v3.one(
            "KafkaConsumerLag", f"{place}/lags/{where}", f"/consumer-group={QUOTED}/lag={T}/partition={partition}",
            consumer_group_id=G, topic_name=T, partition_id=partition, current_offset=committed, log_end_offset=end,
            lag=end - committed, consumer_id=str, instance_id=None, client_id=str,
        )  # fmt: skip

    every = v3.many("KafkaConsumerLagList", f"{place}/lags", [lag(0, 2, 5), lag(1, 0, 0)])
    yield Row("GET", f"{path}/lags", 200, every, also_with_slash=True)
    yield Row("GET", f"{path}/lags/{T}/partitions/0", 200, lag(0, 2, 5), also_with_slash=True)
    for where in (f"{T}/partitions/9", f"{T}/partitions/x", "nobody/partitions/0"):
        yield refused("GET", f"{path}/lags/{where}", 404)
    summary = v3.one(
        "KafkaConsumerGroupLagSummary", f"{place}/lag-summary", f"/consumer-group={QUOTED}/lag-summary",
        consumer_group_id=G, max_lag_consumer_id=str, max_lag_instance_id=None, max_lag_client_id=str,
        max_lag_topic_name=T, max_lag_partition_id=0, max_lag=3, total_lag=3, max_lag_consumer={"related": str},
        max_lag_partition=v3.link(f"/topics/{T}/partitions/0"),
    )  # fmt: skip
    yield Row("GET", f"{path}/lag-summary", 200, summary, also_with_slash=True)
    gone = f"{v3.path}/consumer-groups/nobody"
    for tail in ("", "/consumers", "/consumers/x", "/consumers/x/assignments", "/lags", "/lag-summary"):
        yield refused("GET", f"{gone}{tail}", 40405)
    yield refused("GET", f"{gone}/lags/{T}/partitions/0", 40405)


def _without_members(v3: V3, path: str, place: str) -> Rows:
    """The links lead somewhere all the same: typed clients take no null for one."""
    summary = v3.one(
        "KafkaConsumerGroupLagSummary", f"{place}/lag-summary", f"/consumer-group={QUOTED}/lag-summary",
        consumer_group_id=G, max_lag_consumer_id="", max_lag_instance_id=None, max_lag_client_id="",
        max_lag_topic_name=T, max_lag_partition_id=0, max_lag=3, total_lag=3,
        max_lag_consumer=v3.link(f"{place}/consumers"), max_lag_partition=v3.link(f"/topics/{T}/partitions/0"),
    )  # fmt: skip
    yield Row("GET", f"{path}/lag-summary", 200, summary, also_with_slash=True)
    yield Row("POST", "/consumers/silent", 200, dict, {"name": "one"}, V2, IN)
    subscribed = {"topics": [T]}
    yield Row("POST", "/consumers/silent/instances/one/subscription", 204, None, subscribed, headers=IN)
    yield refused("GET", f"{v3.path}/consumer-groups/silent/lag-summary", 404, note="nothing is committed")
    yield Row("DELETE", "/consumers/silent/instances/one", 204)


def _changes(v3: V3, path: str) -> Rows:
    """Ours: Confluent's v3 changes no group."""

    def moved(*rows: tuple[int, int, int]) -> dict[str, Any]:
        names = ("partition_id", "old_offset", "new_offset")
        return {
            "kind": "KraftOffsetResetList",
            "data": [{"topic_name": T, **dict(zip(names, row, strict=True))} for row in rows],
        }

    reset = f"{path}/offsets:reset"
    yield Row("POST", reset, 200, moved((0, 2, 5), (1, 0, 0)), {"to": "latest", "validate_only": True})
    yield Row("POST", reset, 200, moved((0, 2, 1), (1, 0, 0)), {"shift": -1}, also_with_slash=False)
    given = {"offsets": [{"topic_name": T, "partition_id": 0, "offset": 4}]}
    yield Row("POST", reset, 200, moved((0, 1, 4)), given)
    yield refused("POST", reset, 400, {"to": "latest", "shift": 1})
    yield refused("POST", reset, 42206, b"")
    one = f"{path}/offsets/{T}/partitions/0"
    yield Row("DELETE", one, 204, note="one offset")
    yield refused("GET", f"{path}/lags/{T}/partitions/0", 404)
    yield refused("DELETE", one, 404, note="it has none any more")
    yield refused("DELETE", f"{path}/offsets/{T}/partitions/9", 404)
    yield refused("DELETE", f"{v3.path}/consumer-groups/nobody/offsets/{T}/partitions/0", 40405)
    yield Row("DELETE", f"{path}/offsets/{T}", 204, note="all of a topic")
    yield Row("DELETE", path, 204)
    yield refused("GET", path, 40405)
    yield refused("DELETE", path, 40405)
