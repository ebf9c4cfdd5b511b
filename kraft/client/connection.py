"""A connection to the cluster as a whole: requests go to a node that lives, and what is known of it is kept fresh.

Owns the metadata (nodes, cluster id, leaders of topics in use). It is read again after metadata.max.age.ms and after
every failure, at most once per retry.backoff.ms. A repeatable request goes on to other nodes for
default.api.timeout.ms; one that is not is repeated only while it surely changed nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import msgspec

from kraft.client.clock import Clock
from kraft.client.errors import KraftError, NothingDone, OutcomeUnknown, ServerError
from kraft.client.metadata import Node, TopicMetadata, parse_nodes, parse_topic
from kraft.client.nodes import Nodes
from kraft.client.response import (
    Answer,
    Lost,
    Request,
    Response,
    checked,
    failure_of,
    judge,
    segment,
    server_error,
)
from kraft.client.retries import Failure, RetryAfter, RetryPolicy, Step, next_step
from kraft.client.settings import ClientSettings

LOOKUP_TIMEOUT_MS: Final = 5_000
"""For metadata, which any node answers from memory."""
TOPICS_MAX: Final = 10_000
"""Views of topics kept; with one more, all are dropped and asked for again."""
JSON_TYPE: Final = "application/json"
NO_CONTENT: Final = Answer(status=204, headers={}, body=b"")


class Sender(Protocol):
    async def send(self, base_url: str, request: Request) -> Response:
        """One attempt, never repeated below this."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What a client needs of the outside."""

    clock: Clock
    rng: random.Random
    sender: Sender


class Connection:
    def __init__(self, bootstrap: Sequence[str], *, settings: ClientSettings, world: World) -> None:
        self.settings = settings
        self.world = world
        self.nodes = Nodes(
            bootstrap,
            rng=world.rng,
            reconnect_backoff_ms=settings.reconnect_backoff_ms,
            reconnect_backoff_max_ms=settings.reconnect_backoff_max_ms,
        )
        self.known_nodes: tuple[Node, ...] = ()
        self._cluster_id = ""
        self._is_discovering = False
        self._discovered_ms: float | None = None
        self._is_metadata_doubted = True
        self._topics: dict[str, TopicMetadata] = {}
        self._doubted: set[str] = set()
        self._fetching: dict[str, asyncio.Task[TopicMetadata]] = {}

    # --- requests ---------------------------------------------------------------------------------------------------

    async def ask(
        self,
        request: Request,
        *,
        prefer: int | None = None,
        repeatable: bool = True,
        is_done: Callable[[ServerError], bool] | None = None,
    ) -> Answer:
        """An answer, whatever its status, from `prefer` or any other node.

        `is_done` recognizes an error that means that an earlier attempt, whose answer was lost, had done it (the topic
        exists already); the answer is then NO_CONTENT. Raises OutcomeUnknown when a change that is not repeatable may
        have been made, NothingDone or the last ServerError when time is over.
        """
        await self._discover_if_due()
        deadline_ms = self.world.clock.monotonic_ms() + self.settings.default_api_timeout_ms
        attempts, was_lost, avoid, wait_ms = 0, False, None, 0.0
        while True:
            url = await self._next_url(prefer=prefer, avoid=avoid, wait_ms=wait_ms)
            response = await self._attempt(url, request, deadline_ms)
            attempts, avoid = attempts + 1, url
            failure = self._failure(url, response, repeatable=repeatable)
            if failure is None:
                assert isinstance(response, Answer), response
                self.nodes.answered(url)
                is_repetition = was_lost and is_done is not None and not response.is_success
                return NO_CONTENT if is_repetition and is_done and is_done(server_error(response)) else response
            was_lost = was_lost or isinstance(judge(response), Lost)
            match self.next_step(failure, attempts=attempts, deadline_ms=deadline_ms):
                case RetryAfter(wait_ms=wait_ms):
                    continue
            if was_lost and (not repeatable or request.method != "GET"):
                raise OutcomeUnknown(f"{request.method} {request.path} may have been done: {failure.reason}")
            raise server_error(response) if isinstance(response, Answer) else self._nobody(failure.reason)

    async def get(self, path: str, *, prefer: int | None = None) -> Any:
        """The document of a successful answer. Raises ServerError."""
        answer = await self.ask(Request(method="GET", path=path, timeout_ms=LOOKUP_TIMEOUT_MS), prefer=prefer)
        return checked(answer).json()

    def request(self, method: str, path: str, document: Any = None) -> Request:
        body = b"" if document is None else msgspec.json.encode(document)
        headers = {"Content-Type": JSON_TYPE} if body else {}
        timeout_ms = self.settings.request_timeout_ms
        return Request(method=method, path=path, body=body, headers=headers, timeout_ms=timeout_ms)

    async def _next_url(self, *, prefer: int | None, avoid: str | None, wait_ms: float) -> str:
        if wait_ms > 0:
            await self.world.clock.sleep(wait_ms)
        now_ms = self.world.clock.monotonic_ms()
        url = self.nodes.choose(now_ms, prefer=prefer, avoid=avoid)
        if (left_ms := self.nodes.wait_ms(url, now_ms)) > 0:
            await self.world.clock.sleep(left_ms)
        return url

    async def _attempt(self, url: str, request: Request, deadline_ms: float) -> Response:
        left_ms = max(1, int(deadline_ms - self.world.clock.monotonic_ms()))
        return await self.world.sender.send(url, replace(request, timeout_ms=min(request.timeout_ms, left_ms)))

    def _failure(self, url: str, response: Response, *, repeatable: bool) -> Failure | None:
        failure = failure_of(response, is_repeatable=repeatable)
        if failure is not None:
            self.doubt(url if failure.is_node_gone else None)
            if len(self.nodes.urls) > 1:
                return replace(failure, retry_after_ms=0)  # another node is asked, which has not asked for patience
        return failure

    def next_step(
        self, failure: Failure | None, *, attempts: int, deadline_ms: float, retries: int | None = None
    ) -> Step:
        """The next step by retry.backoff.ms and retry.backoff.max.ms."""
        settings = self.settings
        policy = RetryPolicy(
            backoff_ms=settings.retry_backoff_ms, backoff_max_ms=settings.retry_backoff_max_ms, retries=retries
        )
        left_ms = deadline_ms - self.world.clock.monotonic_ms()
        return next_step(failure, attempts=attempts, left_ms=left_ms, policy=policy, rng=self.world.rng)

    def _nobody(self, reason: str) -> NothingDone:
        tried = ", ".join(self.nodes.urls)
        limit_ms = self.settings.default_api_timeout_ms
        return NothingDone(f"no node served this within default.api.timeout.ms={limit_ms} ({tried}): {reason}")

    # --- metadata ---------------------------------------------------------------------------------------------------

    async def cluster_id(self) -> str:
        if not self._cluster_id:
            self._cluster_id = str((await self.get("/v3/clusters"))["data"][0]["cluster_id"])
        return self._cluster_id

    async def v3(self, path: str = "") -> str:
        """A path of the v3 dialect, below the cluster."""
        return f"/v3/clusters/{segment(await self.cluster_id())}{path}"

    async def discover(self) -> tuple[Node, ...]:
        """Ask a living node who the nodes are. Raises KraftError."""
        scheme = self.nodes.urls[0].partition("://")[0]
        self.known_nodes = parse_nodes(await self.get(await self.v3("/brokers")), scheme=scheme)
        self.nodes.learn({node.id: node.url for node in self.known_nodes if node.url})
        self._discovered_ms = self.world.clock.monotonic_ms()
        self._is_metadata_doubted = False
        return self.known_nodes

    def doubt(self, failed_url: str | None = None, *, topic: str | None = None) -> None:
        """Something failed: what is known may be out of date, and this node may be gone."""
        self._is_metadata_doubted = True
        if failed_url is not None:
            self.nodes.failed(failed_url, self.world.clock.monotonic_ms())
        if topic is not None:
            self._doubted.add(topic)

    async def _discover_if_due(self) -> None:
        """At most one at a time, and never a reason to fail: the request itself will tell."""
        if self._is_discovering or not self._is_due(self._discovered_ms, is_doubted=self._is_metadata_doubted):
            return
        self._is_discovering = True
        try:
            async with self.world.clock.timeout(LOOKUP_TIMEOUT_MS):
                await self.discover()
        except (KraftError, TimeoutError):
            self._discovered_ms = self.world.clock.monotonic_ms()
        finally:
            self._is_discovering = False

    def _is_due(self, fetched_ms: float | None, *, is_doubted: bool) -> bool:
        if fetched_ms is None:
            return True
        limit_ms = self.settings.retry_backoff_ms if is_doubted else self.settings.metadata_max_age_ms
        return self.world.clock.monotonic_ms() - fetched_ms >= limit_ms

    def known_topic(self, name: str) -> TopicMetadata | None:
        """What is known of it now, unless that is too old or in doubt."""
        known = self._topics.get(name)
        if known is None or self._is_due(known.fetched_ms, is_doubted=name in self._doubted):
            return None
        return known

    async def topic(self, name: str) -> TopicMetadata:
        """Fresh as the limits say. Raises ServerError (404) for one that does not exist."""
        known = self.known_topic(name)
        if known is not None:
            return known
        task = self._fetching.get(name)
        if task is None:
            task = self._fetching[name] = asyncio.get_running_loop().create_task(self._fetch(name))
            task.add_done_callback(lambda done: (self._fetching.pop(name, None), done.cancelled() or done.exception()))
        return await asyncio.shield(task)

    async def leader(self, topic: str, partition: int) -> int | None:
        """The leader as far as is known; None when it is not. Takes at most LOOKUP_TIMEOUT_MS, and never fails."""
        known = self.known_topic(topic)
        try:
            if known is None:
                async with self.world.clock.timeout(LOOKUP_TIMEOUT_MS):
                    known = await self.topic(topic)
        except (KraftError, TimeoutError):
            known = self._topics.get(topic)
        if known is None or partition >= known.partitions or known.leaders[partition] < 0:
            return None
        return known.leaders[partition]

    async def _fetch(self, name: str) -> TopicMetadata:
        document = await self.get(f"/topics/{segment(name)}/partitions")
        known = parse_topic(name, document, now_ms=self.world.clock.monotonic_ms())
        if len(self._topics) >= TOPICS_MAX:
            self._topics.clear()
        self._topics[name] = known
        self._doubted.discard(name)
        return known

    async def close(self) -> None:
        tasks = list(self._fetching.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
