"""The switches of a launcher's console: another address with its token, read-only, without contents of records."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.browser.chromium import Page
from tests.integration.browser.launched import Launched, press
from tests.integration.support.cluster import kraft

pytestmark = [pytest.mark.browser, pytest.mark.timeout(280)]
CHANGES = {"Content-Type": "application/json", "X-Kraft-Console": "1"}
RECORDS = "/node/1/topics/orders/partitions/0/records?offset=0"


def launched(folder: Path, *options: str) -> Iterator[Launched]:
    made = Launched("--free-ports", *options, data=str(folder / "data"))
    try:
        kraft("topics", "create", "orders", "--data", made.data)
        yield made
    finally:
        made.end()


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    yield from launched(tmp_path_factory.mktemp("outside"), "--console-host", "0.0.0.0", "--console-no-contents")


@pytest.fixture(scope="module")
def read_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    yield from launched(tmp_path_factory.mktemp("read-only"), "--console-read-only")


def answer(url: str, asked: Any = None, **headers: str) -> tuple[int, str]:
    body = None if asked is None else json.dumps(asked).encode()
    request = urllib.request.Request(url, data=body, headers={**(CHANGES if body else {}), **headers})
    try:
        with urllib.request.urlopen(request, timeout=20) as found:
            return found.status, found.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_beyond_loopback_nobody_is_answered_without_the_token(outside: Launched, page: Page) -> None:
    link = outside.console.replace("0.0.0.0", "127.0.0.1")
    plain, _, token = link.partition("?token=")
    root, _, port = plain.removesuffix("/console").rpartition(":")
    assert len(token) == 48
    for path in ("/console", "/console?token=0", "/console/console.js", "/kraft/live", RECORDS, "/console/save/story"):
        assert answer(f"{root}:{port}{path}")[0] == 401, path
    assert answer(f"{plain}/act", {"do": "kill", "nodes": [1]})[0] == 401
    page.open(link)
    assert page.driver.current_url.partition("#")[0] == plain
    (cookie,) = page.driver.get_cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    page.wait_for("3 of 3")
    press(page, "Kill node 3")
    page.wait_for("2 of 3")
    press(page, "Heal everything")
    page.wait_for("3 of 3", deadline_s=60)
    assert page.violations() == []
    assert "Messages" not in page.text("nav")
    mine = {"Cookie": f"{cookie['name']}={token}"}
    status, text = answer(f"{root}:{port}{RECORDS}", **mine)
    assert (status, "no contents of records" in text) == (422, True)
    assert answer(f"{root}:{port}/node/1/topics/orders", **mine)[0] == 200


def test_a_read_only_console_has_no_buttons_and_refuses_changes(read_only: Launched, page: Page) -> None:
    page.open(read_only.console)
    page.wait_for("This console is read-only")
    page.wait_for("3 of 3")
    assert {each.text for each in page.all("main button") if each.is_displayed()} <= {"Why?"}
    page.driver.get(f"{read_only.console}#/messages/orders-0")
    page.wait_for("next has offset")
    root = read_only.console.removesuffix("/console")
    for asked in ({"do": "kill", "nodes": [1]}, {"do": "begin_workload", "topic": "orders"}, {"do": "run_scenario"}):
        status, text = answer(f"{root}/console/act", asked)
        assert (status, "--console-read-only" in text) == (422, True), asked
    status, text = answer(f"{root}/node/1/topics/orders", {"records": [{"value": "YQ=="}]})
    assert (status, "--console-read-only" in text) == (422, True)
    assert answer(f"{root}{RECORDS}", Accept="application/vnd.kafka.binary.v2+json") == (200, "[]")
    assert page.violations() == []
