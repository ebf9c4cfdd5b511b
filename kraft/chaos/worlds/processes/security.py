"""Faults of security, in a cluster with TLS and users: expired certificates, and a user that is deleted."""

from __future__ import annotations

import asyncio
from pathlib import Path

from kraft.chaos.worlds.processes.nodes import Nodes
from kraft.chaos.worlds.processes.proxy.process import ProxyProcess
from kraft.chaos.worlds.processes.timeline import Timeline
from kraft.chaos.worlds.spec import ScenarioError
from kraft.config.models import ClusterConfig
from kraft.launcher.client_files import USER
from kraft.launcher.client_security import first_user
from kraft.launcher.deleted_users import delete_user, restore_first_user
from kraft.launcher.expired_certificates import write_certificates
from kraft.launcher.processes import LaunchError
from kraft.launcher.runfile import CLIENT_FOLDER


class SecurityFaults:
    def __init__(self, config: ClusterConfig, *, nodes: Nodes, proxies: ProxyProcess, timeline: Timeline) -> None:
        self._data = config.data
        self._nodes = nodes
        self._proxies = proxies
        self._timeline = timeline
        self._expired: dict[int, int] = {}
        """Node -> number of the fault."""
        self._deleted: dict[str, int] = {}
        """User -> number of the fault; only the first user can come back."""

    async def expire_certificates(self, *nodes: int) -> None:
        """New connections to these nodes get an expired certificate: over links at once, to the node itself within a
        second."""
        await self._write(nodes, is_expired=True)
        for node in nodes:
            if node not in self._expired:
                text = f"the certificate of node {node} has expired"
                self._expired[node] = self._timeline.begin("expired_certificate", nodes=[node], text=text)

    async def renew_certificates(self, *nodes: int) -> None:
        await self._write(nodes, is_expired=False)
        for node in nodes:
            if node in self._expired:
                self._timeline.end(self._expired.pop(node))

    async def delete_user(self, name: str) -> None:
        """The user cannot log in any more, and its connections end within a second."""
        try:
            await asyncio.to_thread(delete_user, self._urls(), name)
        except LaunchError as error:
            raise ScenarioError(str(error)) from error
        self._deleted[name] = self._timeline.begin("deleted_user", text=f"user {name} was deleted")

    async def restore_user(self) -> None:
        """The first user can log in again."""
        try:
            login = first_user(Path(self._data, CLIENT_FOLDER))
            await asyncio.to_thread(restore_first_user, self._urls(), login)
        except LaunchError as error:
            raise ScenarioError(str(error)) from error
        if USER in self._deleted:
            self._timeline.end(self._deleted.pop(USER))

    async def heal(self) -> None:
        """Renew the certificates, and bring the first user back: call it when the nodes can be reached."""
        if self._expired:
            await self.renew_certificates(*self._expired)
        if USER in self._deleted:
            await self.restore_user()

    def _urls(self) -> list[str]:
        return [self._nodes.rest(node) for node in self._nodes.running()]

    async def _write(self, nodes: tuple[int, ...], *, is_expired: bool) -> None:
        if self._nodes.client_folder is None:
            raise ScenarioError("the cluster has no certificates: start it with security")
        for node in nodes:
            self._nodes.config(node)
        await asyncio.to_thread(write_certificates, self._data, nodes, is_expired=is_expired)
        await self._proxies.load_certificates()
