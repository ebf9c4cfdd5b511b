"""The settings that hold for the whole cluster, parsed when they change and not for every decision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metadata.image import MetadataImage
from metadata.settings import BrokerSettings, applied, broker_settings


class EffectiveSettings:
    """Static settings under the cluster-wide dynamic ones of an image."""

    def __init__(self, static: Mapping[str, Any]) -> None:
        self._static = static
        self._configs: Mapping[tuple[str, str], Mapping[str, str]] = {}
        """The configs of the last image: an image that changes none of them shares them."""
        self._dynamic: Mapping[str, str] = {}
        self._settings = broker_settings(static)

    def of(self, image: MetadataImage) -> BrokerSettings:
        if image.configs is self._configs:
            return self._settings
        dynamic = image.config("broker", "")
        if dynamic != self._dynamic:
            self._settings = broker_settings(self._static, applied(dynamic))
            self._dynamic = dynamic
        self._configs = image.configs
        return self._settings
