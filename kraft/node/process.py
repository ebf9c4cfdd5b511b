"""The process that is a node: its event loop, its signals, its exit code, and its last words when it cannot go on."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import os
import signal
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import uvloop

import kraft
from kraft.broker.measures import KafkaPort, Measure
from kraft.broker.transaction_measures import transaction_measures
from kraft.config.models import ClusterConfig, has_sasl, has_tls
from kraft.coordinators.routed import RoutedWrites
from kraft.http.app import create_app, learn_paths
from kraft.http.authentication import HttpAuthentication
from kraft.http.console.facts import ClusterFacts
from kraft.http.console.live import live_routes
from kraft.http.events import event_routes
from kraft.http.explain import explain_routes
from kraft.http.explain_coordinated import coordinated_routes
from kraft.http.replicas import replica_routes
from kraft.http.server import HttpServer
from kraft.http.users import user_routes
from kraft.http.v2.consumers_routes import consumer_routes
from kraft.http.v2.transactions import transaction_routes
from kraft.http.v3.consumer_groups import group_routes
from kraft.http.v3.produce_route import route_produce_routes
from kraft.http.v3.share_groups import share_group_routes
from kraft.http.v3.share_records import share_record_routes
from kraft.http.v3.transactions import transaction_admin_routes
from kraft.node.assembly import Node
from kraft.node.evidence import OwnEvidence
from kraft.node.explainer import Explainer
from kraft.node.startup_state import Reminder
from kraft.node.tls_policy import client_port_tls, uses_tls
from kraft.runtime.descriptors import DescriptorShares, TooFewDescriptors, open_now, raise_soft_limit, share_out
from kraft.runtime.environment import close_environment, resize_workers, system_environment
from kraft.runtime.heap import Heap
from kraft.runtime.logs import log_to_standard_error
from kraft.runtime.open_files import CachedFiles
from kraft.runtime.quorum_thread import QuorumThread
from kraft.runtime.reserved_files import ReservedFiles
from kraft.runtime.tls import LOOK_EVERY_MS, NodeTls, TlsFailed
from kraft.runtime.umask import write_for_owner_alone
from kraft.runtime.witness import files_of
from kraft.wire.channels.node_facts import FactsChannel
from kraft.wire.client_counts import software
from metadata.delta import MetadataDelta
from metadata.image import MetadataImage
from metadata.quorum.durable import QuorumStorageError
from metadata.quorum.library import WrongLibrary, verified
from metadata.settings import BrokerSettings
from replication.storage.log_directory import StartupError

FAILED = 1
FILES_TENDED_EVERY_MS = 3_000
"""How often files that are not used are given back: what is idle ten times as long has no descriptor."""
LOOK_MS = 1_000
"""How often a node looks whether it waits for something."""
STOP_GRACE_MS = 4_000
"""What a stop may take besides its controlled shutdown. Then the process ends, and logs where its threads stood."""
STOP_MS_OF_LOG = 2
"""What closing one of thousands of logs may add to that: 20,000 took more than four seconds on a busy machine, and a
node that was ended meanwhile had to look at all of them when it started again."""
YOUNG_OBJECTS = 20_000
"""Between two collections. A request of a thousand records makes thousands, and leaves none: Python's 700 would look
for garbage several times in each."""


def warm_up() -> None:
    """What each node works out once in its process, whatever node it is: the patterns of paths, the library of the
    quorum. Its forks have it."""
    nothing: Any = None
    learn_paths(
        (
            *consumer_routes(nothing, nothing),
            *group_routes(nothing),
            *share_record_routes(nothing),
            *share_group_routes(nothing, nothing),
            *user_routes(nothing, nothing),
            *replica_routes(dict),
            *event_routes(nothing, incarnation=""),
            *live_routes(nothing, lambda scope: nothing),
            *explain_routes(nothing, nothing),
            *coordinated_routes(nothing, nothing, nothing),
        )
    )
    with contextlib.suppress(WrongLibrary):  # each node logs it
        verified()


def run_node(config: ClusterConfig, node_id: int, *, data: str) -> int:
    """Run one node in this process until SIGTERM or SIGINT; returns its exit code. `data` is the cluster's folder."""
    log_to_standard_error()
    try:
        shares = share_out(raise_soft_limit())
    except TooFewDescriptors as error:
        _say(f"node {node_id} failed: {error}")
        return FAILED
    write_for_owner_alone()
    own = config.node(node_id)
    for folder in (own.data, *own.log_dirs):
        _close_to_strangers(folder)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(config, node_id, shares))


async def _serve(config: ClusterConfig, node_id: int, shares: DescriptorShares) -> int:
    try:
        process = _NodeProcess(config, node_id, shares)
    except TlsFailed as error:
        _say(f"node {node_id} failed: {error}")
        return FAILED
    return await process.run()


class _NodeProcess:
    def __init__(self, config: ClusterConfig, node_id: int, shares: DescriptorShares) -> None:
        self._config = config
        self._shares = shares
        self._ending = asyncio.Event()
        self._failure: BaseException | None = None
        threads = config.broker_settings(node_id).background_threads
        files = files_of(os.environ)
        self._heap = Heap(os.environ)
        self._files = CachedFiles(files, open_max=shares.files)
        self._environment = system_environment(threads=threads, files=self._files, connections_max=shares.nodes)
        self._tls = _node_tls(config, node_id, lambda: self._node.publisher.settings)
        self._node = Node(
            config,
            node_id,
            environment=self._environment,
            quorum=QuorumThread(files=ReservedFiles(self._files, files)),
            door=self._http_door,
            on_fatal=self._fail,
            certificates=self._tls,
        )
        self._node.publisher.subscribe(self._on_metadata)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ending.set)
        loop.set_exception_handler(self._on_unhandled)
        _say(f"node {self._node.node.id} runs kraft {kraft.__version__} from {os.path.dirname(kraft.__file__)}")
        tending = [loop.create_task(self._tend_files())]
        if self._tls is not None:
            tending.append(loop.create_task(self._tend_certificates(self._tls)))
        try:
            await self._node.start()
        except (OSError, StartupError, QuorumStorageError) as error:
            self._failure = error
        else:
            _say(f"node {self._node.node.id} started: REST {self._node.node.rest_url}, Kafka {self._node.node.kafka}")
            teller = loop.create_task(self._tell_what_is_awaited())
            gc.collect()
            gc.freeze()  # what lives as long as the node need not be looked at by every collection
            gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
            await self._ending.wait()
            teller.cancel()
        for each in tending:
            each.cancel()
        await self._stop()
        if self._failure is None:
            _say(f"node {self._node.node.id} stopped")
            return 0
        _say(f"node {self._node.node.id} failed: {self._explain(self._failure)}")
        return FAILED

    def _on_metadata(self, delta: MetadataDelta, image: MetadataImage) -> None:
        if delta.changed_configs:
            resize_workers(self._environment, self._node.publisher.settings.background_threads)

    async def _tend_files(self) -> None:
        while True:
            await self._environment.clock.sleep(FILES_TENDED_EVERY_MS)
            await self._environment.workers.run(self._files.tend)
            await self._environment.workers.run(self._heap.tend)

    async def _tend_certificates(self, tls: NodeTls) -> None:
        """New connections get a certificate that was replaced; a broken one changes nothing."""
        environment, events = self._environment, self._node.events
        while True:
            await environment.clock.sleep(LOOK_EVERY_MS)
            try:
                if await environment.workers.run(tls.refresh):
                    events.emit("certificates_loaded")
            except TlsFailed as error:
                events.emit("certificates_not_loaded", error=str(error))

    async def _tell_what_is_awaited(self) -> None:
        """For as long as the node lives: it waits for a quorum for ever, and may lose it again."""
        node, reminder, clock = self._node, Reminder(), self._environment.clock
        while True:
            await clock.sleep(LOOK_MS)
            awaited, had_said = node.awaiting.service(), reminder.has_said
            if reminder.is_due(awaited, clock.monotonic_ms()):
                node.events.emit("node_awaits", awaited=awaited)
                _say(f"node {node.node.id} waits: {awaited}")
            elif had_said and not awaited:
                node.events.emit("node_serves")
                _say(f"node {node.node.id} serves")

    async def _stop(self) -> None:
        """Nothing may keep the process: not a step that fails, and not one that hangs on a device."""
        logs = 0 if self._node.broker is None else self._node.broker.logs.count
        limit_ms = self._node.publisher.settings.controlled_shutdown_timeout_ms + STOP_GRACE_MS + STOP_MS_OF_LOG * logs
        faulthandler.dump_traceback_later(limit_ms / 1_000, exit=True)
        try:
            await self._node.stop()
        except Exception as error:  # noqa: BLE001 - the process ends here; the first failure is the one to report
            self._failure = self._failure or error
        close_environment(self._environment)

    def _fail(self, error: BaseException) -> None:
        """A broken invariant or a hopeless start: the node stops rather than serves."""
        self._failure = self._failure or error
        self._ending.set()

    def _on_unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        loop.default_exception_handler(context)
        if isinstance(error, AssertionError):
            self._fail(error)

    def _explain(self, error: BaseException) -> str:
        text = str(error) or type(error).__name__
        if isinstance(error, OSError) and "address" in text.lower():
            node = self._node.node
            return (
                f"{text}. Node {node.id} wants the ports rest_port = {node.rest_port}, kafka_port = {node.kafka_port}"
                f" and quorum_port = {node.quorum_port}: change the one that is taken in cluster.toml"
            )
        return text

    def _http_door(self, node: Node) -> HttpServer:
        return http_door(node, connections_max=self._shares.clients, gauges=lambda: self._gauges(node))

    def _gauges(self, node: Node) -> dict[str, float]:
        files = self._files.status()
        gauges: dict[str, float] = {
            "events_lost": node.events.lost,
            "metadata_caught_up": float(not node.awaiting.metadata()),
            **node.main_loop.gauges(),
            "descriptors_limit": self._shares.limit,
            "descriptors_refused": files.refused,
            "open_files": files.open,
            "open_files_limit": files.limit,
            "open_files_opened": files.opened,
            "open_files_synced_to_close": files.synced_to_close,
        }
        descriptors = open_now()
        if descriptors is not None:
            gauges["descriptors_open"] = descriptors
        if node.broker is not None:
            gauges |= node.broker.transaction_coordinator.gauges()
            gauges |= node.broker.shares.leaders.gauges()
        if node.controller is not None:
            gauges["active_controller"] = float(node.controller.active.is_active)
        return gauges


def _measures(node: Node) -> Sequence[Measure]:
    if node.broker is None:
        return node.wire.measures()
    open_transactions = node.broker.replicas.open_transactions()
    settings = node.publisher.current_settings()
    return (
        *node.wire.measures(),
        *transaction_measures(open_transactions, max_timeout_ms=settings.transaction_max_timeout_ms),
        *node.broker.shares.leaders.measures(),
    )


def _node_tls(config: ClusterConfig, node_id: int, settings: Callable[[], BrokerSettings]) -> NodeTls | None:
    """None where no listener and no other node has TLS. Raises TlsFailed."""
    if not uses_tls(config):
        return None
    first = config.broker_settings(node_id)
    made: list[NodeTls] = []
    made.append(NodeTls(lambda: settings() if made else first))
    return made[0]


def _close_to_strangers(folder: str) -> None:
    """An earlier version, or a person, let everybody in. A group that was let in stays: nobody does that by chance."""
    try:
        found = os.stat(folder)
    except FileNotFoundError:
        return  # it is made in a moment
    is_ours = found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX
    if is_ours and found.st_mode & stat.S_IRWXO:
        os.chmod(folder, stat.S_IMODE(found.st_mode) & ~stat.S_IRWXO)
        _say(f"{folder} was open to everybody on this machine; it is not any more")


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _http_authentication(node: Node) -> HttpAuthentication | None:
    protocol = node.node.rest_protocol
    return HttpAuthentication(logins=node.logins, is_encrypted=has_tls(protocol)) if has_sasl(protocol) else None


def _cluster_facts(node: Node) -> ClusterFacts:
    return ClusterFacts(
        own=node.facts.facts,
        ask=lambda number, scope: FactsChannel(node.peers, number).ask(scope),
        nodes=lambda: node.gateway.nodes,
        cluster_id=node.gateway.cluster_id,
        node_id=node.gateway.node_id,
        clock=node.environment.clock,
    )


def http_door(node: Node, *, connections_max: int, gauges: Callable[[], Mapping[str, float]]) -> HttpServer:
    """The HTTP listener of a node, with all of its routes; not started."""
    app = create_app(
        node.gateway,
        environment=node.environment,
        events=node.events,
        awaiting=node.awaiting,
        is_strict=node.config.strict,
        own_hosts=[name for each in node.config.nodes for name in (each.host, each.bind_host)],
        connections_max=connections_max,
        authentication=_http_authentication(node),
        gauges=gauges,
        kafka=KafkaPort(
            measures=lambda: _measures(node),
            clients=lambda: software(node.wire.watch.clients),
            answers=node.answers,
        ),
        extra_routes=(
            *consumer_routes(node.groups, node.environment.rng),
            *transaction_routes(node.transactions, node.groups),
            *transaction_admin_routes(node.transactions, node.markers.write),
            *route_produce_routes(RoutedWrites(node.node.id, node.transactions)),
            *group_routes(node.groups),
            *share_record_routes(node.queues),
            *share_group_routes(node.groups, node.queues),
            *user_routes(node.logins.users.is_configured, node.environment.rng),
            *replica_routes(lambda: {} if node.broker is None else node.broker.replicas.describe()),
            *event_routes(node.events.ring, incarnation=str(node.incarnation_id)),
            *live_routes(_cluster_facts(node), node.facts.facts),
            *explain_routes(own := OwnEvidence(node), Explainer(node, own)),
            *coordinated_routes(node.groups, node.queues, node.transactions),
        ),
    )
    tls = client_port_tls(node.config, node.node.rest_protocol, node.certificates)
    return HttpServer(app, host=node.node.bind_host, port=node.node.rest_port, tls=tls)
