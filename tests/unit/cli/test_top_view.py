"""The screens of `kraft top`: the bad ones first, in 80 columns, and bad is a word and not only a colour."""

from __future__ import annotations

from typing import Any, cast

import pytest

from kraft.cli import top_view as view
from kraft.cli.output import CommandFailed
from kraft.cli.rest import Rest
from kraft.cli.top import Screen
from kraft.cli.top_keys import keys_in

STATE: dict[str, Any] = {
    "cluster": {"controller": 1, "epoch": 3, "offset": 120, "node": 1},
    "totals": {
        "topics": 2, "partitions": 4, "leaders": {"1": 2}, "offline": 1, "under_min_isr": 1, "under_replicated": 2,
    },
    "node/1": {"roles": ["broker"], "rest": "h:1", "state": "active", "answers": True, "awaits": ""},
    "node/2": {"roles": ["broker"], "rest": "h:2", "state": "fenced", "answers": False, "why": "refused"},
    "node/10": {"roles": ["controller"], "rest": "h:3", "state": "controller", "answers": True, "awaits": "a quorum"},
    "p/orders-0": [1, 4, [1, 2], [1, 2], 4, 1],
    "p/orders-10": [1, 4, [1, 2], [1], 2, 1],
    "p/orders-9": [-1, 4, [2, 1], [2], 0, 1],
    "p/__consumer_offsets-0": [1, 4, [1, 2], [1, 2], 4, 1],
    "r/orders-10/1": ["leader", 4, 10, 60, 60, 110, 999],
    "v/orders-10": {"2": [2, 3, [1, 2], [1, 2], 4, 1]},
}  # fmt: skip


def texts(lines: list[view.Line]) -> list[str]:
    return [line.text for line in lines]


def test_bad_partitions_come_first_and_well_internal_ones_are_counted() -> None:
    lines = texts(view.cluster_lines(STATE, chosen=-1, width=80, height=50))
    rows = [line for line in lines if "orders-" in line]
    assert [row.split()[0] for row in rows] == ["OFFLINE", "BEHIND", "ok"]
    assert "NONE" in rows[0]
    assert lines[-1] == "1 internal ones are ok"
    assert [line.split()[0] for line in lines if " h:" in line] == ["1", "2", "10"]
    assert any("fenced, silent" in line for line in lines)
    assert any("waits: a quorum" in line for line in lines)


@pytest.mark.parametrize("height", [1, 9, 12, 40])
@pytest.mark.parametrize("chosen", [0, 1, 2])
def test_the_chosen_partition_is_within_the_screen(height: int, chosen: int) -> None:
    many = STATE | {f"p/a-{number}": [1, 0, [1], [1], 4, 1] for number in range(100)}
    lines = view.cluster_lines(many, chosen=chosen + 50, width=80, height=height)
    assert [line.style for line in lines].count(view.CHOSEN) == 1
    assert all(len(line.text) <= 80 for line in view.cut(lines, width=80, height=height))
    assert len(view.cut(lines, width=80, height=height)) <= height


def test_a_partition_has_every_replica_on_one_axis_and_its_reasons() -> None:
    why = {"state": "under-replicated", "summary": "word " * 40, "fix": ["kraft node restart 2"]}
    lines = texts(view.partition_lines(STATE, "orders-10", why, width=80))
    assert lines[0] == "orders-10: BEHIND"
    assert "2    does not answer node 1  not in the ISR" in lines
    (bar,) = [line for line in lines if line.startswith("1   [")]
    assert (bar.count("="), bar.count("-")) == (36, 36)
    assert "node 2 has another view: leader 2, epoch 3, ISR 1,2" in lines
    assert lines[-1] == "  kraft node restart 2"
    assert max(map(len, lines)) <= 80


def test_a_partition_that_went_away_is_no_error() -> None:
    for name in ("gone-0", "x" * 249 + "-0"):
        (line,) = view.partition_lines(STATE, name, None, width=80)
        assert line.text.endswith("-0: no node that answers knows it")
        assert len(line.text) <= 80


def test_groups_that_are_behind_come_first() -> None:
    rows = [
        {"name": "b", "state": "STABLE", "members": 1, "lag": 0},
        {"name": "a" * 60, "state": "EMPTY", "members": 0, "lag": 7},
        {"name": "c", "state": "STABLE", "members": 1, "lag": None},
    ]
    lines = view.group_lines(rows, what="groups", height=20)
    assert [line.text[:1] for line in lines] == ["g", "a", "b", "c"]
    assert lines[1].style == view.BAD
    assert max(len(line.text) for line in lines) <= 80
    assert view.group_lines([], what="queues", height=20)[0].text == "there are no queues"
    assert "not known" in view.group_lines(None, what="queues", height=20)[0].text
    many = [{"name": f"g{number}", "state": "STABLE", "members": 1, "lag": number} for number in range(30)]
    lines = view.group_lines(many, what="groups", height=10)
    assert (len(lines), lines[1].text[:3], lines[-1].text) == (10, "g29", "22 more groups, which are less far behind")


def test_what_is_left_out_is_counted_and_long_names_keep_their_ends() -> None:
    long = "payments-of-every-country-and-currency"
    many = STATE | {f"p/{long}-{number}": [1, 0, [1], [1], 4, 1] for number in range(40)}
    many |= {f"node/{number}": STATE["node/1"] for number in range(11, 40)}
    many |= {"totals": {**STATE["totals"], "matched": 20_000}}
    lines = view.cluster_lines(many, chosen=30, width=80, height=21)
    shown = texts(lines)
    assert len(lines) == 21
    assert [line.split()[0] for line in shown[2:5]] == ["2", "10", "waits:"]
    assert "more nodes, 0 of them bad" in shown[11]
    assert shown[-1] == "28 to 33 of 43 partitions; 1 internal ones are ok; the worst 44 of 20000"
    rows = [line for line in shown if "payments" in line]
    assert len({line.split()[1] for line in rows}) == len(rows) > 3
    assert all(len(line) <= 80 for line in shown)


def test_keys_that_arrive_together_are_all_taken() -> None:
    assert keys_in("K2\r") == ["K", "2", "enter"]
    assert keys_in("\x1b[A\x1b[B\x1bOAx") == ["up", "down", "up", "x"]
    assert keys_in("\x1b[5~\x1b[1;5Cg\x7f\x1b") == ["g", "backspace", "escape"]
    assert keys_in("\x1b[") == []


class Answers:
    """What the nodes answer to `kraft top`; None: none of them does."""

    def __init__(self, state: dict[str, Any] | None) -> None:
        self.state = state

    def get(self, path: str, *, timeout_ms: int = 0) -> Any:
        if self.state is None:
            raise CommandFailed("no node answers")
        return {"state": "ok", "summary": path, "fix": []} if "explain" in path else {"set": self.state}


def test_the_chosen_partition_stays_chosen_when_others_get_worse() -> None:
    answers = Answers(STATE | {f"p/a-{number}": [1, 0, [1], [1], 4, 1] for number in range(3)})
    screen = Screen(cast(Rest, answers), data=None)
    screen.look()
    for key in ("down", "down", "down", "enter"):
        assert screen.press(key)
    assert screen.chosen == "a-1"
    answers.state = (answers.state or {}) | {"p/a-2": [-1, 0, [1], [1], 0, 1]}
    screen.look()
    assert screen.lines(width=80, height=24)[0].text == "a-1: ok"
    screen.press("down")
    screen.press("c")
    chosen = [line.text for line in screen.lines(width=80, height=24) if line.style == view.CHOSEN]
    assert [line.split()[1] for line in chosen] == ["orders-0"]


def test_what_is_old_is_said_to_be_old_until_a_node_answers_again() -> None:
    answers = Answers(STATE)
    screen = Screen(cast(Rest, answers), data=None)
    screen.look()
    answers.state = None
    screen.look()
    assert view.Line(view.BAD, "no node answers") in screen.lines(width=80, height=24)
    answers.state = STATE
    screen.look()
    assert "no node answers" not in texts(screen.lines(width=80, height=24))


def test_keys_without_a_cluster_of_this_folder_say_why_they_break_nothing() -> None:
    screen = Screen(cast(Rest, Answers(STATE)), data=None)
    screen.look()
    screen.press("g")
    for key in "KPRCH":
        assert screen.press(key)
        assert "keys break only a cluster" in " ".join(texts(screen.lines(width=80, height=24)))
    for key in ("z", "down", "\t"):
        assert screen.press(key)
    assert (screen.mode, screen.prompt) == ("groups", None)
    assert not screen.press("x")
