"""What is done to one link. Sent whole to the proxy process whenever something changes. Pure."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

Kind: TypeAlias = Literal["kafka", "quorum", "http", "clients"]
"""`clients`: Kafka, for clients from outside; faults may hit requests of one API (`RequestRule`)."""
Half: TypeAlias = Literal["requests", "answers"]
Direction: TypeAlias = Literal["both", "requests", "answers"]

RequestFault: TypeAlias = Literal["answer", "delay", "drop_answer", "close_after"]

FOR_EVER: Final = -1
ANY_NODE: Final = -1


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


class RequestRule(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What is done to requests of clients that it fits, on every link of kind `clients`."""

    number: int
    """Names it, for its end."""
    do: RequestFault
    api: str
    """As Kafka names it, such as `OffsetCommit`."""
    api_key: int
    error_code: int = 0
    """Of `answer`."""
    delay_ms: float = 0
    """Of `delay`."""
    times: int = FOR_EVER
    """So many requests."""
    topic: str = ""
    """Requests that name this topic; empty: all."""
    client_id: str = ""
    """Requests of clients with this client.id; empty: all."""
    node: int = ANY_NODE
    """Requests to this broker."""


class Fired(msgspec.Struct, kw_only=True, frozen=True):
    """A rule has been applied to a request."""

    number: int
    at_us: int
    """On the clock of the run."""
    node: int
    version: int
    client_id: str


class OpenLink(msgspec.Struct, kw_only=True, frozen=True):
    name: str
    kind: Kind
    host: str
    """Where the proxy listens."""
    target_host: str
    target_port: int
    node: int = ANY_NODE
    """Whose port that is."""


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
    begin: tuple[RequestRule, ...] = ()
    end: tuple[int, ...] = ()
    """Numbers of rules that no longer hold."""
    wants_fired: bool = False


class Reply(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    id: int
    ports: dict[str, int] = {}
    counts: dict[str, Counts] = {}
    fired: tuple[Fired, ...] = ()
    """Since this was asked for the last time, the oldest first."""
    error: str = ""
