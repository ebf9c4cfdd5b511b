"""What a copier of records notes in its group, and that only the one which took over last may note it."""

from __future__ import annotations

from typing import cast

import pytest

from kraft.coordinators.copies import Copies, Noted, Routes, noted
from kraft.coordinators.delayed.index import Progress, progress_of
from kraft.coordinators.groups.offsets import check_follows
from kraft.coordinators.groups.records import CommittedOffset
from kraft.coordinators.groups.requests import OffsetToCommit
from kraft.protocol.errors import IllegalGeneration, InvalidRequest
from metadata.environment import Clock

HEADER = "copied.from"
KNOWN = {
    ("later", 0): CommittedOffset(offset=7, metadata="1:2:3:4:9.0", commit_timestamp=1),
    ("t", 0): CommittedOffset(offset=1, metadata="4:9", commit_timestamp=1),
}


def test_a_commit_follows_the_one_that_it_names():
    new = OffsetToCommit("later", 0, 8, "1:2:4:5:9.1")
    check_follows(KNOWN, new, OffsetToCommit("later", 0, 7, "1:2:3:4:9.0"))
    check_follows(KNOWN, OffsetToCommit("later", 0, 7, "1:2:3:4:9.0"), OffsetToCommit("later", 0, 6, "before"))
    check_follows({}, new, OffsetToCommit("later", 0, -1))
    for follows in (
        OffsetToCommit("later", 0, -1),
        OffsetToCommit("later", 0, 7, "1:2:3:4:9.1"),
        OffsetToCommit("later", 0, 6, "1:2:3:4:9.0"),
    ):
        with pytest.raises(IllegalGeneration, match="later-0 was committed by another one since"):
            check_follows(KNOWN, new, follows)
    with pytest.raises(IllegalGeneration):
        check_follows({}, new, OffsetToCommit("later", 0, 7, "1:2:3:4:9.0"))


def test_what_was_noted_is_read_back():
    assert noted(7, "1:2:3:4:9.0") == Noted((7, "1:2"), 3, 4)
    assert noted(7, "1:2") == Noted((7, "1:2")), "of an earlier version, which used transactions"
    assert noted(7, "5-9,12-12:3:4:9.0") == Noted((7, "5-9,12-12"), 3, 4)
    assert noted(7, ":3:4:9.0") == Noted((7, ""), 3, 4)
    assert progress_of(*Progress(7, 1, 2).noted) == Progress(7, 1, 2)


@pytest.mark.parametrize("metadata", ["", "1", "1:", "a:1", "1:2:3", "-1:2", "9" * 19 + ":1", "1:2:3:4:", "1:2:3:4:x"])
def test_progress_of_somebody_else_is_refused(metadata: str):
    with pytest.raises(InvalidRequest, match="is no progress of delayed records"):
        progress_of(*noted(0, metadata).done)


@pytest.mark.parametrize("text", [b"", b"@", b"later-0", b"later-0@", b"later-0@-1", b"later-1@5", b"\xff@5", None])
def test_headers_of_somebody_else_name_no_copy(text: bytes | None):
    routes, clock = cast(Routes, None), cast(Clock, None)
    copies = Copies("g", ("later", 0), header=HEADER, nothing=(0, ""), routes=routes, clock=clock)
    copies.look_at([(HEADER, text), ("other", b"later-0@6")])
    assert not copies.arrived
    copies.look_at([copies.header(7)])
    assert copies.arrived == {7}
