"""What a browser sends without its user's knowledge changes nothing; programs that are no browsers notice nothing."""

from __future__ import annotations

from typing import Any

import pytest

from kraft.http.host_origin_check import ANY
from tests.support.fake_gateway import FakeGateway
from tests.unit.http.door import Door, b64, with_door

V3 = "/v3/clusters/test-cluster"
OWN = ("kraft-1.lan", "10.0.0.7")
RECORDS = {"records": [{"value": b64(b"x")}]}


def gateway(**static: Any) -> FakeGateway:
    fake = FakeGateway(static=static)
    fake.add_topic("t")
    return fake


def appended(fake: FakeGateway) -> int:
    return sum(log.end for log in fake.logs.values())


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("localhost", True),
        ("LocalHost:8082", True),
        ("console.localhost:8082", True),
        ("127.0.0.1:8082", True),
        ("192.168.1.10", True),
        ("[::1]:8082", True),
        ("[fe80::1]", True),
        ("kraft-1.lan:8082", True),
        ("KRAFT-1.LAN.", True),
        ("10.0.0.7:1", True),
        ("evil.example", False),
        ("evil.example:8082", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("kraft-1.lan.evil.example:8082", False),
        ("evil.example:localhost", False),
        ("0x7f.1", False),
        ("", False),
        ("[evil.example]", False),
        ("é", False),
    ],
)
def test_a_name_that_is_not_this_nodes_is_refused_on_every_path(host: str, is_ours: bool) -> None:
    """DNS rebinding: the page's origin is the name under which it reaches this node, so Origin says nothing."""

    async def story(door: Door) -> None:
        for method, path in (("GET", "/topics"), ("GET", "/healthz"), ("POST", "/topics/t"), ("GET", "/docs")):
            body = RECORDS if method == "POST" else None
            answer = await door.ask(method, path, body, Host=host, Origin=f"http://{host}")
            assert (answer.status == 403) is not is_ours, (path, answer.body)
            if not is_ours:
                assert answer.json["error_code"] == 403
                assert "rest.allowed.hosts" in answer.json["message"]
        assert appended(door.gateway) == int(is_ours)

    with_door(story, gateway(), own_hosts=OWN)


def test_other_names_are_allowed_by_a_setting() -> None:
    async def story(door: Door) -> None:
        for host in ("kafka.example:443", "b.example"):
            assert (await door.ask("GET", "/topics", Host=host)).status == 200
        assert (await door.ask("GET", "/topics", Host="c.example")).status == 403

    with_door(story, gateway(rest_allowed_hosts="Kafka.example, b.example"))


def test_every_name_may_be_allowed() -> None:
    async def story(door: Door) -> None:
        assert (await door.ask("GET", "/topics", Host="c.example")).status == 200

    with_door(story, gateway(rest_allowed_hosts=ANY))


CHANGES = [
    ("POST", "/topics/t", RECORDS),
    ("POST", "/topics/t/partitions/0", RECORDS),
    ("POST", f"{V3}/topics", {"topic_name": "new"}),
    ("POST", f"{V3}/topics/t/records", {"value": {"type": "STRING", "data": "x"}}),
    ("DELETE", f"{V3}/topics/t", None),
    ("PUT", f"{V3}/topics/t/configs/retention.ms", {"value": "1"}),
    ("POST", f"{V3}/topics/t/configs:alter", {"data": [{"name": "retention.ms", "value": "1"}]}),
    ("POST", "/consumers/g", {}),
    ("DELETE", "/consumers/g/instances/i", None),
    ("GET", "/consumers/g/instances/i/records", None),
]
FOREIGN: dict[str, dict[str, str]] = {
    "a form": {"Origin": "http://evil.example", "Content-Type": "application/x-www-form-urlencoded"},
    "a fetch without a type": {"Origin": "http://evil.example"},
    "text of a form": {"Origin": "https://evil.example", "Content-Type": "text/plain"},
    "another port": {"Origin": "http://127.0.0.1:1"},
    "a sandboxed frame or a file": {"Origin": "null"},
    "no origin": {"Origin": ""},
    "an origin that is none": {"Origin": "http://[x"},
    "a browser that only says so": {"Sec-Fetch-Site": "cross-site"},
    "a sister": {"Sec-Fetch-Site": "same-site"},
}


@pytest.mark.parametrize("page", FOREIGN)
def test_no_change_for_a_page_of_another_origin(page: str) -> None:
    async def story(door: Door) -> None:
        for method, path, body in CHANGES:
            answer = await door.ask(method, path, body, **FOREIGN[page])
            assert answer.status in (403, 404), (method, path, answer.body)
            if not path.startswith("/consumers"):  # not served by this door; the check comes with the route
                assert answer.json["error_code"] == 403, (method, path, answer.body)
                assert "access.control.allow.origin" in answer.json["message"]
            assert "Access-Control-Allow-Origin" not in answer.headers
        assert appended(door.gateway) == 0
        assert door.gateway.requests == []

    with_door(story, gateway())


def test_a_client_that_waits_for_100_continue_is_refused_before_its_body() -> None:
    async def story(door: Door) -> None:
        answer = await door.ask("POST", "/topics/t", RECORDS, Expect="100-continue", Origin="http://evil.example")
        assert answer.status == 403

    with_door(story, gateway())


def test_pages_of_this_node_and_programs_go_on_as_before() -> None:
    async def story(door: Door) -> None:
        host = f"127.0.0.1:{door.client.port}"
        says: dict[str, str]
        for count, says in enumerate(
            (
                {},
                {"Origin": f"http://{host}"},
                {"Origin": f"https://{host}"},  # behind a proxy that takes off TLS
                {"Sec-Fetch-Site": "same-origin", "Origin": f"http://{host}"},
                {"Sec-Fetch-Site": "none"},
            ),
            1,
        ):
            answer = await door.ask("POST", "/topics/t", RECORDS, **says)
            assert answer.status == 200, (says, answer.body)
            assert appended(door.gateway) == count
        assert (await door.ask("GET", "/topics", Origin="http://evil.example")).status == 200, "a read changes nothing"

    with_door(story, gateway())


def test_a_listed_origin_may_change_and_read_and_is_informed() -> None:
    page = "https://console.example"
    asking = {"Origin": page, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}

    async def story(door: Door) -> None:
        for path in ("/topics/t", f"{V3}/topics", f"{V3}/topics/-/configs"):
            answer = await door.ask("OPTIONS", path, **asking)
            assert answer.status == 204, (path, answer.body)
            assert answer.headers["Access-Control-Allow-Origin"] == page
            assert "POST" in answer.headers["Access-Control-Allow-Methods"]
            assert answer.headers["Access-Control-Allow-Headers"] == "content-type"
        answer = await door.ask("POST", "/topics/t", RECORDS, Origin=page)
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, page)
        assert answer.headers["Vary"] == "Origin"
        other = await door.ask("POST", "/topics/t", RECORDS, Origin="https://console.example.evil.example")
        assert other.status == 403
        for answer in (other, await door.ask("OPTIONS", "/topics/t", **{**asking, "Origin": "http://evil.example"})):
            assert "Access-Control-Allow-Origin" not in answer.headers

    with_door(story, gateway(access_control_allow_origin=f"http://a, {page}/"))


def test_every_origin_may_be_allowed() -> None:
    async def story(door: Door) -> None:
        for says in ({"Origin": "null"}, {"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            assert (await door.ask("POST", "/topics/t", RECORDS, **says)).status == 200

    with_door(story, gateway(access_control_allow_origin=ANY))
