"""How long a start is waited for, under a clock that only sleeping moves: as long as it makes progress."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from kraft.client.response import Answer, Refused, Request, Response
from kraft.launcher import readiness
from kraft.launcher.readiness import STALLED_MS, Progress, StartFailed, Waiting, wait_until_ready
from kraft.launcher.runfile import ClusterRun, NodeRun
from kraft.launcher.start_display import LongWait, rows

HOUR_S = 3_600


def node(node_id: int) -> NodeRun:
    roles = ("broker", "controller")
    return NodeRun(id=node_id, roles=roles, pid=node_id, rest=f"http://{node_id}", kafka="", quorum="", data="")


RUN = ClusterRun(cluster_id="c", config="", data="", launcher_pid=None, nodes=(node(1), node(2)))


class World:
    """`state` makes of the seconds since the start what /readyz says: None, a reason, or empty when ready."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, state: Callable[[float], str | None]) -> None:
        self.now_s = 0.0
        self.state = state
        self.said: list[str] = []
        self.alive = {1, 2}
        self.brokers = "active"
        monkeypatch.setattr(readiness.time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(readiness.time, "sleep", self.sleep)
        monkeypatch.setattr(readiness, "send", self.send)
        monkeypatch.setattr(readiness, "is_alive", lambda pid: pid in self.alive)
        monkeypatch.setattr(readiness, "reap", lambda pids: None)

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def send(self, url: str, request: Request) -> Response:
        if request.path == "/kraft/status":
            nodes = [{"id": each, "state": self.brokers} for each in self.alive]
            document: object = {"controller_id": 1, "nodes": nodes, "partitions": {"total": 9, "offline": 2}}
            return Answer(status=200, headers={}, body=json.dumps(document).encode())
        state = self.state(self.now_s)
        if state is None:
            return Refused(reason="the port refuses")
        body = json.dumps({"reason": state} if state else {"status": "ready"})
        return Answer(status=503 if state else 200, headers={}, body=body.encode())

    def wait(self, **options: object) -> bool:
        return wait_until_ready([node(1), node(2)], show=LongWait(self.said.append).show, **options)  # type: ignore[arg-type]


def test_a_start_that_makes_progress_is_waited_for_for_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    def loads_slowly(now_s: float) -> str | None:
        loaded = int(now_s) // 200
        return f"logs are loaded: {loaded} of 100" if loaded < 100 else ""

    world = World(monkeypatch, loads_slowly)
    assert world.wait()
    assert world.now_s > 5 * HOUR_S
    assert any("node 2: logs are loaded: 57 of 100" in line for line in world.said)


def test_a_start_without_progress_is_given_up_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, lambda now_s: None if now_s < 9 else "the metadata quorum has no leader yet")
    with pytest.raises(StartFailed, match=r"no progress for 300 s: waiting for node 1: the metadata quorum"):
        world.wait()
    assert 9 + STALLED_MS / 1_000 <= world.now_s < 12 + STALLED_MS / 1_000


def test_two_states_in_turn_are_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, lambda now_s: "fenced" if int(now_s) % 2 else "not registered")
    with pytest.raises(StartFailed, match="no progress"):
        world.wait()


def test_the_timeout_bounds_what_makes_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, lambda now_s: f"logs are loaded: {int(now_s)} of 9000")
    with pytest.raises(
        StartFailed, match=r"not ready after 90 s \(--timeout\): waiting for node 1: logs are loaded: 90"
    ):
        world.wait(limit_ms=90_000)


def test_counts_that_rise_quickly_are_said_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, lambda now_s: f"logs are loaded: {int(now_s * 1000)} of 9" if now_s < 65 else "")
    assert world.wait()
    assert len(world.said) == 6


def test_a_start_of_seconds_reports_nothing_of_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, lambda now_s: f"logs are loaded: {int(now_s * 1000)} of 9" if now_s < 9 else "")
    assert world.wait()
    assert world.said == []


def test_every_look_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    World(monkeypatch, lambda now_s: None if now_s < 1 else "the metadata quorum has no leader yet")
    shown: list[Waiting] = []
    with pytest.raises(StartFailed):
        wait_until_ready([node(1), node(2)], show=shown.append, limit_ms=2_000)
    assert shown[0] == {"node 1": "starting", "node 2": "starting"}
    assert shown[-1]["node 2"] == "the metadata quorum has no leader yet"
    assert len(shown) > 20
    assert [name for name, *_ in rows(RUN, {"node 2": "starting", "brokers": "1 fenced"})] == [
        "node 1", "node 2", "brokers",
    ]  # fmt: skip
    assert [state for *_, state in rows(RUN, {"node 2": "starting"})] == ["ready", "starting"]


def test_a_node_that_ends_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, lambda now_s: "starting up")
    world.alive = {1}
    with pytest.raises(StartFailed, match=r"node 2 .* ended while starting") as failed:
        world.wait()
    assert failed.value.node == node(2)


def test_brokers_that_are_fenced_are_named_with_the_partitions_that_are_led(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, lambda now_s: "")
    world.brokers = "fenced"
    with pytest.raises(StartFailed, match="waiting for brokers: 1 fenced, 2 fenced; partitions led: 7 of 9"):
        world.wait(limit_ms=5_000)


def test_nodes_that_wait_for_others_that_nobody_started_are_left_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, lambda now_s: None if now_s < 3 else "the metadata quorum has no leader yet")
    assert not world.wait(is_quorum_possible=lambda: False)
    assert 3 <= world.now_s < 4


def test_what_was_seen_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "SEEN_MAX", 10)
    progress = Progress(begun_ms=0, limit_ms=None)
    for now_ms in range(0, 10_000_000, 100_000):
        assert progress.look([f"{now_ms}"], now_ms) == ""
        assert len(progress._seen) <= 10
