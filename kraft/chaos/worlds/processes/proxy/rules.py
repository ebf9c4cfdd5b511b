"""The rules of links. The runner sends all rules of a link to the proxy process at each change. Pure."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

Kind: TypeAlias = Literal["kafka", "quorum", "http", "clients"]
"""The protocol of a link. `clients`: Kafka, of clients, with faults of single APIs (`RequestRule`)."""
Half: TypeAlias = Literal["requests", "answers"]
Direction: TypeAlias = Literal["both", "requests", "answers"]

LinkTls: TypeAlias = Literal["none", "ended", "passed"]
RequestFault: TypeAlias = Literal["answer", "delay", "drop_answer", "close_after"]

FOR_EVER: Final = -1
ANY_NODE: Final = -1


class Flow(msgspec.Struct, kw_only=True, frozen=True):
    """One direction of a link."""

    is_held: bool = False
    """No bytes pass; sent bytes wait, as in a network that drops packets."""
    delay_ms: float = 0
    jitter_ms: float = 0
    bytes_per_second: int = 0
    """0: no limit."""

    @property
    def is_plain(self) -> bool:
        return not (self.is_held or self.delay_ms or self.jitter_ms or self.bytes_per_second)


class Rules(msgspec.Struct, kw_only=True, frozen=True):
    is_cut: bool = False
    """Connections are reset and the port refuses."""
    requests: Flow = Flow()
    answers: Flow = Flow()
    drop_answers: int = 0
    """The number of answers to drop, each with its connection; -1: all."""
    close_mid_request: int = 0
    """The number of messages to cut in the middle, each with its connection; -1: all."""
    close_mid_answer: int = 0

    def flow(self, half: Half) -> Flow:
        return self.requests if half == "requests" else self.answers


class RequestRule(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """A fault of the matching requests of clients, on every link of kind `clients`."""

    number: int
    """The number of the rule, to end it."""
    do: RequestFault
    api: str
    """Kafka's name of the API, such as `OffsetCommit`."""
    api_key: int
    error_code: int = 0
    """The error code of `answer`."""
    delay_ms: float = 0
    """The time of `delay`."""
    times: int = FOR_EVER
    """The number of requests that the rule hits."""
    topic: str = ""
    """Requests with this topic; empty: all."""
    client_id: str = ""
    """Requests of clients with this client.id; empty: all."""
    node: int = ANY_NODE
    """Requests to this broker."""


class Fired(msgspec.Struct, kw_only=True, frozen=True):
    """A rule has been applied to a request."""

    number: int
    at_us: int
    """The time on the clock of the run."""
    node: int
    version: int
    client_id: str


class OpenLink(msgspec.Struct, kw_only=True, frozen=True):
    name: str
    kind: Kind
    host: str
    """The address of the proxy."""
    target_host: str
    target_port: int
    node: int = ANY_NODE
    """The address of the target."""
    tls: LinkTls = "none"
    """`ended`: the proxy ends TLS, and has a connection with TLS to the target. `passed`: it carries TLS that it does
    not read."""
    keystore: str = ""
    """File with the certificate and key that the proxy shows where it ends TLS."""


class Counts(msgspec.Struct, kw_only=True, frozen=True):
    """The counts of one link since its start."""

    is_listening: bool = False
    connections: int = 0
    """Open connections."""
    requests_bytes: int = 0
    answers_bytes: int = 0
    dropped_answers: int = 0


class Command(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """One line from the runner to the proxy process; the answer is one `Reply` with the same id."""

    id: int
    open: tuple[OpenLink, ...] = ()
    reserved: tuple[int, ...] = ()
    """Ports of nodes, which no link may take."""
    rules: dict[str, Rules] = {}
    guard: tuple[int, ...] | None = None
    """Processes to kill when the runner ends."""
    check: tuple[tuple[str, int], ...] = ()
    """Targets that have started or ended: when the reply arrives, their links listen or refuse."""
    wants_counts: bool = False
    begin: tuple[RequestRule, ...] = ()
    end: tuple[int, ...] = ()
    """Numbers of rules to end."""
    wants_fired: bool = False
    loads_certificates: bool = False
    """Files of certificates have changed."""


class Reply(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    id: int
    ports: dict[str, int] = {}
    counts: dict[str, Counts] = {}
    fired: tuple[Fired, ...] = ()
    """The applications of rules since the last command, the oldest first."""
    error: str = ""
