"""`tls_mode`: what each row takes and dials, and that each row works together with its neighbours."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
from pydantic import SecretStr

from kraft.config.models import ClusterConfig
from kraft.config.parse import parse_config
from kraft.config.problems import ConfigError
from kraft.config.render import render
from kraft.node import tls_policy


class Side:
    """Implements `Tls`."""

    def __init__(self, *, takes_plain: bool = False) -> None:
        self.takes_plain = takes_plain

    def context(self) -> object:
        raise AssertionError("nothing is dialed")


class Sides:
    """Implements `Certificates`."""

    server = Side()
    either = Side(takes_plain=True)
    client = Side()


def config(mode: str | None, protocol: str = "PLAINTEXT") -> ClusterConfig:
    head = "" if mode is None else f"tls_mode = '{mode}'\n"
    parsed = parse_config(f"{head}[[nodes]]\nid = 1\nkafka_protocol = '{protocol}'\nrest_protocol = '{protocol}'\n")
    return ClusterConfig(
        cluster_id="c",
        secret=SecretStr("12345678"),
        data="d",
        settings=parsed.settings,
        nodes=parsed.nodes,
        tls_mode=parsed.tls_mode,
    )


def reaches(dials: ClusterConfig, answers: ClusterConfig, *, quorum: bool) -> bool:
    """Whether a node of one configuration, which believes that its peers have the same, gets into one of the other."""
    sends_tls = tls_policy.dial_tls(dials, dials.node(1), Sides()) is not None
    port = tls_policy.quorum_port_tls if quorum else tls_policy.shared_port_tls
    found = port(answers, answers.node(1), Sides())
    if found is None or sends_tls:
        return (found is None) == (not sends_tls)
    return found.takes_plain and (quorum or not tls_policy.nodes_need_tls(answers))


STEPS = [
    config(None),
    config("allow"),
    config("prefer"),
    config("prefer", "SASL_SSL"),
    config("require", "SASL_SSL"),
    config(None, "SASL_SSL"),
]


@pytest.mark.parametrize("quorum", [True, False])
def test_nodes_of_two_neighbouring_steps_reach_each_other(quorum: bool) -> None:
    for before, after in pairwise(STEPS):
        for dials, answers in product((before, after), repeat=2):
            assert reaches(dials, answers, quorum=quorum), (dials.tls_mode, answers.tls_mode)
    assert not reaches(STEPS[2], STEPS[0], quorum=quorum), "a step that is left out is an outage"


def test_the_last_steps_refuse_nodes_without_tls() -> None:
    for last in (*STEPS[-2:], config("require")):
        for quorum in (True, False):
            assert not reaches(config(None), last, quorum=quorum)
            assert not reaches(config("allow"), last, quorum=quorum)


def test_a_port_of_clients_takes_both_while_its_protocol_has_no_tls() -> None:
    sides = Sides()
    assert tls_policy.client_port_tls(config(None), "PLAINTEXT", sides) is None
    assert tls_policy.client_port_tls(config("prefer"), "SASL_SSL", sides) is sides.server
    for mode in ("allow", "prefer", "require"):
        assert tls_policy.client_port_tls(config(mode), "PLAINTEXT", sides) is sides.either
    assert not tls_policy.uses_tls(config(None))
    assert tls_policy.uses_tls(config("allow"))


def test_the_mode_is_a_key_of_the_file_and_reaches_the_nodes() -> None:
    rendered = render(config("prefer"), secret_file="s")
    assert parse_config(rendered).tls_mode == "prefer"
    with pytest.raises(ConfigError, match="tls_mode"):
        parse_config("tls_mode = 'maybe'\n[[nodes]]\nid = 1\n")
