"""`kraft produce`: records over REST, from arguments, files or a pipe, with a progress bar where a person watches.

With an Idempotency-Key a request is sent again, to any node, until an answer has its outcome: records of an earlier
attempt whose answer was lost are not stored twice. Without a key a request reaches at most one node.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from kraft.cli.options import DataOption, Format, FormatOption, JsonOption, RestOption, TopicArgument
from kraft.cli.output import CommandFailed
from kraft.cli.produce_view import Place, is_failed, report_to
from kraft.cli.rest import Patience, Rest, checked
from kraft.cli.sources import Entry, Pause, Reading, batches, from_arguments, from_files, from_standard_input
from kraft.client.response import Answer, Refused, Request, Response, failure_of, read_produce_response, segment
from kraft.client.retries import Failure, RetryPolicy


def produce(
    topic: TopicArgument,
    record: Annotated[
        list[str] | None, typer.Argument(metavar="[RECORD]...", help="Values; without any, lines of standard input.")
    ] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option("--file", metavar="FILE", help="Lines of a file; with binary, the whole file is one record."),
    ] = None,
    records: Annotated[
        bool,
        typer.Option(
            "--records",
            help="Each line is a record as JSON: key, value, partition, timestamp, headers, as consume --json prints.",
        ),
    ] = False,
    key: Annotated[str | None, typer.Option(help="Key of every record; equal keys go to one partition.")] = None,
    separator: Annotated[str | None, typer.Option(help="Text between key and value of each record.")] = None,
    partition: Annotated[int | None, typer.Option(min=0, help="Default: by key, else spread.")] = None,
    acks: Annotated[str, typer.Option(help="all: every in-sync replica has it; 1: the leader has it; 0.")] = "all",
    timeout_ms: Annotated[
        int, typer.Option("--timeout", help="Longest wait for acks, in ms, repetitions of refused records included.")
    ] = 30_000,
    idempotence: Annotated[
        bool | None,
        typer.Option(help="Repeat unanswered requests; they are stored once. Default: with acks=all."),
    ] = None,
    form: FormatOption = "text",
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send records and print where each was stored: partition and offset, tab-separated; one JSON line with --json.

    Lines of a file or of standard input show a progress bar on a terminal, and at the end their offsets. Stops at the
    first failure. With acks=all nothing is stored twice, even if requests had to be repeated.
    """
    is_idempotent = _is_idempotent(acks, idempotence)
    if records and (key is not None or separator is not None or partition is not None):
        raise typer.BadParameter("a record has its own key and partition", param_hint="--records")
    path = f"/topics/{segment(topic)}?acks={acks}&timeout={timeout_ms}"
    sender = Sender(Rest(rest, data), path, form=form, timeout_ms=timeout_ms, is_idempotent=is_idempotent)
    with report_to(has_lines=not record, files=file or [], as_json=as_json) as report:
        reading = Reading(
            form=form, key=key, separator=separator, partition=partition, is_record=records, on_bytes=report.read
        )
        for batch in batches(_source(record, file, reading)):
            places = sender.send(batch)
            report.stored(places, sent=len(batch))
            _check(places, sent=len(batch))


def _is_idempotent(acks: str, asked: bool | None) -> bool:
    """D7: whether requests have an Idempotency-Key. Raises BadParameter."""
    if acks not in ("all", "-1", "1", "0"):
        raise typer.BadParameter("acks is all, 1 or 0", param_hint="--acks")
    is_safe = acks in ("all", "-1")
    if asked and not is_safe:
        raise typer.BadParameter("it needs acks=all: else a repeated request may be lost", param_hint="--idempotence")
    return is_safe if asked is None else asked


def _source(texts: list[str] | None, files: list[Path] | None, reading: Reading) -> Iterator[Entry | Pause]:
    if not texts and not files:
        yield from from_standard_input(reading)
    yield from from_arguments(texts or (), reading)
    yield from from_files(files or (), reading)


def _check(places: list[Place], *, sent: int) -> None:
    failures = sum(is_failed(place) for place in places)
    if failures:
        raise CommandFailed(f"{failures} of {sent} records of the last request failed; nothing more was sent")


# --- one request ------------------------------------------------------------------------------------------------------

REPLY_MARGIN_MS: Final = 10_000
"""Added to the server's timeout, so that its answer arrives before the command gives up."""
REPEAT_FOR_MS: Final = 120_000
"""delivery.timeout.ms of Kafka's producers: after so long since the first attempt, there is no other. It counts once an
attempt had no answer; while each is answered with a refusal that may pass, `--timeout` does."""
REPEAT_POLICY: Final = RetryPolicy(backoff_ms=100, backoff_max_ms=1_000)


class Sender:
    """Sends one request after the other; `is_idempotent`: each with a key of its own."""

    def __init__(self, client: Rest, path: str, *, form: Format, timeout_ms: int, is_idempotent: bool) -> None:
        self._client = client
        self._path = path
        self._headers = {"Content-Type": f"application/vnd.kafka.{form}.v2+json"}
        self._timeout_ms = timeout_ms + REPLY_MARGIN_MS
        self._name = f"kraft-produce-{secrets.token_hex(16)}" if is_idempotent else None
        self._sent = 0

    def send(self, batch: list[Entry]) -> list[Place]:
        """Place or error of each record; empty with acks=0. Raises CommandFailed when the whole request failed."""
        body = msgspec.json.encode({"records": batch})
        request = Request(method="POST", path=self._path, body=body, headers=self._headers, timeout_ms=self._timeout_ms)
        self._sent += 1
        if self._name is None:
            answer = self._client.change(request)
        else:
            key = {"Idempotency-Key": f"{self._name}-{self._sent}"}
            request = replace(request, headers={**self._headers, **key})
            answer = settle(self._client, request, limit_ms=self._timeout_ms - REPLY_MARGIN_MS)
        return _places(checked(answer))


def settle(client: Rest, request: Request, *, limit_ms: int) -> Answer:
    """Repeat until an answer is final, or for `limit_ms`. Raises CommandFailed when none arrived in time, or no node
    can be reached."""
    words = "sent again, which stores nothing twice"
    patience = Patience(REPEAT_POLICY, limit_ms=limit_ms, words=words, reports_at=None)
    while True:
        outcome = client.attempt(request)
        if isinstance(outcome, Refused) and not patience.attempts:
            raise CommandFailed(f"no node can be reached, nothing was done: {outcome.reason}")
        if not isinstance(outcome, Answer):
            patience.extend(limit_ms=REPEAT_FOR_MS)
        if patience.wait(_failure(outcome)):
            continue
        if isinstance(outcome, Answer):
            return outcome
        attempts = patience.attempts
        raise CommandFailed(f"it is not known whether this was done, after {attempts} attempts: {outcome.reason}")


def _failure(outcome: Response) -> Failure | None:
    """None for a final answer: all is stored, or refused for good."""
    failure = failure_of(outcome, is_repeatable=True)
    if failure is not None:
        return replace(failure, is_node_gone=False)  # all nodes were asked
    if isinstance(outcome, Answer) and outcome.is_success and read_produce_response(outcome, acks="all").may_retry:
        return Failure(reason="some records were not stored yet")
    return None


def _places(answer: Answer) -> list[Place]:
    document = answer.json()
    return document["offsets"] if isinstance(document, dict) and "offsets" in document else []
