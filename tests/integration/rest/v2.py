"""The v2 dialect but for consumers: metadata, produce, stateless read, what Karapace, Redpanda and Strimzi add."""

from __future__ import annotations

from typing import Any

from tests.integration.rest.rows import BINARY, JSON, PLAIN, TEXT, V2, Each, Row, Rows, Text, refused

T = "rows"
PARTITION = {"partition": int, "leader": int, "replicas": Each({"broker": int, "leader": bool, "in_sync": bool}, 3)}
OFFSETS = {"beginning_offset": 0, "end_offset": int}
LED = {"partition": int, "leader": int, "leader_epoch": int, "isr": Each(int)}
ONE_LED = Each(LED)


def entry(partition: Any = int, offset: Any = int) -> dict[str, Any]:
    return {"partition": partition, "offset": offset, "error_code": None, "error": None}


def failed(code: int, kafka_code: int, **more: Any) -> dict[str, Any]:
    return {
        "partition": int, "offset": None, "error_code": code, "error": str, "kafka_code": kafka_code,
        "retriable": bool, "is_appended": False, **more,
    }  # fmt: skip


def produced(*entries: Any, led: Any = ONE_LED) -> dict[str, Any]:
    return {"offsets": list(entries), "key_schema_id": None, "value_schema_id": None, "partitions": led}


def consumed(offset: int, value: Any, key: Any = None, partition: int = 0, headers: Any = None) -> dict[str, Any]:
    return {
        "topic": T, "key": key, "value": value, "partition": partition, "offset": offset, "timestamp": int,
        "headers": headers or [],
    }  # fmt: skip


def sent(media: str, **more: str) -> dict[str, str]:
    return {"Content-Type": media, **more}


def v2_rows() -> Rows:
    """Of a cluster with three brokers and a topic `rows` of two empty partitions."""
    yield from _metadata()
    yield from _produce()
    yield from _stored_and_read()
    yield from _leniencies()
    yield from _refusals()
    yield from _others()


def _metadata() -> Rows:
    topic = {"name": T, "configs": dict, "partitions": Each(PARTITION, 2)}
    for path, shape in (
        ("/brokers", {"brokers": [1, 2, 3]}),
        ("/topics", Each(str)),
        (f"/topics/{T}", topic),
        (f"/topics/{T}/partitions", Each(PARTITION, 2)),
        (f"/topics/{T}/partitions/1", PARTITION),
        (f"/topics/{T}/partitions/1/offsets", {"beginning_offset": 0, "end_offset": 0}),
    ):
        yield Row("GET", path, 200, shape, media=V2, also_with_slash=True)
        yield Row("GET", path, 200, shape, media=V2, headers={"Accept": V2}, note="Accept v2")
        yield Row("GET", path, 200, shape, media=PLAIN, headers={"Accept": PLAIN}, note="Accept plain JSON")
        yield Row("GET", path, 200, shape, b"{}", media=V2, headers=sent(V2), note="a body of {}")
        yield refused("GET", path, 406, headers={"Accept": "image/png"})
        yield refused("PUT", path, 405, answers={"Allow": str})


def _produce() -> Rows:
    for media, key, value in ((BINARY, "aw==", "dg=="), (JSON, {"k": 1}, [1, "é"]), (TEXT, "k", "v")):
        record = {"key": key, "value": value}
        yield Row("POST", f"/topics/{T}", 200, produced(entry()), {"records": [record]}, V2, sent(media))
        one = {"records": [record]}
        yield Row("POST", f"/topics/{T}/partitions/1", 200, produced(entry(1)), one, V2, sent(media), media)
    named = {"records": [{"value": 1, "partition": 1}, {"value": 2, "partition": 0}, {"value": None, "partition": 1}]}
    shape = produced(entry(1), entry(0), entry(1), led=Each(LED, 2))
    yield Row("POST", f"/topics/{T}", 200, shape, named, V2, sent(JSON), "in the order of the request")
    schemas = {"key_schema": "a", "key_schema_id": 1, "value_schema": "b", "value_schema_id": 2}
    yield Row("POST", f"/topics/{T}", 200, produced(entry()), {"records": [{"value": 1}], **schemas}, V2, sent(JSON))
    mixed = {"records": [{"value": 1, "partition": 0}, {"value": 2, "partition": 7}]}
    shape = produced(entry(0), failed(50003, 3), led=[LED])
    yield Row("POST", f"/topics/{T}", 200, shape, mixed, V2, sent(JSON), "one record fails alone")


def _stored_and_read() -> Rows:
    """What has come in is read as it was, in each format, and the answer says where to go on."""
    record: dict[str, Any] = {"key": {"k": 1}, "value": {"v": [1]}, "timestamp": 1_700_000_000_000, "partition": 0}
    record["headers"] = [{"key": "h", "value": "aA=="}, {"name": "n", "value": None}]
    answer = yield Row("POST", f"/topics/{T}", 200, produced(entry(0)), {"records": [record]}, V2, sent(JSON))
    offset = answer["offsets"][0]["offset"]
    path = f"/topics/{T}/partitions/0/records"
    where = f"{path}?offset={offset}&timeout=1000&max_bytes=100000"
    headers = [{"key": "h", "value": "aA=="}, {"key": "n", "value": None}]
    onward: dict[str, Any] = {
        "X-Next-Offset": str(offset + 1),
        "X-High-Watermark": str(offset + 1),
        "X-Log-Start-Offset": "0",
    }
    onward |= {"Link": str, "X-Leader": str, "X-Leader-Epoch": str}
    for media, key, value in (
        (JSON, {"k": 1}, {"v": [1]}),
        (TEXT, '{"k":1}', '{"v":[1]}'),
        (BINARY, "eyJrIjoxfQ==", "eyJ2IjpbMV19"),
    ):
        shape = [consumed(offset, value, key, headers=headers) | {"timestamp": 1_700_000_000_000}]
        accept = {"Accept": media}
        yield Row("GET", where, 200, shape, media=media, headers=accept, answers=onward, also_with_slash=True)
    yield Row("GET", f"{path}?offset=earliest", 200, Each(dict), media=BINARY)
    yield Row("GET", f"{path}?offset=latest&timeout=0", 200, [], media=BINARY)
    yield Row("GET", f"{path}?offset={offset}&max_bytes=1", 200, Each(dict), media=BINARY, note="at least one record")
    yield Row("GET", f"{path}?timeout=0", 200, Each(dict), media=PLAIN, headers={"Accept": PLAIN})
    for query in ("offset=x", "offset=-1", "offset=99999", "timeout=x", "max_bytes=x", "min_bytes=-1"):
        yield refused("GET", f"{path}?{query}", 40002)
    yield refused("GET", path, 406, headers={"Accept": "application/vnd.kafka.avro.v2+json"})
    yield refused("GET", "/topics/nobody/partitions/0/records", 40403)
    yield refused("GET", f"/topics/{T}/partitions/9/records", 40402)


def _leniencies() -> Rows:
    one, path = {"records": [{"value": "dg=="}]}, f"/topics/{T}"
    media = (None, PLAIN, V2, "application/octet-stream", "application/vnd.kafka.binary.v1+json",
             "application/vnd.kafka.binary+json", f"{BINARY}; charset=utf-8")  # fmt: skip
    for each in media:
        headers = {} if each is None else sent(each)
        yield Row("POST", path, 200, produced(entry()), one, V2, headers, f"{each} is binary", also_with_slash=True)
    text = {"records": [{"value": 1}]}
    yield Row("POST", path, 200, produced(entry()), text, V2, sent("application/vnd.kafka.json+json"), "unversioned")
    for acks in ("1", "all", "-1"):
        yield Row("POST", f"{path}?acks={acks}&timeout=5000", 200, produced(entry()), text, V2, sent(JSON))
    yield Row("POST", f"{path}?acks=0", 202, produced(led=[]), text, V2, sent(JSON))
    yield Row("POST", f"{path}?min_isr=3", 200, produced(entry()), text, V2, sent(JSON))
    shape = produced(failed(50003, 19, isr=list, min_isr=4, leader=int, leader_epoch=int))
    yield Row("POST", f"{path}?min_isr=4", 200, shape, text, V2, sent(JSON), "an ISR that is too small")


def _refusals() -> Rows:
    one, path = {"records": [{"value": "dg=="}]}, f"/topics/{T}"
    bad: Any
    for bad, code in (
        (b"", 422), (b"{", 400), ({}, 422), ({"records": []}, 422), ({"records": [{"x": 1}]}, 422), ([], 400),
        ({"records": [{"value": "!"}]}, 422), ({"records": [{"value": 1}]}, 400), (b"\xff\xfe", 400),
        ({"records": "foo"}, 400), ({"records": [{"value": {}}]}, 400),
    ):  # fmt: skip
        yield refused("POST", path, code, bad, headers=sent(BINARY), note=str(bad))
    for media in ("avro", "jsonschema", "protobuf"):
        yield refused("POST", path, 415, one, headers=sent(f"application/vnd.kafka.{media}.v2+json"))
    yield refused("POST", path, 415, one, headers=sent("application/vnd.kafka.v3+json"))
    yield refused("POST", path, 406, one, headers=sent(BINARY, Accept="text/plain"))
    yield refused("POST", path, 400, one, headers=sent(f"{BINARY}; charset=x"), note="an unknown charset")
    for unknown, partition in (("nobody", None), ("nobody/partitions/0", 0), (f"{T}/partitions/9", 9)):
        shape = produced(failed(50003, 3, partition=partition, retriable=False), led=[])
        yield Row("POST", f"/topics/{unknown}", 200, shape, one, V2, sent(BINARY), "no such topic or partition")
    yield refused("POST", f"{path}/partitions/x", 40402, one, headers=sent(BINARY))
    for query in ("acks=2", "timeout=soon", "min_isr=0", "async=maybe"):
        yield refused("POST", f"{path}?{query}", 40002, one, headers=sent(BINARY))
    for tail in ("", "/partitions", "/partitions/0", "/partitions/0/offsets"):
        yield refused("GET", f"/topics/nobody{tail}", 40403)
    for number in ("9", "x", "-1"):
        yield refused("GET", f"{path}/partitions/{number}", 40402)
        yield refused("GET", f"{path}/partitions/{number}/offsets", 40402)


def _others() -> Rows:
    """The rows that only one of Karapace, Redpanda and Strimzi has."""
    one = {"records": [{"value": 1}]}
    yield Row("POST", f"/topics/{T}?async=true", 204, None, one, headers=sent(JSON), note="Strimzi")
    new = {"topic_name": "rows-admin", "partitions_count": 2, "replication_factor": 3}
    yield Row("POST", "/admin/topics", 201, None, new, headers=sent(PLAIN), note="Strimzi")
    yield refused("POST", "/admin/topics", 40002, new, headers=sent(PLAIN), note="exists")
    yield Row("GET", "/", 200, {"name": "kraft", "cluster_id": str, "node_id": int, "links": dict}, note="Strimzi")
    for path in ("/openapi", "/openapi/v3", "/openapi.json"):
        yield Row("GET", path, 200, dict, note="Strimzi", also_with_slash=True)
    for path in ("/healthz", "/healthy"):
        yield Row("GET", path, 200, {"status": "ok"}, also_with_slash=True)
    for path in ("/readyz", "/ready", "/status/ready"):
        yield Row("GET", path, 200, {"status": "ready"}, also_with_slash=True)
    yield Row("GET", "/metrics", 200, Text("# HELP"), media="text/plain")
    health = {"process_uptime_sec": int, "kraft_version": str}
    yield Row("GET", "/_health", 200, health, note="Karapace", also_with_slash=True)
    yield refused("GET", "/v1", 404, note="Redpanda's Swagger 2.0 document")
