"""Ticks that `hardened` leaves out, each played all the same: the library's own tick must do nothing then."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest

from metadata.quorum.pysyncobj_adapter import HardenedRaft
from metadata.quorum.transport import Filters
from tests.simulation.quorum.plan import Plan
from tests.simulation.quorum.scripting import calm, isolate
from tests.simulation.quorum.story import Story

NOT_LOOKED_AT = {
    "needLoadDumpFile",  # there is no file of the library's
    "leaderCommitIndex",  # with onReadyCalled for isReady(), which nobody asks
    "onReadyCalled",
    "forceLogCompaction",  # taken back in either case
    "lastSerializedTime",  # for compaction by time, which is off
}


def _state(raft: Any) -> dict[str, Any]:
    looked_at = {
        name: value for name, value in vars(raft).items() if name.removeprefix("_SyncObj__") not in NOT_LOOKED_AT
    }
    state = {name: copy.copy(value) if isinstance(value, dict | list) else value for name, value in looked_at.items()}
    return {**state, "log": raft._parts.journal[:], "snapshot": raft._parts.snapshots.header}


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What was sent and due, and what was left out by state, while each tick that is left out is looked at."""
    counts: Counter[str] = Counter()
    is_idle, send = HardenedRaft._is_idle, Filters.send

    def counted_send(self: Filters, *message: Any) -> bool:
        counts["sent"] += 1
        return send(self, *message)

    def checked(self: HardenedRaft) -> bool:
        if not is_idle(self):
            counts["due"] += 1
            return False
        before, sent = _state(self), counts["sent"]
        super(HardenedRaft, self)._onTick(0.0)  # type: ignore[misc]
        assert _state(self) == before
        assert counts["sent"] == sent
        counts[f"left out in state {self._SyncObj__raftState}"] += 1
        return True

    monkeypatch.setattr(HardenedRaft, "_is_idle", checked)
    monkeypatch.setattr(Filters, "send", counted_send)
    return counts


def test_skipped_ticks_change_and_send_nothing(counts: Counter[str]) -> None:
    Story(3, Plan(snapshot_bytes=20_000, large_bytes=5_000, large_share=0.1)).play()
    assert min(counts["due"], counts["left out in state 0"], counts["left out in state 2"]) > 100, counts


@pytest.mark.parametrize("seed", range(3))
def test_check_quorum_tick_is_not_skipped(seed: int, counts: Counter[str]) -> None:
    world = calm(seed)
    leader = world.leader
    assert leader is not None
    isolate(world, leader)
    assert world.run_for(5_000, until=lambda: not world.nodes[leader].raft.is_leader), counts
