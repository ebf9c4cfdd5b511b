"""Events about clients: each has few, all together few more, and what was left out is counted (K1 to K3)."""

from __future__ import annotations

import pytest

from kraft.broker import client_events as module
from kraft.broker.client_events import ClientEvents
from kraft.broker.client_quotas import ClientQuotas, Owner
from metadata.rate_limited_log import LINES_MAX, WINDOW_MS
from tests.unit.broker.support import Recorded


class Clock:
    now_ms = 0

    def monotonic_ms(self) -> int:
        return self.now_ms


def made() -> tuple[ClientEvents, Recorded, Clock]:
    events, clock = Recorded(), Clock()
    return ClientEvents(events, clock), events, clock  # type: ignore[arg-type]


def test_a_client_has_one_event_in_ten_seconds_and_the_rest_are_counted() -> None:
    clients, events, clock = made()
    for _ in range(7):
        clients.refused(host="10.0.0.1", reason="too many (max.connections)")
    clients.refused(host="10.0.0.2", reason="too many (max.connections)")
    assert [each["host"] for each in events.lines] == ["10.0.0.1", "10.0.0.2"]
    clock.now_ms = int(WINDOW_MS)
    clients.refused(host="10.0.0.1", reason="too many (max.connections)")
    assert (events.lines[-1]["host"], events.lines[-1]["left_out"]) == ("10.0.0.1", 6)


def test_all_strangers_together_have_few_and_hide_no_other_kind() -> None:
    clients, events, _ = made()
    for number in range(LINES_MAX + 30):
        clients.login_failed(host=f"10.0.1.{number}", mechanism="PLAIN", user="", reason="unknown user")
    clients.throttled("producer_byte_rate", Owner("alice", "app"), 1_000.0, 250)
    assert [each["event"] for each in events.lines] == ["login_failed"] * LINES_MAX + ["client_throttled"]
    assert events.lines[-1] == {
        "event": "client_throttled", "user": "alice", "client_id": "app", "quota": "producer_byte_rate",
        "bound": 1_000.0, "wait_ms": 250, "left_out": 0, "left_out_of_others": 0,
    }  # fmt: skip


def test_what_is_remembered_of_clients_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLIENTS_MAX", 3)
    clients, _, _ = made()
    for number in range(10):
        clients.refused(host=f"10.0.2.{number}", reason="x")
    assert len(clients._clients) == 3


def test_what_a_client_has_chosen_is_short_and_visible() -> None:
    clients, events, _ = made()
    clients.throttled("consumer_byte_rate", Owner("a\x1b[31m", "b" * 5_000), 1.0, 1)
    assert events.lines[0]["user"] == "a\\u001b[31m"
    assert len(str(events.lines[0]["client_id"])) == module.TEXT_LENGTH_MAX


def test_a_quota_reports_who_is_over_it() -> None:
    clients, events, _ = made()
    quotas = ClientQuotas({(("user", None),): {"producer_byte_rate": 10.0}}, clients.throttled)
    assert quotas.used("producer_byte_rate", Owner("alice", None), 50, 0) == 0
    waits = quotas.used("producer_byte_rate", Owner("alice", None), 5_000, 0)
    [line] = events.lines
    assert (line["user"], line["bound"], line["wait_ms"]) == ("alice", 10.0, waits)
