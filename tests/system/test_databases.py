"""Fewer databases than the data uses: refused by name, nothing lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.process import NodeProcess


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_fewer_databases_than_the_data_uses_are_refused_by_name(tmp_path: Path, end: str) -> None:
    with NodeProcess(tmp_path) as node:
        with node.client() as client:
            client.execute_command("SELECT", 9)
            client.set("key", "value")
        getattr(node, end)()
    with pytest.raises(RuntimeError, match=r"(?s)ended with 2.*the data uses database 9.*--databases 10 or more"):
        NodeProcess(tmp_path, "--databases", "9").start()
    with NodeProcess(tmp_path, "--databases", "10") as node, node.client() as client:
        client.execute_command("SELECT", 9)
        assert client.get("key") == b"value"
