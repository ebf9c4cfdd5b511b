"""A browser for each test, and nothing to complain of at its end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

selenium = pytest.importorskip("selenium", reason="the extra `browser` is not installed")

from tests.integration.browser.chromium import CHROMIUM, DRIVER, Page, browser  # noqa: E402
from tests.integration.browser.launched import Faulty  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = pytest.mark.skip(reason="there is no chromium with chromedriver here")
    for item in items:
        if "integration/browser" in str(item.path) and not (CHROMIUM and DRIVER):
            item.add_marker(missing)


@pytest.fixture
def page() -> Iterator[Page]:
    with browser() as found:
        yield found


@pytest.fixture(scope="session")
def faulty() -> Iterator[Faulty]:
    """One for all tests; each of them heals what it breaks."""
    made = Faulty()
    try:
        yield made
    finally:
        made.end()
