"""Reads of partitions over the stateless REST read: the position in each, and retries when a node dies."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import msgspec

from kraft.cli.options import Isolation
from kraft.cli.output import CommandFailed
from kraft.cli.rest import Patience, Rest, checked
from kraft.client.response import Answer, Request, Response, segment, server_error
from kraft.client.retries import Failure, RetryPolicy

READ_BYTES_MAX: Final = 1024 * 1024
READ_TIMEOUT_MS: Final = 10_000
"""Added to the server's wait for records."""
RETRY_LIMIT_MS: Final = 60_000
"""Time that a partition may have no reachable leader before the command fails."""
RETRY_EVERY_MS: Final = 200
RETRY_POLICY: Final = RetryPolicy(backoff_ms=RETRY_EVERY_MS, backoff_max_ms=RETRY_EVERY_MS)
TRYING_AGAIN: Final = "no leader answers; trying again"
UNAVAILABLE: Final = 503


@dataclass(slots=True, kw_only=True)
class Position:
    topic: str
    partition: int
    offset: str
    """The next offset to ask for: a number, or still the name that reading began with."""


class ReadRecord(msgspec.Struct):
    """One record of an answer. Key and value are JSON as the node wrote it: a number keeps each of its digits."""

    topic: str
    key: msgspec.Raw
    value: msgspec.Raw
    partition: int
    offset: int
    timestamp: int
    headers: msgspec.Raw = msgspec.Raw(b"[]")


records_in = msgspec.json.Decoder(list[ReadRecord]).decode


def start_offset(text: str) -> str:
    """An offset as the server expects it: a number, `earliest`, `latest`, or `ts:` and a time."""
    if re.fullmatch(r"earliest|latest|-?\d+|ts:.+", text):
        return text
    return f"ts:{text}"


def partitions_of(client: Rest, topic: str) -> list[int]:
    return [int(entry["partition"]) for entry in client.get(f"/topics/{segment(topic)}/partitions")]


def read_partitions(
    client: Rest, positions: Sequence[Position], *, form: str, isolation: Isolation, timeout_ms: int
) -> Iterator[list[ReadRecord]]:
    """Every record up to the high watermark, or to the last stable offset for read_committed, partition after
    partition; waits once for a first record."""
    for position in positions:
        wait_ms = timeout_ms
        at_end = False
        while not at_end:
            records, at_end = _read(client, position, form=form, isolation=isolation, wait_ms=wait_ms)
            wait_ms = 0
            yield records


def read_request(position: Position, *, form: str, isolation: Isolation, wait_ms: int) -> Request:
    path = (
        f"/topics/{segment(position.topic)}/partitions/{position.partition}/records"
        f"?offset={quote(position.offset, safe='')}&timeout={wait_ms}&max_bytes={READ_BYTES_MAX}"
        f"&isolation_level={isolation}"
    )
    headers = {"Accept": f"application/vnd.kafka.{form}.v2+json"}
    return Request(method="GET", path=path, headers=headers, timeout_ms=wait_ms + READ_TIMEOUT_MS)


def move(position: Position, answer: Answer) -> list[ReadRecord]:
    """The records of an answer; moves the position behind them."""
    records = records_in(answer.body)
    position.offset = answer.headers["x-next-offset"]
    return records


def _read(
    client: Rest, position: Position, *, form: str, isolation: Isolation, wait_ms: int
) -> tuple[list[ReadRecord], bool]:
    """One read. The flag is true at the end of the partition."""
    request = read_request(position, form=form, isolation=isolation, wait_ms=wait_ms)
    answer = checked(read_patiently(client, request))
    records = move(position, answer)
    end = answer.headers["x-last-stable-offset" if isolation == "read_committed" else "x-high-watermark"]
    return records, int(position.offset) >= int(end)


def read_patiently(client: Rest, request: Request) -> Answer:
    """Read, and repeat it while a leader is elected. Raises CommandFailed when no node answers for long."""
    patience = Patience(RETRY_POLICY, limit_ms=RETRY_LIMIT_MS, words=TRYING_AGAIN)
    while True:
        try:
            answer = client.read(request)
        except CommandFailed as error:
            if not patience.wait(Failure(reason=str(error))):
                raise
            continue
        if not patience.wait(not_led(answer)):
            return answer


def not_led(outcome: Response) -> Failure | None:
    """The failure of a read that no leader has answered, for `Patience`."""
    if isinstance(outcome, Answer):
        return Failure(reason=server_error(outcome).message) if outcome.status == UNAVAILABLE else None
    return Failure(reason=outcome.reason)
