"""Findings, settings and events as HTML. Every text from outside is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

import msgspec

from kraft.chaos.checkers.verdict import Anomaly, Counts, Range, Verdict
from kraft.chaos.evidence import Event
from kraft.chaos.model import QUEUE_COUNTS
from kraft.chaos.report.timeline_svg import Scale

EVENTS_MAX: Final = 2_000
"""The most events on the page; events.jsonl has all."""
FIELD_CHARACTERS_MAX: Final = 400
FINDINGS_OPEN: Final = 5
"""The visible items of one list; a click opens the others."""
COUNTED: Final = (
    ("kept", "kept", "acknowledged, and there"),
    ("lost", "lost", "acknowledged, and gone"),
    ("duplicated", "duplicated", "in the log more than once"),
    ("reordered", "reordered", "after one that was sent later"),
    ("phantom", "phantom", "refused, and in the log"),
    ("unknown_kept", "unknown, kept", "unknown outcome; it is in the log"),
    ("unknown_gone", "unknown, gone", "unknown outcome; it is not in the log"),
    ("redelivered", "redelivered", "received by a group again"),
    ("skipped", "skipped", "committed by a group that never read it"),
    ("handed_out", "handed out", "received by a worker of a queue"),
    ("accepted", "accepted", "its acceptance was answered with success"),
    ("archived", "archived", "rejected, or handed out too often"),
    ("dead_lettered", "dead-lettered", "archived or too old, and in a topic of dead letters"),
    ("expired", "expired", "removed by retention before it was accepted"),
    ("too_old", "too old", "expired before it was accepted, by its age or its header"),
    ("perhaps_accepted", "perhaps accepted", "without an answer, and not handed out again"),
)
BAD: Final = frozenset({"lost", "duplicated", "reordered", "phantom", "skipped", "expired"})


def banner(verdict: Verdict) -> str:
    if verdict.as_expected is None:
        kind, text = ("good", "Nothing without a cause") if not verdict.unexplained else ("bad", "Not explained")
    else:
        kind, text = ("good", "As expected") if verdict.as_expected else ("bad", "Not as expected")
    problems = "".join(f"<li>{escape(problem)}</li>" for problem in verdict.problems)
    unexplained = f" · {verdict.unexplained} without a cause" if verdict.unexplained else ""
    listed = f"<ul>{problems}</ul>" if problems else ""
    return f'<div class="banner {kind}"><strong>{text}</strong>{unexplained}{listed}</div>'


def cards(counts: Counts) -> str:
    drawn = []
    for name, title, meaning in COUNTED:
        if name in QUEUE_COUNTS and not counts.handed_out:
            continue
        number = getattr(counts, name)
        kind = " alarm" if number and name in BAD else ""
        drawn.append(f'<div class="card{kind}"><b>{number:,}</b><span>{title}</span><small>{meaning}</small></div>')
    return f'<div class="cards">{"".join(drawn)}</div>'


def findings(verdict: Verdict, scale: Scale) -> str:
    parts = [
        _ranges("Lost", verdict.losses, scale),
        _ranges("Duplicated", verdict.duplicates, scale),
        _ranges("Reordered", verdict.reorders, scale),
        _ranges("Refused, and in the log", verdict.phantoms, scale),
        _ranges("Received by a group again", verdict.redeliveries, scale),
        _ranges("Skipped by a group", verdict.skips, scale),
        _ranges("Archived by a queue", verdict.archives, scale),
        _ranges("Removed from a queue", verdict.expiries, scale),
        _ranges("Too old for a queue", verdict.too_old, scale),
        _anomalies(verdict.anomalies, scale),
    ]
    return "".join(parts) or '<p class="quiet">Nothing was lost, duplicated or reordered, and nothing is anomalous.</p>'


def _ranges(title: str, ranges: Sequence[Range], scale: Scale) -> str:
    items = [
        _item(
            f"{each.topic}-{each.partition}",
            each.cause,
            each.reason or "no cause",
            explained=each.explained,
            more=f"values {each.first_value} to {each.last_value}, from {scale.seconds(each.at_us)} on",
        )
        for each in ranges
    ]
    records = sum(each.records for each in ranges)
    return _list(f"{title}: {records:,} record{'' if records == 1 else 's'}", items)


def _anomalies(anomalies: Sequence[Anomaly], scale: Scale) -> str:
    items = []
    for each in anomalies:
        times = f"{each.occurrences:,} times" if each.occurrences > 1 else "once"
        when = f", at {scale.seconds(each.at_us)}" if each.at_us is not None else ""
        where = f"{each.topic}-{each.partition}" if each.topic else "the cluster"
        kind = str(each.kind).replace("_", " ")
        items.append(_item(where, each.text, kind, explained=each.explained, more=f"{times}{when}. {each.cause}"))
    return _list("Anomalies", items)


def _item(where: str, text: str, reason: str, *, explained: bool, more: str) -> str:
    kind = "" if explained else " bad"
    return (
        f'<li><span class="chip{kind}">{escape(reason)}</span> <b>{escape(where)}</b> {escape(text)}'
        f'<small class="more">{escape(more)}</small></li>'
    )


def _list(title: str, items: Sequence[str]) -> str:
    if not items:
        return ""
    first, rest = items[:FINDINGS_OPEN], items[FINDINGS_OPEN:]
    shown = f'<h3>{escape(title)}</h3><ul class="findings">{"".join(first)}</ul>'
    if not rest:
        return shown
    more = f'<ul class="findings">{"".join(rest)}</ul>'
    return f'{shown}<details><summary class="quiet">{len(rest)} more</summary>{more}</details>'


def settings(fields: Mapping[str, Any]) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in _flat(fields))
    return f'<table class="pairs">{rows}</table>' if rows else '<p class="quiet">All defaults.</p>'


def _flat(fields: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name} › ")  # noqa: RUF001 - a sign for readers
        elif isinstance(value, bool):
            yield f"{prefix}{name}", str(value).lower()
        elif isinstance(value, str | int | float) or value is None:
            yield f"{prefix}{name}", "-" if value is None else str(value)
        else:
            yield f"{prefix}{name}", msgspec.json.encode(value, enc_hook=str).decode()


def events(listed: Sequence[Event], scale: Scale) -> str:
    shown = listed[:EVENTS_MAX]
    rows = "".join(_event(event, scale) for event in shown)
    omitted = len(listed) - len(shown)
    note = f'<p class="quiet">{omitted:,} more are in events.jsonl.</p>' if omitted else ""
    return (
        '<input id="filter" type="search" placeholder="Filter, such as: node 2 leader" aria-label="Filter the events">'
        f'<span id="matches" class="quiet">{len(shown):,} events</span>'
        f'<div class="events" id="events">{rows}</div>{note}'
    )


def _event(event: Event, scale: Scale) -> str:
    fields = ", ".join(f"{name} {_plain(value)}" for name, value in event.fields.items() if name != "topic_id")
    if len(fields) > FIELD_CHARACTERS_MAX:
        fields = fields[: FIELD_CHARACTERS_MAX - 1] + "…"
    return (
        f"<div><time>{scale.seconds(event.at_us)}</time><i>node {event.node}</i>"
        f"<b>{escape(event.event)}</b><span>{escape(fields)}</span></div>"
    )


def _plain(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value, enc_hook=str).decode()
