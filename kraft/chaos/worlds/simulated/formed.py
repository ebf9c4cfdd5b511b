"""Voters that have met before: what is on the disk of one that is no newcomer, and has promised nothing yet."""

from __future__ import annotations

from metadata.environment import Files
from metadata.quorum.identity import claim_directory
from metadata.quorum.journal import Journal
from metadata.quorum.votes import FILE_NAME, VoteStore


def form_voter(files: Files, directory: str, *, cluster_id: str, node_id: int) -> None:
    lock = claim_directory(files, directory, cluster_id=cluster_id, node_id=node_id)
    votes = VoteStore(files, directory)
    Journal(files, directory, votes=votes, snapshot=None).close()
    files.remove(
        f"{directory}/{FILE_NAME}"
    )  # so it comes after the journal in the folder: a loss of power goes by that
    votes.settle()
    votes.save(term=0, voted_for=None)
    lock.release()
