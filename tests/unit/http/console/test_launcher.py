"""The console of a launcher takes requests of its own page alone."""

from __future__ import annotations

import pytest

from kraft.http.console.launcher import OWN_HEADER, Place, check_request
from kraft.http.errors import HttpError
from kraft.testing.console.server import shows_contents

OPEN = Place(port=8088)
GUARDED = Place(port=8088, token="t0ken")
GOOD = {"Host": "127.0.0.1:8088", OWN_HEADER: "1", "Content-Type": "application/json"}


@pytest.mark.parametrize("host", ["127.0.0.1:8088", "localhost:1", "kraft.localhost", "[::1]:80", "127.9.9.9"])
def test_loopback_names_are_its_own(host: str) -> None:
    OPEN.check({"Host": host}, {})
    check_request("POST", {**GOOD, "Host": host, "Origin": f"http://{host}"})


@pytest.mark.parametrize("host", ["", "evil.example", "127.0.0.1.evil.example", "10.0.0.1", "localhost.evil.example"])
def test_another_name_is_refused(host: str) -> None:
    with pytest.raises(HttpError) as refused:
        OPEN.check({**GOOD, "Host": host}, {})
    assert refused.value.status == 403


@pytest.mark.parametrize("cookies", [{}, {"kraft-console-8088": "t0ke"}, {"kraft-console-1": "t0ken"}])
def test_without_its_token_nobody_comes(cookies: dict[str, str]) -> None:
    for host in ("10.0.0.1:8088", "127.0.0.1:8088"):
        with pytest.raises(HttpError) as refused:
            GUARDED.check({"Host": host}, cookies)
        assert refused.value.status == 401
        GUARDED.check({"Host": host}, {"kraft-console-8088": "t0ken"})
    assert not OPEN.is_token("")
    assert (GUARDED.is_token("t0ken"), GUARDED.is_token(""), GUARDED.is_token("T0KEN")) == (True, False, False)


@pytest.mark.parametrize(
    ("method", "path", "is_shown"),
    [
        ("GET", "/v3/clusters/c/topics", False),
        ("GET", "/kraft/events?limit=1", False),
        ("GET", "/topics/records/partitions", True),
        ("GET", "/topics/t/partitions/0/records?offset=1", True),
        ("GET", "/topics/t/partitions/0/%72ecords", True),
        ("GET", "/topics/t/partitions/0/x/../records", True),
        ("POST", "/consumers/g", True),
        ("GET", "/consumers/g/instances/i/records", True),
        ("POST", "/v3/clusters/c/topics", False),
        ("POST", "/v3/clusters/c/topics/t/records", True),
        ("POST", "/v3/clusters/c/share-groups/g/receive", True),
    ],
)
def test_without_contents_only_routes_without_records_pass(method: str, path: str, is_shown: bool) -> None:
    assert shows_contents(method, path) is is_shown


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({OWN_HEADER: ""}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Origin": "null"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_a_change_that_another_page_could_send_is_refused(changes: dict[str, str], status: int) -> None:
    check_request("POST", GOOD)
    with pytest.raises(HttpError) as refused:
        check_request("POST", {**GOOD, **changes})
    assert refused.value.status == status
