"""Asks rows of a node and says of each whether the answer is as it has to be."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from kraft.client.blocking_transport import send
from kraft.client.response import Answer, Request
from tests.integration.rest.consumers import consumer_rows
from tests.integration.rest.groups import group_rows
from tests.integration.rest.rows import V2, Row, Rows, Text, differences
from tests.integration.rest.v2 import v2_rows
from tests.integration.rest.v3 import v3_rows

PATIENCE_S = 15.0
PAUSE_S = 0.05


def ask(nodes: list[str], rows: Rows) -> Iterator[tuple[Row, list[str]]]:
    """Each row with what is different. The nodes take turns: any node serves any request."""
    turn, document = 0, None
    while True:
        try:
            row = rows.send(document)
        except StopIteration:
            return
        found: list[str] = []
        for node in nodes if row.is_everywhere else (nodes[turn % len(nodes)],):
            problems, document = _patiently(node, row, row.path)
            found += problems
        if row.also_with_slash:
            path, _, query = row.path.partition("?")
            slashed, _ = _patiently(nodes[turn % len(nodes)], row, f"{path}/{'?' if query else ''}{query}")
            found += [f"with a slash: {each}" for each in slashed]
        turn += 1
        yield row, found


def _patiently(node: str, row: Row, path: str) -> tuple[list[str], Any]:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        answer = request(node, row, path)
        found = check(row, answer)
        if not found or row.is_once or row.method != "GET" or time.monotonic() > deadline:
            return found, _document(answer)
        threading.Event().wait(PAUSE_S)


def request(node: str, row: Row, path: str) -> Answer:
    headers, body = {"Host": "cluster.test", **row.headers}, b""
    if row.body is not None:
        body = row.body if isinstance(row.body, bytes) else json.dumps(row.body).encode()
    outcome = send(node, Request(method=row.method, path=path, body=body, headers=headers))
    assert isinstance(outcome, Answer), f"{row}: {outcome}"
    return outcome


def check(row: Row, answer: Answer) -> list[str]:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    if answer.status != row.status:
        return [f"status {answer.status}, not {row.status}: {answer.body[:300]!r}"]
    found = []
    if row.shape is None:
        found += [f"a body: {answer.body[:100]!r}"] if answer.body else []
    else:
        if headers.get("content-type", "").split(";")[0] != row.media:
            found.append(f"content type {headers.get('content-type')}, not {row.media}")
        wanted = answer.body.decode() if isinstance(row.shape, Text) else _document(answer)
        found += differences(row.shape, wanted)
    for name, shape in row.answers.items():
        found += differences(shape, headers.get(name.lower()), f"header {name}")
    if answer.status in (429, 503) and "retry-after" not in headers:
        found.append("no Retry-After")
    return found


def _document(answer: Answer) -> Any:
    try:
        return json.loads(answer.body)
    except ValueError:
        return None


Print = Callable[[str], None]


def report(nodes: list[str], rows: Rows, tell: Print) -> int:
    """One line for each row; the number of those that differ."""
    wrong = 0
    for row, found in ask(nodes, rows):
        tell(f"{'differs' if found else 'ok     '}  {row}")
        for each in found:
            tell(f"           {each}")
        wrong += bool(found)
    return wrong


def all_rows(node: str) -> Rows:
    """Of a new cluster with three brokers that waits for no rebalance."""
    answer = request(node, Row("GET", "/v3/clusters", 200), "/v3/clusters")
    cluster = answer.json()["data"][0]["cluster_id"]
    for topic in ("rows", "read", "grouped"):
        new = {"topic_name": topic, "partitions_count": 2, "replication_factor": 3}
        yield Row("POST", f"/v3/clusters/{cluster}/topics", 201, dict, new)
        yield Row("GET", f"/topics/{topic}", 200, dict, media=V2, is_everywhere=True)
    for rows in (v2_rows(), consumer_rows(cluster), v3_rows(cluster), group_rows(cluster)):
        yield from rows
