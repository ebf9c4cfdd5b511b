from __future__ import annotations

import pytest

from metadata.quorum.durable import DamagedFile, QuorumStorageError
from metadata.quorum.identity import claim_directory
from metadata.quorum.votes import VoteStore
from tests.unit.quorum.disk import DIRECTORY, new_disk

PATH = f"{DIRECTORY}/vote"


def test_a_vote_survives_a_power_loss_right_after_it() -> None:
    for seed in range(30):
        disk, files = new_disk(seed)
        VoteStore(files, DIRECTORY).save(term=7, voted_for=3)
        disk.lose_power()
        store = VoteStore(files, DIRECTORY)
        assert (store.term, store.voted_for) == (7, 3)


def test_a_power_loss_on_the_way_leaves_the_old_vote_or_the_new() -> None:
    for seed in range(30):
        disk, files = new_disk(seed)
        VoteStore(files, DIRECTORY).save(term=7, voted_for=3)
        file = files.open(f"{PATH}.tmp", create=True)
        file.append([b"half of the next"])
        disk.lose_power()
        assert VoteStore(files, DIRECTORY).term == 7


def test_nobody_is_a_vote_of_its_own() -> None:
    _, files = new_disk()
    VoteStore(files, DIRECTORY).save(term=2, voted_for=None)
    assert VoteStore(files, DIRECTORY).voted_for is None


def test_a_second_vote_in_a_term_and_an_older_term_are_broken_invariants() -> None:
    _, files = new_disk()
    store = VoteStore(files, DIRECTORY)
    store.save(term=2, voted_for=1)
    with pytest.raises(AssertionError):
        store.save(term=2, voted_for=3)
    with pytest.raises(AssertionError):
        store.save(term=1, voted_for=None)


def test_a_vote_file_cut_or_flipped_anywhere_is_refused_s6() -> None:
    disk, files = new_disk()
    VoteStore(files, DIRECTORY).save(term=7, voted_for=3)
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
