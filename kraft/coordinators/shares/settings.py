"""The effective settings of share groups, which each request asks for and which seldom change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from metadata.image import MetadataImage
from metadata.settings import BrokerSettings, GroupSettings, group_settings

SETTINGS_KEPT: Final = 1_000
"""Groups whose settings are kept; with one more all of them are made again."""


@dataclass(frozen=True, slots=True)
class _Known:
    """Settings of a group, and what they were made of."""

    broker: BrokerSettings
    own: Mapping[str, str]
    effective: GroupSettings


class KnownSettings:
    """The settings of groups, made again when what they are made of has changed."""

    def __init__(self, broker: Callable[[], BrokerSettings], image: Callable[[], MetadataImage]) -> None:
        self._broker = broker
        self._image = image
        self._known: dict[str, _Known] = {}

    def of(self, group: str) -> GroupSettings:
        """The settings that the group has now."""
        broker, own = self._broker(), self._image().config("group", group)
        known = self._known.get(group)
        if known is not None and known.broker is broker and known.own == own:
            return known.effective
        if len(self._known) >= SETTINGS_KEPT:
            self._known.clear()
        found = self._known[group] = _Known(broker, own, group_settings(broker, own))
        return found.effective
