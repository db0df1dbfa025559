"""Real nodes that share a secret: who does not know it stays out, both sides say so by name, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from tests.harness.cluster_processes import ClusterNode, ClusterProcesses, missing, store

SECRET = "correct horse battery staple"
OTHER = "correct horse battery stable"


def sharing(folder: Path, count: int) -> ClusterProcesses:
    """Return nodes, not started, each with a file of its own that holds the secret."""
    cluster = ClusterProcesses(folder, count)
    for node in cluster.nodes.values():
        keep(node, folder, SECRET)
    return cluster


def keep(node: ClusterNode, folder: Path, secret: str) -> None:
    """Write a secret into the file of a node."""
    path = folder / f"{node.name}.secret"
    path.write_text(secret + "\n")
    node.environment["REDAN_CLUSTER_SECRET_FILE"] = str(path)


def lines_of(node: ClusterNode, event: str) -> list[dict[str, object]]:
    return [line for line in node.events() if line.get("event") == event]


def awaits(node: ClusterNode, text: str) -> bool:
    return any(text in str(line["missing"]) for line in lines_of(node, "cluster_awaited"))


def assert_secrets_are_in_no_log(folder: Path) -> None:
    texts = "".join(path.read_text() for path in folder.rglob("*.log"))
    assert "peer_refused" in texts
    assert SECRET not in texts
    assert OTHER not in texts


def test_a_member_with_another_secret_is_refused_by_name_and_comes_back_with_the_right_one(tmp_path: Path) -> None:
    with sharing(tmp_path, 3) as cluster:
        leader = cluster.leader()
        strayed, other = cluster.followers()
        written = {f"before-{number}": b"1" for number in range(50)}
        for key, value in written.items():
            store(strayed.client(), key, value)
        assert strayed.stop() == 0
        keep(strayed, tmp_path, OTHER)
        strayed.launch()
        refusal = f"UNAUTHENTICATED: {leader.name} refuses {strayed.name}: cluster secret does not match"
        cluster.until(lambda: strayed.has_said("peer_unreachable", peer=leader.name, text=refusal), refusal)
        for node in (leader, other):
            cluster.until(lambda node=node: bool(lines_of(node, "peer_refused")), f"{node.name} to say so")  # type: ignore[misc]
            (line, *_) = lines_of(node, "peer_refused")
            assert (line["peer"], line["text"]) == (strayed.name, "cluster secret does not match")
            assert str(line["address"]).startswith("127.0.0.1:")

        # The others go on without it, and it serves nobody with what it has.
        written |= {f"meanwhile-{number}": b"2" for number in range(50)}
        for number in range(50):
            store(leader.client(), f"meanwhile-{number}", "2")
        strayed.read_addresses()
        with strayed.client() as client:
            assert client.config_set("maxclients", 1000)  # it lives
            with pytest.raises(redis.RedisError, match=r"CLUSTERDOWN|no leader"):
                client.get("before-0")
        assert not strayed.has_said("node_ready")

        assert strayed.stop() == 0
        keep(strayed, tmp_path, SECRET)
        strayed.start()
        store(strayed.client(), "after", "3")
        cluster.until_all_applied()
        for node in cluster.running():
            assert missing(node, [*written, "after"]) == []
    assert_secrets_are_in_no_log(tmp_path)


def test_a_node_that_joins_with_another_secret_or_none_ends_with_2_and_says_why(tmp_path: Path) -> None:
    with sharing(tmp_path, 1) as cluster:
        store(cluster["n1"].client(), "k", "v")
        for name, secret, text in (
            ("n2", OTHER, "cluster secret does not match"),
            ("n3", "", "it has no cluster secret, and this node has one"),
        ):
            stranger = cluster.joining(name)
            if secret:
                keep(stranger, tmp_path, secret)
            stranger.launch()
            assert stranger.wait() == 2
            (refused,) = lines_of(stranger, "cluster_refused")
            assert f"{cluster['n1'].peer_address} refuses: n1 refuses {name}: {text}" in str(refused["error"])
            assert cluster["n1"].has_said("peer_refused", peer=name, text=text)
        assert [row["name"] for row in cluster.ctl("members")] == ["n1"]
        keep(stranger, tmp_path, SECRET)
        assert stranger.start().client().get("k") == b"v"
    assert_secrets_are_in_no_log(tmp_path)


def test_nodes_that_found_a_cluster_wait_for_one_with_another_secret_and_name_it(tmp_path: Path) -> None:
    cluster = sharing(tmp_path, 2)
    strayed = cluster["n2"]
    keep(strayed, tmp_path, OTHER)
    try:
        for node in cluster.nodes.values():
            node.launch()
        for node, other in ((cluster["n1"], "n2"), (strayed, "n1")):
            text = f"{other} (UNAUTHENTICATED: {other} refuses {node.name}: cluster secret"
            # At first the other may not be there yet.
            cluster.until(lambda node=node, text=text: awaits(node, text), f"{node.name}: {text}")  # type: ignore[misc]
        assert strayed.stop() == 0
        keep(strayed, tmp_path, SECRET)
        strayed.launch()
        cluster.wait_until_ready()
        store(cluster["n1"].client(), "k", "v")
        assert strayed.client().get("k") == b"v"
    finally:
        cluster.kill_all()
    assert_secrets_are_in_no_log(tmp_path)
