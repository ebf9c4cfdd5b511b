"""`kraft consume --group`: a REST consumer of a group, created, read with tokens, and deleted at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from kraft.cli.options import Isolation
from kraft.cli.partition_reads import RETRY_EVERY_MS, ReadRecord, read_patiently, records_in
from kraft.cli.rest import Rest, checked
from kraft.client.response import Answer, Request, segment
from kraft.protocol.media_types import V2_JSON

ASSIGNMENT_WAIT_MS: Final = 15_000
"""Time in which the group must assign partitions, including its initial rebalance delay."""
FOLLOW_WAIT_MS: Final = 5_000
"""Longest wait of one read for a record."""
ANSWER_MS: Final = 20_000


def consume_group(
    client: Rest,
    group: str,
    topic: str,
    *,
    form: str,
    isolation: Isolation,
    reset: str,
    timeout_ms: int,
    follow: bool,
    show: Callable[[list[ReadRecord]], bool],
) -> None:
    """Read until `show` returns False, or, without `follow`, until no record arrived within the timeout."""
    with _consumer(client, group, topic, form=form, isolation=isolation, reset=reset) as path:
        wait_ms = FOLLOW_WAIT_MS if follow else timeout_ms
        _wait_assigned(client, path)
        token = 1
        while True:
            answer = _read(client, f"{path}/records?token={token}&timeout={wait_ms}", form=form)
            records, token = records_in(answer.body), int(answer.headers["x-next-token"])
            if not show(records) or not (records or follow):
                return


@contextmanager
def _consumer(client: Rest, group: str, topic: str, *, form: str, isolation: Isolation, reset: str) -> Iterator[str]:
    config = {
        "format": form,
        "auto.offset.reset": reset,
        "isolation.level": isolation,
        "consumer.request.timeout.ms": FOLLOW_WAIT_MS,
    }
    parent = f"/consumers/{segment(group)}"
    made = client.send_json("POST", parent, config, media=V2_JSON)
    path = f"{parent}/instances/{segment(made['instance_id'])}"
    try:
        client.send_json("POST", path + "/subscription", {"topics": [topic]}, media=V2_JSON)
        yield path
    finally:
        client.send_json("DELETE", path)


def _wait_assigned(client: Rest, path: str) -> None:
    """Wait for an assignment. A member may also get none: the group has more members than partitions."""
    deadline = time.monotonic() + ASSIGNMENT_WAIT_MS / 1000
    while not client.get(path + "/assignments")["partitions"] and time.monotonic() < deadline:
        time.sleep(RETRY_EVERY_MS / 1000)


def _read(client: Rest, path: str, *, form: str) -> Answer:
    """Read. The same token returns the same batch, from any node, so a read may be repeated."""
    headers = {"Accept": f"application/vnd.kafka.{form}.v2+json"}
    return checked(read_patiently(client, Request(method="GET", path=path, headers=headers, timeout_ms=ANSWER_MS)))
