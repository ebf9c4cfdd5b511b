"""What a failing test prints of its cluster, and how `kraft fault` reads what it is told."""

from __future__ import annotations

from typing import Any

import pytest

from kraft.chaos.evidence import Event, Fault
from kraft.cli.fault import _ends
from kraft.cli.output import CommandFailed
from kraft.testing.judge import timeline

S = 1_000_000


def event(at_s: float, kind: str, *, node: int = 1, **fields: Any) -> Event:
    return Event(at_us=int(at_s * S), node=node, event=kind, fields=fields)


def test_timeline_of_events_and_faults():
    where = {"topic": "t", "partition": 0, "leader_epoch": 3}
    events = [
        event(3, "leader_elected", leader=2, isr=[2, 3], **where),
        event(3.1, "isr_changed", old_isr=[1, 2, 3], isr=[2, 3], **where),
        event(3.2, "leader_elected", leader=-1, isr=[], **where),
        *(event(2.5 + node / 100, "quorum_leadership", node=node, leader=2, term=9) for node in (1, 2, 3)),
        event(2.7, "checkpoint_failed", path="x", reason="y"),
    ]
    faults = [
        Fault(at_us=2 * S, until_us=4 * S, fault="kill", nodes=(1,), text="killed node 1 with -9"),
        Fault(at_us=1 * S, until_us=int(1.5 * S), fault="kill", nodes=(3,), text="of another test"),
    ]
    reported = list(timeline(events, [faults[0]], since_us=int(1.9 * S)))
    assert reported == [
        "   +0.100 s  killed node 1 with -9",
        "   +0.610 s  node 2 leads the quorum in term 9",
        "   +1.100 s  node 2 leads t-0 in epoch 3, ISR 2, 3",
        "   +1.200 s  ISR of t-0: 1, 2, 3 -> 2, 3",
        "   +1.300 s  no node leads t-0 in epoch 3, ISR empty",
        "   +2.100 s  over: killed node 1 with -9",
    ]


@pytest.mark.parametrize(
    ("text", "ends"), [("1-2", [1, 2]), ("1", [1]), ("clients-3", ["clients", 3]), ("clients", ["clients"])]
)
def test_ends_of_links_are_read(text: str, ends: list[int | str]):
    assert _ends(text) == ends


@pytest.mark.parametrize("text", ["", "1-", "one-two", "1-2-3", "1--2", "client-1"])
def test_other_ends_are_refused(text: str):
    with pytest.raises(CommandFailed, match=r"1-2"):
        _ends(text)
