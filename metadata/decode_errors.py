"""Errors that decoders raise for malformed bytes. The caller of a decoder turns them into a refusal.

One list for all, because each library raises several: msgspec raises UnicodeDecodeError (a ValueError) for text that is
not UTF-8 and RecursionError for nesting that is too deep; neither is a MsgspecError.
"""

from __future__ import annotations

import struct

import msgspec

DECODE_ERRORS = (msgspec.MsgspecError, struct.error, ValueError, LookupError, RecursionError)
