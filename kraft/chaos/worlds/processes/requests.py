"""Faults of requests of clients from outside, for one API each, with counts of applications.

A fault applies to every link, so that `times` counts requests to all brokers, and lasts until it is healed. The links
decode the requests; nodes are not involved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kraft.chaos.nemesis.kafka_apis import api_name, request_type
from kraft.chaos.nemesis.kafka_errors import NAMES, code_of
from kraft.chaos.worlds.processes.links import LinkTls
from kraft.chaos.worlds.processes.proxy.process import ProxyProcess
from kraft.chaos.worlds.processes.proxy.requests import names_topics
from kraft.chaos.worlds.processes.proxy.rules import ANY_NODE, FOR_EVER, RequestFault, RequestRule
from kraft.chaos.worlds.processes.timeline import Timeline
from kraft.chaos.worlds.spec import ScenarioError
from kraft.config.models import ClusterConfig
from kraft.protocol import apis
from kraft.suggestions import nearest_key_hint
from kraft.wire.handler_table import ROWS, SERVED

DELAY_MS_MAX: Final = 600_000
NAMES_OF_FAULTS: Final = {
    "answer": "answer",
    "delay": "delay_answer",
    "drop_answer": "drop_answer",
    "close_after": "close_after",
}


@dataclass(slots=True, kw_only=True)
class RequestFaultDone:
    """A fault of requests."""

    number: int
    """Its number in the timeline."""
    text: str
    times: int = 0
    """The number of applications so far."""
    is_over: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFilter:
    """Selects requests of an API. Without topic, client id and node: all requests."""

    topic: str = ""
    client_id: str = ""
    node: int | None = None


EVERY_ONE: Final = RequestFilter()


class RequestFaults:
    def __init__(
        self, config: ClusterConfig, *, proxies: ProxyProcess, timeline: Timeline, tls: LinkTls | None = None
    ) -> None:
        self._tls = tls
        self._brokers = [node.id for node in config.brokers]
        self._proxies = proxies
        self._timeline = timeline
        self._done: dict[int, RequestFaultDone] = {}

    async def answer(
        self, api: str, *, error: str | int, times: int | None = 1, which: RequestFilter = EVERY_ONE
    ) -> RequestFaultDone:
        """The link answers with this error, as a broker that refuses the whole request; no broker gets it."""
        code = code_of(error)
        return await self._begin("answer", api, times, which, said=f"with {NAMES.get(code, code)}", error_code=code)

    async def delay(
        self, api: str, *, ms: float, times: int | None = None, which: RequestFilter = EVERY_ONE
    ) -> RequestFaultDone:
        """The request is carried out at once, and its answer arrives later, also those after it."""
        if not 0 < ms <= DELAY_MS_MAX:
            raise ScenarioError(f"a delay of {ms} ms; it can be up to {DELAY_MS_MAX} ms")
        return await self._begin("delay", api, times, which, said=f"by {ms:g} ms", delay_ms=ms)

    async def drop_answer(
        self, api: str, *, times: int | None = 1, which: RequestFilter = EVERY_ONE
    ) -> RequestFaultDone:
        """The request is carried out; the connection ends instead of an answer."""
        return await self._begin("drop_answer", api, times, which)

    async def close_after(
        self, api: str, *, times: int | None = 1, which: RequestFilter = EVERY_ONE
    ) -> RequestFaultDone:
        """The client gets the answer, and then the end of the connection."""
        return await self._begin("close_after", api, times, which)

    async def heal(self) -> None:
        """End all faults of requests."""
        await self.look()
        open_ones = [fault for fault in self._done.values() if not fault.is_over]
        if open_ones:
            await self._proxies.end(fault.number for fault in open_ones)
        await self.look()
        for fault in open_ones:
            fault.is_over = True
            self._timeline.end(fault.number)

    async def look(self) -> None:
        """Update `times` of each fault."""
        for fired in await self._proxies.fired() if self._done else ():
            self._done[fired.number].times += 1

    @property
    def open(self) -> int:
        return sum(not fault.is_over for fault in self._done.values())

    @property
    def done(self) -> tuple[RequestFaultDone, ...]:
        """All faults since `forget`, with their state at the last `look`."""
        return tuple(self._done.values())

    def forget(self) -> None:
        assert not self.open, "heal first"
        self._done.clear()

    async def _begin(
        self,
        do: RequestFault,
        api: str,
        times: int | None,
        which: RequestFilter,
        *,
        said: str = "",
        error_code: int = 0,
        delay_ms: float = 0,
    ) -> RequestFaultDone:
        if self._tls == "passed":
            raise ScenarioError("faults of requests need links that end TLS; here it passes from end to end")
        request = request_type(api)
        name = api_name(request)
        self._check(name, request.API_KEY, times, which)
        if which.topic and not names_topics(request):
            raise ScenarioError(f"a request of {name} names no topics; leave the topic out")
        text = " ".join(part for part in (_VERBS[do], name, _shown(which), said, _often(times)) if part)
        number = self._timeline.begin(NAMES_OF_FAULTS[do], text=text, links=())
        rule = RequestRule(
            number=number,
            do=do,
            api=name,
            api_key=request.API_KEY,
            error_code=error_code,
            delay_ms=delay_ms,
            times=FOR_EVER if times is None else times,
            topic=which.topic,
            client_id=which.client_id,
            node=ANY_NODE if which.node is None else which.node,
        )
        self._done[number] = fault = RequestFaultDone(number=number, text=text)
        await self._proxies.begin(rule)
        return fault

    def _check(self, name: str, key: int, times: int | None, which: RequestFilter) -> None:
        if key not in ROWS and key != apis.API_VERSIONS.key:
            served = [api.name for api in SERVED]
            hint = nearest_key_hint(name, served, otherwise="a request of it would never come to an end here")
            raise ScenarioError(f"these nodes do not serve {name} to clients; {hint}")
        if times is not None and times < 1:
            raise ScenarioError(f"times={times}; it is 1 or more, or None: until it is healed")
        if which.node is not None and which.node not in self._brokers:
            raise ScenarioError(f"node {which.node} is no broker; the brokers are {self._brokers}")


_VERBS: Final[dict[RequestFault, str]] = {
    "answer": "answered",
    "delay": "delayed answers to",
    "drop_answer": "dropped answers to",
    "close_after": "closed connections after",
}


def _shown(which: RequestFilter) -> str:
    parts = (
        f"of topic {which.topic}" if which.topic else "",
        f"of client {which.client_id}" if which.client_id else "",
        f"at node {which.node}" if which.node is not None else "",
    )
    return " ".join(part for part in parts if part)


def _often(times: int | None) -> str:
    return "" if times is None else "once" if times == 1 else f"{times} times"
