"""The clusters of one process of a run of pytest: one that all processes share, and those that a test may break.

The shared one lives in a folder whose name all workers of xdist know, and ends with the controlling process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import Any, Final

from kraft.launcher.client_security import ClientSecurity
from kraft.launcher.forks import end_fork_server
from kraft.testing.assertions import Record, Sent, Verdict, create_topic, judged, records_of, verdict_of
from kraft.testing.cluster import Cluster, ClusterFailed, Setting
from kraft.testing.faults import FaultCluster
from kraft.testing.queues import Queue

TOPIC_CHARACTERS_MAX: Final = 100
"""Characters of a test's name in the name of its topic; Kafka's limit is 249."""
AnyCluster = Cluster | FaultCluster


def end_shared(folder: str) -> None:
    """End the shared cluster; nothing of it is left when this returns."""
    end_fork_server(folder)


class KafkaCluster:
    """The fixture `kafka_cluster`: the cluster of the running test."""

    def __init__(self, session: KafkaSession) -> None:
        self._session = session

    @property
    def _now(self) -> AnyCluster:
        return self._session.current()

    @property
    def bootstrap_servers(self) -> str:
        """host:port,host:port"""
        return self._now.bootstrap_servers

    @property
    def rest_url(self) -> str:
        return self._now.rest_url

    @property
    def rest_urls(self) -> dict[int, str]:
        """URLs by node."""
        return self._now.rest_urls

    @property
    def security(self) -> ClientSecurity:
        """The login of the first user; only in a cluster of `pytest.mark.kafka_cluster(secure=True)`."""
        return self._now.security

    @property
    def cluster_id(self) -> str:
        return self._now.cluster_id

    @property
    def data(self) -> str:
        """The folder that it runs from: `--data` of commands."""
        return str(self._now.data)

    @property
    def ids(self) -> list[int]:
        return self._now.ids

    def leader_of(self, topic: str, partition: int = 0) -> int:
        return self._now.leader_of(topic, partition)

    def create_topic(
        self,
        topic: str,
        *,
        partitions: int = 1,
        replicas: int | None = None,
        configs: Mapping[str, Setting] | None = None,
    ) -> None:
        """Create a topic; return when every node knows it and its leaders. Raises ClusterFailed."""
        now = self._now
        if isinstance(now, FaultCluster):
            now.create_topic(topic, partitions=partitions, replicas=replicas, configs=configs)
            return
        create_topic(
            self._running(),
            now.cluster_id,
            topic,
            partitions=partitions,
            replicas=replicas,
            configs=dict(configs or {}),
        )

    def new_topic(self, test: str, **options: Any) -> str:
        """Create a topic that no other test uses; its name has the test's."""
        name = self._session.topic_name(test)
        self.create_topic(name, **options)
        return name

    def records(self, topic: str) -> list[Record]:
        """All records, by partition and offset."""
        now = self._now
        if isinstance(now, FaultCluster):
            return now.records(topic)
        return records_of(self._running(), topic)

    def queue(self, group: str) -> Queue:
        """Checks of a queue (share group): accepted once, nothing in flight, dead letters."""
        return Queue(group, rest_urls=self._running, records=self.records)

    def _running(self) -> list[str]:
        now = self._now
        return [now.rest_urls[node] for node in now.ids if now.state(node) == "running"]

    def verdict(self, sent: Iterable[Sent]) -> Verdict:
        """The checker's result, for records that the test has sent with a client of its own."""
        return self._session.verdict(list(sent))

    # --- faults of nodes, in a cluster of the test's own ------------------------------------------------------------

    def kill(self, *nodes: int) -> None:
        """Kill with -9."""
        self._own("kill").kill(*nodes)

    def stop(self, *nodes: int) -> None:
        """Stop cleanly."""
        self._own("stop").stop(*nodes)

    def pause(self, *nodes: int) -> None:
        self._own("pause").pause(*nodes)

    def resume(self, *nodes: int) -> None:
        self._own("resume").resume(*nodes)

    def restart(self, *nodes: int) -> None:
        self._own("restart").restart(*nodes)

    def expire_certificate(self, *nodes: int) -> None:
        """The certificates of nodes have expired, for new connections within a second."""
        self._own("expire the certificate of").expire_certificate(*nodes)

    def renew_certificate(self, *nodes: int) -> None:
        self._own("renew the certificate of").renew_certificate(*nodes)

    def delete_user(self, name: str | None = None) -> None:
        """A user cannot log in any more; default: the first user."""
        self._own("delete a user of").delete_user(name)

    def restore_user(self) -> None:
        """The first user can log in again."""
        self._own("restore a user of").restore_user()

    def _own(self, what: str) -> AnyCluster:
        if self._session.is_shared:
            raise ClusterFailed(
                f"other tests use this cluster, too: to {what} a node, use the fixture kafka_faults, or mark the "
                "test with pytest.mark.kafka_cluster(), and it gets a cluster of its own"
            )
        return self._now


class KafkaSession:
    """`begin` and `end` are called around every test that uses one of the fixtures."""

    def __init__(self, *, folder: str, owner_pid: int, lock: str, report: str) -> None:
        """`folder`: that of the shared cluster. `lock`: a folder that all processes of the run see; the process that
        starts the shared cluster holds a lock on it. `report`: a folder for HTML reports; empty: none."""
        self.cluster = KafkaCluster(self)
        self._folder = folder
        self._owner_pid = owner_pid
        self._lock = lock
        self._report = report
        self._shared: Cluster | None = None
        self._own: Cluster | None = None
        self._faults: FaultCluster | None = None
        """Healthy, for the next test that breaks it."""
        self._broken: FaultCluster | None = None
        """The cluster of the running test."""
        self._numbers = count(1)
        self._test = ""
        self._asked_own: dict[str, Any] | None = None
        self._has_faults = False
        self._is_used = False
        """Whether the running test uses a cluster."""
        self._since_us = 0

    # --- the running test -------------------------------------------------------------------------------------------

    def begin(self, test: str, *, own: dict[str, Any] | None, has_faults: bool) -> None:
        """`own`: properties of a cluster of the test's own; None: it needs none."""
        self._test, self._asked_own, self._has_faults = test, own, has_faults
        self._is_used = False
        self._since_us = time.monotonic_ns() // 1_000

    def never_met(self) -> str:
        """Faults of requests that the test requested and that no request met. Empty: none."""
        try:
            never = self._broken.never() if self._broken is not None else []
        except ClusterFailed as error:
            return str(error)
        if not never:
            return ""
        return f"no request ever met this, so the test has not tested it: {'; '.join(never)}"

    def end(self) -> None:
        """Heal everything; a cluster that is not healthy again is not used a second time."""
        try:
            if self._own is not None:
                self._own.close()
            if self._broken is not None and (self._broken is not self._faults or not self._is_whole(self._broken)):
                self._broken.close()
                self._faults = None if self._broken is self._faults else self._faults
        finally:
            self._own = self._broken = self._asked_own = None
            self._has_faults = self._is_used = False

    def _is_whole(self, faults: FaultCluster) -> bool:
        try:
            return bool(faults.end_span()["is_whole"])
        except ClusterFailed:
            return False

    def timeline(self) -> str:
        """The events on the cluster of the test, for people; and the report, if it was requested."""
        if not self._is_used:
            return ""
        folder = os.path.join(self._report, re.sub(r"[^A-Za-z0-9_.-]+", "_", self._test)) if self._report else ""
        try:
            if self._broken is not None:
                found = self._broken.timeline(name=self._test, report=folder)
            else:
                data = str(self.current().data)
                found = judged(data, (), since_us=self._since_us, name=self._test, report=folder)
        except ClusterFailed as error:
            return f"there is no timeline: {error}"
        lines = [*found["timeline"]] or ["nothing happened to its leaders, its ISRs or its nodes"]
        return "\n".join([*lines, *([f"report: {found['page']}"] if found["page"] else [])])

    # --- clusters ---------------------------------------------------------------------------------------------------

    @property
    def is_shared(self) -> bool:
        return self._asked_own is None and not self._has_faults

    def current(self) -> AnyCluster:
        """The test's cluster. Raises ClusterFailed when it does not start."""
        self._is_used = True
        if self._has_faults:
            return self.faults()
        if self._asked_own is not None:
            if self._own is None:
                self._own = Cluster(**self._asked_own, owner_pid=self._owner_pid, power_loss=True).start()
            return self._own
        if self._shared is None:
            self._shared = self._start_or_join()
        return self._shared

    def faults(self) -> FaultCluster:
        """A healthy cluster for this test alone. Raises ClusterFailed when it does not start."""
        self._has_faults = self._is_used = True
        if self._broken is None:
            if self._asked_own is not None:
                self._broken = FaultCluster(**self._asked_own).start()
            else:
                self._faults = self._broken = self._faults or FaultCluster().start()
            self._broken.begin_span()
        return self._broken

    def _start_or_join(self) -> Cluster:
        with self._locked():
            if os.path.exists(self._folder):
                return Cluster.attach(self._folder)
            return Cluster(temporary_folder=self._folder, owner_pid=self._owner_pid).start()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock a folder that exists anyway: a killed run would leave a file of its own behind."""
        descriptor = os.open(self._lock, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError:  # a file system without locks
                os.close(descriptor)
                descriptor = os.open(tempfile.gettempdir(), os.O_RDONLY)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def topic_name(self, test: str) -> str:
        readable = re.sub(r"[^A-Za-z0-9._-]+", "-", test)[:TOPIC_CHARACTERS_MAX].strip("-.") or "topic"
        return f"{readable}-{os.getpid()}-{next(self._numbers)}"

    def verdict(self, sent: list[Sent]) -> Verdict:
        now = self.current()
        if isinstance(now, FaultCluster):
            return now.verdict(sent)
        found = judged(str(now.data), sent, since_us=self._since_us, name=self._test)
        return verdict_of(found["verdict"])

    def close(self) -> None:
        """Close; the shared cluster ends with the process that it lives with."""
        for cluster in (self._own, self._broken, self._faults):
            if cluster is not None:
                cluster.close()
        self._own = self._broken = self._faults = None
