"""The v3 dialect but for groups: the cluster, brokers, topics, configs, partitions, reassignments, records."""

from __future__ import annotations

import json
from typing import Any

from tests.integration.rest.rows import TEXT, V2, Each, Maybe, Row, Rows, Text, refused

NO_ACL = "no ACLs"
BROKER_CONFIG = "log.segment.delete.delay.ms"
"""A setting that Kafka changes while a broker runs."""


class V3:
    """Shapes below one cluster."""

    def __init__(self, cluster: str) -> None:
        self.cluster = cluster
        self.path = f"/v3/clusters/{cluster}"
        self.url = f"http://cluster.test{self.path}"

    def link(self, path: str) -> dict[str, Any]:
        return {"related": self.url + path}

    def one(self, kind: str, path: str, crn: str, **fields: Any) -> dict[str, Any]:
        metadata = {"self": self.url + path, "resource_name": f"crn:///kafka={self.cluster}{crn}"}
        return {"kind": kind, "metadata": metadata, "cluster_id": self.cluster, **fields}

    def many(self, kind: str, path: str, data: Any) -> dict[str, Any]:
        return {"kind": kind, "metadata": {"self": self.url + path, "next": None}, "data": data}

    def of_cluster(self) -> dict[str, Any]:
        links = {"acls": "/acls", "brokers": "/brokers", "broker_configs": "/broker-configs", "topics": "/topics"}
        links |= {"consumer_groups": "/consumer-groups"}
        links |= {"partition_reassignments": "/topics/-/partitions/-/reassignment"}
        related = {name: self.link(path) for name, path in links.items()}
        return self.one("KafkaCluster", "", "", controller={"related": str}, **related)

    def broker(self, number: int) -> dict[str, Any]:
        path = f"/brokers/{number}"
        return self.one(
            "KafkaBroker", path, f"/broker={number}", broker_id=number, host="127.0.0.1", port=int, rack=Maybe(str),
            configs=self.link(path + "/configs"), partition_replicas=self.link(path + "/partition-replicas"),
            broker_epoch=int, is_fenced=False, rest=str,
        )  # fmt: skip

    def topic(self, name: str, partitions: Any, **more: Any) -> dict[str, Any]:
        path = f"/topics/{name}"
        fields = {
            "topic_name": name, "is_internal": False, "replication_factor": 3, "partitions_count": partitions,
            "partitions": self.link(path + "/partitions"), "configs": self.link(path + "/configs"),
            "partition_reassignments": self.link(path + "/partitions/-/reassignment"), "authorized_operations": [],
            "topic_id": str, **more,
        }  # fmt: skip
        return self.one("KafkaTopic", path, f"/topic={name}", **fields)

    def partition(self, topic: str, number: int) -> dict[str, Any]:
        path = f"/topics/{topic}/partitions/{number}"
        return self.one(
            "KafkaPartition", path, f"/topic={topic}/partition={number}", topic_name=topic, partition_id=number,
            leader={"related": str}, replicas=self.link(path + "/replicas"),
            reassignment=self.link(path + "/reassignment"), leader_id=int, leader_epoch=int, partition_epoch=int,
            isr=list, assignment=list, leader_recovery=str,
        )  # fmt: skip

    def replica(self, topic: str, number: int, broker: int) -> dict[str, Any]:
        path = f"/topics/{topic}/partitions/{number}/replicas/{broker}"
        crn = f"/topic={topic}/partition={number}/replica={broker}"
        return self.one(
            "KafkaReplica", path, crn, topic_name=topic, partition_id=number, broker_id=broker, is_leader=bool,
            is_in_sync=bool, broker=self.link(f"/brokers/{broker}"),
        )  # fmt: skip

    def config(self, kind: str, path: str, crn: str, name: Any, **fields: Any) -> dict[str, Any]:
        synonym = {"name": str, "value": Maybe(str), "source": str}
        values = {
            "name": name, "value": Maybe(str), "is_default": bool, "is_read_only": bool, "is_sensitive": bool,
            "source": str, "synonyms": Each(synonym),
        }  # fmt: skip
        return self.one(kind, f"{path}/{name}", f"{crn}={name}", **(values | fields))


def any_of(shape: dict[str, Any]) -> dict[str, Any]:
    """The same kind of thing, whatever its name."""
    return {**shape, "metadata": {"self": str, "resource_name": str}}


def v3_rows(cluster: str) -> Rows:
    """Of a cluster with three brokers and a topic `rows` of two partitions."""
    v3 = V3(cluster)
    yield from _clusters(v3)
    yield from _brokers(v3)
    yield from _configs(v3)
    yield from _topics(v3)
    yield from _partitions(v3)
    yield from _reassignments(v3)
    yield from _bodies(v3)
    yield from _judged_alone(v3)


def _clusters(v3: V3) -> Rows:
    every = v3.many("KafkaClusterList", "", [v3.of_cluster()])
    every["metadata"]["self"] = "http://cluster.test/v3/clusters"
    yield Row("GET", "/v3/clusters", 200, every, also_with_slash=True)
    yield Row("GET", v3.path, 200, v3.of_cluster(), also_with_slash=True)
    for tail in ("", "/brokers", "/topics", "/topics/rows", "/broker-configs", "/consumer-groups"):
        yield refused("GET", f"/v3/clusters/other{tail}", 404)
        yield refused("GET", v3.path + tail, 406, headers={"Accept": "text/xml"})
    yield refused("GET", f"{v3.path}/acls", 40002, note=NO_ACL)
    yield refused("POST", f"{v3.path}/acls", 40002, {}, note=NO_ACL)
    yield refused("DELETE", f"{v3.path}/acls?resource_type=TOPIC", 40002, note=NO_ACL)
    yield refused("POST", f"{v3.path}/acls:batch", 40002, {"data": []}, note=NO_ACL)


def _brokers(v3: V3) -> Rows:
    path = f"{v3.path}/brokers"
    every = v3.many("KafkaBrokerList", "/brokers", [v3.broker(number) for number in (1, 2, 3)])
    yield Row("GET", path, 200, every, also_with_slash=True)
    yield Row("GET", f"{path}/2", 200, v3.broker(2), also_with_slash=True)
    replicas = v3.many("KafkaReplicaList", "/brokers/2/partition-replicas", Each(dict))
    yield Row("GET", f"{path}/2/partition-replicas", 200, replicas, also_with_slash=True)
    for number in ("9", "x", "-1"):
        for tail in ("", "/partition-replicas", "/configs", "/configs/num.partitions"):
            yield refused("GET", f"{path}/{number}{tail}", 404)


def _configs(v3: V3) -> Rows:
    topic = v3.config("KafkaTopicConfig", "/topics/rows/configs", "/topic=rows/config", "retention.ms")
    broker = v3.config("KafkaBrokerConfig", "/brokers/1/configs", "/broker=1/config", BROKER_CONFIG)
    wide = v3.config("KafkaClusterConfig", "/broker-configs", "/broker-config", BROKER_CONFIG)
    topic, broker, wide = topic | {"topic_name": "rows"}, broker | {"broker_id": 1}, wide | {"config_type": "BROKER"}
    for place, name, shape, source in (
        ("/topics/rows/configs", "retention.ms", topic, "DYNAMIC_TOPIC_CONFIG"),
        ("/brokers/1/configs", BROKER_CONFIG, broker, "DYNAMIC_BROKER_CONFIG"),
        ("/broker-configs", BROKER_CONFIG, wide, "DYNAMIC_DEFAULT_BROKER_CONFIG"),
    ):
        of, one = v3.path + place, f"{v3.path}{place}/{name}"
        kind = shape["kind"] + "List"
        some = any_of(shape) | {"name": str}
        is_wide = place == "/broker-configs"
        every = Each(some, 0 if is_wide else 5)
        yield Row("GET", of, 200, v3.many(kind, place, every), also_with_slash=True)
        yield Row("PUT", one, 204, None, {"value": 2}, note="a number", also_with_slash=True)
        yield Row("PUT", one, 204, None, {"value": "2"}, note="set", also_with_slash=True)
        found = shape | {"value": "2", "source": source, "is_default": False}
        yield Row("GET", one, 200, found, also_with_slash=True, is_everywhere=True)
        yield Row("DELETE", one, 204, note="reset", also_with_slash=True)
        yield (
            refused("GET", one, 404, is_everywhere=True, note="not set")
            if is_wide
            else Row("GET", one, 200, shape | {"is_default": True}, is_everywhere=True)
        )
        changes = [{"name": name, "value": "3"}, {"name": name, "value": "4", "operation": "SET"}][1:]
        yield Row("POST", f"{of}:alter", 204, None, {"data": changes, "validate_only": True}, also_with_slash=True)
        yield Row("POST", f"{of}:alter", 204, None, {"data": [{"name": name, "value": "3", "operation": None}]})
        yield Row("GET", one, 200, shape | {"value": "3", "is_default": False}, is_everywhere=True)
        yield Row("POST", f"{of}:alter", 204, None, {"data": [{"name": name, "operation": "DELETE"}]})
        yield from _bad_configs(of, one, name)
    yield Row("GET", f"{v3.path}/topics/-/configs", 200, dict, also_with_slash=True)
    yield Row("GET", f"{v3.path}/brokers/-/configs", 200, dict, also_with_slash=True)
    for of in (f"{v3.path}/brokers/1/configs", f"{v3.path}/broker-configs"):
        yield refused("PUT", f"{of}/num.partitions", 40002, {"value": "2"}, note="cannot be updated dynamically")
    for value in ("1000000", None):
        change = {"name": "retention.ms", "value": value, "operation": "SET" if value else "DELETE"}
        both = [{"topic_name": name, "configs": [change]} for name in ("rows", "read")]
        yield Row("POST", f"{v3.path}/topics/-/configs:alter", 204, None, {"data": both}, also_with_slash=True)
        gone = [{"topic_name": "gone", "configs": [change]}, *both]
        yield refused("POST", f"{v3.path}/topics/-/configs:alter", 40403, {"data": gone}, note="changes nothing")
    unknown = {"topic_name": "rows", "configs": [{"name": "no.such", "value": "1"}]}
    yield refused("POST", f"{v3.path}/topics/-/configs:alter", 404, {"data": [unknown]})


def _bad_configs(of: str, one: str, name: str) -> Rows:
    yield refused("GET", f"{of}/no.such.config", 404)
    is_wide = of.endswith("/broker-configs")
    unknown = 40002 if is_wide else 404
    yield refused("PUT", f"{of}/no.such.config", unknown, {"value": "1"})
    if is_wide:
        yield Row("DELETE", f"{of}/no.such.config", 204, note="as Kafka, which may have stored it")
    else:
        yield refused("DELETE", f"{of}/no.such.config", 404)
    yield refused("POST", f"{of}:alter", unknown, {"data": [{"name": "no.such.config", "value": "1"}]})
    yield refused("PUT", one, 40002, {"value": "many"})
    bad: Any
    for bad, code in (({}, 42206), ({"value": []}, 400), ({"value": "1", "x": 1}, 422), (b"", 42206), (b"{", 400)):
        yield refused("PUT", one, code, bad, note=str(bad))
    yield refused("PUT", one, 415, {"value": "1"}, headers={"Content-Type": "text/plain"})
    for bad, code in (
        ({"data": []}, 400), ({}, 400), ({"data": [{"name": name}]}, 42206), ({"data": [{"value": "1"}]}, 400),
        ({"data": [{"name": name, "operation": "ADD"}]}, 400), ({"data": [{"name": name, "value": "x"}]}, 40002),
    ):  # fmt: skip
        yield refused("POST", f"{of}:alter", code, bad, note=str(bad))


def _topics(v3: V3) -> Rows:
    path, name = f"{v3.path}/topics", "rows-new"
    every = v3.many("KafkaTopicList", "/topics", Each(any_of(v3.topic("x", 1)) | {
        "topic_name": str, "partitions_count": int, "is_internal": bool, "partitions": {"related": str},
        "configs": {"related": str}, "partition_reassignments": {"related": str},
    }))  # fmt: skip
    yield Row("GET", path, 200, every, also_with_slash=True)
    allowed = ["READ", "WRITE", "CREATE", "DELETE", "ALTER", "DESCRIBE", "DESCRIBE_CONFIGS", "ALTER_CONFIGS"]
    asked = v3.many("KafkaTopicList", "/topics", Each(any_of(v3.topic("x", 1)) | {
        "topic_name": str, "partitions_count": int, "is_internal": bool, "partitions": {"related": str},
        "configs": {"related": str}, "partition_reassignments": {"related": str}, "authorized_operations": allowed,
    }))  # fmt: skip
    yield Row("GET", f"{path}?include_authorized_operations=true", 200, asked)
    new = {"topic_name": name, "partitions_count": 2, "replication_factor": 3}
    tried = v3.topic(name, 2, topic_id=None)
    yield Row("POST", path, 200, tried, {**new, "validate_only": True}, note="only validated", also_with_slash=True)
    configs = [{"name": "retention.ms", "value": "5000"}]
    location = {"Location": f"{v3.url}/topics/{name}"}
    yield Row("POST", path, 201, v3.topic(name, 2), {**new, "configs": configs}, answers=location)
    yield Row("GET", f"{path}/{name}", 200, v3.topic(name, 2), also_with_slash=True, is_everywhere=True)
    yield refused("POST", path, 40002, new, note="exists")
    placed = {"topic_name": "rows-placed", "replicas_assignments": {"0": [1, 2, 3], "1": [2, 3, 1]}}
    yield Row("POST", path, 201, v3.topic("rows-placed", 2), placed)
    nulls = {"topic_name": "rows-null", "partitions_count": None, "replication_factor": None, "configs": None}
    nulls |= {"replicas_assignments": None, "validate_only": None}
    yield Row("POST", path, 201, v3.topic("rows-null", int), nulls, note="null is absent")
    yield Row("PATCH", f"{path}/{name}", 200, v3.topic(name, 3), {"partitions_count": 3})
    yield Row("GET", f"{path}/{name}", 200, v3.topic(name, 3), is_everywhere=True)
    yield refused("PATCH", f"{path}/{name}", 40002, {"partitions_count": 3}, note="already has 3 partitions")
    yield refused("PATCH", f"{path}/nobody", 40403, {"partitions_count": 3})
    bad: Any
    for bad, code in (
        (b"", 42206), (b"{", 400), ({}, 400), ({"topic_name": ""}, 42206), ({"topic_name": "a/b"}, 42206),
        ({"topic_name": "x" * 250}, 42206), ({"topic_name": 1}, 400), ({**new, "replication_factor": 9}, 40002),
        ({"topic_name": "y", "replication_factor": 9}, 40002), ({"topic_name": "y", "partitions_count": 0}, 400),
        ({"topic_name": "y", "configs": [{"name": "no.such", "value": "1"}]}, 40002), ({**new, "x": 1}, 422),
        ({"topic_name": "y", "replicas_assignments": {"0": [9]}}, 40002), ([], 400),
    ):  # fmt: skip
        yield refused("POST", path, code, bad, note=str(bad)[:60])
    yield Row("DELETE", f"{path}/{name}", 204)
    yield refused("GET", f"{path}/{name}", 40403, is_everywhere=True)
    yield refused("DELETE", f"{path}/{name}", 40403)


def _partitions(v3: V3) -> Rows:
    place, path = "/topics/rows/partitions", f"{v3.path}/topics/rows/partitions"
    every = v3.many("KafkaPartitionList", place, [v3.partition("rows", 0), v3.partition("rows", 1)])
    yield Row("GET", path, 200, every, also_with_slash=True)
    yield Row("GET", f"{path}/1", 200, v3.partition("rows", 1), also_with_slash=True)
    crn = "/topic=rows/partition=1/offset_type=earliest_and_latest"
    offset = v3.one(
        "KafkaPartitionWithOffsets", f"{place}/1/offset", crn, topic_name="rows", partition_id=1, earliest_offset=0,
        latest_offset=int,
    )  # fmt: skip
    yield Row("GET", f"{path}/1/offset", 200, offset, also_with_slash=True)
    yield Row("GET", f"{path}/1/offset?offset_type=earliest_and_latest", 200, offset, also_with_slash=True)
    yield refused("GET", f"{path}/1/offset?offset_type=latest", 40002)
    replica = any_of(v3.replica("rows", 1, 1)) | {"broker_id": int, "broker": {"related": str}}
    replicas = v3.many("KafkaReplicaList", f"{place}/1/replicas", Each(replica, 3))
    yield Row("GET", f"{path}/1/replicas", 200, replicas, also_with_slash=True)
    yield Row("GET", f"{path}/1/replicas/2", 200, v3.replica("rows", 1, 2), also_with_slash=True)
    yield refused("GET", f"{path}/1/replicas/9", 404)
    for tail in ("", "/offset", "/replicas", "/replicas/1", "/reassignment"):
        for number in ("9", "x", "-1"):
            yield refused("GET", f"{path}/{number}{tail}", 404)
        yield refused("GET", f"{v3.path}/topics/nobody/partitions/0{tail}", 40403)


def _reassignments(v3: V3) -> Rows:
    for place in ("/topics/-/partitions/-/reassignment", "/topics/rows/partitions/-/reassignment"):
        yield Row("GET", v3.path + place, 200, v3.many("KafkaReassignmentList", place, []), also_with_slash=True)
    path = f"{v3.path}/topics/rows/partitions/0/reassignment"
    yield refused("GET", path, 404, note="none is under way")
    yield refused("DELETE", path, 40002, note="none is under way")
    yield refused("POST", path, 40002, {"replicas": [9]})
    yield refused("POST", path, 400, {"replicas": []})
    yield Row("POST", f"{v3.path}/topics/rows/partitions/0:elect", 204)
    one = {"topic_name": "rows", "partition_id": 1}
    result = {"topic_name": "rows", "partition_id": 1, "error_code": Maybe(int), "message": Maybe(str)}
    shape = {"kind": "KafkaElectionResultList", "data": [result | {"kafka_code": int, "retriable": bool}]}
    yield Row("POST", f"{v3.path}/elections", 200, shape, {"partitions": [one]}, note="none is needed")


def _bodies(v3: V3) -> Rows:
    """records:batch, and the stream of records as one request; that it is a stream has tests of its own."""
    path = f"{v3.path}/topics/rows/records:batch"
    written = {
        "id": str, "cluster_id": v3.cluster, "topic_name": "rows", "partition_id": 0, "offset": int,
        "timestamp": str, "leader_id": int, "leader_epoch": int,
    }  # fmt: skip
    key, value = {"type": "BINARY", "data": "aw=="}, {"type": "JSON", "data": {"a": 1}}
    full = {"id": "1", "partition_id": 0, "key": key, "value": value, "timestamp": "2021-02-05T19:14:42Z"}
    full["headers"] = [{"name": "h", "value": "aA=="}]
    nulls = {"id": "2", "partition_id": 0, "key": None, "value": None, "headers": None, "timestamp": None}
    typed: dict[str, Any] = {"id": "3", "partition_id": 0, "value": {"type": "STRING", "data": "s"}}
    bad = {"id": "4", "value": {"type": "BINARY", "data": "!"}}
    sizes = {"key": {"type": "BINARY", "size": 1}, "value": {"type": "JSON", "size": 7}}
    one, three = written | sizes | {"timestamp": "2021-02-05T19:14:42Z"}, {"value": {"type": "STRING", "size": 1}}
    avro = {"id": "5", "value": {"type": "AVRO", "data": {"a": 1}, "schema_id": 1}}
    typed["value"]["schema_id"] = None
    failures = [{"id": number, "error_code": code, "message": str} for number, code in (("4", 400), ("5", 422))]
    shape = {"successes": [one, written, written | three], "failures": failures}
    yield Row("POST", path, 207, shape, {"entries": [full, nulls, typed, bad, avro]}, also_with_slash=False)
    for entries, code in (
        ([], 42208), ([{"id": "a"}, {"id": "a"}], 42208), ([{"id": str(n)} for n in range(10_001)], 42208),
        ([{"id": "x" * 81}], 42208), ([{"id": ""}], 42208), ([{}], 400), ([{"id": "a", "x": 1}], 422),
        ([{"id": "a", "value": {"type": "XML"}}], 400),
    ):  # fmt: skip
        yield refused("POST", path, code, {"entries": entries}, note=str(entries)[:40])
    yield refused("POST", path, 42206, b"")
    yield refused("POST", path, 400, b"{")
    yield refused("POST", f"{v3.path}/topics/nobody/records:batch", 40403, {"entries": [{"id": "a"}]})
    stream, good = f"{v3.path}/topics/rows/records", b'{"partition_id":0,"value":{"type":"STRING","data":"s"}}'
    for body, part in (
        (good * 2, '"value":{"type":"STRING","size":1}}\r\n{"error_code":200'),
        (good + b'{"valu":1}' + good, '"message":"Error: 42206 : '),
        (good + b"nonsense", '\r\n{"error_code":400,"message":'),
        (b'{"value":{"type":"AVRO","data":"x"}}', '{"error_code":422,"message":"Error: 42206 : '),
    ):
        yield Row("POST", stream, 200, Text(part), body, note=body.decode()[-20:])
    yield refused("POST", f"{v3.path}/topics/nobody/records", 40403, good)
    yield refused("POST", stream, 415, good, headers={"Content-Type": "text/plain"})


def _judged_alone(v3: V3) -> Rows:
    """One record that is too large costs none of its neighbours, in any of the three ways to write."""
    configs = [{"name": "max.message.bytes", "value": 1000}]
    new = {"topic_name": "rows-small", "partitions_count": 1, "replication_factor": 3, "configs": configs}
    yield Row("POST", f"{v3.path}/topics", 201, dict, new)
    yield Row("GET", "/topics/rows-small", 200, dict, media=V2, is_everywhere=True)
    values = ["first", "x" * 2_000, "last"]
    led = [{"partition": 0, "leader": int, "leader_epoch": int, "isr": list}]
    refusal = {"kafka_code": 10, "retriable": False, "is_appended": False}
    offsets = [
        {"partition": 0, "offset": 0, "error_code": None, "error": None},
        {"partition": 0, "offset": None, "error_code": 50002, "error": str, **refusal},
        {"partition": 0, "offset": 1, "error_code": None, "error": None},
    ]
    shape = {"offsets": offsets, "key_schema_id": None, "value_schema_id": None, "partitions": led}
    body = {"records": [{"value": value} for value in values]}
    yield Row("POST", "/topics/rows-small", 200, shape, body, V2, {"Content-Type": TEXT}, "one is too large")
    entries = [{"id": str(n), "value": {"type": "STRING", "data": value}} for n, value in enumerate(values)]
    failure = {"id": "1", "error_code": 50002, "message": str, **refusal}
    shape = {"successes": Each(dict, 2), "failures": [failure]}
    yield Row("POST", f"{v3.path}/topics/rows-small/records:batch", 207, shape, {"entries": entries})
    stream = b"".join(json.dumps({"value": entry["value"]}).encode() for entry in entries)
    reported = Text('"offset":5,')
    yield Row("POST", f"{v3.path}/topics/rows-small/records", 200, reported, stream, note="one is too large")
    end = {"beginning_offset": 0, "end_offset": 6}
    yield Row("GET", "/topics/rows-small/partitions/0/offsets", 200, end, media=V2)
