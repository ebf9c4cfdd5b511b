"""REST consumers as threads that read, commit and leave, and remember everything that they were answered."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from kraft.client.blocking_transport import send
from kraft.client.response import Answer, Request, Response

TEXT = "application/vnd.kafka.text.v2+json"
JSON = "application/vnd.kafka.v2+json"
PAUSE_S = 0.02
READ_MS = 300
JOINS_MAX = 5
REQUEST_TIMEOUT_MS = 15_000
ACT_S = 30.0
"""How long an act is tried again at one node after the other."""

TopicPartition = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Seen:
    """A record that a member was answered."""

    at: float
    member: str
    partition: TopicPartition
    offset: int
    value: str


@dataclass
class Member:
    group: str
    name: str
    urls: list[str]
    commits: bool = False
    """Commit all that was read, after each read; otherwise auto-commit does."""
    timeout_ms: int = 300_000
    seen: list[Seen] = field(default_factory=list)
    committed: dict[TopicPartition, int] = field(default_factory=dict)
    """By commits that were answered: the next offset."""
    errors: list[str] = field(default_factory=list)
    is_gone: bool = False
    """Its instance does not exist any more."""
    _turn: int = 0

    @property
    def path(self) -> str:
        return f"/consumers/{self.group}/instances/{self.name}"

    def join(self, topic: str) -> None:
        body = {
            "name": self.name,
            "format": "text",
            "auto.offset.reset": "earliest",
            "auto.commit.enable": not self.commits,
            "consumer.instance.timeout.ms": self.timeout_ms,
        }
        for _ in range(JOINS_MAX):
            created = self.act("POST", f"/consumers/{self.group}", body, taken=(409,))
            assert created is not None, self.errors[-3:]
            answer = self.act("POST", self.path + "/subscription", {"topics": [topic]}, taken=(404,))
            assert answer is not None, self.errors[-3:]
            if answer.is_success:
                return
        raise AssertionError(f"{self.name} went idle {JOINS_MAX} times before it could subscribe")

    def leave(self) -> None:
        self.act("DELETE", self.path, taken=(404,))

    def run(self, stop: threading.Event) -> None:
        """Read with tokens until told to stop, or until the instance is gone."""
        token = 1
        positions: dict[TopicPartition, int] = {}
        while not (stop.is_set() or self.is_gone):
            answer = self.once("GET", f"{self.path}/records?token={token}&timeout={READ_MS}", accept=TEXT)
            if answer is None:
                stop.wait(PAUSE_S)
                continue
            for record in answer.json():
                partition = (record["topic"], record["partition"])
                self.seen.append(Seen(time.monotonic(), self.name, partition, record["offset"], record["value"]))
                positions[partition] = record["offset"] + 1
            token = int(answer.headers["x-next-token"])
            if self.commits and answer.body != b"[]":
                self._commit(positions)

    def _commit(self, positions: dict[TopicPartition, int]) -> None:
        """What was read of one's own partitions. After a rebalance some are another member's: 409 then, or ours."""
        rows = [{"topic": t, "partition": p, "offset": offset} for (t, p), offset in positions.items()]
        answer = self.once("POST", self.path + "/offsets", {"partitions": rows})
        if answer is not None:
            self.committed |= positions
        positions.clear()

    # --- requests -------------------------------------------------------------------------------------------

    def once(self, method: str, path: str, body: Any = None, *, accept: str = JSON) -> Answer | None:
        """One try at the node whose turn it is; None and the next node's turn when it does not work."""
        outcome = self._send(method, path, body, accept)
        if isinstance(outcome, Answer):
            if outcome.is_success:
                return outcome
            if outcome.status == 404:
                self.is_gone = True
            self.errors.append(f"{method} {path} {outcome.status} {outcome.body[:200]!r}")
        else:
            self.errors.append(f"{method} {path} {outcome.reason}")
        self._turn += 1
        return None

    def act(self, method: str, path: str, body: Any = None, *, taken: Iterable[int] = ()) -> Answer | None:
        """Again until it works; an answer with a `taken` status means that an earlier try did."""
        deadline = time.monotonic() + ACT_S
        pause = threading.Event()
        while time.monotonic() < deadline:
            outcome = self._send(method, path, body, JSON)
            if isinstance(outcome, Answer) and (outcome.is_success or outcome.status in taken):
                return outcome
            self.errors.append(f"{method} {path} {outcome}"[:300])
            self._turn += 1
            pause.wait(PAUSE_S)
        return None

    def _send(self, method: str, path: str, body: Any, accept: str) -> Response:
        data = b"" if body is None else json.dumps(body).encode()
        headers = {"Accept": accept, **({"Content-Type": JSON} if data else {})}
        request = Request(method=method, path=path, body=data, headers=headers, timeout_ms=REQUEST_TIMEOUT_MS)
        return send(self.urls[self._turn % len(self.urls)], request)


class Crowd:
    """Members in threads, from enter to exit."""

    def __init__(self, members: Iterable[Member], topic: str) -> None:
        self.members = list(members)
        self._topic = topic
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Crowd:
        for member in self.members:
            member.join(self._topic)
        self._threads = [threading.Thread(target=member.run, args=(self._stop,)) for member in self.members]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in self._threads), "a member hangs"

    @property
    def seen(self) -> list[Seen]:
        return sorted((each for member in self.members for each in list(member.seen)), key=lambda each: each.at)

    @property
    def values(self) -> set[str]:
        return {each.value for member in self.members for each in list(member.seen)}


@dataclass
class Churn:
    """Places of a group, in each of which one member after the other joins, reads, and leaves or falls silent."""

    group: str
    topic: str
    urls: list[str]
    places: int
    seed: int
    life_s: tuple[float, float] = (1.0, 10.0)
    silent_share: float = 0.3
    """Of the members that end: those that do not say so, and are evicted after `timeout_ms`."""
    timeout_ms: int = 6_000
    members: list[Member] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self, seconds: float) -> None:
        threads = [threading.Thread(target=self._fill, args=(place,)) for place in range(self.places)]
        for thread in threads:
            thread.start()
        self._stop.wait(seconds)
        self._stop.set()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads), "a place hangs"

    def _fill(self, place: int) -> None:
        rng = random.Random(f"{self.seed}-{place}")
        urls = self.urls[place % len(self.urls) :] + self.urls[: place % len(self.urls)]
        self._stop.wait(rng.uniform(0, self.life_s[1] / 2))
        number = 0
        while not self._stop.is_set():
            number += 1
            member = Member(
                self.group, f"m{place}-{number}", urls, commits=rng.random() < 0.5, timeout_ms=self.timeout_ms
            )
            self.members.append(member)
            try:
                member.join(self.topic)
                self._live(member, rng.uniform(*self.life_s))
                if rng.random() >= self.silent_share:
                    member.leave()
            except AssertionError as error:
                self.failures.append(f"{member.name}: {error}")

    def _live(self, member: Member, seconds: float) -> None:
        end = threading.Event()
        timer = threading.Timer(seconds, end.set)
        timer.start()
        try:
            member.run(end)
        finally:
            timer.cancel()
