"""The hooks of the judge of queues: what leaders of share partitions hand out and take. Wrappers change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from kraft.coordinators.shares.leader import ShareLeader
from replication.shares.acknowledgements import Acknowledgement, Part
from replication.shares.partition import DeadLetters, SharePartition
from replication.shares.states import AcknowledgeType
from tests.simulation.oracle import Oracle


def _acquire(oracle: Oracle, original: Callable[..., Any]) -> Callable[..., Any]:
    def acquire(self: ShareLeader, member: str, fetched: Any, **options: Any) -> Any:
        acquired = original(self, member, fetched, **options)
        oracle.queues.acquired(self, member, acquired)
        return acquired

    return acquire


def _acknowledge(oracle: Oracle, original: Callable[..., Any]) -> Callable[..., Any]:
    def acknowledge(self: ShareLeader, member: str, parts: Sequence[Part]) -> Any:
        before = set(self._answers)
        answer = original(self, member, parts)
        for part in parts:
            if part.type is AcknowledgeType.RENEW:
                oracle.queues.renewed(self, part)
        for begun in self._answers.keys() - before:
            _watch(oracle, self, member, begun, answer)
        return answer

    return acknowledge


def _watch(oracle: Oracle, leader: ShareLeader, member: str, begun: Acknowledgement, answer: Any) -> None:
    oracle.queues.begun(leader, member, begun.parts)

    def done(future: asyncio.Future[None]) -> None:
        if not future.cancelled() and future.exception() is None:
            oracle.queues.durable(leader, member, begun.parts)

    answer.add_done_callback(done)


def _release(oracle: Oracle, original: Callable[..., None]) -> Callable[..., None]:
    def release(self: ShareLeader, member: str) -> None:
        oracle.queues.released(self, member)
        original(self, member)

    return release


def _send_letters(oracle: Oracle, original: Callable[..., None]) -> Callable[..., None]:
    def send_letters(self: ShareLeader) -> None:
        oracle.queues.dead_letters.leads(self)
        original(self)

    return send_letters


def _dead_lettered(oracle: Oracle, original: Callable[..., None]) -> Callable[..., None]:
    def dead_lettered(self: SharePartition, letters: DeadLetters, lost: frozenset[int] = frozenset()) -> None:
        oracle.queues.dead_letters.written(self, letters, lost)
        original(self, letters, lost)

    return dead_lettered


WRAPPERS: tuple[tuple[Any, str, Callable[[Oracle, Callable[..., Any]], Callable[..., Any]]], ...] = (
    (ShareLeader, "acquire", _acquire),
    (ShareLeader, "acknowledge", _acknowledge),
    (ShareLeader, "release", _release),
    (ShareLeader, "_send_letters", _send_letters),
    (SharePartition, "dead_lettered", _dead_lettered),
)
