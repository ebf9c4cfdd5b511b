"""What one attempt to write a batch came to, and what follows: done, again, in halves, or given up. Pure.

Only verdicts count that the code of the answer allows (`verdicts`): a record is refused when every attempt was surely
not done, unknown when one may have been.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from kraft.client import verdicts
from kraft.client.errors import DeliveryFailed, RecordRefused, RecordUnknown
from kraft.client.judging import TRY_AGAIN, document_of, retry_after_ms
from kraft.client.outcome import Answer, Outcome, Refused, Unknown
from kraft.client.records import NO_OFFSET
from kraft.client.settings import Acks
from kraft.protocol.errors import MessageTooLarge, RecordListTooLarge, for_code

TOO_LARGE: Final = (MessageTooLarge.code, RecordListTooLarge.code)
TOO_LARGE_STATUS: Final = 413


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What one attempt came to. `base_offset` counts for `ok` only."""

    verdict: verdicts.Outcome
    reason: str = ""
    code: int | None = None
    may_retry: bool = False
    is_too_large: bool = False
    is_node_gone: bool = False
    retry_after_ms: int = 0
    base_offset: int = NO_OFFSET
    leader_epoch: int | None = None


def told_produce(outcome: Outcome, *, acks: Acks) -> Told:
    match outcome:
        case Refused(reason=reason):
            return Told(verdict=verdicts.of_refused_connection(), reason=reason, may_retry=True, is_node_gone=True)
        case Unknown(reason=reason):
            verdict = verdicts.of_sent_without_answer() if acks == "0" else verdicts.of_broken_connection()
            return Told(verdict=verdict, reason=reason, may_retry=True, is_node_gone=True)
    document = document_of(outcome)
    entries = document.get("offsets")
    if not outcome.is_success:
        return _told_as_a_whole(outcome, document)
    if not entries:
        return Told(verdict=verdicts.OK)
    return _told_entry(entries[0])


def _told_entry(entry: dict[str, Any]) -> Told:
    if entry["error_code"] is None:
        return Told(verdict=verdicts.OK, base_offset=entry["offset"], leader_epoch=entry.get("leader_epoch"))
    code = entry["kafka_code"]
    return Told(
        verdict=verdicts.of_code(code),
        reason=f"{for_code(code).name}: {entry['error']}",
        code=code,
        may_retry=for_code(code).retriable,
        is_too_large=code in TOO_LARGE,
    )


def _told_as_a_whole(answer: Answer, document: Any) -> Told:
    code = document.get("kafka_code")
    is_busy = answer.status in TRY_AGAIN
    if is_busy and code is None:
        verdict: verdicts.Outcome = verdicts.FAIL
    else:
        verdict = verdicts.of_answer(answer.status, code)
    return Told(
        verdict=verdict,
        reason=str(document.get("message") or f"HTTP status {answer.status}"),
        code=code,
        may_retry=is_busy or answer.status >= 500 or (code is not None and for_code(code).retriable),
        is_too_large=answer.status == TOO_LARGE_STATUS,
        retry_after_ms=retry_after_ms(answer),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    base_offset: int
    leader_epoch: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    wait_ms: float


@dataclass(frozen=True, slots=True)
class Halve:
    """The batch is too large for its topic; nothing of it was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    failure: DeliveryFailed


Step: TypeAlias = Done | Again | Halve | GiveUp


def next_step(
    told: Told, *, earlier: verdicts.Outcome, attempts: int, records: int, retries: int, wait_ms: float, left_ms: float
) -> Step:
    """`earlier`: of all attempts before this one, `fail` when there was none. `attempts`: with this one.

    `left_ms`: until delivery.timeout.ms is over, from now.
    """
    if told.verdict == verdicts.OK:
        return Done(base_offset=told.base_offset, leader_epoch=told.leader_epoch)
    whole = verdicts.of_attempts((earlier, told.verdict))
    if told.is_too_large and records > 1 and whole == verdicts.FAIL:
        return Halve()
    if not told.may_retry:
        return GiveUp(failure=failure(whole, told, f"after {attempts} attempts" if attempts > 1 else ""))
    if attempts > retries:
        return GiveUp(failure=failure(whole, told, f"and retries={retries}"))
    if wait_ms >= left_ms:
        return GiveUp(failure=failure(whole, told, f"and delivery.timeout.ms is over, after {attempts} attempts"))
    return Again(wait_ms=wait_ms)


def failure(verdict: verdicts.Outcome, told: Told, why: str) -> DeliveryFailed:
    text = f"{told.reason} ({why})" if why else told.reason
    if verdict == verdicts.FAIL:
        return RecordRefused(f"surely not written: {text}", code=told.code, retriable=told.may_retry)
    return RecordUnknown(f"may have been written: {text}", code=told.code)
