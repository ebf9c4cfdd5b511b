"""What a decoder's own parts raise for bytes that are not what they should be. Whoever decodes makes a refusal of it.

One list for all, because each library raises several: msgspec raises UnicodeDecodeError (a ValueError) for text that is
no UTF-8 and RecursionError for nesting that is too deep, none of which is a MsgspecError.
"""

from __future__ import annotations

import struct

import msgspec

UNDECODABLE = (msgspec.MsgspecError, struct.error, ValueError, LookupError, RecursionError)
