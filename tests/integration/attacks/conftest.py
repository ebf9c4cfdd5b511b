"""One running cluster for all attacks: whatever one of them does, the next must find it whole."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.attacks.attack import WITNESS
from tests.integration.conftest import run_cluster, share
from tests.integration.support.cluster import Cluster
from tests.integration.support.configuration import REPLICATED


@pytest.fixture(scope="session")
def attacked_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three ready nodes, default limits. Attacks end no node, so nothing is healed between them."""
    for cluster in share("attacked_cluster", run_cluster(tmp_path_factory.mktemp("attacked"), settings=REPLICATED)):
        cluster.create_topic(WITNESS)
        yield cluster
