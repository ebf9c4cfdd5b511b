"""The term and the vote of this voter: durable before any other voter learns of them (Raft section 5.2, SO-S6).

Invariant: the term never falls, and each term has one vote. A damaged file refuses the start, because a voter that
forgets its vote can elect two leaders in one term. The file is written before any other of the quorum, so it is damage,
too, if it is missing next to them. Format: a document (see `durable`) with the payload `term (u64) | candidate id (i64,
-1: none, -2: a newcomer)`.
"""

from __future__ import annotations

import struct

from metadata.environment import Files
from metadata.quorum.durable import (
    RESTORE_ADVICE,
    DamagedFile,
    decode_document,
    encode_document,
    read_file,
    replace_file,
)

FILE_NAME = "vote"
WRITTEN_LATER = ("journal", "snapshot", "commit")
"""Files that a voter cannot have without its vote."""
_MAGIC = b"KRVOTE1\n"
_PAYLOAD = struct.Struct(">Qq")
_NOBODY = -1
_NEWCOMER = -2


class VoteStore:
    def __init__(self, files: Files, directory: str) -> None:
        """Read the file. Raises DamagedFile, OSError."""
        self._files = files
        self._path = f"{directory}/{FILE_NAME}"
        self.term = 0
        self.voted_for: int | None = None
        self.is_newcomer = True
        """The voter does not know the promises of an earlier life: it may not vote (see `newcomer`)."""
        if files.exists(self._path):
            self.term, voted_for = _saved(files, self._path)
            self.is_newcomer = voted_for == _NEWCOMER
            self.voted_for = None if voted_for in (_NOBODY, _NEWCOMER) else voted_for
        elif any(files.exists(f"{directory}/{name}") for name in WRITTEN_LATER):
            raise DamagedFile(path=self._path, offset=0, problem="the file is missing", advice=RESTORE_ADVICE)
        else:
            self.save(term=0, voted_for=None)

    def settle(self) -> None:
        """Become a voter; durable with the next `save`."""
        self.is_newcomer = False

    def save(self, *, term: int, voted_for: int | None) -> None:
        """Save term and vote; durable when this returns. Raises OSError; the old values then still hold."""
        assert term > self.term or (term == self.term and self.voted_for in (None, voted_for)), (
            f"term {term} vote {voted_for} after term {self.term} vote {self.voted_for}"
        )
        assert voted_for is None or not self.is_newcomer, f"a newcomer votes for {voted_for} in term {term}"
        nobody = _NEWCOMER if self.is_newcomer else _NOBODY
        payload = _PAYLOAD.pack(term, nobody if voted_for is None else voted_for)
        replace_file(self._files, self._path, [encode_document(_MAGIC, payload)])
        self.term, self.voted_for = term, voted_for


def saved_term(files: Files, directory: str) -> int | None:
    """The term of a voter that may be running: changes nothing. 0 without a file; None for a newcomer, which does not
    vote yet.

    Raises DamagedFile, OSError.
    """
    path = f"{directory}/{FILE_NAME}"
    if not files.exists(path):
        return 0
    term, voted_for = _saved(files, path)
    return None if voted_for == _NEWCOMER else term


def _saved(files: Files, path: str) -> tuple[int, int]:
    """Term and vote. Raises DamagedFile, OSError."""
    payload, _ = decode_document(read_file(files, path), magic=_MAGIC, path=path)
    if len(payload) != _PAYLOAD.size:
        raise DamagedFile(path=path, offset=0, problem=f"{len(payload)} bytes of a vote", advice=RESTORE_ADVICE)
    term, voted_for = _PAYLOAD.unpack(payload)
    return int(term), int(voted_for)
