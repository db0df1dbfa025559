from __future__ import annotations

import pytest

from tests.harness.inprocess import InProcess


@pytest.fixture
def ours() -> InProcess:
    """Our handlers on an empty keyspace."""
    return InProcess()
