"""Answers that are lost, and requests that overtake each other."""

from __future__ import annotations

from kraft.chaos.model import SOME, Expect, Producer, Topic
from kraft.chaos.story import ScenarioRun, scenario


@scenario(
    "lost-answer-retry",
    question="Where do duplicates come from?",
    topics=[
        Topic(name="t"),
    ],
    clients=[
        Producer(name="load", topic="t", limit=100, retries=5, timeout_ms=1_000, target=1),
    ],
    expect=Expect(kept=100, duplicated=1),
)
async def lost_answer_retry(run: ScenarioRun) -> None:
    """A produce is carried out, its answer is lost, and the client sends it again.

    Without idempotence a producer that retries after a lost answer may write a record twice.
    """
    await run.more_acked(50)
    await run.drop_answers(dials="load", answers=1, purpose="rest", count=1)
    await run.until(lambda now: now.done("load"))


@scenario(
    "lost-answer-idempotent",
    question="Does an idempotent producer write a record twice when an answer is lost?",
    topics=[
        Topic(name="t"),
    ],
    clients=[
        Producer(name="load", topic="t", limit=100, retries=20, timeout_ms=1_000, idempotent=True),
    ],
    expect=Expect(kept=100),
)
async def lost_answer_idempotent(run: ScenarioRun) -> None:
    """Answers are lost, the leader is killed, and each produce is sent again until it is acknowledged.

    With idempotence a leader recognizes a duplicate, also if another leader wrote the record.
    """
    await run.more_acked(25)
    await run.drop_answers(dials="load", purpose="rest", count=1)
    await run.more_acked(25)
    await run.kill(1)
    await run.more_acked(25)
    await run.drop_answers(dials="load", purpose="rest", count=1)
    await run.restart(1)
    await run.until(lambda now: now.done("load"))


@scenario(
    "in-flight-reordered",
    question="Can records of one producer change their order?",
    topics=[
        Topic(name="t"),
    ],
    clients=[
        Producer(
            name="load", topic="t", partition=0, rate=200, limit=100, retries=5, in_flight=2, timeout_ms=1_000, target=1
        ),
    ],
    expect=Expect(kept=100, reordered=SOME),
    rest_only="it needs two requests in flight for one partition; aiokafka sends one after the other",
)
async def in_flight_reordered(run: ScenarioRun) -> None:
    """Two produces are in flight; the first breaks off, is sent again, and is written after the second.

    Two requests are in flight: the first does not arrive, and is sent again after the second one is written.
    """
    await run.more_acked(50)
    await run.close_mid_message(dials="load", answers=1, purpose="rest", direction="requests", count=1)
    await run.until(lambda now: now.done("load"))
