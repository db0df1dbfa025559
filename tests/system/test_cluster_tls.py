"""Real nodes that speak mutual TLS with each other: who has no certificate of theirs does not come in, and is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from replication.peer_channel import PeerTls
from tests.harness.certificates import OPENSSL, authority, certificate
from tests.harness.cluster_processes import ClusterNode, ClusterProcesses, free_ports

pytestmark = pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")


def options(tls: PeerTls) -> tuple[str, ...]:
    files = (str(tls.certificate), str(tls.key), str(tls.authority))
    return tuple(
        part for flag, file in zip(("cert", "key", "ca"), files, strict=True) for part in (f"--peer-tls-{flag}", file)
    )


def test_only_nodes_with_a_certificate_of_the_clusters_authority_come_in(tmp_path: Path) -> None:
    ours = authority(tmp_path, "ours")
    theirs = authority(tmp_path, "theirs")
    with ClusterProcesses(tmp_path, 2, *options(certificate(tmp_path, "node", ours))) as cluster:
        assert cluster["n1"].client().set("k", "v")
        assert cluster["n2"].client().get("k") == b"v"
        stranger = certificate(tmp_path, "stranger", theirs)
        # One of another authority, one that trusts the right one and shows a wrong certificate, and one without TLS.
        outsiders = [options(stranger), options(stranger._replace(authority=ours)), ()]
        joining = [
            ClusterNode(
                f"n{number}", tmp_path / f"n{number}", free_ports(1)[0], "--join", cluster["n1"].peer_address, *given
            )
            for number, given in enumerate(outsiders, 3)
        ]
        try:
            for node in joining:
                node.launch()
            for node in joining:
                cluster.until(lambda node=node: node.has_said("cluster_awaited"), f"{node.name} to be kept out")  # type: ignore[misc]
                (awaited, *_) = [line for line in node.events() if line["event"] == "cluster_awaited"]
                assert f"{cluster['n1'].peer_address}: UNAVAILABLE" in str(awaited["missing"])
        finally:
            for node in joining:
                node.kill()
        assert [row["name"] for row in cluster.ctl("members")] == ["n1", "n2"]
        joined = cluster.joining("n6").start()
        assert joined.client().get("k") == b"v"


def test_a_start_without_a_certificate_that_can_be_used_ends_with_1(tmp_path: Path) -> None:
    tls = certificate(tmp_path, "node", authority(tmp_path, "ours"))
    other = certificate(tmp_path, "other", authority(tmp_path, "ours"))
    node = ClusterNode("n1", tmp_path / "n1", free_ports(1)[0], *options(tls._replace(key=other.key)))
    node.launch()
    assert node.wait() == 1
    (failed,) = [line for line in node.events() if line["event"] == "listen_failed"]
    assert f"{tls.certificate} and {other.key} are no certificate" in str(failed["error"])
