"""Connections by address: open ones, and those made in a second."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from kraft.wire import connection_quotas
from kraft.wire.connection_quotas import ConnectionQuotas, overrides
from metadata.settings import broker_settings

RATE = "connection_creation_rate"


class Clock:
    now_ms = 0

    def monotonic_ms(self) -> int:
        return self.now_ms


def made(quotas: dict[Any, dict[str, float]] | None = None, **settings: Any) -> tuple[ConnectionQuotas, Clock]:
    clock = Clock()
    static = {name.replace("_", "."): value for name, value in settings.items()}
    return (
        ConnectionQuotas(clock, settings=lambda: broker_settings(static), quotas=lambda: quotas or {}),  # type: ignore[arg-type]
        clock,
    )


def test_open_connections_of_an_address() -> None:
    quotas, _ = made(max_connections_per_ip=1, max_connections_per_ip_overrides="10.0.0.2:2, ::1:0")
    with quotas.counting("10.0.0.1"), quotas.counting("10.0.0.2"):
        assert "max.connections.per.ip" in quotas.refusal("10.0.0.1")
        assert quotas.refusal("10.0.0.2") == quotas.refusal("10.0.0.3") == ""
        assert quotas.refusal("::1")
    assert quotas.refusal("10.0.0.1") == ""
    assert not quotas._open


def test_connections_made_in_a_second() -> None:
    quotas, clock = made({(("ip", "10.0.0.1"),): {RATE: 1.0}, (("ip", None),): {RATE: 2.0}})
    assert [quotas.refusal("10.0.0.1") for _ in range(10)] == [""] * 10
    assert RATE in quotas.refusal("10.0.0.1")
    assert [quotas.refusal("10.0.0.9") for _ in range(20)] == [""] * 20
    assert RATE in quotas.refusal("10.0.0.9")
    clock.now_ms = 11_000
    assert quotas.refusal("10.0.0.1") == ""


def test_addresses_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_quotas, "ADDRESSES_MAX", 2)
    quotas, _ = made({(("ip", None),): {RATE: 2.0}})
    for number in range(5):
        quotas.refusal(f"10.0.0.{number}")
    assert len(quotas._made) == 2


def test_all_new_connections_wait() -> None:
    quotas, _ = made(max_connection_creation_rate=1)
    assert [quotas.delay_ms() for _ in range(10)] == [0] * 10
    assert quotas.delay_ms() == 1_000


def test_overrides_are_checked() -> None:
    assert overrides("a:1, ::1:5") == {"a": 1, "::1": 5}
    for bad in ("a", "a:b", "a:1;b:2"):
        with pytest.raises(ValidationError):
            broker_settings({"max.connections.per.ip.overrides": bad})
