"""The one place where a node learns of new metadata: hands (delta, image) in order to everyone who needs it.

Owns the node's current image, leadership and effective settings. Subscribers run in the order they subscribed, on the
node's loop, for every change, without gaps.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from kraft.broker.client_quotas import ClientQuotas, OnThrottled
from metadata.authorizer import authorizer_of
from metadata.delta import MetadataDelta, delta_between
from metadata.environment import Clock
from metadata.image import MetadataImage
from metadata.quorum.log import Committed, Leadership, MetadataLog, SnapshotInstalled
from metadata.settings import BrokerSettings, TopicSettings, applied, broker_settings, topic_settings

LOG = logging.getLogger(__name__)

OnMetadata: TypeAlias = Callable[[MetadataDelta, MetadataImage], None]

NOBODY = Leadership(leader_id=-1, term=0, is_self=False)


class MetadataPublisher:
    def __init__(
        self, *, node_id: int, clock: Clock, static: Mapping[str, Any], on_throttled: OnThrottled | None = None
    ) -> None:
        self._node_id = node_id
        self._clock = clock
        self._static = static
        self._image = MetadataImage()
        self._leadership = NOBODY
        self._dynamic: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {})
        """Cluster-wide and this broker's dynamic settings."""
        self._settings = broker_settings(static)
        self._quotas = ClientQuotas(self._image.quotas, on_throttled)
        self.quotas: ClientQuotas | None = None
        """The quotas of clients, and what was used of them; None while there are none."""
        self.authorizer = authorizer_of(self._settings, self._image)
        """The decisions on the ACLs of the current image; None when nothing is checked. A change of any ACL makes
        another one, so that nothing that was decided before it counts."""
        self._topic_settings: dict[str, TopicSettings] = {}
        self._alike: dict[tuple[tuple[str, str], ...], TopicSettings] = {}
        """A topic's own settings -> its effective ones: most of a thousand topics set nothing, and share one value."""
        self._subscribers: list[OnMetadata] = []
        self._leadership_subscribers: list[Callable[[Leadership], None]] = []
        self._changed = asyncio.Event()
        self._version = 0

    @property
    def image(self) -> MetadataImage:
        return self._image

    @property
    def leadership(self) -> Leadership:
        return self._leadership

    @property
    def version(self) -> int:
        """Rises with every change of the image; for `wait_newer`."""
        return self._version

    @property
    def settings(self) -> BrokerSettings:
        """Static, then cluster-wide dynamic, then this broker's dynamic settings."""
        return self._settings

    def current_settings(self) -> BrokerSettings:
        """`settings`, for those who ask again each time."""
        return self._settings

    def topic_settings(self, topic: str) -> TopicSettings:
        """A topic's own settings over this broker's; those of one that does not exist are the broker's."""
        settings = self._topic_settings.get(topic)
        if settings is None:
            overrides = self._image.config("topic", topic)
            kind = tuple(sorted(overrides.items()))
            settings = self._alike.get(kind) or topic_settings(self._settings, overrides)
            self._topic_settings[topic] = self._alike[kind] = settings
        return settings

    def attach(self, log: MetadataLog) -> None:
        log.subscribe(self._on_change, self._on_leadership)

    def subscribe(self, on_metadata: OnMetadata) -> None:
        self._subscribers.append(on_metadata)

    def subscribe_leadership(self, on_leadership: Callable[[Leadership], None]) -> None:
        self._leadership_subscribers.append(on_leadership)

    async def wait_newer(self, version: int, *, deadline_ms: int) -> bool:
        """Wait for an image newer than `version`; False when the deadline came first, or had passed already."""
        while True:
            remaining_ms = deadline_ms - self._clock.monotonic_ms()
            if remaining_ms <= 0:
                return False
            if self._version > version:
                return True
            changed = self._changed
            try:
                async with self._clock.timeout(remaining_ms):
                    await changed.wait()
            except TimeoutError:
                return False

    async def wait_for(self, condition: Callable[[MetadataImage], bool], *, timeout_ms: int) -> bool:
        deadline_ms = self._clock.monotonic_ms() + timeout_ms
        while not condition(self._image):
            if not await self.wait_newer(self._version, deadline_ms=deadline_ms):
                return False
        return True

    def _on_change(self, change: Committed | SnapshotInstalled) -> None:
        old, self._image = self._image, change.image
        delta = delta_between(old, self._image)
        if old.configs is not self._image.configs:
            self._refresh_settings(delta)
        if old.quotas is not self._image.quotas:
            self._quotas.update(self._image.quotas)
            self.quotas = self._quotas if self._image.quotas else None
        if old.acls is not self._image.acls:
            self.authorizer = authorizer_of(self._settings, self._image)
        for topic in delta.removed_topics.values():
            self._topic_settings.pop(topic.name, None)
        for subscriber in self._subscribers:
            subscriber(delta, self._image)
        self._version += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _refresh_settings(self, delta: MetadataDelta) -> None:
        dynamic = (self._image.config("broker", ""), self._image.config("broker", str(self._node_id)))
        if dynamic != self._dynamic:
            self._settings = broker_settings(self._static, *map(applied, dynamic))
            self._warn(dynamic)
            self._dynamic = dynamic
            self._topic_settings.clear()
        self._alike.clear()
        for _, name in delta.changed_configs:
            self._topic_settings.pop(name, None)

    def _warn(self, dynamic: tuple[Mapping[str, str], Mapping[str, str]]) -> None:
        for layer, before in zip(dynamic, self._dynamic, strict=True):
            for name in sorted(layer.keys() - applied(layer).keys()):
                if layer[name] != before.get(name):
                    LOG.warning(
                        "%s=%s of the metadata log is not applied: a node reads it from cluster.toml when it starts; "
                        "delete it with IncrementalAlterConfigs",
                        name,
                        layer[name],
                    )

    def _on_leadership(self, leadership: Leadership) -> None:
        self._leadership = leadership
        for subscriber in self._leadership_subscribers:
            subscriber(leadership)
