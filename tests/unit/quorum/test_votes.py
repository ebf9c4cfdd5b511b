from __future__ import annotations

import pytest

from metadata.quorum.durable import DamagedFile, QuorumStorageError
from metadata.quorum.identity import claim_directory
from metadata.quorum.votes import VoteStore, saved_term
from tests.unit.quorum.disk import DIRECTORY, new_disk, settled

PATH = f"{DIRECTORY}/vote"


def test_a_vote_survives_a_power_loss_right_after_it() -> None:
    for seed in range(30):
        disk, files = new_disk(seed)
        settled(files).save(term=7, voted_for=3)
        disk.lose_power()
        store = VoteStore(files, DIRECTORY)
        assert (store.term, store.voted_for) == (7, 3)


def test_a_power_loss_on_the_way_leaves_the_old_vote_or_the_new() -> None:
    for seed in range(30):
        disk, files = new_disk(seed)
        settled(files).save(term=7, voted_for=3)
        file = files.open(f"{PATH}.tmp", create=True)
        file.append([b"half of the next"])
        disk.lose_power()
        assert VoteStore(files, DIRECTORY).term == 7


def test_nobody_is_a_vote_of_its_own() -> None:
    _, files = new_disk()
    settled(files).save(term=2, voted_for=None)
    assert VoteStore(files, DIRECTORY).voted_for is None


def test_a_second_vote_in_a_term_and_an_older_term_are_broken_invariants() -> None:
    _, files = new_disk()
    store = settled(files)
    store.save(term=2, voted_for=1)
    with pytest.raises(AssertionError):
        store.save(term=2, voted_for=3)
    with pytest.raises(AssertionError):
        store.save(term=1, voted_for=None)


def test_a_vote_file_cut_or_flipped_anywhere_is_refused_s6() -> None:
    disk, files = new_disk()
    settled(files).save(term=7, voted_for=3)
    size = files.size(PATH)
    for offset in range(size):
        disk.flip_bit(PATH, offset=offset)
        with pytest.raises(DamagedFile):
            VoteStore(files, DIRECTORY)
        disk.flip_bit(PATH, offset=offset)
    assert VoteStore(files, DIRECTORY).term == 7
    for shorter in reversed(range(size)):
        files.open(PATH).truncate(shorter)
        with pytest.raises(DamagedFile):
            VoteStore(files, DIRECTORY)


def test_a_folder_serves_one_node_of_one_cluster() -> None:
    _, files = new_disk()
    claim_directory(files, "/d/m", cluster_id="a", node_id=1).release()
    claim_directory(files, "/d/m", cluster_id="a", node_id=1).release()
    with pytest.raises(QuorumStorageError, match="belongs to node 1"):
        claim_directory(files, "/d/m", cluster_id="a", node_id=2)
    with pytest.raises(QuorumStorageError, match="cluster 'b'"):
        claim_directory(files, "/d/m", cluster_id="b", node_id=1)
    claim_directory(files, "/d/m", cluster_id="a", node_id=1)
    with pytest.raises(QuorumStorageError, match="another process"):
        claim_directory(files, "/d/m", cluster_id="a", node_id=1)


def test_who_begins_with_nothing_is_a_newcomer_until_it_settles() -> None:
    for seed in range(10):
        disk, files = new_disk(seed)
        store = VoteStore(files, DIRECTORY)
        store.save(term=4, voted_for=None)
        with pytest.raises(AssertionError, match="a newcomer votes"):
            store.save(term=5, voted_for=2)
        disk.lose_power()
        store = VoteStore(files, DIRECTORY)
        assert (store.term, store.is_newcomer) == (4, True)
        store.settle()
        store.save(term=4, voted_for=2)
        disk.lose_power()
        store = VoteStore(files, DIRECTORY)
        assert (store.term, store.voted_for, store.is_newcomer) == (4, 2, False)


def test_a_vote_that_is_missing_next_to_other_files_is_refused() -> None:
    for name in ("journal", "snapshot", "commit"):
        _, files = new_disk()
        settled(files)
        files.open(f"{DIRECTORY}/{name}", create=True).close()
        files.remove(PATH)
        with pytest.raises(DamagedFile, match="the file is missing"):
            VoteStore(files, DIRECTORY)


def test_who_looks_from_outside_learns_the_term_and_changes_nothing() -> None:
    disk, files = new_disk()
    assert saved_term(files, DIRECTORY) == 0
    assert not files.exists(PATH)
    VoteStore(files, DIRECTORY)
    assert saved_term(files, DIRECTORY) is None, "a newcomer does not vote"
    settled(files).save(term=7, voted_for=3)
    assert saved_term(files, DIRECTORY) == 7
    disk.flip_bit(PATH, offset=20)
    with pytest.raises(DamagedFile):
        saved_term(files, DIRECTORY)
