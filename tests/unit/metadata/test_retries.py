"""The loop for whatever is asked again until a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from metadata.retries import retry_until
from tests.unit.replication.harness.virtual import environment, run


async def asked(outcomes: Sequence[BaseException | str], *, deadline_ms: int) -> tuple[str, int]:
    """The answer, and how often it was asked, 10 ms after each other."""
    clock, left = environment(1).clock, list(outcomes)

    async def attempt() -> str:
        outcome = left.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    answer = await retry_until(
        clock.monotonic_ms() + deadline_ms,
        attempt,
        clock=clock,
        retriable=lambda error: isinstance(error, KeyError),
        wake=lambda: clock.sleep(10),
    )
    return answer, len(outcomes) - len(left)


def test_the_first_answer_counts() -> None:
    assert run(asked([KeyError(), KeyError(), "a", "b"], deadline_ms=1_000)) == ("a", 3)


def test_at_the_deadline_the_last_error_is_raised_and_no_attempt_is_left_out() -> None:
    with pytest.raises(KeyError, match="3"):
        run(asked([KeyError(1), KeyError(2), KeyError(3), "late"], deadline_ms=20))
    assert run(asked(["a"], deadline_ms=0)) == ("a", 1)


@pytest.mark.parametrize("error", [ValueError(), asyncio.CancelledError()])
def test_other_errors_are_raised_at_once(error: BaseException) -> None:
    with pytest.raises(type(error)):
        run(asked([error, "a"], deadline_ms=1_000))
