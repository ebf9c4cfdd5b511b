"""`python -m bench.messages`: the cost of encoding and decoding the most frequent messages of a busy node.

One process, no network, in microseconds (the lowest of several runs, so that a busy machine does little harm). The
first figure: the sender's data -> request -> bytes -> request, answer -> bytes -> answer -> the sender's data. The
second: the same with what the handler of the API makes of the request and of its own data.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, TypeVar, cast
from uuid import UUID

from kraft.broker.gateway import Gateway
from kraft.broker.principal import NodePrincipal
from kraft.protocol import codec
from kraft.protocol.apis import Api, request_type
from kraft.protocol.codec import RequestHeader
from kraft.protocol.encoding import TopLevel
from kraft.wire.api_handler import Call, ClientConnection
from kraft.wire.channels.brokers import HEARTBEAT
from kraft.wire.channels.forward import PRODUCE, ProduceRequest
from kraft.wire.channels.replicas import FETCH
from kraft.wire.handler_table import ApiHandlers
from kraft.wire.node_parts import BrokerParts
from kraft.wire.refusals import NO_PARTS
from kraft.wire.rpc import ReplyT, RequestData, RequestT, ResponseData, Rpc
from metadata.controller.requests import BrokerHeartbeat, HeartbeatAnswer, Request
from metadata.environment import Environment
from metadata.image import TopicIdPartition
from replication.requests import (
    FetchedPartition,
    FetchPartition,
    FetchRequest,
    FetchResponse,
    ProduceOptions,
    ProduceOutcome,
)

Reply = TypeVar("Reply")

TOPIC = UUID(int=7)
RUNS, TIMES = 7, 3_000


class _Decided:
    """A controller, and the replicas of a broker, that answer everything so."""

    def __init__(self, reply: Any) -> None:
        self._reply = reply
        self.fetch = self.produce = self

    async def submit(self, request: Request[Reply], *, timeout_ms: int) -> Reply:
        return cast(Reply, self._reply)

    def begin(self, *asked: object) -> Any:
        return self._reply


NODE = ClientConnection(peer="127.0.0.1:1", listener="PLAINTEXT", principal=NodePrincipal(2, "controller"))


def handled(rpc: Rpc[Any, Any, Any, Any], reply: object) -> Callable[[Any], TopLevel]:
    """What the handler of the API makes of a node's request."""
    decided = _Decided(reply)
    broker = cast(BrokerParts, SimpleNamespace(replicas=decided))
    gateway = cast(Gateway, SimpleNamespace(authorizer=None, quotas=None, image=None))
    environment = cast(Environment, SimpleNamespace(clock=None))
    parts = replace(NO_PARTS, broker=broker, controller=decided, gateway=gateway, environment=environment)
    handler = ApiHandlers(parts).get(rpc.api.key)
    assert handler is not None

    def answer(message: Any) -> TopLevel:
        call = Call(message=message, version=rpc.api.version, client_id=None, connection=NODE)
        answer: Any = handler.handle(call)
        if isinstance(answer, TopLevel):
            return answer
        try:
            answer.send(None)
        except StopIteration as done:
            return cast(TopLevel, done.value)
        raise AssertionError("it waits")

    return answer


def round_trip(
    rpc: Rpc[RequestT, ReplyT, RequestData, ResponseData], request: RequestT, answered: Callable[[Any], TopLevel]
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Without and with the handler."""
    api: Api = rpc.api
    response = answered(rpc.to_request(request, 1_000))
    return _round_trip(api, rpc, request, lambda _: response), _round_trip(api, rpc, request, answered)


def _round_trip(
    api: Api,
    rpc: Rpc[RequestT, ReplyT, RequestData, ResponseData],
    request: RequestT,
    answered: Callable[[Any], TopLevel],
) -> Callable[[], None]:

    def run() -> None:
        header = RequestHeader(api_key=api.key, api_version=api.version, correlation_id=9, client_id="node-2-fetch")
        frame = memoryview(b"".join(codec.encode_request(api, header, rpc.to_request(request, 1_000))))
        message, *_ = codec.decode_request(request_type(api), codec.decode_request_head(frame), frame)
        response = answered(message)
        answer = memoryview(b"".join(codec.encode_response(rpc.response, api.version, 9, response)))
        _, offset = codec.decode_response_head(api, api.version, answer)
        rpc.from_reply(request, codec.decode_body(rpc.response, api.version, answer, offset))

    return run


def fetch(partitions: int) -> tuple[FetchRequest, FetchResponse]:
    """A fetch of a follower in a session, and an answer with a record of 100 B for each partition."""
    asked = [
        FetchPartition(
            topic_id=TOPIC,
            partition=number,
            current_leader_epoch=3,
            fetch_offset=1_000_000,
            last_fetched_epoch=3,
            log_start_offset=0,
            bytes_max=1_048_576,
        )
        for number in range(partitions)
    ]
    found = [
        FetchedPartition(
            topic_id=TOPIC,
            partition=number,
            high_watermark=1_000_000,
            last_stable_offset=1_000_000,
            log_start_offset=0,
            records=bytes(170),
        )
        for number in range(partitions)
    ]
    request = FetchRequest(
        replica_id=2,
        replica_epoch=33,
        wait_ms_max=500,
        bytes_min=1,
        bytes_max=10_485_760,
        session_id=7,
        session_epoch=8,
        partitions=tuple(asked),
    )
    return request, FetchResponse(session_id=7, partitions=tuple(found))


def rows() -> dict[str, tuple[Callable[[], None], Callable[[], None]]]:
    key = TopicIdPartition(TOPIC, 0)
    produce = ProduceRequest(batches={key: bytes(170)}, options=ProduceOptions(-1, 30_000))
    outcome = ProduceOutcome(base_offset=5, last_offset=5, is_appended=True, isr=(1, 2, 3), min_isr=2)
    beat = BrokerHeartbeat(broker_id=1, broker_epoch=5, metadata_offset=100, wants_fence=False, wants_shutdown=False)
    beaten = HeartbeatAnswer(is_caught_up=True, is_fenced=False, should_shut_down=False, metadata_offset=100)
    return {
        "fetch, nothing changed": round_trip(FETCH, fetch(0)[0], handled(FETCH, fetch(0)[1])),
        "fetch, 1 partition": round_trip(FETCH, fetch(1)[0], handled(FETCH, fetch(1)[1])),
        "fetch, 100 partitions": round_trip(FETCH, fetch(100)[0], handled(FETCH, fetch(100)[1])),
        "produce, 1 partition": round_trip(PRODUCE, produce, handled(PRODUCE, {key: outcome})),
        "heartbeat": round_trip(HEARTBEAT, beat, handled(HEARTBEAT, beaten)),
    }


def main() -> None:
    for name, both in rows().items():
        times = TIMES // 20 if "100" in name else TIMES
        coded_us, handled_us = (min(timeit.repeat(run, number=times, repeat=RUNS)) / times * 1e6 for run in both)
        print(f"{name:28s} {coded_us:8.1f} us {handled_us:8.1f} us with its handler")


if __name__ == "__main__":
    main()
