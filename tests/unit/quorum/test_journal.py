from __future__ import annotations

import pytest

from metadata.quorum.durable import DamagedFile, QuorumStorageError
from tests.unit.quorum.disk import DIRECTORY, entries_of, entry, new_disk, open_journal, settled

PATH = f"{DIRECTORY}/journal"


def _written(files, groups):  # type: ignore[no-untyped-def]
    journal = open_journal(files)
    for group in groups:
        for each in group:
            journal.add(*each)
        journal.sync()
    return journal


GROUPS = ([entry(1), entry(2)], [entry(3)], [entry(4), entry(5)])


def test_what_was_synced_is_there_after_a_power_loss() -> None:
    for seed in range(50):
        disk, files = new_disk(seed)
        journal = _written(files, GROUPS)
        journal.add(*entry(6))
        disk.lose_power()
        found = entries_of(open_journal(files))
        assert found == [entry(i) for i in range(1, 6)], seed


def test_a_journal_cut_at_any_byte_opens_with_whole_frames() -> None:
    _, files = new_disk()
    whole = _written(files, GROUPS)
    for size in range(8, whole.size_bytes):
        _, files = new_disk()
        _written(files, GROUPS)
        files.open(PATH).truncate(size)
        found = entries_of(open_journal(files))
        assert found in ([], [entry(1), entry(2)], [entry(1), entry(2), entry(3)]), size
        assert entries_of(open_journal(files)) == found, "the torn tail was cut for good"


def test_a_journal_cut_in_its_magic_is_refused() -> None:
    for size in range(8):
        _, files = new_disk()
        _written(files, GROUPS)
        files.open(PATH).truncate(size)
        with pytest.raises(DamagedFile, match="magic"):
            open_journal(files)


def test_any_flipped_bit_before_the_last_frame_is_refused() -> None:
    _, files = new_disk()
    _written(files, GROUPS[:2])
    last_frame = files.size(PATH)
    for offset in range(last_frame):
        for bit in (0, 7):
            disk, files = new_disk()
            _written(files, GROUPS)
            disk.flip_bit(PATH, offset=offset, bit=bit)
            with pytest.raises(DamagedFile) as refused:
                open_journal(files)
            assert refused.value.offset <= offset
            assert "empty this node's __cluster_metadata folder" in str(refused.value)


def test_a_flipped_bit_in_the_last_frame_is_no_torn_write() -> None:
    _, files = new_disk()
    _written(files, GROUPS[:2])
    start = files.size(PATH)
    whole = _written(new_disk()[1], GROUPS).size_bytes
    for offset in range(start, whole):
        for bit in range(8):
            disk, files = new_disk()
            _written(files, GROUPS)
            disk.flip_bit(PATH, offset=offset, bit=bit)
            with pytest.raises(DamagedFile, match="written whole"):
                open_journal(files)


def test_a_frame_of_which_a_crash_took_sectors_is_cut() -> None:
    big = [entry(3, command=b"x" * 3_000)]
    _, files = new_disk()
    _written(files, GROUPS[:1])
    start = files.size(PATH)
    end = _written(new_disk()[1], [GROUPS[0], big]).size_bytes
    for lost in range(start // 512 * 512, end, 512):
        _, files = new_disk()
        _written(files, [GROUPS[0], big])
        first = max(lost, start)
        files.open(PATH).pwrite(first, bytes(min(lost + 512, end) - first))
        assert entries_of(open_journal(files)) == [entry(1), entry(2)]


def test_a_committed_entry_that_is_cut_off_is_missed() -> None:
    _, files = new_disk()
    journal = _written(files, GROUPS)
    journal.setRaftCommitIndex(5)
    journal.onOneSecondTimer()
    files.open(PATH).truncate(files.size(PATH) - 1)
    with pytest.raises(DamagedFile, match="entry 5 was committed"):
        open_journal(files)


def test_a_journal_that_is_missing_is_refused_unless_the_voter_is_a_newcomer() -> None:
    _, files = new_disk()
    _written(files, GROUPS)
    files.remove(PATH)
    assert entries_of(open_journal(files)) == []
    settled(files)
    files.remove(PATH)
    with pytest.raises(DamagedFile, match="the file is missing"):
        open_journal(files)


def test_entries_that_agree_survive_a_truncation_s4() -> None:
    _, files = new_disk()
    journal = _written(files, GROUPS)
    journal.deleteEntriesFrom(2)
    journal.add(*entry(3))
    journal.end_of_message()
    assert entries_of(journal) == [entry(i) for i in range(1, 6)]
    journal.sync()
    assert entries_of(open_journal(files)) == [entry(i) for i in range(1, 6)]


def test_an_entry_that_differs_truncates_and_stays_so_on_disk() -> None:
    _, files = new_disk()
    journal = _written(files, GROUPS)
    journal.deleteEntriesFrom(2)
    journal.add(*entry(3, term=2))
    journal.end_of_message()
    journal.sync()
    expected = [entry(1), entry(2), entry(3, term=2)]
    assert entries_of(journal) == expected
    assert entries_of(open_journal(files)) == expected


def test_a_truncation_that_was_not_synced_is_undone_by_a_crash() -> None:
    disk, files = new_disk(1)
    journal = _written(files, GROUPS)
    journal.deleteEntriesFrom(1)
    journal.add(*entry(2, term=3))
    disk.lose_power()
    assert entries_of(open_journal(files)) == [entry(i) for i in range(1, 6)]


def test_the_journal_is_joined_to_the_snapshot_before_the_library_looks_s2() -> None:
    _, files = new_disk()
    _written(files, GROUPS)
    journal = open_journal(files, (entry(2), entry(3)))
    assert entries_of(journal) == [entry(i) for i in range(2, 6)]
    assert entries_of(open_journal(files, (entry(2), entry(3)))) == [entry(i) for i in range(2, 6)]


def test_a_snapshot_ahead_of_the_journal_replaces_it() -> None:
    _, files = new_disk()
    _written(files, GROUPS)
    assert entries_of(open_journal(files, (entry(8), entry(9)))) == [entry(8), entry(9)]


def test_a_gap_between_snapshot_and_journal_is_refused() -> None:
    _, files = new_disk()
    _written(files, GROUPS)
    open_journal(files, (entry(3), entry(4)))
    with pytest.raises(QuorumStorageError, match="there is no snapshot"):
        open_journal(files)
    with pytest.raises(QuorumStorageError, match="snapshot ends at entry 1"):
        open_journal(files, (entry(0), entry(1)))


def test_compaction_at_any_power_loss_keeps_what_follows_the_snapshot_s8() -> None:
    for seed in range(50):
        disk, files = new_disk(seed)
        journal = _written(files, GROUPS)
        journal.deleteEntriesTo(2)
        disk.lose_power()
        assert entries_of(open_journal(files, (entry(3), entry(4)))) == [entry(3), entry(4), entry(5)]


def test_installing_a_snapshot_keeps_the_matching_suffix_s12() -> None:
    _, files = new_disk()
    journal = _written(files, GROUPS)
    journal.clear()
    journal.add(*entry(3))
    journal.add(*entry(4))
    journal.end_of_message()
    assert entries_of(journal) == [entry(3), entry(4), entry(5)]
    journal.clear()
    journal.add(*entry(4, term=9))
    journal.add(*entry(5, term=9))
    journal.end_of_message()
    assert entries_of(journal) == [entry(4, term=9), entry(5, term=9)]


def test_the_commit_index_is_never_beyond_the_log_s13() -> None:
    _, files = new_disk()
    journal = _written(files, GROUPS)
    journal.setRaftCommitIndex(9)
    assert journal.getRaftCommitIndex() == 5


def test_a_full_disk_leaves_the_journal_as_it_was() -> None:
    disk, files = new_disk()
    journal = _written(files, GROUPS)
    disk.is_full = True
    journal.add(*entry(6))
    with pytest.raises(OSError, match="No space"):
        journal.sync()
    assert entries_of(open_journal(files)) == [entry(i) for i in range(1, 6)]
