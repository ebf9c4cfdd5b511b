"""What the checker found, as it is written to verdict.json.

Records that were lost, duplicated or reordered come in ranges with a cause each. An anomaly is something that no run of
a correct cluster shows, unless its cause (an unclean election, a power loss) permits it. `unexplained` counts
whatever has no cause.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

NOT_EXPLAINED = "no cause found in the events"


class Kind(StrEnum):
    """Anomalies of a run."""

    OFFSET_TWO_VALUES = "offset_two_values"
    READ_VANISHED = "read_vanished"
    HIGH_WATERMARK_BACK = "high_watermark_back"
    TWO_LEADERS = "two_leaders"
    TWO_CONTROLLERS = "two_controllers"
    REPLICAS_DIFFER = "replicas_differ"
    ISR_WITHOUT_LEADER = "isr_without_leader"
    VOTE_FORGOTTEN = "vote_forgotten"
    """A voter's disk knows less than the term in which it took part: after a restart it may vote again in that term."""
    METADATA_GONE = "metadata_gone"
    METADATA_DIFFERS = "metadata_differs"
    NON_MONOTONIC_READ = "non_monotonic_read"
    NEVER_SENT = "never_sent"
    """A value that no client sent."""
    WRONG_OFFSET = "wrong_offset"
    """A record at another offset, or in another partition, than its acknowledgement said."""
    COMMIT_LOST = "commit_lost"
    """A group forgot an offset whose commit was acknowledged."""
    COMMIT_OF_OLD_GENERATION = "commit_of_old_generation"
    """A commit was taken though a later generation of the group had begun."""
    ABORTED_VISIBLE = "aborted_visible"
    """A reader of committed records was given one of a transaction that was aborted, or never committed."""
    COMMITTED_MISSING = "committed_missing"
    """A record of a committed transaction is in the log, and no reader of committed records is given it."""
    PARTLY_VISIBLE = "partly_visible"
    """Of one transaction some records (or its offsets) are visible and others are not."""
    ABORTED_OFFSETS = "aborted_offsets"
    """A group has offsets that only a transaction committed which was aborted."""
    TRANSACTION_HANGS = "transaction_hangs"
    """A transaction is still open when its clients are gone and all has healed: committed readers stay before it."""
    NOT_READ_BACK = "not_read_back"
    """A partition that could not be read to its end: its missing records prove nothing."""


class Counts(msgspec.Struct, kw_only=True):
    """Records, each in one of the seven; `duplicated`, `reordered` and what groups did are counted besides."""

    kept: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    phantom: int = 0
    unknown_kept: int = 0
    unknown_gone: int = 0
    unread: int = 0
    """Acknowledged, but nobody read as far as where it should be: nothing is known."""
    failed: int = 0
    """Surely not done, and not there: as it should be."""
    redelivered: int = 0
    """Given to members of a group again; each time counts."""
    skipped: int = 0
    """Committed by a group, and never given to any of its members."""


class Anomaly(msgspec.Struct, frozen=True, kw_only=True):
    kind: Kind
    text: str
    topic: str = ""
    partition: int = -1
    offset: int | None = None
    at_us: int | None = None
    occurrences: int = 1
    """Of the same kind in the same place; the text tells the first."""
    cause: str = NOT_EXPLAINED
    explained: bool = False


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """Records of one partition with the same fate for the same reason."""

    topic: str
    partition: int
    first_offset: int | None = None
    """As acknowledged; None: the client was told no offset (acks=0)."""
    last_offset: int | None = None
    records: int
    acks: str
    first_value: str
    last_value: str
    at_us: int
    """When the first of them was acknowledged."""
    cause: str = NOT_EXPLAINED
    """A sentence."""
    reason: str = ""
    """A word or two for it: `truncated`, `unclean election`, `power loss`, `retry`, ... Empty: none found."""

    @property
    def explained(self) -> bool:
        return bool(self.reason)


class Transactions(msgspec.Struct, kw_only=True):
    """By what had to become of them. Those of which nobody knows have become all or nothing."""

    committed: int = 0
    aborted: int = 0
    unknown: int = 0


class Operations(msgspec.Struct, kw_only=True):
    produces: int = 0
    reads: int = 0
    commits: int = 0
    ok: int = 0
    fail: int = 0
    info: int = 0
    first_us: int = 0
    last_us: int = 0


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    scenario: str
    seed: int
    counts: Counts
    by_acks: dict[str, Counts] = {}
    by_topic: dict[str, Counts] = {}
    operations: Operations
    transactions: Transactions = msgspec.field(default_factory=Transactions)
    anomalies: tuple[Anomaly, ...] = ()
    losses: tuple[Range, ...] = ()
    duplicates: tuple[Range, ...] = ()
    reorders: tuple[Range, ...] = ()
    phantoms: tuple[Range, ...] = ()
    redeliveries: tuple[Range, ...] = ()
    skips: tuple[Range, ...] = ()
    unexplained: int = 0
    """Ranges lost, duplicated, reordered or redelivered, and anomalies, without a cause; phantoms and skips always."""
    expected: dict[str, Any] = {}
    as_expected: bool | None = None
    """None: nothing was expected in particular."""
    problems: tuple[str, ...] = ()
    """How the verdict departs from the expected one, in sentences."""

    def kinds(self) -> frozenset[str]:
        return frozenset(str(anomaly.kind) for anomaly in self.anomalies)

    @property
    def is_clean(self) -> bool:
        """No anomaly, and nothing that has no cause."""
        return not self.anomalies and not self.unexplained

    def judged(self, *, expected: dict[str, Any], as_expected: bool, problems: tuple[str, ...] = ()) -> Verdict:
        return msgspec.structs.replace(self, expected=expected, as_expected=as_expected, problems=problems)

    def to_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=1)


def decode_verdict(data: bytes) -> Verdict:
    """Raises msgspec.DecodeError."""
    return msgspec.json.decode(data, type=Verdict)
