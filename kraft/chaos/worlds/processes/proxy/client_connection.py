"""One connection of a client from outside: rules apply to whole requests, and answers are in the order of requests.

A request that the proxy answers never reaches the broker; its answer waits for the answers to all earlier requests,
because clients close a connection with answers in another order. Answers of the broker pass unchanged, unless a rule
applies. A produce with acks=0 has no answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import struct
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from kraft.chaos.nemesis.kafka_apis import request_type
from kraft.chaos.nemesis.kafka_errors import NAMES, error_of
from kraft.chaos.worlds.processes.proxy.connection import Connection, Owner
from kraft.chaos.worlds.processes.proxy.messages import messages_of
from kraft.chaos.worlds.processes.proxy.requests import (
    EVERY_TOPIC,
    FETCH,
    SHARE_FETCH,
    ClientRequest,
    Decision,
    FetchSession,
    RequestRules,
    TopicIds,
    Topics,
    topics_of,
)
from kraft.chaos.worlds.processes.proxy.rules import RequestRule
from kraft.protocol import codec
from kraft.protocol.acks import ACKS_NONE
from kraft.protocol.codec import Malformed, RequestHeader
from kraft.protocol.encoding import REFUSALS, TopLevel
from kraft.protocol.messages.fetch_request import FetchRequestData
from kraft.protocol.messages.metadata_response import MetadataResponseData
from kraft.protocol.messages.produce_request import ProduceRequestData
from kraft.protocol.messages.share_fetch_request import ShareFetchRequestData
from kraft.protocol.varints import Reader

if TYPE_CHECKING:
    from kraft.wire.refusals import Refusals

PRODUCE: Final = 0
METADATA: Final = 3
METADATA_WITH_IDS_FROM: Final = 10
FRAME_BYTES_MAX: Final = 104_857_600
"""The socket.request.max.bytes of brokers: a connection with a larger request is closed."""
PENDING_MAX: Final = 10_000
"""The most unanswered requests of one connection; it is closed beyond that."""
LENGTH: Final = struct.Struct(">i")


class ClientRules:
    """The rules that all links of clients share."""

    def __init__(self) -> None:
        self.table = RequestRules()
        self.topic_ids = TopicIds()
        self.request_types: dict[int, type[TopLevel]] = {}
        """API key -> request class, for APIs with rules."""
        self._refusals: Refusals | None = None

    def load_for(self, rule: RequestRule) -> None:
        """Load the modules that the rule needs, in a thread. Raises LookupError for an impossible rule."""
        request_type(rule.api)
        if rule.do == "answer" and not self.refusals.is_served(rule.api_key):
            raise LookupError(f"{rule.api} is not served to clients: brokers close the connection that asks for it")

    def begin(self, rule: RequestRule) -> None:
        """Begin a rule, after `load_for`."""
        self.request_types[rule.api_key] = request_type(rule.api)
        self.table.begin(rule)

    @property
    def refusals(self) -> Refusals:
        """Imported when needed: the code of nodes renders the answers."""
        if self._refusals is None:
            from kraft.wire.refusals import Refusals

            self._refusals = Refusals()
        return self._refusals


@dataclass(slots=True, eq=False)
class _Pending:
    """A request whose answer is not completely sent."""

    api_key: int
    version: int
    correlation_id: int
    decision: Decision
    answer: bytes | None = None
    """The answer of the proxy; empty: the end of the connection."""
    kept: bytearray = field(default_factory=bytearray)
    """The bytes of an answer that the proxy also reads."""

    @property
    def is_learned_from(self) -> bool:
        return self.api_key == METADATA and self.version >= METADATA_WITH_IDS_FROM


class ClientConnection(Connection):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        owner: Owner,
        shared: ClientRules,
        rng: random.Random,
        *,
        node: int,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(loop, owner, messages_of("kafka"), rng, tls=tls)
        self._shared = shared
        self._node = node
        self._arriving = bytearray()
        self._answer_frames = AnswerFrames()
        self._pending: deque[_Pending] = deque()
        self._sessions = {FETCH: FetchSession(), SHARE_FETCH: FetchSession()}
        self._is_ending = False
        """The client gets the bytes in flight, and nothing more."""

    # --- requests ---------------------------------------------------------------------------------------------------

    def requests(self, data: bytes) -> None:
        self._arriving += data
        while len(self._arriving) >= LENGTH.size and not (self._is_ending or self.is_over):
            (length,) = LENGTH.unpack_from(self._arriving)
            if not 0 <= length <= FRAME_BYTES_MAX or len(self._pending) >= PENDING_MAX:
                self.reset()
                return
            end = LENGTH.size + length
            if len(self._arriving) < end:
                return
            frame = bytes(self._arriving[:end])
            del self._arriving[:end]
            self._request(frame)

    def _request(self, frame: bytes) -> None:
        body = memoryview(frame)[LENGTH.size :]
        try:
            header = codec.decode_request_head(body)
        except Malformed:
            self.carry_request(frame)  # for the broker to judge
            return
        has_answer = not _is_without_answer(header, body)
        decision = self._decide(header, body, has_answer=has_answer)
        pending = _Pending(header.api_key, header.api_version, header.correlation_id, decision)
        if decision.answer_with is not None:
            self._answer(pending, header, body, decision.answer_with)
            return
        if has_answer:
            self._pending.append(pending)
        self.carry_request(frame)
        if not has_answer and decision.closes_after:
            self._take_turn(pending, b"")

    def _answer(self, pending: _Pending, header: RequestHeader, body: memoryview, code: int) -> None:
        error = error_of(code, f"{NAMES.get(code, code)}: a fault of the link")
        parts = self._shared.refusals.answer(header, body, error)
        answer = b"" if parts is None else b"".join(parts)
        self._take_turn(pending, answer and LENGTH.pack(len(answer)) + answer)

    def _take_turn(self, pending: _Pending, answer: bytes) -> None:
        pending.answer = answer
        self._pending.append(pending)
        self._send_own()

    def _decide(self, header: RequestHeader, body: memoryview, *, has_answer: bool) -> Decision:
        session = self._sessions.get(header.api_key)
        if session is not None:
            kind = FetchRequestData if header.api_key == FETCH else ShareFetchRequestData
            message = _decoded(kind, header, body)
            if message is not None:
                session.take(message)
        asked = ClientRequest(
            api_key=header.api_key,
            version=header.api_version,
            client_id=header.client_id or "",
            node=self._node,
            has_answer=has_answer,
            topics=partial(self._named, header, body),
        )
        return self._shared.table.decide(asked, at_us=time.monotonic_ns() // 1_000)

    def _named(self, header: RequestHeader, body: memoryview) -> Topics:
        if header.api_key in self._sessions:
            return self._sessions[header.api_key].topics(self._shared.topic_ids.names)
        kind = self._shared.request_types.get(header.api_key)
        message = None if kind is None else _decoded(kind, header, body)
        if message is None:
            return ()
        named = topics_of(message, self._shared.topic_ids.names)
        return EVERY_TOPIC if header.api_key == METADATA and header.api_version == 0 and not named else named

    # --- answers ----------------------------------------------------------------------------------------------------

    def answers(self, data: bytes) -> None:
        for correlation_id, piece, is_first, is_last in self._answer_frames.feed(data):
            if self._is_ending or self.is_over:
                return
            if is_first:
                self._begin_answer(correlation_id)
            pending = self._pending[0] if self._pending else None
            if pending is None or pending.correlation_id != correlation_id:
                self.carry_answer(piece)  # to nothing that was asked: the client's to judge
            else:
                self._carry(pending, piece, is_first=is_first, is_last=is_last)

    def _begin_answer(self, correlation_id: int) -> None:
        """Find the request of an answer; a broker answers in order, so it is the first one."""
        if any(each.correlation_id == correlation_id for each in self._pending):
            while self._pending[0].correlation_id != correlation_id:
                passed_over = self._pending.popleft()
                if passed_over.answer is not None:
                    self.answer(passed_over.answer)

    def _carry(self, pending: _Pending, piece: bytes, *, is_first: bool, is_last: bool) -> None:
        if pending.decision.drops_answer:
            self._end()
            return
        self.carry_answer(piece, late_ms=pending.decision.delay_ms if is_first else 0)
        if pending.is_learned_from:
            pending.kept += piece
        if is_last:
            self._pending.popleft()
            self._learn(pending)
            self._answered(pending.decision)

    def _learn(self, pending: _Pending) -> None:
        if not pending.is_learned_from:
            return
        frame = memoryview(bytes(pending.kept))[LENGTH.size :]
        with contextlib.suppress(*REFUSALS):  # what it cannot read it has carried all the same
            reader = Reader(frame, LENGTH.size)
            reader.tagged_fields()
            self._shared.topic_ids.learn(MetadataResponseData.READERS[pending.version](frame, reader.offset)[0])

    def _answered(self, decision: Decision) -> None:
        if decision.closes_after:
            self._end()
        else:
            self._send_own()

    def _send_own(self) -> None:
        """Send answers of the proxy whose turn it is."""
        while self._pending and not self._is_ending and (answer := self._pending[0].answer) is not None:
            pending = self._pending.popleft()
            if not answer:
                self._end()
                return
            self.answer(answer, late_ms=pending.decision.delay_ms)

    def _end(self) -> None:
        self._is_ending = True
        self._pending.clear()
        self.end()


def _is_without_answer(header: RequestHeader, body: memoryview) -> bool:
    if header.api_key != PRODUCE:
        return False
    message = _decoded(ProduceRequestData, header, body)
    return message is not None and message.acks == ACKS_NONE


def _decoded(kind: type[TopLevel], header: RequestHeader, body: memoryview) -> Any:
    """The decoded request; None for an invalid one, which goes to the broker to be refused."""
    version = header.api_version
    if version not in kind.READERS:
        return None
    try:
        offset = codec.body_offset(header, body, is_flexible=version >= kind.FLEXIBLE_FROM)
        return codec.decode_client_body(kind, version, body, offset)
    except Malformed:
        return None


class AnswerFrames:
    """Splits a stream of answers into pieces of one frame each, without waiting for whole frames. Pure."""

    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        self._correlation_id = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes, bool, bool]]:
        """Pieces as (correlation id, bytes, is the begin of a frame, is the end of a frame)."""
        if self._head:
            data, self._head = self._head + data, b""
        at = 0
        while at < len(data):
            is_first = not self._left
            if is_first:
                head = data[at : at + 2 * LENGTH.size]
                if len(head) < 2 * LENGTH.size:
                    self._head = head
                    return
                self._left = max(LENGTH.size + LENGTH.unpack_from(head)[0], len(head))
                (self._correlation_id,) = LENGTH.unpack_from(head, LENGTH.size)
            piece = data[at : at + self._left]
            at += len(piece)
            self._left -= len(piece)
            yield self._correlation_id, piece, is_first, not self._left
