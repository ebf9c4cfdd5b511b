"""A node that waits for something, for the tests of the door."""

from __future__ import annotations


class Waits:
    """Implements `kraft.http.readiness.Awaiting`; the texts may be set anew."""

    def __init__(self, *, service: str, metadata: str = "") -> None:
        self.what_service = service
        self.what_metadata = metadata

    def metadata(self) -> str:
        return self.what_metadata

    def service(self) -> str:
        return self.what_service
