"""Whether a request is made again, and when: the one decision of every loop that repeats requests. Pure.

A loop makes an attempt, reads what it brought back as a result or as a `Failure`, and asks `next_step`. What may be
repeated at all is not decided here but by who reads the answer (`kraft.client.response`): a request that may have been
done already is repeated only where that does no harm.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

JITTER: Final = 0.2
"""Random share of each wait: clients that failed together do not all return at once."""
DOUBLINGS_MAX: Final = 30


def backoff_ms(failures: int, *, base_ms: int, max_ms: int, rng: random.Random | None) -> float:
    """Twice as long after each failure in a row, the first of which is 1, up to a limit, with jitter (KIP-580).

    0 when `base_ms` is. Without `rng` there is no jitter.
    """
    assert failures >= 1, failures
    grown: int = min(base_ms * 2 ** min(failures - 1, DOUBLINGS_MAX), max(max_ms, base_ms))
    return grown if rng is None else grown * rng.uniform(1 - JITTER, 1 + JITTER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What an attempt brought back instead of a result."""

    reason: str
    may_retry: bool = True
    """Another attempt can help, and does no harm."""
    retry_after_ms: int = 0
    """The next attempt is not made before: the server asked for that."""
    is_node_gone: bool = False
    """Nobody answered: the next attempt is made at once, as it goes to another node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How long to wait between attempts, as retry.backoff.ms and retry.backoff.max.ms, and how many to make."""

    backoff_ms: int
    backoff_max_ms: int
    retries: int | None = None
    """Attempts after the first; None: as many as time allows."""


@dataclass(frozen=True, slots=True)
class Done:
    """The attempt has its result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryAfter:
    wait_ms: float


class Why(Enum):
    FINAL = "no other attempt may be made"
    RETRIES = "as many were made as the policy allows"
    TIME = "the next attempt would be too late"


@dataclass(frozen=True, slots=True)
class GiveUp:
    why: Why


Step: TypeAlias = Done | RetryAfter | GiveUp


def next_step(
    failure: Failure | None, *, attempts: int, left_ms: float, policy: RetryPolicy, rng: random.Random | None = None
) -> Step:
    """After an attempt. `failure` is None for one with a result.

    `attempts`: that were made, with this one. `left_ms`: until the deadline, which the wait does not reach.
    """
    if failure is None:
        return Done()
    if not failure.may_retry:
        return GiveUp(Why.FINAL)
    if policy.retries is not None and attempts > policy.retries:
        return GiveUp(Why.RETRIES)
    wait_ms = 0.0
    if not failure.is_node_gone:
        wait_ms = backoff_ms(attempts, base_ms=policy.backoff_ms, max_ms=policy.backoff_max_ms, rng=rng)
        wait_ms = max(wait_ms, failure.retry_after_ms)
    return GiveUp(Why.TIME) if wait_ms >= left_ms else RetryAfter(wait_ms=wait_ms)
