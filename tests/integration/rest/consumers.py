"""The consumers of the v2 dialect."""

from __future__ import annotations

from typing import Any

from tests.integration.rest.rows import BINARY, JSON, PLAIN, V2, Each, Row, Rows, refused

T = "read"
GROUP = "/consumers/readers"
IN = {"Content-Type": V2}


def at(partition: int = 0, **more: Any) -> dict[str, Any]:
    return {"topic": T, "partition": partition, **more}


def record(offset: int, value: Any) -> dict[str, Any]:
    return {"topic": T, "key": None, "value": value, "partition": 0, "offset": offset, "timestamp": int, "headers": []}


def new(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "format": "json", "auto.offset.reset": "earliest", **more}


def created(name: Any, group: str = GROUP) -> dict[str, Any]:
    base = f"http://cluster.test{group}/instances/{name}"
    return {"instance_id": name, "base_uri": str if name is str else base}


def offset(value: int, metadata: str = "", partition: int = 0) -> dict[str, Any]:
    return at(partition, offset=value, metadata=metadata)


def consumer_rows(cluster: str) -> Rows:
    """Of a topic `read` of two partitions, with three JSON records in partition 0."""
    records = {"records": [{"value": number, "partition": 0} for number in range(3)]}
    yield Row("POST", f"/topics/{T}", 200, dict, records, V2, {"Content-Type": JSON})
    yield from _life()
    yield from _subscription()
    yield from _assignment()
    yield from _records()
    yield from _offsets()
    yield from _dialects(cluster)
    for name in ("assigned", "subscribed"):
        yield Row("DELETE", f"{GROUP}/instances/{name}", 204)


def _life() -> Rows:
    yield Row("POST", GROUP, 200, created("one"), new("one"), V2, IN)
    yield refused("POST", GROUP, 40902, new("one"), headers=IN, note="exists")
    yield Row("POST", f"{GROUP}/", 200, created("two"), new("two"), V2, IN, "with a slash")
    text = new("three", **{"auto.commit.enable": "false", "fetch.min.bytes": "1", "consumer.request.timeout.ms": "500"})
    yield Row("POST", GROUP, 200, created("three"), text, V2, IN, "numbers as strings, as Java clients send them")
    strimzi = new("four", **{"enable.auto.commit": False, "isolation.level": "read_committed"})
    yield Row("POST", GROUP, 200, created("four"), strimzi, V2, IN, "Strimzi's spelling")
    answer = yield Row("POST", GROUP, 200, created(str), {}, V2, IN, "no name")
    names = ["one", "two", "three", "four", answer["instance_id"]]
    nulls = dict.fromkeys(("format", "auto.offset.reset", "auto.commit.enable", "fetch.min.bytes", "id"))
    yield Row("POST", GROUP, 200, created("five"), {"name": "five", **nulls}, V2, IN, "null is absent")
    yield Row("POST", GROUP, 200, created("six"), new("x", id="six", format="JSON"), V2, IN, "id, and any case")
    warned = {"Warning": '299 kraft "ignored: session.timeout.ms"'}
    more = new("seven", **{"session.timeout.ms": 6000})
    yield Row("POST", GROUP, 200, created("seven"), more, V2, IN, "a setting of another proxy", answers=warned)
    for each in (*names, "five", "six", "seven"):
        yield Row("DELETE", f"{GROUP}/instances/{each}", 204, None, {} if each == "one" else None)
    yield refused("DELETE", f"{GROUP}/instances/one", 40403)
    for form in ("xml", "avro", "AVRO", "jsonschema", "protobuf"):
        yield refused("POST", GROUP, 42204, new("x", format=form), headers=IN)
    yield refused("POST", GROUP, 42204, new("x", **{"auto.offset.reset": "middle"}), headers=IN)
    yield refused("POST", GROUP, 42204, new("x", **{"auto.commit.enable": "perhaps"}), headers=IN)
    yield refused("POST", GROUP, 42204, new("x", colour="red"), headers=IN)
    yield refused("POST", GROUP, 42204, new("x", **{"fetch.min.bytes": "many"}), headers=IN)
    yield refused("POST", GROUP, 40001, new("x", **{"fetch.min.bytes": -2}), headers=IN)
    yield refused("POST", GROUP, 40001, new("x", **{"consumer.request.timeout.ms": -1}), headers=IN)
    yield refused("POST", GROUP, 400, b"{", headers=IN)
    yield refused("POST", GROUP, 415, b"<x/>", headers={"Content-Type": "text/xml"})


def _subscription() -> Rows:
    one = f"{GROUP}/instances/subscribed"
    yield Row("POST", GROUP, 200, created("subscribed"), new("subscribed"), V2, IN)
    path = f"{one}/subscription"
    yield Row("GET", path, 200, {"topics": [], "topic_pattern": None}, media=V2, also_with_slash=True)
    bad: Any
    for bad, code in (
        ({}, 40903), ({"topics": [T], "topic_pattern": "x"}, 40903), ({"topics": T}, 422), ({"topics": [1]}, 422),
        ({"topic_pattern": 1}, 422), ({"topic": [T]}, 422), (b"", 40903), (b"[", 400),
    ):  # fmt: skip
        yield refused("POST", path, code, bad, headers=IN, note=str(bad))
    yield Row("POST", path, 204, None, {"topic_pattern": "rea.*"}, headers=IN)
    yield Row("GET", path, 200, {"topics": list, "topic_pattern": "rea.*"}, media=V2)
    yield Row("DELETE", path, 204, None, {}, headers=IN, note="a body of {}")
    yield Row("POST", path, 204, None, {"topics": [T]}, headers=IN, also_with_slash=True)
    yield Row("GET", path, 200, {"topics": [T], "topic_pattern": None}, media=V2, also_with_slash=True)
    assign = {"partitions": [at(0)]}
    yield refused("POST", f"{one}/assignments", 40903, assign, headers=IN, note="after subscribe")
    gone = f"{GROUP}/instances/gone"
    yield refused("POST", f"{gone}/subscription", 40403, {"topics": [T]}, headers=IN)
    for tail in ("subscription", "assignments", "offsets", "records"):
        yield refused("GET", f"{gone}/{tail}", 40403)
    yield refused("DELETE", f"{gone}/subscription", 40403)
    for tail in ("assignments", "positions/beginning", "positions/end", "positions//beginning", "positions//end"):
        yield refused("POST", f"{gone}/{tail}", 40403, {"partitions": []}, headers=IN)
    yield refused("POST", f"{gone}/positions", 40403, {"offsets": []}, headers=IN)
    yield refused("POST", f"{gone}/offsets", 40403, {}, headers=IN)


def _assignment() -> Rows:
    one = f"{GROUP}/instances/assigned"
    yield Row("POST", GROUP, 200, created("assigned"), new("assigned", **{"auto.commit.enable": False}), V2, IN)
    path, both = f"{one}/assignments", {"partitions": [at(0), at(1)]}
    yield Row("GET", path, 200, {"partitions": []}, media=V2, also_with_slash=True)
    bad: Any
    for bad, code in (
        ({}, 422), ({"partitions": [{"topic": T}]}, 422), ({"partitions": [at(-1)]}, 422), ({"partitions": 1}, 422),
        ({"partitions": [at(9)]}, 40402), ({"partitions": [{"topic": "no", "partition": 0}]}, 40401), (b"x", 400),
    ):  # fmt: skip
        yield refused("POST", path, code, bad, headers=IN, note=str(bad))
    yield Row("POST", path, 204, None, both, headers=IN, also_with_slash=True)
    yield Row("GET", path, 200, both, media=V2, also_with_slash=True)
    yield refused("POST", f"{one}/subscription", 40903, {"topics": [T]}, headers=IN, note="after assign")
    path = f"{one}/positions"
    elsewhere = {"topic": "rows", "partition": 0}
    yield refused("POST", path, 40903, {"offsets": [{**elsewhere, "offset": 0}]}, headers=IN, note="not assigned")
    for tail in ("/beginning", "/end", "//beginning", "//end"):
        yield refused("POST", path + tail, 40903, {"partitions": [elsewhere]}, headers=IN, note="not assigned")
        yield Row("POST", path + tail, 204, None, both, headers=IN, also_with_slash=True)
        unknown = {"partitions": [{"topic": "no", "partition": 0}]}
        yield refused("POST", path + tail, 40903, unknown, headers=IN, note="no such topic")
        yield refused(
            "POST", f"{GROUP}/instances/gone/positions{tail}", 40403, unknown, headers=IN, note="nor consumer"
        )
    seek = {"offsets": [at(0, offset=1, metadata="m"), at(1, offset=0)]}
    yield Row("POST", path, 204, None, seek, headers=IN, also_with_slash=True)
    times = {"timestamps": [at(0, timestamp="2020-01-01T00:00:00Z")]}
    yield Row("POST", path, 204, None, times, headers=IN)
    for bad, code in (
        ({"offsets": [at(0)]}, 422), ({"offsets": [at(0, offset=-1)]}, 422), ({"offsets": [at(9, offset=0)]}, 40903),
        ({"offsets": [{"topic": "no", "partition": 0, "offset": 0}]}, 40903),
        ({"timestamps": [{"topic": "no", "partition": 0, "timestamp": "2020-01-01T00:00:00Z"}]}, 40903),
        ({"timestamps": [at(0, timestamp="noon")]}, 40002), ({"offsets": [at(0, offset="x")]}, 422),
        ({"colour": []}, 422),
    ):  # fmt: skip
        yield refused("POST", path, code, bad, headers=IN, note=str(bad))


def _records() -> Rows:
    path = f"{GROUP}/instances/assigned/records"
    query, json_in = "?timeout=2000&max_bytes=100000", {"Accept": JSON}
    yield refused("GET", path, 40601, headers={"Accept": BINARY}, is_once=True)
    yield refused("GET", path, 406, headers={"Accept": "text/plain"}, is_once=True)
    batch = [record(0, 0), record(1, 1), record(2, 2)]
    token = {"X-Next-Token": "2"}
    yield Row("GET", path + query, 200, batch, media=JSON, headers=json_in, answers=token, is_once=True)
    again = f"{path}/{query}&token=1"
    yield Row("GET", again, 200, batch, media=JSON, headers=json_in, answers=token, note="again, with a slash")
    yield refused("GET", f"{path}?token=7", 40904, is_once=True)
    yield Row("GET", f"{path}?timeout=50", 200, [], media=JSON, note="the format of the consumer")
    text = {"records": [{"value": "no JSON", "partition": 0}]}
    headers = {"Content-Type": "application/vnd.kafka.text.v2+json"}
    yield Row("POST", f"/topics/{T}", 200, dict, text, V2, headers)
    wrong = {"error_code": 422, "message": str, "topic": T, "partition": 0, "offset": 3}
    yield Row("GET", path + query, 422, wrong, media=V2, is_once=True, note="undecodable in the asked format")
    yield Row("POST", f"{GROUP}/instances/assigned/positions", 204, None, {"offsets": [at(0, offset=0)]}, headers=IN)
    first = Each(dict)
    yield Row("GET", f"{path}?timeout=1000&max_bytes=1", 200, first, media=JSON, is_once=True, note="at least one")
    for bad in ("timeout=x", "max_bytes=x", "token=0"):
        yield refused("GET", f"{path}?{bad}", 40002, is_once=True)


def _offsets() -> Rows:
    path = f"{GROUP}/instances/assigned/offsets"
    ask = {"partitions": [at(0), at(1)]}
    none = {"offsets": [offset(-1), offset(-1, partition=1)]}
    yield Row("GET", path, 200, none, ask, V2, IN, "-1 where nothing is committed", also_with_slash=True)
    commit = {"offsets": [at(0, offset=1, metadata="m")]}
    yield Row("POST", path, 200, [], commit, V2, IN, "stores N+1", also_with_slash=True)
    after = {"offsets": [offset(2, "m"), offset(-1, partition=1)]}
    yield Row("GET", path, 200, after, ask, V2, IN, also_with_slash=True)
    yield Row("POST", path, 200, [], {"partitions": [at(0, offset=1)]}, V2, IN, "stores N, as Redpanda")
    after = {"offsets": [offset(1), offset(-1, partition=1)]}
    yield Row("GET", path, 200, after, None, V2, note="no body: those of the instance")
    yield Row("POST", f"{path}:query", 200, after, ask, V2, IN, "for a client that sends no body with a GET")
    yield Row("POST", path, 200, [], {}, V2, IN, "everything read")
    yield Row("POST", path, 200, [], None, V2, IN, "no body")
    bad: Any
    for bad, code in (
        ({"offsets": [at(0)]}, 422), ({"offsets": [at(9, offset=0)]}, 40402), ({"offsets": 1}, 422), (b"[", 400),
        ({"offsets": [{"topic": "no", "partition": 0, "offset": 0}]}, 40401), ({"x": []}, 422),
    ):  # fmt: skip
        yield refused("POST", path, code, bad, headers=IN, note=str(bad))
    for bad, code in (({"partitions": [at(9)]}, 40402), ({"partitions": [{"topic": "no", "partition": 0}]}, 40401)):
        yield refused("GET", path, code, bad, headers=IN, note=str(bad))
    yield refused("GET", path, 406, headers={"Accept": "text/plain"})
    yield Row("GET", path, 200, dict, media=PLAIN, headers={"Accept": PLAIN})


def _dialects(cluster: str) -> Rows:
    """What differs between the proxies whose clients these are; each row of `kraft.http.dialects`."""
    setting = f"/v3/clusters/{cluster}/broker-configs/rest.dialect"
    one = f"{GROUP}/instances/assigned"
    commit, nowhere = {"partitions": [at(0, offset=1)]}, {"topic": "no", "partition": 0, "offset": 0}
    elsewhere = {"topic": "rows", "partition": 0, "offset": 0}
    yield refused("PUT", setting, 40002, {"value": "karapace"}, note="no such dialect")
    for dialect, topic, unknown, unassigned, media in (
        ("strimzi", 404, 404, 404, V2), ("redpanda", 40402, 40402, 40903, PLAIN),
    ):  # fmt: skip
        yield Row("PUT", setting, 204, None, {"value": dialect})
        for tail in ("", "/partitions", "/partitions/0", "/partitions/0/offsets", "/partitions/0/records"):
            yield refused("GET", f"/topics/no{tail}", topic, media=media, is_everywhere=True, note=dialect)
        yield Row("POST", f"{one}/offsets", 204, None, commit, headers=IN, note=dialect)
        for code, offsets in ((unknown, nowhere), (unassigned, elsewhere)):
            body = {"offsets": [offsets]}
            yield refused("POST", f"{one}/positions", code, body, headers=IN, media=media, note=dialect)
        yield refused("GET", f"{GROUP}/instances/gone/assignments", 40403, media=media, note=dialect)
        yield refused("POST", "/topics/rows", 422, {"records": []}, headers=IN, media=media, note=dialect)
    yield Row("DELETE", setting, 204)
    yield refused("GET", "/topics/no", 40403, is_everywhere=True, note="Confluent's again")
