"""The verdict of the checker, as it is written to verdict.json.

Lost, duplicated and reordered records are in ranges, each with a cause. An anomaly never happens in a correct cluster,
unless its cause (an unclean election, a power loss) permits it. `unexplained` counts ranges and anomalies without a
cause.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

NOT_EXPLAINED = "no cause found in the events"


class Kind(StrEnum):
    """The kinds of anomalies of a run."""

    OFFSET_TWO_VALUES = "offset_two_values"
    READ_VANISHED = "read_vanished"
    HIGH_WATERMARK_BACK = "high_watermark_back"
    TWO_LEADERS = "two_leaders"
    TWO_CONTROLLERS = "two_controllers"
    REPLICAS_DIFFER = "replicas_differ"
    ISR_WITHOUT_LEADER = "isr_without_leader"
    VOTE_FORGOTTEN = "vote_forgotten"
    """The disk of a voter has a lower term than the voter took part in: after a restart it may vote again in that term.
    """
    METADATA_GONE = "metadata_gone"
    METADATA_DIFFERS = "metadata_differs"
    NON_MONOTONIC_READ = "non_monotonic_read"
    NEVER_SENT = "never_sent"
    """The log contains a value that no client sent."""
    WRONG_OFFSET = "wrong_offset"
    """A record is at another offset, or in another partition, than in its acknowledgement."""
    COMMIT_LOST = "commit_lost"
    """A group lost an offset whose commit was acknowledged."""
    COMMIT_OF_OLD_GENERATION = "commit_of_old_generation"
    """A commit was accepted after a later generation of the group had begun."""
    ABORTED_VISIBLE = "aborted_visible"
    """A `read_committed` consumer received a record of a transaction that was not committed."""
    COMMITTED_MISSING = "committed_missing"
    """A record of a committed transaction is in the log, and a `read_committed` consumer does not receive it."""
    PARTLY_VISIBLE = "partly_visible"
    """A part of a transaction (records or offsets) is visible, and another part is not."""
    ABORTED_OFFSETS = "aborted_offsets"
    """A group has offsets that only an aborted transaction committed."""
    TRANSACTION_HANGS = "transaction_hangs"
    """A transaction is still open after its clients ended and all faults were healed: `read_committed` consumers stop
    before it."""
    ACCEPTED_TWICE = "accepted_twice"
    """Two acceptances of one record, for two deliveries, were answered with success."""
    HANDED_OUT_AFTER_ACCEPTANCE = "handed_out_after_acceptance"
    """A queue handed out a record after its acceptance was answered with success."""
    LOST_BY_QUEUE = "lost_by_queue"
    """A record is in the log, nobody accepted it, and the queue does not hand it out any more."""
    HANDED_OUT_TOO_OLD = "handed_out_too_old"
    """A queue handed out a record that had expired: by share.record.expiry.ms, or by its header kraft.expires.at."""
    NOT_DEAD_LETTERED = "not_dead_lettered"
    """A queue has archived a record, and it is not in its topic of dead letters."""
    DELIVERED_TWICE = "delivered_twice"
    """A record of a delay topic is more than once in its target."""
    NOT_DELIVERED = "not_delivered"
    """A record of a delay topic was acknowledged, and is not in its target."""
    NOT_READ_BACK = "not_read_back"
    """A partition could not be read to its end: a missing record proves nothing."""


class Counts(msgspec.Struct, kw_only=True):
    """Counts of records. Each record has one of the first seven fates; the other counts are additional."""

    kept: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    phantom: int = 0
    unknown_kept: int = 0
    unknown_gone: int = 0
    unread: int = 0
    """Acknowledged, but no read reached its offset: the fate is unknown."""
    failed: int = 0
    """Certainly not written, and not in the log: correct."""
    redelivered: int = 0
    """Received by a group again; each time counts."""
    skipped: int = 0
    """Committed by a group, and never received by a member."""
    handed_out: int = 0
    """Records that a worker of a queue received. Each of them has one of the next fates, or is an anomaly."""
    accepted: int = 0
    """Their acceptance was answered with success."""
    archived: int = 0
    """Rejected, or handed out as often as the limit allows."""
    dead_lettered: int = 0
    """Archived or too old, and in a topic of dead letters."""
    expired: int = 0
    """Removed by retention before a worker accepted them."""
    too_old: int = 0
    """They expired before a worker accepted them: by the age that their group sets, or by a time that they name."""
    perhaps_accepted: int = 0
    """Their acceptance has an unknown outcome, and they were not handed out again."""


class Anomaly(msgspec.Struct, frozen=True, kw_only=True):
    kind: Kind
    text: str
    topic: str = ""
    partition: int = -1
    offset: int | None = None
    at_us: int | None = None
    occurrences: int = 1
    """The number of anomalies of this kind in this partition; the text describes the first one."""
    cause: str = NOT_EXPLAINED
    explained: bool = False


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """Records of one partition with the same fate for the same reason."""

    topic: str
    partition: int
    first_offset: int | None = None
    """The acknowledged offset; None: the client got no offset (acks=0)."""
    last_offset: int | None = None
    records: int
    acks: str
    first_value: str
    last_value: str
    at_us: int
    """The time of the first acknowledgement."""
    cause: str = NOT_EXPLAINED
    """A sentence."""
    reason: str = ""
    """A short name of the cause: `truncated`, `unclean election`, `power loss`, `retry`, ... Empty: unexplained."""

    @property
    def explained(self) -> bool:
        return bool(self.reason)


class Transactions(msgspec.Struct, kw_only=True):
    """Counts of transactions by fate."""

    committed: int = 0
    aborted: int = 0
    unknown: int = 0


class Operations(msgspec.Struct, kw_only=True):
    produces: int = 0
    reads: int = 0
    commits: int = 0
    receives: int = 0
    """Receives and acknowledgements of workers of queues."""
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
    archives: tuple[Range, ...] = ()
    """Records that a queue does not hand out any more."""
    expiries: tuple[Range, ...] = ()
    """Records that retention removed from a queue."""
    too_old: tuple[Range, ...] = ()
    """Records that a queue does not hand out because they have expired."""
    unexplained: int = 0
    """The number of ranges and anomalies without a cause; phantoms and skipped records always count."""
    expected: dict[str, Any] = {}
    as_expected: bool | None = None
    """None: there was no expectation."""
    problems: tuple[str, ...] = ()
    """The differences between the verdict and the expected one, as sentences."""

    def kinds(self) -> frozenset[str]:
        return frozenset(str(anomaly.kind) for anomaly in self.anomalies)

    @property
    def is_clean(self) -> bool:
        """True without an anomaly and without an unexplained range."""
        return not self.anomalies and not self.unexplained

    def judged(self, *, expected: dict[str, Any], as_expected: bool, problems: tuple[str, ...] = ()) -> Verdict:
        return msgspec.structs.replace(self, expected=expected, as_expected=as_expected, problems=problems)

    def to_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=1)


def decode_verdict(data: bytes) -> Verdict:
    """Raises msgspec.DecodeError."""
    return msgspec.json.decode(data, type=Verdict)
