"""P3, P4, R5: the arithmetic against a slow obvious twin."""

from __future__ import annotations

import random

from replication.partition.high_watermark import advance_high_watermark, follower_high_watermark


def slow(current: int, leader: int, counted: list[int], isr_size: int, min_isr: int) -> int:
    """Count up while every copy that counts has the record."""
    if isr_size < min_isr:
        return current
    high_watermark = current
    while all(end > high_watermark for end in [leader, *counted]):
        high_watermark += 1
    return high_watermark


def test_p4_equals_counting_up_one_by_one() -> None:
    rng = random.Random(4)
    for _ in range(3_000):
        leader = rng.randrange(0, 12)
        counted = [rng.randrange(-1, leader + 1) for _ in range(rng.randrange(0, 4))]
        current, isr_size, min_isr = rng.randrange(0, leader + 1), rng.randrange(1, 4), rng.randrange(1, 4)
        fast = advance_high_watermark(
            current=current,
            leader_end_offset=leader,
            counted_end_offsets=counted,
            isr_size=isr_size,
            min_isr=min_isr,
        )
        assert fast == slow(current, leader, counted, isr_size, min_isr)
        assert fast >= current


def test_r5_a_follower_clamps_and_may_go_down() -> None:
    def clamp(leader: int) -> int:
        return follower_high_watermark(leader_high_watermark=leader, log_start_offset=3, log_end_offset=8)

    assert [clamp(1), clamp(5), clamp(9)] == [3, 5, 8]
