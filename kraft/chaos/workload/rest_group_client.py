"""A member of a group that is a REST consumer (v2) without auto-commit, through links of its own to real nodes.

Reads have tokens: after a lost answer the same token returns the same batch. A member whose instance is gone comes back
under a new name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from kraft.chaos.workload.group_client import CommitResult, MemberRecords, Membership, PollResult
from kraft.chaos.workload.requests import TEXT, cannot_now, value_of
from kraft.client.outcome import Outcome
from kraft.client.response import Answer, Refused, Request, Response, document_of
from kraft.client.transport import Transport

V2: Final = "application/vnd.kafka.v2+json"
NEXT_TOKEN: Final = "x-next-token"
REQUEST_TIMEOUT_MS: Final = 5_000
RECORD_BYTES: Final = 64
"""The estimated size of a record: an answer is limited in bytes, a batch of a member in records."""
EXISTS: Final = 40902
"""The instance exists: the answer to its creation was lost."""
GONE: Final = 404
UNKNOWN_TOKEN: Final = 40904
"""The token of a batch that was given up: this instance does not know its position."""
Address = Callable[[str, int], Awaitable[str]]


class RestGroupClient:
    """Implements `GroupClient`."""

    def __init__(self, name: str, address: Address, membership: Membership, *, now_us: Callable[[], int]) -> None:
        """`address`: the base URL of this client's link to a node."""
        self._name = name
        self._address = address
        self._membership = membership
        self._now_us = now_us
        self._addresses: dict[int, str] = {}
        self._transport: Transport | None = None
        self._born = 0
        self._is_subscribed = False
        self._token = 1
        self._asked_us = 0
        """The time of the first request with this token."""

    async def open(self, nodes: Sequence[int]) -> None:
        for node in nodes:
            self._addresses[node] = await self._address(self._name, node)

    async def poll(self, node: int, *, wait_ms: int) -> PollResult:
        if not self._is_subscribed:
            refused = await self._subscribe(node)
            if refused is not None:
                return refused
        self._asked_us = self._asked_us or self._now_us()
        query = f"token={self._token}&timeout={wait_ms}&max_bytes={self._membership.batch * RECORD_BYTES}"
        answer = await self._send(node, "GET", f"{self._path}/records?{query}", accept=TEXT)
        if not isinstance(answer, Answer) or not answer.is_success:
            if _code_of(answer) in (GONE, UNKNOWN_TOKEN):
                self._is_subscribed = False
            return _failed(answer)
        found: dict[int, list[tuple[int, str]]] = defaultdict(list)
        for record in msgspec.json.decode(answer.body):
            found[record["partition"]].append((record["offset"], value_of(record["value"] or "")))
        asked_us, token = self._asked_us, int(answer.headers[NEXT_TOKEN])
        if token != self._token:
            self._token, self._asked_us = token, 0
        return PollResult(
            outcome="ok",
            given=[
                MemberRecords(partition=partition, records=records, next_offset=records[-1][0] + 1, since_us=asked_us)
                for partition, records in found.items()
            ],
        )

    async def commit(self, node: int, offsets: Mapping[int, int]) -> CommitResult:
        topic = self._membership.topic
        rows = [{"topic": topic, "partition": partition, "offset": offset} for partition, offset in offsets.items()]
        answer = await self._send(node, "POST", f"{self._path}/offsets", {"partitions": rows})
        outcome = _outcome_of(answer)
        code = document_of(answer).get("kafka_code") if isinstance(answer, Answer) and not answer.is_success else None
        return CommitResult(outcome=outcome, kafka_code=code, error=_reason(answer), cannot_now=cannot_now(answer))

    async def leave(self, node: int) -> None:
        if self._is_subscribed:
            await self._send(node, "DELETE", self._path)

    async def close(self) -> None:
        if self._transport is not None:
            await self._transport.close()

    # --- requests -----------------------------------------------------------------------------------------------

    async def _subscribe(self, node: int) -> PollResult | None:
        """None, or an error; then the next poll retries with a new instance."""
        self._born += 1
        self._token, self._asked_us = 1, 0
        body = {
            "name": f"{self._name}-{self._born}",
            "format": "text",
            "auto.offset.reset": "earliest",
            "auto.commit.enable": "false",
            "consumer.instance.timeout.ms": self._membership.session_ms,
        }
        created = await self._send(node, "POST", f"/consumers/{self._membership.group}", body)
        if _outcome_of(created) != "ok" and _code_of(created) != EXISTS:
            return _failed(created)
        topics = {"topics": [self._membership.topic]}
        subscribed = await self._send(node, "POST", f"{self._path}/subscription", topics)
        if _outcome_of(subscribed) != "ok":
            return _failed(subscribed)
        self._is_subscribed = True
        return None

    @property
    def _path(self) -> str:
        return f"/consumers/{self._membership.group}/instances/{self._name}-{self._born}"

    async def _send(self, node: int, method: str, path: str, body: Any = None, *, accept: str = V2) -> Response:
        data = b"" if body is None else msgspec.json.encode(body)
        headers = {"Accept": accept} | ({"Content-Type": V2} if data else {})
        request = Request(method=method, path=path, body=data, headers=headers, timeout_ms=REQUEST_TIMEOUT_MS)
        if self._transport is None:
            self._transport = Transport(connections_max=1)
        return await self._transport.send(self._addresses[node], request)


def _outcome_of(answer: Response) -> Outcome:
    """Only an answer that the request was wrong proves that nothing was done: a coordinator that gives up its partition
    may have appended before."""
    if isinstance(answer, Refused):
        return "fail"
    if not isinstance(answer, Answer):
        return "info"
    if answer.is_success:
        return "ok"
    return "fail" if 400 <= answer.status < 500 else "info"


def _code_of(answer: Response) -> int:
    if not isinstance(answer, Answer):
        return 0
    code = int(document_of(answer).get("error_code") or 0)
    return GONE if answer.status == GONE else code


def _reason(answer: Response) -> str | None:
    if isinstance(answer, Answer):
        return None if answer.is_success else str(document_of(answer).get("message") or f"HTTP status {answer.status}")
    return answer.reason


def _failed(answer: Response) -> PollResult:
    return PollResult(outcome=_outcome_of(answer), error=_reason(answer), cannot_now=cannot_now(answer))
