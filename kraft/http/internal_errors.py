"""An exception that no handler foresaw becomes an event with its traceback, and a 500 that names it."""

from __future__ import annotations

import random
import traceback

from kraft.http.endpoint import Route
from kraft.http.errors import INTERNAL, HttpError
from metadata.events import Events

FRAMES_MAX = 20
"""Innermost frames that the event keeps."""


class InternalErrors:
    """Ids come from `rng`; without `events` a fault is only answered."""

    def __init__(self, events: Events | None, rng: random.Random) -> None:
        self._events = events
        self._rng = rng

    def note(self, error: Exception, route: Route) -> HttpError:
        """The answer; nothing of the exception itself is told to the client."""
        fault_id = self._rng.randbytes(6).hex()
        if self._events is not None:
            frames = traceback.format_exception(error, limit=-FRAMES_MAX)
            self._events.emit(
                "http_request_failed",
                fault_id=fault_id,
                method=route.method,
                route=route.path,
                error=repr(error),
                traceback="".join(frames),
            )
        message = f"a fault of this node; its events.jsonl tells more under the fault_id {fault_id}"
        return HttpError(INTERNAL, message, extra={"fault_id": fault_id})
