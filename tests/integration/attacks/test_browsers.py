"""What a page of a stranger makes its visitor's browser send to a node."""

from __future__ import annotations

import pytest

from kraft.client.response import Answer
from tests.integration.attacks.attack import AS_JSON, WITNESS, Attack, Target, withstand
from tests.integration.support.cluster import Cluster

EVIL = "http://evil.example"
TOPIC = b'{"topic_name": "made-by-a-page", "partitions_count": 1}'
RECORDS = b'{"records": [{"value": "cHduZWQ="}]}'


def refused(method: str, path: str, body: bytes = b"", **headers: str) -> Attack:
    """Path may have `{cluster}`. Answered 403 by the node."""

    def run(target: Target) -> None:
        before = _end(target)
        filled = path.replace("{cluster}", target.cluster.v3.rpartition("/")[2])
        answer = target.call(method, filled, body, **headers)
        assert isinstance(answer, Answer), answer
        assert (answer.status, answer.json()["error_code"]) == (403, 403), answer
        assert not any(name.lower() == "access-control-allow-origin" for name in answer.headers)
        assert _end(target) == before, "something was produced"
        topics = target.cluster.get("/topics")
        assert "made-by-a-page" not in topics

    return Attack(sends=f"{method} {path} with {headers}", comes_back="403", run=run)


def _end(target: Target) -> int:
    return int(target.cluster.get(f"/topics/{WITNESS}/partitions/0/offsets")["end_offset"])


V3 = "/v3/clusters/{cluster}"
ATTACKS = {
    "a fetch without a type creates a topic": refused("POST", f"{V3}/topics", TOPIC, Origin=EVIL),
    "a form creates a topic": refused("POST", f"{V3}/topics", TOPIC, Origin=EVIL, Content_Type="text/plain"),
    "a fetch without a type produces": refused("POST", f"/topics/{WITNESS}", RECORDS, Origin=EVIL),
    "a form produces": refused("POST", f"/topics/{WITNESS}", RECORDS, Origin=EVIL, Content_Type="text/plain"),
    "a file produces": refused("POST", f"/topics/{WITNESS}", RECORDS, Origin="null"),
    "a form without an origin": refused("POST", f"/topics/{WITNESS}", RECORDS, Sec_Fetch_Site="cross-site"),
    "another port of this machine": refused("POST", f"/topics/{WITNESS}", RECORDS, Origin="http://127.0.0.1:3000"),
    "a page deletes a topic": refused("DELETE", f"{V3}/topics/{WITNESS}", Origin=EVIL),
    "a page joins a group": refused("POST", "/consumers/g", b"{}", Origin=EVIL),
    "a page moves a consumer": refused("GET", "/consumers/g/instances/i/records", Origin=EVIL),
    "a rebound name reads": refused("GET", "/topics", Host="evil.example:8082"),
    "a rebound name produces": refused(
        "POST", f"/topics/{WITNESS}", RECORDS, Host="evil.example", Origin="http://evil.example", Content_Type=AS_JSON
    ),
    "a rebound name asks for health": refused("GET", "/healthz", Host="evil.example"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_no_page_of_a_stranger_changes_anything(attacked_cluster: Cluster, name: str):
    withstand(attacked_cluster, ATTACKS[name], node_id=1)


def test_a_preflight_of_a_stranger_is_no_leave(attacked_cluster: Cluster):
    """What a browser asks before it sends JSON: no header in the answer means no."""
    target = Target(attacked_cluster, 1)
    answer = target.call("OPTIONS", f"/topics/{WITNESS}", Origin=EVIL, Access_Control_Request_Method="POST")
    assert isinstance(answer, Answer)
    assert not any(name.lower().startswith("access-control") for name in answer.headers)
