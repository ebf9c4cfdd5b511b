"""High watermark arithmetic: below it every record is on all members of the maximal ISR. Pure."""

from __future__ import annotations

from collections.abc import Iterable


def advance_high_watermark(
    *, current: int, leader_end_offset: int, counted_end_offsets: Iterable[int], isr_size: int, min_isr: int
) -> int:
    """The leader's next high watermark: never lower (R5), frozen while the ISR is too small (P3).

    `counted_end_offsets` are those of the maximal ISR and of caught-up eligible replicas outside it (P4); a replica
    that has not fetched from this leader yet counts with -1.
    """
    if isr_size < min_isr:
        return current
    lowest = leader_end_offset
    for end_offset in counted_end_offsets:
        if end_offset < lowest:
            lowest = end_offset
    return lowest if lowest > current else current


def follower_high_watermark(*, leader_high_watermark: int, log_start_offset: int, log_end_offset: int) -> int:
    """R5: the leader's high watermark, limited to the own log; it may fall."""
    return max(log_start_offset, min(leader_high_watermark, log_end_offset))
