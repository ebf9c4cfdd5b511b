"""What a producer waits for (`acks`): nothing, the leader's log, or the log of each replica in the ISR."""

from __future__ import annotations

ACKS_NONE = 0
ACKS_LEADER = 1
ACKS_ALL = -1
ACKS = (ACKS_ALL, ACKS_NONE, ACKS_LEADER)
