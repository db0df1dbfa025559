"""Directories of `redan dev`: whose they are, and what is refused before any process is started."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from kvservice.cli_dev import dev_command
from kvservice.local_cluster import HOST, NODES, PLANES, LocalCluster, NoCluster, PortsTaken


def ports(cluster: LocalCluster) -> list[int]:
    return [node.ports[plane] for node in cluster.nodes for plane in PLANES]


def test_a_cluster_has_three_nodes_unless_more_are_wanted_and_ports_of_their_own(tmp_path: Path) -> None:
    assert [node.name for node in LocalCluster(tmp_path / "a", None).nodes] == ["n1", "n2", "n3"]
    five = ports(LocalCluster(tmp_path / "b", 5))
    assert len(set(five)) == 5 * len(PLANES)


def test_a_directory_that_is_kept_says_how_many_nodes_there_are_and_where(tmp_path: Path) -> None:
    first = LocalCluster(tmp_path, 2)
    for count in (None, 2):
        assert ports(LocalCluster(tmp_path, count)) == ports(first)
    with pytest.raises(NoCluster, match="holds a cluster of 2, and --nodes says 5"):
        LocalCluster(tmp_path, 5)
    assert NODES == 3


def test_ports_that_somebody_else_has_are_named(tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path, 1)
    port = cluster.nodes[0].ports["grpc"]
    with socket.create_server((HOST, port)), pytest.raises(PortsTaken, match=f"n1 grpc {HOST}:{port}"):
        LocalCluster(tmp_path, 1)


@pytest.mark.parametrize("content", ["{", "[]", '{"n1": {}}', '{"n1": {"resp": "x"}}', '{"n1": 7}'])
def test_a_directory_that_cannot_be_read_is_refused(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cluster.json").write_text(content)
    assert dev_command(None, tmp_path, []) == 2
    assert f"redan: {tmp_path}/cluster.json cannot be read" in capsys.readouterr().err


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert dev_command(3, tmp_path / "file", []) == 2
    assert "cannot be used" in capsys.readouterr().err
