"""The name of a user from the distinguished name of its certificate: `ssl.principal.mapping.rules`, as in Kafka.

    RULE:^CN=(.*?),OU=ServiceUsers.*$/$1/L,RULE:^CN=(.*?)$/$1/U,DEFAULT

A rule is a pattern for the whole name, a replacement with `$1`, and L or U for lower or upper case; the first rule that
matches counts, DEFAULT is the name as it is. Source: SslPrincipalMapper.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from kraft.protocol.operator_tokens import is_reserved

NAME_LENGTH_MAX = 1_024
"""A longer distinguished name is not matched with patterns."""

_RULE = re.compile(r"\s*(?:(DEFAULT)|RULE:((?:\\.|[^\\/])*)/((?:\\.|[^\\/])*)/([LU]?))\s*(?:,|$)")
_GROUP = re.compile(r"\$(\d)")
FORM = "should be DEFAULT, or RULE:PATTERN/REPLACEMENT/ with L, U or nothing behind it; several with commas between"


class BadRule(ValueError):
    """The text of ssl.principal.mapping.rules is wrong. The message has what would be right."""


class _Rule(NamedTuple):
    pattern: re.Pattern[str] | None
    """None for DEFAULT."""
    replacement: str = ""
    case: str = ""


@lru_cache(8)
def mapping_rules(text: str) -> Sequence[_Rule]:
    """The rules of a setting. Raises BadRule."""
    rules, position = [], 0
    while position < len(text):
        found = _RULE.match(text, position)
        if found is None or not found[0]:
            raise BadRule(f"{FORM}; no rule begins at {text[position : position + 40]!r}")
        position = found.end()
        try:
            pattern = None if found[1] else re.compile(found[2])
        except re.error as error:
            raise BadRule(
                f"should have patterns that are regular expressions; {found[2]!r} is none: {error}"
            ) from error
        rules.append(_Rule(pattern, found[3] or "", found[4] or ""))
    return rules


def check_rules(text: str) -> str:
    """The text itself. Raises BadRule."""
    mapping_rules(text)
    return text


def user_of(distinguished_name: str, rules: str) -> str:
    """The user's name; empty where no rule matches, or where it is the name of the nodes' user, so that the
    connection is refused. Raises BadRule."""
    name = _mapped(distinguished_name, rules)
    return "" if is_reserved(name) else name


def _mapped(distinguished_name: str, rules: str) -> str:
    for rule in mapping_rules(rules):
        if rule.pattern is None:
            return distinguished_name
        found = rule.pattern.fullmatch(distinguished_name) if len(distinguished_name) <= NAME_LENGTH_MAX else None
        if found is not None:
            return _cased(_filled(rule.replacement, ("", *found.groups(""))), rule.case)
    return ""


def _filled(replacement: str, groups: Sequence[str]) -> str:
    """The replacement with `$1` and the like replaced."""
    return _GROUP.sub(lambda each: groups[int(each[1])] if int(each[1]) < len(groups) else "", replacement)


def _cased(name: str, case: str) -> str:
    return name.lower() if case == "L" else name.upper() if case == "U" else name
