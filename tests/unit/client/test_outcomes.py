"""What a client may conclude from what it was told."""

from __future__ import annotations

import pytest

from kraft.client import outcome as outcomes
from kraft.protocol.errors import BY_CODE


@pytest.mark.parametrize("code", [19, 21, 10, 47, 48, 90, 2, 3, 5, 18, 32, 42, 87, 100])
def test_surely_not_done(code: int) -> None:
    assert outcomes.of_code(code) == "fail"
    assert outcomes.of_answer(200, code) == "fail"
    assert outcomes.of_answer(500, code) == "fail", "the code decides, not the status"


@pytest.mark.parametrize("code", [6, 7, 20, 13, 56, -1, 9_999])
def test_nobody_knows(code: int) -> None:
    assert outcomes.of_code(code) == "info"
    assert outcomes.of_answer(404, code) == "info"


def test_no_code_is_both() -> None:
    assert not outcomes.SURELY_NOT_DONE.keys() & outcomes.INDEFINITE.keys()


@pytest.mark.parametrize("code", [*outcomes.SURELY_NOT_DONE, *outcomes.INDEFINITE])
def test_each_code_is_reported_by_its_name(code: int) -> None:
    text = {**outcomes.SURELY_NOT_DONE, **outcomes.INDEFINITE}[code]
    assert ": " in text
    if code in BY_CODE:
        assert text.startswith(BY_CODE[code].name)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, "ok"),
        (204, "ok"),
        (400, "fail"),
        (404, "fail"),
        (408, "info"),
        (500, "info"),
        (503, "info"),
        (302, "info"),
    ],
)
def test_an_answer_without_a_code(status: int, outcome: str) -> None:
    assert outcomes.of_answer(status, None) == outcome


def test_what_the_transport_reports() -> None:
    assert outcomes.of_answer(200, 0) == "ok"
    assert outcomes.of_refused_connection() == "fail"
    assert outcomes.of_broken_connection() == "info"
    assert outcomes.of_sent_without_answer() == "ok"


@pytest.mark.parametrize(
    ("attempts", "outcome"),
    [
        (["ok"], "ok"),
        (["info", "ok"], "ok"),
        (["fail", "fail"], "fail"),
        (["info", "fail"], "info"),
        (["fail", "info", "fail"], "info"),
        ([], "info"),
    ],
)
def test_an_operation_is_as_sure_as_its_least_sure_attempt(attempts: list[outcomes.Outcome], outcome: str) -> None:
    assert outcomes.of_attempts(attempts) == outcome
