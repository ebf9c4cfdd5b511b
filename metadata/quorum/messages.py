"""The messages that voters exchange, and their checks: even an authenticated peer may be broken.

Forwarded commands (SO-S15), commands in pieces (SO-L8), membership changes and utility messages are not allowed.
"""

from __future__ import annotations

from typing import Any

from metadata.quorum.filters import Message


class MalformedMessage(Exception):
    """A voter sent a message that no correct voter sends: its connection is closed."""


_REQUIRED: dict[str, dict[str, type]] = {
    "append_entries": {"term": int, "commit_index": int, "sequence": int},
    "next_node_idx": {"term": int, "next_node_idx": int, "reset": bool, "success": bool, "sequence": int},
    "request_vote": {"term": int, "last_log_index": int, "last_log_term": int},
    "response_vote": {"term": int},
    "higher_term": {"term": int},
    "pre_vote_request": {"round": int, "term": int, "last_log_index": int, "last_log_term": int},
    "pre_vote_granted": {"round": int},
    "newcomer": {"life": int},
    "no_history": {"life": int},
    "welcome": {"life": int, "term": int, "index": int},
}

KINDS = frozenset(_REQUIRED)


def checked(message: Any) -> Message:
    """The message in the types that the library expects. Raises MalformedMessage."""
    kind = message.get("type") if isinstance(message, dict) else None
    if not isinstance(message, dict) or not isinstance(kind, str) or kind not in _REQUIRED:
        raise MalformedMessage(f"no message of the quorum: {_shown(message)}")
    for name, wanted in _REQUIRED[kind].items():
        value = message.get(name)
        if type(value) is not wanted:
            raise MalformedMessage(f"{kind} needs {name} as {wanted.__name__}, got {_shown(value)}")
    if kind == "append_entries":
        _check_content(message)
    return message


def _check_content(message: Message) -> None:
    if "serialized" in message:
        message["serialized"] = _fields(message["serialized"], (bytes, bool, bool))
    else:
        position = [message.get("prevLogIdx"), message.get("prevLogTerm")]
        # The library looks up an entry that a truncation has just removed and then sends None.
        if position != [None, None]:
            _fields(position, (int, int))
        entries = message.get("entries")
        if not isinstance(entries, list):
            raise MalformedMessage("append_entries needs entries as list")
        message["entries"] = [_fields(entry, (bytes, int, int)) for entry in entries]


def _fields(values: Any, kinds: tuple[type, ...]) -> tuple[Any, ...]:
    if not isinstance(values, (list, tuple)) or tuple(map(type, values)) != kinds:
        raise MalformedMessage(f"expected {[kind.__name__ for kind in kinds]}, got {_shown(values)}")
    return tuple(values)


def _shown(value: object) -> str:
    """A value that a peer has sent, shortened; it may be nested as deep as can be decoded."""
    try:
        return repr(value)[:100]
    except RecursionError:
        return f"a nested {type(value).__name__}"
