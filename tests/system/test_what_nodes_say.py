"""What real nodes say of themselves and the others: leader, follower, learner, candidate, and a node alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ClusterDownError

from tests.harness.cluster_processes import ClusterNode, ClusterProcesses, store

NAMED = {
    "raft_role", "raft_node", "raft_leader", "raft_term", "raft_last_index", "raft_commit_index", "raft_applied_index",
    "raft_voters", "raft_learners", "raft_digest_state",
}  # fmt: skip


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterProcesses]:
    with ClusterProcesses(tmp_path, 3) as running:
        yield running


def said(node: ClusterNode, *command: str) -> Any:
    client: Any = node.client()
    return client.execute_command(*command)


def raft_of(node: ClusterNode) -> dict[str, Any]:
    fields = said(node, "INFO", "raft")
    assert isinstance(fields, dict)
    assert fields.keys() >= NAMED
    assert fields["raft_node"] == node.name
    return fields


def there(node: ClusterNode) -> set[int]:
    """Return the ports of the members that a node says are there; none while its commands do not agree."""
    lines = said(node, "CLUSTER NODES").items()
    connected = {int(address.rpartition(":")[2]) for address, line in lines if line["connected"]}
    online = {port for port, (_role, _offset, health) in shard_of(node).items() if health == b"online"}
    [[_first, _last, _master, *replicas]] = said(node, "CLUSTER", "SLOTS")
    masters = {int(address.rpartition(":")[2]) for address, line in lines if "master" in line["flags"]}
    listed = {port for _host, port, *_rest in replicas}
    return connected if listed == connected - masters and online == connected else set()


def shard_of(node: ClusterNode) -> dict[int, tuple[bytes, int, bytes]]:
    """Return role, offset and health of each member, by its port."""
    [shard] = said(node, "CLUSTER", "SHARDS")
    return {one[b"port"]: (one[b"role"], one[b"replication-offset"], one[b"health"]) for one in shard[b"nodes"]}


def names(value: Any) -> set[str]:
    """Return the names of a list that redis-py may have split."""
    return set(value if isinstance(value, list) else filter(None, str(value).split(",")))


def test_leader_follower_and_learner_each_tell_the_truth(cluster: ClusterProcesses) -> None:
    learner = cluster.joining("n4")
    learner.start()
    leader = cluster.leader()
    voters = {"n1", "n2", "n3"}
    store(learner.client(), "k", "v")
    cluster.until_all_applied()
    for node in cluster.nodes.values():
        fields = raft_of(node)
        role = "leader" if node is leader else "learner" if node is learner else "follower"
        assert (fields["raft_role"], fields["raft_leader"]) == (role, leader.name)
        assert (names(fields["raft_voters"]), names(fields["raft_learners"])) == (voters, {"n4"})
        assert fields["raft_last_index"] >= fields["raft_commit_index"] >= fields["raft_applied_index"] > 0
        peers = {name: value for name, value in fields.items() if name.startswith("raft_peer_")}
        if node is not leader:
            assert not peers, "the leader alone knows"
        else:
            assert peers.keys() == {f"raft_peer_{name}" for name in {*voters, "n4"} - {leader.name}}
            assert all(peer["match"] + peer["lag"] == fields["raft_last_index"] for peer in peers.values())
        replication = said(node, "INFO", "replication")
        assert (replication["role"], replication["connected_slaves"]) == ("master", 3 if node is leader else 0)
        assert said(node, "ROLE")[0] == b"master"
        shape = said(node, "CLUSTER INFO")
        assert (shape["cluster_state"], shape["cluster_known_nodes"]) == ("ok", "4")
        assert int(shape["cluster_stats_messages_sent"]) > 0 < int(shape["cluster_stats_messages_received"])
        members = said(node, "CLUSTER NODES")
        flags = {address: entry["flags"] for address, entry in members.items()}
        own, leading = ("{}:{}".format(*one.addresses["resp"]) for one in (node, leader))
        assert len(flags) == 4
        assert "master" in flags[leading]
        assert "myself" in flags[own]
        assert members[own]["node_id"] == said(node, "CLUSTER", "MYID").decode()
        [[first, last, master, *replicas]] = said(node, "CLUSTER", "SLOTS")
        assert (first, last, master[1], len(replicas)) == (0, 16383, leader.addresses["resp"][1], 3)


def test_every_node_tells_who_is_there_and_how_far(cluster: ClusterProcesses) -> None:
    leader = cluster.leader()
    stopped, other = cluster.followers()
    store(other.client(), "k", "v")
    cluster.until_all_applied()
    ports = {node.name: node.addresses["resp"][1] for node in cluster.nodes.values()}
    for node in cluster.nodes.values():
        cluster.until(lambda node=node: there(node) == {*ports.values()}, "all to be there")  # type: ignore[misc]
    index = raft_of(other)["raft_applied_index"]
    cluster.until(lambda: shard_of(other)[ports[leader.name]][1] >= index, "the leader's commits")
    cluster.until(lambda: shard_of(other)[ports[stopped.name]][1] > 0, "what the other follower tells of itself")
    assert shard_of(other)[ports[stopped.name]][1] <= shard_of(leader)[ports[stopped.name]][1]
    stopped.pause()
    left = {ports[leader.name], ports[other.name]}
    for node in (leader, other):
        cluster.until(lambda node=node: there(node) == left, f"{node.name} to miss who is silent")  # type: ignore[misc]
    stopped.resume()
    cluster.until(lambda: there(other) == {*ports.values()}, "who speaks again to be there")
    stopped.kill()
    for node in (leader, other):
        cluster.until(lambda node=node: there(node) == left, f"{node.name} to miss the dead")  # type: ignore[misc]


def test_the_keys_of_a_slot_are_asked_of_any_node(cluster: ClusterProcesses) -> None:
    leader = cluster.leader()
    slot = str(said(leader, "CLUSTER", "KEYSLOT", "{a}"))
    for count, node in enumerate(cluster.nodes.values(), 1):
        store(leader.client(), f"{{a}}{node.name}", "v")
        assert said(node, "CLUSTER", "COUNTKEYSINSLOT", slot) == count
        listed = said(node, "CLUSTER", "GETKEYSINSLOT", slot, "10")
        assert sorted(listed) == sorted(b"{a}n%d" % number for number in range(1, count + 1))


def test_bytes_between_nodes_and_turns_of_the_loop_are_counted(cluster: ClusterProcesses) -> None:
    leader, follower = cluster.leader(), cluster.followers()[0]

    def replicated(node: ClusterNode) -> tuple[int, int]:
        fields = said(node, "INFO", "stats")
        return fields["total_net_repl_input_bytes"], fields["total_net_repl_output_bytes"]

    sent, received = replicated(leader)[1], replicated(follower)[0]
    store(follower.client(), "k", bytes(100_000))
    cluster.until_all_applied()
    assert replicated(leader)[1] >= sent + 200_000, "once to each of the others"
    assert replicated(follower)[0] >= received + 100_000
    before, after = (said(leader, "INFO", "stats") for _ in range(2))
    assert after["eventloop_cycles"] > before["eventloop_cycles"] > 0
    assert after["eventloop_duration_sum"] > after["eventloop_duration_cmd_sum"] > 0
    cluster.until(
        lambda: said(leader, "INFO", "stats")["instantaneous_eventloop_cycles_per_sec"] > 0, "a rate of turns"
    )


def test_a_node_without_a_leader_says_so(cluster: ClusterProcesses) -> None:
    node, *others = cluster.nodes.values()
    for other in others:
        other.kill()
    cluster.until(lambda: raft_of(node)["raft_role"] == "candidate", "an election that nobody can win")
    fields = raft_of(node)
    assert fields["raft_leader"] == ""
    assert names(fields["raft_voters"]) == {"n1", "n2", "n3"}
    shape = said(node, "CLUSTER INFO")
    assert (shape["cluster_state"], shape["cluster_slots_ok"]) == ("fail", "0")
    cluster.until(lambda: there(node) == {node.addresses["resp"][1]}, "nobody else to be there")
    with pytest.raises(ClusterDownError):
        said(node, "CLUSTER", "COUNTKEYSINSLOT", "0")
    assert said(node, "CLUSTER", "MYID")
    assert said(node, "PING")
    assert said(node, "ROLE")[0] == b"master"


def test_a_node_alone_is_one_redis_to_its_clients(tmp_path: Path) -> None:
    with ClusterProcesses(tmp_path, 1) as cluster:
        node = cluster["n1"]
        fields = raft_of(node)
        assert (fields["raft_role"], fields["raft_leader"], fields["raft_voters"]) == ("leader", "n1", "n1")
        assert not [name for name in fields if name.startswith("raft_peer_")]
        assert said(node, "INFO", "cluster")["cluster_enabled"] == 0
        assert said(node, "ROLE") == [b"master", fields["raft_applied_index"], []]
        assert said(node, "WAIT", "1", "50") == 0
        assert said(node, "WAITAOF", "1", "0", "0") == [1, 0]
