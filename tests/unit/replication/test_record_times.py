"""Times in headers of records: a leader refuses what is none, with a sentence for each record, and appends nothing."""

from __future__ import annotations

import pytest

from kraft.protocol.batches.budget import Budget
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.errors import InvalidRecord
from metadata.settings import TopicSettings
from replication.log_validator import BatchRules, prepare_records
from replication.record_times import AHEAD_MS_MAX, CANCEL_HEADER, DELIVER_HEADER, EXPIRES_HEADER, time_of

NOW_MS = 1_700_000_000_000
DELAY = TopicSettings(delivery_target_topic="t", retention_ms=-1)
EXPIRY = TopicSettings(record_expiry_enable=True)
NO_TIME = "is no time; it has milliseconds since 1970, as decimal digits"


def prepared(settings: TopicSettings, *headers: list[tuple[str, bytes | None]]) -> int:
    batch = build_batch([NewRecord(None, b"v", each, NOW_MS) for each in headers])
    return len(prepare_records(batch, rules=BatchRules.of(settings), now_ms=NOW_MS, budget=Budget()).headers)


@pytest.mark.parametrize("text", [b"", b"-1", b"1e9", b"9" * 19, b"\xd9\xa1", b" 5", b"soon", b"\xff" * 99, None])
@pytest.mark.parametrize(("settings", "name"), [(DELAY, DELIVER_HEADER), (EXPIRY, EXPIRES_HEADER)])
def test_what_is_no_time_is_refused_where_it_is_read(settings: TopicSettings, name: str, text: bytes | None):
    with pytest.raises(InvalidRecord, match=NO_TIME) as refused:
        prepared(settings, [], [(name, text)], [(name, b"%d" % NOW_MS)], [(name, text)])
    assert [each.place for each in refused.value.record_errors] == [1, 3]
    assert time_of(text) is None
    assert prepared(TopicSettings(), [(name, text)]) == 1, "in other topics it means nothing"


@pytest.mark.parametrize(("settings", "name"), [(DELAY, DELIVER_HEADER), (EXPIRY, EXPIRES_HEADER)])
def test_centuries_are_refused_and_what_is_over_is_not(settings: TopicSettings, name: str):
    for time_ms in (0, 1, NOW_MS - 1, NOW_MS, NOW_MS + AHEAD_MS_MAX):
        assert prepared(settings, [(name, b"%d" % time_ms)]) == 1
    for time_ms in (NOW_MS + AHEAD_MS_MAX + 1, NOW_MS * 1_000, 10**18 - 1):
        with pytest.raises(InvalidRecord, match=r"more than ten years \(315360000000 ms\) ahead"):
            prepared(settings, [(name, b"%d" % time_ms)])


def test_what_retention_would_delete_before_it_is_due_is_refused():
    week_ms = 7 * 86_400_000
    delays = TopicSettings(delivery_target_topic="t", record_expiry_enable=True)
    assert prepared(delays, [(DELIVER_HEADER, b"%d" % (NOW_MS + week_ms))]) == 1
    with pytest.raises(InvalidRecord, match=r"further ahead than retention.ms of the topic \(604800000 ms\)"):
        prepared(delays, [(DELIVER_HEADER, b"%d" % (NOW_MS + week_ms + 1))])
    assert prepared(delays, [(EXPIRES_HEADER, b"%d" % (NOW_MS + 2 * week_ms))]) == 1, "it may be deleted sooner"


def test_a_cancel_names_what_it_cancels():
    with pytest.raises(InvalidRecord, match=r"empty; it has the id of the records that are cancelled"):
        prepared(DELAY, [(CANCEL_HEADER, b"")])
    assert prepared(DELAY, [(CANCEL_HEADER, b"order-7")]) == 1
    assert prepared(EXPIRY, [(CANCEL_HEADER, None)]) == 1
