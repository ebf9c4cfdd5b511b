"""10,000 clients that wait on one node, half long polls, half streams: each costs little, and one record wakes all."""

from __future__ import annotations

import resource

import pytest
import uvloop

from bench.idle import run

OF_EACH = 5_000
KIB_EACH_MAX = 32
"""Measured: 12 KiB for a long poll, 16 for a stream. A thread, a buffer or a fetch for each would be far beyond it."""
NODE_MIB_MAX = 600
WAKE_S_MAX = 180
"""On a machine that is busy with much else; 5 s was measured."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_thousand_wait_on_one_node(capsys: pytest.CaptureFixture[str]) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft > 2 * OF_EACH + 100, f"this test opens {2 * OF_EACH} connections and may have {soft} files"
    costs = uvloop.run(run(OF_EACH, wake_s=WAKE_S_MAX))
    with capsys.disabled():
        each = ", ".join(f"{kib:.1f} KiB for each of the {name}" for name, kib in costs.kib_each.items())
        print(f"\n{2 * OF_EACH} wait: {each}; {costs.resident_mib:.0f} MiB resident; woken in {costs.woken_s:.1f} s")
    assert set(costs.kib_each) == {"long polls", "streams"}
    assert max(costs.kib_each.values()) < KIB_EACH_MAX
    assert costs.resident_mib < NODE_MIB_MAX
