"""Brokers that hear late of changes of the metadata: meanwhile these wait, and then they come in order.

A leader that was deposed goes on until it hears of its successor, which is no fault. It takes no cut of the network,
so that all requests of the broker go on, and only its knowledge is old.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable

from kraft.broker.metadata_publisher import MetadataPublisher


class LateNews:
    def __init__(self) -> None:
        self._waiting: dict[MetadataPublisher, list[Callable[[], None]]] = {}
        self._contexts: dict[MetadataPublisher, contextvars.Context] = {}
        """The contexts of the processes that hear: a dead one hears nothing."""

    def begin(self, publisher: MetadataPublisher) -> None:
        self._waiting.setdefault(publisher, [])

    def hear(self, publisher: MetadataPublisher, news: Callable[[], None]) -> None:
        waiting = self._waiting.get(publisher)
        if waiting is None:
            news()
            return
        waiting.append(news)
        self._contexts[publisher] = contextvars.copy_context()

    def end(self, publisher: MetadataPublisher) -> None:
        context = self._contexts.pop(publisher, None)
        if context is None:
            self._waiting.pop(publisher, None)
        else:
            asyncio.get_running_loop().call_soon(self._catch_up, publisher, context=context)

    def _catch_up(self, publisher: MetadataPublisher) -> None:
        for news in self._waiting.pop(publisher, ()):
            news()
