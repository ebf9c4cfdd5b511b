"""Identity of a new cluster: its id, and the secret that its nodes prove to each other; kept in its data folder."""

from __future__ import annotations

import os
import secrets
import threading
import time
import uuid
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from typing import Final

from metadata.cluster_keys import cluster_keys

SECRET_BYTES: Final = 32
THREAD_GONE_LIMIT_S: Final = 10.0
"""After this time, nodes are started as programs."""
THREAD_LOOK_S: Final = 0.0002


@dataclass(frozen=True, slots=True)
class Identity:
    cluster_id: str
    secret: str


def new_identity() -> Identity:
    return Identity(cluster_id=_random_cluster_id(), secret=secrets.token_urlsafe(SECRET_BYTES))


def _random_cluster_id() -> str:
    """A UUID in Kafka's 22 characters of URL-safe base64, never starting with the sign of an option."""
    while True:
        text = urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=")
        if not text.startswith("-"):
            return text


class IdentityAhead:
    """A new identity whose keys are derived while this process loads other modules: scrypt takes a tenth of a second of
    another processor, and holds no lock of the interpreter meanwhile."""

    def __init__(self) -> None:
        ahead = self._ahead = new_identity()
        self._thread = threading.Thread(target=lambda: cluster_keys(ahead.secret, cluster_id=ahead.cluster_id))
        self._thread.start()
        self._is_taken = False

    def wait(self) -> None:
        """Wait until its thread has ended, also for the system: Python reports it a moment earlier, and a process with
        two threads does not fork."""
        self._thread.join()
        deadline = time.monotonic() + THREAD_GONE_LIMIT_S
        while os.path.exists(f"/proc/self/task/{self._thread.native_id}") and time.monotonic() < deadline:
            time.sleep(THREAD_LOOK_S)

    def take(self) -> Identity:
        """Return that identity at the first call, and new ones after that."""
        if self._is_taken:
            return new_identity()
        self._is_taken = True
        return self._ahead
