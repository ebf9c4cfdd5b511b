"""What is done to one link. Sent whole to the proxy process whenever something changes. Pure."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

Kind: TypeAlias = Literal["kafka", "quorum", "http"]
Half: TypeAlias = Literal["requests", "answers"]
Direction: TypeAlias = Literal["both", "requests", "answers"]

FOR_EVER: Final = -1


class Flow(msgspec.Struct, kw_only=True, frozen=True):
    """One direction of a link."""

    is_held: bool = False
    """Nothing is carried; what is sent waits, as in a network that drops packets."""
    delay_ms: float = 0
    jitter_ms: float = 0
    bytes_per_second: int = 0
    """0: as fast as it goes."""

    @property
    def is_plain(self) -> bool:
        return not (self.is_held or self.delay_ms or self.jitter_ms or self.bytes_per_second)


class Rules(msgspec.Struct, kw_only=True, frozen=True):
    is_cut: bool = False
    """Connections are reset and the port refuses."""
    requests: Flow = Flow()
    answers: Flow = Flow()
    drop_answers: int = 0
    """So many answers to requests that were carried out are thrown away with their connection; -1: all of them."""
    close_mid_request: int = 0
    """So many requests are carried half, then the connection ends; -1: all of them."""
    close_mid_answer: int = 0

    def flow(self, half: Half) -> Flow:
        return self.requests if half == "requests" else self.answers


class OpenLink(msgspec.Struct, kw_only=True, frozen=True):
    name: str
    kind: Kind
    host: str
    """Where the proxy listens."""
    target_host: str
    target_port: int


class Counts(msgspec.Struct, kw_only=True, frozen=True):
    """What happened on one link since the start."""

    is_listening: bool = False
    connections: int = 0
    """Open now."""
    requests_bytes: int = 0
    answers_bytes: int = 0
    dropped_answers: int = 0


class Command(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """One line from the runner to the proxy process; answered by one `Reply` with the same id."""

    id: int
    open: tuple[OpenLink, ...] = ()
    reserved: tuple[int, ...] = ()
    """Ports that no link may take: the nodes listen there, though perhaps not yet."""
    rules: dict[str, Rules] = {}
    guard: tuple[int, ...] | None = None
    """Processes to kill when the runner ends."""
    check: tuple[tuple[str, int], ...] = ()
    """Targets that have come or gone: the ports in front of them are as they are when the reply comes."""
    wants_counts: bool = False


class Reply(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    id: int
    ports: dict[str, int] = {}
    counts: dict[str, Counts] = {}
    error: str = ""
