"""A disk in memory and the stores on it, for the unit tests of the quorum's files."""

from __future__ import annotations

import random

from kraft.chaos.worlds.simulated.disk import Disk, SimulatedFiles
from metadata.quorum.journal import Journal
from metadata.quorum.journal_format import Entry
from metadata.quorum.votes import VoteStore

DIRECTORY = "/q"


def new_disk(seed: int = 0) -> tuple[Disk, SimulatedFiles]:
    disk = Disk(random.Random(seed))
    files = SimulatedFiles(disk)
    files.make_directories(DIRECTORY)
    files.sync_directory("/")
    return disk, files


def open_journal(files: SimulatedFiles, snapshot: tuple[Entry, Entry] | None = None) -> Journal:
    return Journal(files, DIRECTORY, votes=VoteStore(files, DIRECTORY), snapshot=snapshot)


def settled(files: SimulatedFiles) -> VoteStore:
    """The votes of a voter that is no newcomer."""
    votes = VoteStore(files, DIRECTORY)
    votes.settle()
    votes.save(term=votes.term, voted_for=None)
    return votes


def entries_of(journal: Journal) -> list[Entry]:
    entries = journal[:]
    assert isinstance(entries, list)
    return entries


def entry(index: int, term: int = 1, command: bytes | None = None) -> Entry:
    return (b"\0command %d" % index if command is None else command, index, term)
