from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.inprocess import InProcess
from tests.harness.oracle import REDIS_SERVER, Oracle


@pytest.fixture
def ours() -> InProcess:
    """Our handlers on an empty keyspace."""
    return InProcess()


@pytest.fixture(scope="session")
def oracle() -> Iterator[Oracle]:
    """A real redis-server."""
    if REDIS_SERVER is None:
        pytest.skip("redis-server is not installed, so there is nothing to compare with")
    with Oracle() as server:
        yield server
