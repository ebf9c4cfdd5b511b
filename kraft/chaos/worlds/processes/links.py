"""Faults of links. A fault lasts until it is healed, for open and for later connections.

A fault selects links by source (`dials`: nodes, or clients for `rest`), target (`answers`) and purpose; None means all.
`both_ways` adds the links in the other direction. Only links between nodes, unless `purpose` is `rest`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec

from kraft.chaos.nemesis.links import (
    ALL_PURPOSES,
    BETWEEN_NODES,
    OF_CLIENTS,
    OUTSIDE,
    Ends,
    Groups,
    LinkId,
    Purpose,
    Purposes,
    parse_groups,
    purposes_of,
    select,
    split,
)
from kraft.chaos.worlds.processes.proxy.process import ProxyProcess
from kraft.chaos.worlds.processes.proxy.rules import FOR_EVER, Counts, Direction, Flow, Half, OpenLink, Rules
from kraft.chaos.worlds.processes.timeline import Timeline
from kraft.chaos.worlds.spec import ScenarioError
from kraft.client.credentials import remember
from kraft.config.models import ClusterConfig, NodeConfig
from kraft.launcher.client_security import first_user
from kraft.launcher.runfile import CLIENT_FOLDER

Change: TypeAlias = Callable[[Rules], Rules]
How: TypeAlias = Literal["cut", "blackhole"]
LinkTls: TypeAlias = Literal["ended", "passed"]
"""Links end the TLS of their connections, with the certificate of the node, or let it pass from end to end."""
IsolatedFrom: TypeAlias = Literal["quorum", "brokers", "all"]
_ISOLATED_FROM: Final[Mapping[IsolatedFrom, tuple[Purpose, ...]]] = {
    "quorum": ("quorum", "controller"),
    "brokers": ("fetch", "forward"),
    "all": BETWEEN_NODES,
}
_HALVES: Final[tuple[Half, ...]] = ("requests", "answers")


OUTSIDE_LISTENER: Final = "OUTSIDE"
"""The purpose of links whose addresses brokers advertise: clients find these links in the metadata."""


class Links:
    def __init__(
        self,
        config: ClusterConfig,
        *,
        host: str,
        proxies: ProxyProcess,
        timeline: Timeline,
        tls: LinkTls | None = None,
    ) -> None:
        self._config = config
        self._nodes = tuple(node.id for node in config.nodes)
        self._brokers = frozenset(node.id for node in config.brokers)
        self._host = host
        self._tls = tls
        self._proxies = proxies
        self._timeline = timeline
        self._addresses: dict[LinkId, str] = {}
        """The address of the proxy of each link."""
        self._rules: dict[LinkId, Rules] = {}
        self._broken: list[tuple[int, set[LinkId]]] = []
        """Number of a fault in the timeline -> links on which it is active."""

    async def open(self, links: Iterable[LinkId]) -> None:
        wanted = [
            OpenLink(
                name=str(link),
                kind=link.kind,
                host=self._host,
                target_host=self._config.node(link.answers).host,
                target_port=self._port(link),
                node=link.answers,
                tls=self._tls or "none",
                keystore=self._keystore(link.answers),
            )
            for link in links
        ]
        reserved = {port for node in self._config.nodes for port in ports_of(node)}
        ports = await self._proxies.open(wanted, reserved=reserved)
        self._addresses |= {link: f"{self._host}:{ports[str(link)]}" for link in links}

    async def client_address(self, client: str, node: int) -> str:
        """Base URL of a node for a client, through the link `client->node rest`."""
        address = await self._link_of(LinkId(client, node, "rest"))
        if self._tls is None:
            return f"http://{address}"
        url = f"https://{address}"
        remember(url, first_user(Path(self._config.data, CLIENT_FOLDER)).credentials())
        return url

    async def kafka_address(self, client: str, node: int) -> str:
        """Address of a node's Kafka port for a client, through the link `client->node kafka`."""
        return await self._link_of(LinkId(client, node, "kafka"))

    async def _link_of(self, link: LinkId) -> str:
        if link not in self._addresses:
            await self.open([link])
        return self._addresses[link]

    async def open_outside(self) -> Mapping[int, str]:
        """Open a link to each broker for clients outside of the run; returns its address, which the broker
        advertises."""
        links = [LinkId(OUTSIDE, node.id, "kafka") for node in self._config.brokers]
        await self.open(links)
        return {link.answers: self._addresses[link] for link in links}

    def peers(self, node: int) -> dict[int, dict[str, str]]:
        """Peer -> purpose -> address of the proxy, for one node."""
        found: dict[int, dict[str, str]] = {}
        for link, address in self._addresses.items():
            if link.dials == node:
                found.setdefault(link.answers, {})[link.purpose] = address
        return found

    def _keystore(self, node: int) -> str:
        """File with the certificate and key of a node, for links that end TLS."""
        return self._config.broker_settings(node).ssl_keystore_location if self._tls == "ended" else ""

    def _refuse_whole_messages(self, fault: str) -> None:
        """Nobody finds messages in bytes that are encrypted from end to end."""
        if self._tls == "passed":
            raise ScenarioError(f"{fault} needs links that end TLS; here it passes from end to end")

    def _port(self, link: LinkId) -> int:
        config = self._config.node(link.answers)
        if link.dials == OUTSIDE:
            for listener in config.listeners:
                if listener.name == OUTSIDE_LISTENER and link.purpose == "kafka":
                    return listener.port
        match link.purpose:
            case "quorum":
                return config.quorum_port
            case "rest":
                return config.rest_port
            case _:
                return config.kafka_port

    # --- faults -----------------------------------------------------------------------------------------------------

    async def cut(
        self, dials: Ends = None, answers: Ends = None, *, purpose: Purposes = "all", both_ways: bool = False
    ) -> None:
        """Connections are reset, and the port refuses, as with a dead process."""
        links = self.select(dials, answers, purpose=purpose, both_ways=both_ways)
        await self._break("cut", links, _cut, text="cut {}")

    async def blackhole(
        self,
        dials: Ends = None,
        answers: Ends = None,
        *,
        purpose: Purposes = "all",
        both_ways: bool = False,
        direction: Direction = "both",
    ) -> None:
        """No bytes arrive, without an error. `direction`: only requests, or only answers, are held."""
        links = self.select(dials, answers, purpose=purpose, both_ways=both_ways)
        await self._break("blackhole", links, _on_flows(direction, is_held=True), text="nothing arrives any more on {}")

    async def delay(
        self,
        dials: Ends = None,
        answers: Ends = None,
        *,
        delay_ms: float,
        jitter_ms: float = 0,
        purpose: Purposes = "all",
        both_ways: bool = False,
        direction: Direction = "both",
    ) -> None:
        """Each message arrives later, by a random time of at most `jitter_ms` more; the order stays."""
        links = self.select(dials, answers, purpose=purpose, both_ways=both_ways)
        change = _on_flows(direction, delay_ms=delay_ms, jitter_ms=jitter_ms)
        await self._break("delay", links, change, text=f"{delay_ms:g} ms (+{jitter_ms:g}) on {{}}")

    async def bandwidth(
        self,
        dials: Ends = None,
        answers: Ends = None,
        *,
        bytes_per_second: int,
        purpose: Purposes = "all",
        both_ways: bool = False,
        direction: Direction = "both",
    ) -> None:
        links = self.select(dials, answers, purpose=purpose, both_ways=both_ways)
        change = _on_flows(direction, bytes_per_second=bytes_per_second)
        await self._break("bandwidth", links, change, text=f"{bytes_per_second} bytes a second on {{}}")

    async def drop_answers(
        self, dials: Ends = None, answers: Ends = None, *, purpose: Purposes = "all", count: int = FOR_EVER
    ) -> None:
        """The request is carried out, and its connection is reset instead of an answer. `count` for each link."""
        self._refuse_whole_messages("drop_answers")
        links = self.select(dials, answers, purpose=purpose)
        if any(link.kind == "quorum" for link in links):
            if purpose != "all":
                raise ScenarioError("messages of the quorum have no answers that could be dropped")
            links = [link for link in links if link.kind != "quorum"]
        change: Change = lambda rules: msgspec.structs.replace(rules, drop_answers=count)  # noqa: E731
        await self._break("drop_answer", links, change, text="answers are lost on {}")

    async def close_mid_message(
        self,
        dials: Ends = None,
        answers: Ends = None,
        *,
        purpose: Purposes = "all",
        direction: Direction = "requests",
        count: int = FOR_EVER,
    ) -> None:
        """The connection ends after the first half of a request or answer. `count` for each link."""
        self._refuse_whole_messages("close_mid_message")
        links = self.select(dials, answers, purpose=purpose)
        fields = {
            "requests": ("close_mid_request",),
            "answers": ("close_mid_answer",),
            "both": ("close_mid_request", "close_mid_answer"),
        }[direction]
        change: Change = lambda rules: msgspec.structs.replace(rules, **dict.fromkeys(fields, count))  # noqa: E731
        await self._break("close", links, change, text="connections end in mid-message on {}")

    async def partition(self, groups: str | Groups, *, purpose: Purposes = "all", how: How = "cut") -> None:
        """`[1] | [2, 3]`: no link between groups works, both ways. Clients outside of all groups reach all nodes."""
        parsed = parse_groups(groups) if isinstance(groups, str) else groups
        links = split(self._addresses, parsed, nodes=self._nodes, purpose=purpose)
        shown = " | ".join(f"[{', '.join(str(end) for end in group)}]" for group in parsed)
        change = _cut if how == "cut" else _on_flows("both", is_held=True)
        await self._break(how, links, change, text=f"partition {shown}")

    async def isolate(
        self,
        node: int,
        *,
        from_: IsolatedFrom = "all",
        purpose: Purposes | None = None,
        keep_clients: bool = True,
        how: How = "cut",
    ) -> None:
        """No bytes go from or to a node: quorum and controller, other brokers, or both.

        A node that is isolated from the controller gets no metadata from it: with dedicated controllers this is
        `fetch`.
        """
        purposes: Purposes = _ISOLATED_FROM[from_] if purpose is None else purpose
        links = {*self.select(node, None, purpose=purposes), *self.select(None, node, purpose=purposes)}
        if "controller" in purposes_of(purposes):
            links |= {
                link
                for link in self._addresses
                if link.purpose == "fetch" and node in (link.dials, link.answers) and link.answers not in self._brokers
            }
        if not keep_clients:
            links |= {link for link in self._addresses if link.purpose in OF_CLIENTS and link.answers == node}
        change = _cut if how == "cut" else _on_flows("both", is_held=True)
        shown = ", ".join(purposes_of(purposes))
        await self._break(how, links, change, text=f"isolated node {node} ({shown})", nodes=[node])

    async def bridge(self, node: int, left: Iterable[int], right: Iterable[int], *, how: How = "cut") -> None:
        """Two sides with connections only through one node."""
        await self.partition([[*left, node], [*right, node]], how=how)

    async def heal(self, dials: Ends = None, answers: Ends = None, *, purpose: Purposes | None = None) -> None:
        """Heal these links; by default all, also those of clients."""
        if dials is None and answers is None and purpose is None:
            links = [link for link, rules in self._rules.items() if rules != Rules()]
        else:
            links = self.select(dials, answers, purpose=ALL_PURPOSES if purpose is None else purpose)
        await self._set({link: Rules() for link in links})
        for number, held in self._broken:
            held.difference_update(links)
            if not held:
                self._timeline.end(number)
        self._broken = [(number, held) for number, held in self._broken if held]

    @property
    def faults(self) -> int:
        """The active faults."""
        return len(self._broken)

    # --- links and their rules --------------------------------------------------------------------------------------

    @property
    def all(self) -> tuple[LinkId, ...]:
        return tuple(self._addresses)

    def rules(self, link: LinkId) -> Rules:
        return self._rules.get(link, Rules())

    async def counts(self) -> dict[str, Counts]:
        """The counts of each link, by its name, such as `1->2 fetch`."""
        return dict(await self._proxies.counts())

    def select(
        self, dials: Ends = None, answers: Ends = None, *, purpose: Purposes = "all", both_ways: bool = False
    ) -> list[LinkId]:
        """The selected links. Raises ScenarioError if there are none."""
        found = select(self._addresses, dials=dials, answers=answers, purpose=purpose)
        if both_ways:
            found += select(self._addresses, dials=answers, answers=dials, purpose=purpose)
        return list(dict.fromkeys(found))

    async def _break(
        self, fault: str, links: Iterable[LinkId], change: Change, *, text: str, nodes: Iterable[int] = ()
    ) -> None:
        chosen = list(links)
        await self._set({link: change(self.rules(link)) for link in chosen})
        names = [str(link) for link in chosen]
        shown = ", ".join(names) if len(names) <= 4 else f"{len(names)} links"
        number = self._timeline.begin(fault, links=names, nodes=nodes, text=text.format(shown))
        self._broken.append((number, set(chosen)))

    async def _set(self, rules: dict[LinkId, Rules]) -> None:
        self._rules |= rules
        await self._proxies.set_rules({str(link): each for link, each in rules.items()})


def ports_of(node: NodeConfig) -> tuple[int, ...]:
    """The ports of the node."""
    return (node.rest_port, node.kafka_port, node.quorum_port, *(each.port for each in node.listeners))


def _cut(rules: Rules) -> Rules:
    return msgspec.structs.replace(rules, is_cut=True)


def _on_flows(direction: Direction, **changes: float) -> Change:
    def change(rules: Rules) -> Rules:
        halves = _HALVES if direction == "both" else (direction,)
        flows: dict[str, Flow] = {half: msgspec.structs.replace(rules.flow(half), **changes) for half in halves}
        return msgspec.structs.replace(rules, **flows)

    return change
