"""Nodes of one cluster that differ in ``read_mode`` or ``election_timeout_ms``: it is said, and reads go by rounds."""

from __future__ import annotations

from pathlib import Path

from tests.harness.cluster_processes import ClusterProcesses, store
from tests.harness.failovers import raft_of

SAID = "lease_not_honoured"


def test_nodes_that_rest_on_leases_name_the_one_that_honours_none(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 3, "--read-mode", "lease") as cluster:
        n1, n2, n3 = cluster.nodes.values()
        assert {raft_of(node)["raft_read_mode"] for node in (n1, n2, n3)} == {"lease"}
        assert not any(node.has_said(SAID) for node in (n1, n2, n3))
        n3.stop()
        # The later of two options counts.
        n3._options = (*n3._options, "--read-mode", "linearizable", "--election-timeout-ms", "500")
        n3.start()
        theirs = {"peer_read_mode": "linearizable", "peer_election_timeout_ms": 500}
        for node in (n1, n2):
            cluster.until(
                lambda node=node: node.has_said(SAID, peer="n3", read_mode="lease", election_timeout_ms=400, **theirs),  # type: ignore[misc]
                f"{node.name} to say so",
            )
        assert raft_of(n3)["raft_read_mode"] == "linearizable"
        cluster.leader()
        store(n1.client(), "k", "v")
        assert [node.client().get("k") for node in (n1, n2, n3)] == [b"v"] * 3
        assert not n3.has_said(SAID)
