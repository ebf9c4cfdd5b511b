"""The console of a launcher takes requests of its own page alone."""

from __future__ import annotations

import pytest

from kraft.http.console.launcher import OWN_HEADER, check_request
from kraft.http.errors import HttpError

GOOD = {"Host": "127.0.0.1:8088", OWN_HEADER: "1", "Content-Type": "application/json"}


@pytest.mark.parametrize("host", ["127.0.0.1:8088", "localhost:1", "kraft.localhost", "[::1]:80", "127.9.9.9"])
def test_loopback_names_are_its_own(host: str) -> None:
    check_request("GET", {"Host": host})
    check_request("POST", {**GOOD, "Host": host, "Origin": f"http://{host}"})


@pytest.mark.parametrize("host", ["", "evil.example", "127.0.0.1.evil.example", "10.0.0.1", "localhost.evil.example"])
def test_another_name_is_refused(host: str) -> None:
    with pytest.raises(HttpError) as refused:
        check_request("GET", {**GOOD, "Host": host})
    assert refused.value.status == 403


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
