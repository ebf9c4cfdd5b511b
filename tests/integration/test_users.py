"""Users over HTTP and on the command line, on real nodes with TLS and logins."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from kraft.broker.logins import GUESSES_MAX
from kraft.client import Client
from kraft.client.blocking_transport import send
from kraft.client.credentials import Credentials, remember
from kraft.client.response import Answer, Request
from tests.integration.support.cluster import Cluster, kraft
from tests.integration.support.secured import secured_cluster

pytestmark = pytest.mark.long

USERS = "".join(f'[[users]]\nname = "{name}"\npassword = "first password"\n' for name in ("admin", "carol"))


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    yield from secured_cluster(tmp_path_factory.mktemp("users"), protocol="SASL_SSL", tail=USERS)


def _certs(nodes: Cluster) -> Path:
    return Path(nodes.data).parent / "certs"


def _ask(nodes: Cluster, path: str, authorization: str | None = None, certificate: str | None = None) -> Answer:
    """A request of a stranger to this machine's data folder."""
    url = nodes.nodes[0].rest.replace("https://", "https://stranger@")
    remember(url, Credentials(ca=str(_certs(nodes) / "ca.pem"), certificate=certificate))
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = send(url, Request(method="GET", path=path, headers=headers, timeout_ms=20_000))
    assert isinstance(answer, Answer), answer
    return answer


def _basic(user: str, password: str) -> str:
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


def test_a_user_is_added_logs_in_and_is_deleted(nodes: Cluster, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("pencil, and more\n")
    password.chmod(0o600)
    kraft("users", "add", "alice", "--password-file", str(password), "--data", nodes.data)
    assert "alice" in kraft("users", "list", "--data", nodes.data).stdout
    ca = str(_certs(nodes) / "ca.pem")
    with Client(nodes.nodes[1].rest, user="alice", password="pencil, and more", ca=ca) as client:
        client.admin.create_topic("of-alice", partitions=1)
    assert _ask(nodes, "/topics", _basic("alice", "pencil, and more")).status == 200
    kraft("users", "delete", "alice", "--data", nodes.data)
    assert _ask(nodes, "/topics", _basic("alice", "pencil, and more")).status == 401
    password.chmod(0o644)
    refused = kraft("users", "add", "bob", "--password-file", str(password), "--data", nodes.data, check=False)
    assert "everybody" in refused.stderr


def test_a_user_of_the_file_is_deleted_and_may_come_back(nodes: Cluster, tmp_path: Path) -> None:
    file_s = _basic("carol", "first password")
    assert _ask(nodes, "/topics", file_s).status == 200
    kraft("users", "delete", "carol", "--data", nodes.data)
    assert _ask(nodes, "/topics", file_s).status == 401
    again = kraft("users", "delete", "carol", "--data", nodes.data, check=False)
    assert "there is no user 'carol'" in again.stderr
    password = tmp_path / "password"
    password.write_text("another one\n")
    password.chmod(0o600)
    kraft("users", "add", "carol", "--password-file", str(password), "--data", nodes.data)
    assert _ask(nodes, "/topics", file_s).status == 401
    assert _ask(nodes, "/topics", _basic("carol", "another one")).status == 200


def test_who_shows_nothing_gets_401_but_for_probes(nodes: Cluster) -> None:
    refused = _ask(nodes, "/topics")
    assert (refused.status, refused.headers["www-authenticate"]) == (401, 'Basic realm="kraft", Bearer realm="kraft"')
    assert _ask(nodes, "/readyz").status == _ask(nodes, "/healthz").status == 200
    for wrong in ("Basic x", "Basic " + "A" * 9_000, "Bearer kraft1.9999999999.00", "Bearer a.b.c", "Digest x", ""):
        assert _ask(nodes, "/topics", wrong).status in (401, 429), wrong


def test_a_client_certificate_is_a_login(nodes: Cluster) -> None:
    assert _ask(nodes, "/topics", certificate=str(_certs(nodes) / "alice.pem")).status == 200


def test_guesses_are_limited(nodes: Cluster) -> None:
    """The last test of the module: its address is the one of all the others."""
    found = [_ask(nodes, "/topics", _basic("admin", f"guess {number}")).status for number in range(3 * GUESSES_MAX)]
    assert found[0] in (401, 429)
    assert 429 in found
    assert set(found) <= {401, 429}
