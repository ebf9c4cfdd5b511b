"""The console beside a secure cluster, and each screen of a node as a user sees it who may do little."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.browser.chromium import Page
from tests.integration.browser.launched import Launched, press
from tests.integration.support.cluster import kraft
from tests.integration.support.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(280)]
PASSWORD = "of bob alone"
SAYS = {
    "cluster": "3 of 3",
    "partitions": "1 of 1 partitions",
    "partition/orders-0": "leader epoch",
    "partition/hidden-0": "No node knows this partition, or you may not describe its topic",
    "timeline": "orders-0",
    "groups": "There is no consumer group",
    "queues": "There is no share group",
    "transactions": "No producer has a transactional id",
    "messages/orders-0": "next has offset",
    "messages/hidden-0": "Topic authorization failed",
    "node/1": "active",
}
"""What each screen shows of what its user may see, or says of what is missing."""


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    folder = tmp_path_factory.mktemp("secure")
    made = Launched("--secure", "--free-ports", data=str(folder / "data"))
    try:
        password = folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o600)
        data = ("--data", str(folder / "data"))
        kraft("users", "add", "bob", "--password-file", str(password), *data)
        for topic in ("orders", "hidden"):
            kraft("topics", "create", topic, *data)
        who = ("acls", "create", "--principal", "User:bob")
        kraft(*who, "--operation", "Describe", "--cluster", *data)
        kraft(*who, "--operation", "Read", "--operation", "Describe", "--topic", "orders", *data)
        yield made
    finally:
        made.end()


def rest_of(launched: Launched) -> str:
    return str(launched.facts["nodes"][0]["rest"])


def test_the_console_of_a_secure_cluster_needs_its_token_and_works(secure: Launched, page: Page) -> None:
    plain, token, _ = secure.console.partition("?token=")
    assert token, secure.console
    for url in (plain, f"{plain}?token=other", f"{plain}/act"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url, timeout=20)
        assert refused.value.code == 401
        refused.value.close()
    page.open(secure.console)
    assert "token" not in page.driver.current_url
    page.wait_for("3 of 3")
    page.driver.execute_script("document.querySelector('#w-client').value = 'kafka'")
    press(page, "Start")
    page.wait_for("acknowledged", ".counts", deadline_s=60)
    press(page, "Heal and judge")
    page.wait_for("acknowledged records are there", ".verdict", deadline_s=120)
    assert page.violations() == []
    assert page.complaints() == []


def test_each_screen_shows_what_its_user_may_see_and_names_what_is_missing(secure: Launched, page: Page) -> None:
    page.log_in("bob", PASSWORD)
    page.open(f"{rest_of(secure)}/console")
    for screen, text in SAYS.items():
        page.driver.get(f"{rest_of(secure)}/console#/{screen}")
        page.wait_for(text)
        if "hidden" not in screen:
            assert "hidden-" not in page.text(), screen
    assert page.violations() == []


def test_who_may_not_describe_the_cluster_reads_why(secure: Launched, page: Page, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    password.chmod(0o600)
    kraft("users", "add", "eve", "--password-file", str(password), "--data", secure.data)
    page.log_in("eve", PASSWORD)
    page.driver.get(f"{rest_of(secure)}/console")
    page.wait_for("refuses the data of this page", "#notice")
    wait_until(lambda: page.text(".pill") == "refused", what="the pill")
    assert "orders" not in page.text()
