"""The times that a record may name in headers, where the settings of its topic let it (an addition). Pure.

When it is due: kraft.deliver.at, in a topic with delivery.target.topic. When it is too old: kraft.expires.at, in a
topic with record.expiry.enable. Records of all other topics are not looked into.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from kraft.protocol.batches.records import Header
from kraft.values import value
from metadata.image import MetadataImage
from metadata.settings import TopicSettings

TARGET: Final = "delivery.target.topic"
DELIVER_HEADER: Final = "kraft.deliver.at"
"""Milliseconds since 1970, as decimal digits; a record without it is due at once."""
ID_HEADER: Final = "kraft.deliver.id"
"""A later record of the same partition can cancel the record by this."""
CANCEL_HEADER: Final = "kraft.deliver.cancel"
"""The id of the records that are cancelled. The record that has it is not forwarded itself."""
EXPIRES_HEADER: Final = "kraft.expires.at"
"""Milliseconds since 1970, as decimal digits."""
AHEAD_MS_MAX: Final = 315_360_000_000
"""Ten years: what is further ahead is a mistake, as of a time in microseconds."""
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")


def time_of(text: bytes | None) -> int | None:
    """The time in a header; None: it is none."""
    return None if text is None or _DIGITS.fullmatch(text) is None else int(text)


@value()
class TimeRules:
    """Which headers of records mean something in a topic."""

    reads_delivery: bool
    reads_expiry: bool
    delivery_ms_max: int = AHEAD_MS_MAX
    """How far ahead a record may be due: what is due later would be deleted by retention.ms before."""

    @classmethod
    def of(cls, settings: TopicSettings) -> TimeRules | None:
        """None: none does."""
        if not settings.delivery_target_topic and not settings.record_expiry_enable:
            return None
        return cls(bool(settings.delivery_target_topic), settings.record_expiry_enable, _kept_ms(settings))

    def problem_of(self, headers: Iterable[Header], now_ms: int) -> str:
        """Why a leader refuses the record; empty: it does not. A time that is over is none."""
        for name, text in headers:
            if (name == DELIVER_HEADER and self.reads_delivery) or (name == EXPIRES_HEADER and self.reads_expiry):
                time_ms = time_of(text)
                if time_ms is None:
                    return (
                        f"header {name}: {_shown(text)} is no time; it has milliseconds since 1970, as decimal digits"
                    )
                if time_ms - now_ms > AHEAD_MS_MAX:
                    return f"header {name}: {time_ms} is more than ten years ({AHEAD_MS_MAX} ms) ahead"
                if name == DELIVER_HEADER and time_ms - now_ms > self.delivery_ms_max:
                    return (
                        f"header {name}: {time_ms} is further ahead than retention.ms of the topic "
                        f"({self.delivery_ms_max} ms), which would delete the record before; set it higher, or to -1"
                    )
            elif name == CANCEL_HEADER and self.reads_delivery and not text:
                return f"header {name} is empty; it has the id of the records that are cancelled, their {ID_HEADER}"
        return ""


def _kept_ms(settings: TopicSettings) -> int:
    """How long a topic keeps a record, as far as ahead times may be."""
    is_kept = settings.retention_ms < 0 or "delete" not in settings.cleanup_policy
    return AHEAD_MS_MAX if is_kept else min(settings.retention_ms, AHEAD_MS_MAX)


def _shown(text: bytes | None) -> str:
    return "null" if text is None else ascii(text[:40].decode(errors="replace"))


def target_problem(image: MetadataImage, target: str) -> str:
    """Why records cannot be forwarded to this topic; empty: they can."""
    if target.startswith("__"):
        return f"{TARGET}={target}: an internal topic takes no records of others; name another topic"
    if image.topic(target) is None:
        return f"{TARGET}={target}: there is no such topic; create it, or name another one"
    if image.config("topic", target).get(TARGET):
        return f"{TARGET}={target}: that is a delay topic itself, and records could go in circles; name another topic"
    return ""
