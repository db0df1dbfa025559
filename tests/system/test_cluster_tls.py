"""Real nodes that speak mutual TLS with each other: who has no certificate of theirs does not come in, and is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvservice.cli_settings import serve_command
from replication.peer_pems import PeerTls
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
        # gRPC's core would write of every handshake that fails, in a form of its own.
        for node in (*cluster.nodes.values(), *joining):
            assert all(line.startswith("{") for line in node.log_path.read_text().splitlines()), node.name
        assert [row["name"] for row in cluster.ctl("members")] == ["n1", "n2"]
        joined = cluster.joining("n6").start()
        assert joined.client().get("k") == b"v"


def test_a_certificate_that_cannot_be_used_is_refused_as_a_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tls = certificate(tmp_path, "node", authority(tmp_path, "ours"))
    other = certificate(tmp_path, "other", authority(tmp_path, "ours"))
    none = tmp_path / "none"
    for given, told in (
        (tls._replace(certificate=none), f"--peer-tls-cert: {none} cannot be read: No such file or directory"),
        (tls._replace(key=none), f"--peer-tls-key: {none} cannot be read: No such file or directory"),
        (tls._replace(authority=tmp_path), f"--peer-tls-ca: {tmp_path} cannot be read: Is a directory"),
        (tls._replace(authority=tls.key), f"--peer-tls-ca: {tls.key} holds no certificate (PEM) of an authority: "),
        (tls._replace(key=other.key), f"--peer-tls-cert: {tls.certificate} and {other.key} are no certificate (PEM) "),
    ):
        assert serve_command(("--data-dir", str(tmp_path / "n1"), *options(given)), {}) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"redan: {told}")
    assert not (tmp_path / "n1").exists()
