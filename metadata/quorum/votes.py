"""The term and the vote of this voter: durable before anybody hears of them (Raft section 5.2, S6).

Invariant: the term never falls, and within a term the vote is given once. A damaged file refuses the start, for a
voter that forgets its vote can elect two leaders in one term.
Format: a document (see `durable`) with the payload `term (u64) | candidate id (i64, -1: none)`.
"""

from __future__ import annotations

import struct

from metadata.environment import Files
from metadata.quorum.durable import decode_document, encode_document, read_file, replace_file

FILE_NAME = "vote"
_MAGIC = b"KRVOTE1\n"
_PAYLOAD = struct.Struct(">Qq")
_NOBODY = -1


class VoteStore:
    def __init__(self, files: Files, directory: str) -> None:
        """Raises DamagedFile."""
        self._files = files
        self._path = f"{directory}/{FILE_NAME}"
        self.term = 0
        self.voted_for: int | None = None
        if files.exists(self._path):
            payload, _ = decode_document(read_file(files, self._path), magic=_MAGIC, path=self._path)
            self.term, voted_for = _PAYLOAD.unpack(payload)
            self.voted_for = None if voted_for == _NOBODY else voted_for

    def save(self, *, term: int, voted_for: int | None) -> None:
        """Durable when this returns. Raises OSError; the old values then still hold."""
        assert term > self.term or (term == self.term and self.voted_for in (None, voted_for)), (
            f"term {term} vote {voted_for} after term {self.term} vote {self.voted_for}"
        )
        payload = _PAYLOAD.pack(term, _NOBODY if voted_for is None else voted_for)
        replace_file(self._files, self._path, [encode_document(_MAGIC, payload)])
        self.term, self.voted_for = term, voted_for
