"""The Raft log of this voter: entries in memory and in one append-only file (see `journal_format`).

Owns the files `journal` and `commit`. Invariants: everything acknowledged was synced before (SO-S6); entries that agree
with the leader's are never dropped (SO-S4); the journal always joins the snapshot (SO-S2). It replaces the library's
own journal, hence the method names.
"""

from __future__ import annotations

import struct

from metadata.environment import File, Files
from metadata.quorum.durable import (
    RESTORE_ADVICE,
    DamagedFile,
    decode_document,
    encode_document,
    read_file,
    refuse_newer,
    replace_file,
)
from metadata.quorum.journal_format import MAGIC, Entry, encode_frame, parse_journal
from metadata.quorum.votes import VoteStore

FILE_NAME = "journal"
COMMIT_FILE_NAME = "commit"
FIRST_INDEX = 1
COMMIT_MAGIC = b"KRCMIT1\n"
_COMMIT = struct.Struct(">Q")


class Journal:
    def __init__(self, files: Files, directory: str, *, votes: VoteStore, snapshot: tuple[Entry, Entry] | None) -> None:
        """`snapshot` is the (previous, last) entry that the snapshot on disk covers. Raises QuorumStorageError,
        OSError."""
        self._files = files
        self._path = f"{directory}/{FILE_NAME}"
        self._commit_path = f"{directory}/{COMMIT_FILE_NAME}"
        self._votes = votes
        self._entries: list[Entry] = []
        self._unsynced: list[Entry] = []
        self._set_aside: list[Entry] = []
        self._cleared: list[Entry] | None = None
        self.torn_bytes = 0
        """Bytes of a torn write that were cut when the journal was opened."""
        self._file: File = self._open()
        self._commit_saved = self._commit = self._read_commit()
        self._check_commit()
        self._join(snapshot)

    # --- what the library calls ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, key: int | slice) -> Entry | list[Entry]:
        return self._entries[key]

    def add(self, command: bytes, index: int, term: int) -> None:
        entry = (bytes(command), index, term)
        if self._set_aside:
            if self._set_aside[0][1:] == entry[1:]:
                self._entries.append(self._set_aside.pop(0))
                return
            self._set_aside = []
        assert not self._entries or index == self._entries[-1][1] + 1, (index, self._entries[-1][1])
        self._entries.append(entry)
        if self._cleared is None:
            self._unsynced.append(entry)

    def deleteEntriesFrom(self, position: int) -> None:  # noqa: N802
        """Tentative (SO-S4): the entries return in `end_of_message`, unless an entry that differs was added."""
        self._set_aside = self._entries[position:]
        del self._entries[position:]

    def deleteEntriesTo(self, position: int) -> None:  # noqa: N802
        """Drop the entries that the snapshot covers, by a new file that replaces the old one (SO-S8)."""
        del self._entries[:position]
        self._rewrite()

    def clear(self) -> None:
        """Drop all entries before a snapshot is installed; the snapshot's two entries are added next."""
        self._cleared, self._entries, self._set_aside = self._entries, [], []

    def setRaftCommitIndex(self, index: int) -> None:  # noqa: N802
        self._commit = index

    def getRaftCommitIndex(self) -> int:  # noqa: N802
        """The commit index, never beyond the log (SO-S13): entries that arrive later are not committed because of an
        old count."""
        return max(FIRST_INDEX, min(self._commit, self.last_index))

    def setCurrentTerm(self, term: int, voted_for: int | None) -> None:  # noqa: N802
        self._votes.save(term=term, voted_for=voted_for)

    def getCurrentTerm(self) -> int:  # noqa: N802
        return self._votes.term

    def getVotedForNodeId(self) -> int | None:  # noqa: N802
        return self._votes.voted_for

    def onOneSecondTimer(self) -> None:  # noqa: N802
        """Save the commit index, so that a restart can apply before it finds a leader. Not needed for safety."""
        if not self.is_commit_saved:
            document = encode_document(COMMIT_MAGIC, _COMMIT.pack(self._commit))
            replace_file(self._files, self._commit_path, [document], sync=False)
            self._commit_saved = self._commit

    # --- what the adapter calls ---------------------------------------------------------------------------------

    @property
    def votes(self) -> VoteStore:
        return self._votes

    @property
    def first_index(self) -> int:
        return self._entries[0][1] if self._entries else FIRST_INDEX

    @property
    def last_index(self) -> int:
        return self._entries[-1][1] if self._entries else FIRST_INDEX

    @property
    def last_term(self) -> int:
        return self._entries[-1][2] if self._entries else 0

    @property
    def size_bytes(self) -> int:
        """Bytes in the file, that is, bytes since the last snapshot."""
        return self._file.size

    @property
    def is_commit_saved(self) -> bool:
        return self._commit == self._commit_saved

    def sync(self) -> None:
        """Make all added entries durable, as one frame. Raises OSError."""
        if self._cleared is not None:
            self._finish_clear()
        if self._unsynced:
            self._file.append([encode_frame(self._unsynced)])
            self._file.sync()
            self._unsynced = []

    def end_of_message(self) -> None:
        """The message handler has returned: restore the entries that it dropped without a conflict."""
        if self._set_aside:
            self._entries.extend(self._set_aside)
            self._set_aside = []
        self._finish_clear()

    def close(self) -> None:
        self._file.close()

    _destroy = close

    # --- opening ------------------------------------------------------------------------------------------------

    def _open(self) -> File:
        if not self._files.exists(self._path):
            if not self._votes.is_newcomer:
                raise DamagedFile(path=self._path, offset=0, problem="the file is missing", advice=RESTORE_ADVICE)
            replace_file(self._files, self._path, [MAGIC])
        data = read_file(self._files, self._path)
        refuse_newer(data[: len(MAGIC)], magic=MAGIC, path=self._path)
        parsed = parse_journal(data)
        if parsed.damage is not None:
            raise DamagedFile(path=self._path, offset=parsed.end, problem=parsed.damage, advice=RESTORE_ADVICE)
        self._entries = parsed.entries
        self.torn_bytes = len(data) - parsed.end
        file = self._files.open(self._path)
        if self.torn_bytes:
            file.truncate(parsed.end)
            file.sync()
        return file

    def _read_commit(self) -> int:
        if not self._files.exists(self._commit_path):
            return FIRST_INDEX
        data = read_file(self._files, self._commit_path)
        try:
            return saved_commit(data, path=self._commit_path)
        except DamagedFile:
            return FIRST_INDEX  # written without fsync: a power loss may damage it, and the leader has the right one

    def _check_commit(self) -> None:
        """A commit index was saved only after its entry was synced: a journal that ends before it has lost entries."""
        if self._entries and self.torn_bytes and self._commit > self.last_index:
            problem = (
                f"the frame is damaged, and entry {self._commit} was committed, but the log ends at {self.last_index}"
            )
            raise DamagedFile(path=self._path, offset=self._file.size, problem=problem, advice=RESTORE_ADVICE)

    def _join(self, snapshot: tuple[Entry, Entry] | None) -> None:
        """Make the journal begin with the snapshot's two entries before the library compares them (SO-S2)."""
        if snapshot is None:
            if self._entries and self._entries[0][1] != FIRST_INDEX:
                problem = f"the log begins at entry {self._entries[0][1]}, and there is no snapshot of what was before"
                raise DamagedFile(path=self._path, offset=len(MAGIC), problem=problem, advice=RESTORE_ADVICE)
            return
        previous, last = snapshot
        if self._entries[:2] == [previous, last]:
            return
        if self._entries and self._entries[0][1] > last[1] + 1:
            problem = f"the log begins at entry {self._entries[0][1]}, but the snapshot ends at entry {last[1]}"
            raise DamagedFile(path=self._path, offset=len(MAGIC), problem=problem, advice=RESTORE_ADVICE)
        self._entries = [previous, last, *_after(self._entries, last)]
        self._rewrite()

    # --- rewriting ----------------------------------------------------------------------------------------------

    def _finish_clear(self) -> None:
        if self._cleared is None:
            return
        cleared, self._cleared = self._cleared, None
        if self._entries:
            self._entries.extend(_after(cleared, self._entries[-1]))  # SO-S12, Raft section 7
            self._rewrite()
        else:
            self._entries = cleared

    def _rewrite(self) -> None:
        replace_file(self._files, self._path, [MAGIC, encode_frame(self._entries)])
        self._file.close()
        self._file = self._files.open(self._path)
        self._unsynced = []


def saved_commit(data: bytes, *, path: str) -> int:
    """The commit index of the file beside the journal. Raises DamagedFile, WrittenByNewerVersion."""
    payload, _ = decode_document(data, magic=COMMIT_MAGIC, path=path)
    if len(payload) != _COMMIT.size:
        raise DamagedFile(path=path, offset=0, problem=f"{len(payload)} bytes of a number", advice=RESTORE_ADVICE)
    return int(_COMMIT.unpack(payload)[0])


def _after(entries: list[Entry], last: Entry) -> list[Entry]:
    """The entries after the one with `last`'s index and term; none when there is no such entry."""
    if not entries:
        return []
    position = last[1] - entries[0][1]
    if 0 <= position < len(entries) and entries[position][1:] == last[1:]:
        return entries[position + 1 :]
    return []
