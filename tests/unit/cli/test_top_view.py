"""The screens of `kraft top`: the bad ones first, in 80 columns, and bad is a word and not only a colour."""

from __future__ import annotations

import pytest

from kraft.cli import top_view as view

STATE = {
    "cluster": {"controller": 1, "epoch": 3, "offset": 120},
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
    lines = texts(view.cluster_lines(STATE, chosen=-1, height=50))
    rows = [line for line in lines if "orders-" in line]
    assert [row.split()[0] for row in rows] == ["OFFLINE", "BEHIND", "ok"]
    assert "NONE" in rows[0]
    assert lines[-1] == "ok       1 partitions of internal topics"
    assert [line.split()[0] for line in lines if " h:" in line] == ["1", "2", "10"]
    assert any("fenced, silent" in line for line in lines)
    assert any("waits: a quorum" in line for line in lines)


@pytest.mark.parametrize("height", [1, 9, 12, 40])
@pytest.mark.parametrize("chosen", [0, 1, 2])
def test_the_chosen_partition_is_within_the_screen(height: int, chosen: int) -> None:
    many = STATE | {f"p/a-{number}": [1, 0, [1], [1], 4, 1] for number in range(100)}
    lines = view.cluster_lines(many, chosen=chosen + 50, height=height)
    assert [line.style for line in lines].count(view.CHOSEN) == 1
    assert all(len(line.text) <= 80 for line in view.cut(lines, width=80, height=height))
    assert len(view.cut(lines, width=80, height=height)) <= height


def test_a_partition_has_every_replica_on_one_axis_and_its_reasons() -> None:
    why = {"state": "under-replicated", "summary": "word " * 40, "fix": ["kraft node restart 2"]}
    lines = texts(view.partition_lines(STATE, "orders-10", why, width=80))
    assert lines[0] == "orders-10: BEHIND"
    assert "2    does not answer  not in the ISR" in lines
    (bar,) = [line for line in lines if line.startswith("1   [")]
    assert (bar.count("="), bar.count("-")) == (36, 36)
    assert "node 2 has another view: leader 2, epoch 3, ISR 1,2" in lines
    assert lines[-1] == "  kraft node restart 2"
    assert max(map(len, lines)) <= 80


def test_a_partition_that_went_away_is_no_error() -> None:
    assert "no node that answers knows it" in view.partition_lines(STATE, "gone-0", None, width=80)[0].text


def test_groups_that_are_behind_come_first() -> None:
    rows = [
        {"name": "b", "state": "STABLE", "members": 1, "lag": 0},
        {"name": "a" * 60, "state": "EMPTY", "members": 0, "lag": 7},
        {"name": "c", "state": "STABLE", "members": 1, "lag": None},
    ]
    lines = view.group_lines(rows, what="groups")
    assert [line.text[:1] for line in lines] == ["g", "a", "b", "c"]
    assert lines[1].style == view.BAD
    assert max(len(line.text) for line in lines) <= 80
    assert view.group_lines([], what="queues")[0].text == "there are no queues"
